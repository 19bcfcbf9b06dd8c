//! The dead letters on the broker: an operator looks at them, and puts them back.

use super::{
    super::{Config, PublishError, Topology, topology::Route},
    Settings, declare,
    link::{Link, LinkError},
    publisher, wire,
};
use crate::{config::ConfigError, dead_letter::Listed};
use bytes::Bytes;
use lapin::{
    Channel,
    message::Delivery,
    options::{BasicAckOptions, BasicGetOptions, ConfirmSelectOptions},
    types::ShortString,
};
use uuid::Uuid;

/// Why dead letters could not be looked at or put back. What was put back before stays so.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterQueuesError {
    /// The section `bus` of the configuration cannot be used.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The broker cannot be reached, or refused something.
    #[error("the broker: {0}")]
    Broker(String),
    /// The queue did not take its message back, which is still a dead letter.
    #[error("a message could not be put back")]
    PutBack(#[from] PublishError),
}

impl From<LinkError> for DeadLetterQueuesError {
    fn from(error: LinkError) -> Self {
        Self::Broker(super::super::handling::text(&error))
    }
}

impl From<lapin::Error> for DeadLetterQueuesError {
    fn from(error: lapin::Error) -> Self {
        LinkError::from(error).into()
    }
}

/// The queues of dead letters of a fleet, over a connection of their own.
pub struct DeadLetterQueues {
    settings: Settings,
    link: Link,
}

impl std::fmt::Debug for DeadLetterQueues {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DeadLetterQueues").finish_non_exhaustive()
    }
}

impl DeadLetterQueues {
    /// Connects to the broker that the configuration names.
    ///
    /// # Errors
    /// [`DeadLetterQueuesError`].
    pub async fn open(config: &Config, topology: Topology) -> Result<Self, DeadLetterQueuesError> {
        let settings = Settings::new(config, topology)?;
        let link = Link::open(&settings.uri, "octroi dead letters", settings.publish_timeout).await?;
        Ok(Self { settings, link })
    }

    /// The dead letters of a queue, of any message or of one, at most [`crate::dead_letter::LISTED_MAX`].
    /// While they are looked at nobody else gets them.
    ///
    /// # Errors
    /// [`DeadLetterQueuesError`].
    pub async fn list(&self, queue: &str, id: Option<Uuid>) -> Result<Vec<Listed>, DeadLetterQueuesError> {
        let Some(route) = self.route(queue) else {
            return Ok(Vec::new());
        };
        let channel = self.link.channel().await?;
        let mut listed = Vec::new();
        for _ in 0..self.depth(&channel, route).await? {
            let Some(delivery) = self.next(&channel, route).await? else {
                break;
            };
            let letter = listed_of(route.queue, &delivery);
            if id.is_none() || letter.message_id == id {
                listed.push(letter);
            }
            if listed.len() >= crate::dead_letter::LISTED_MAX {
                break;
            }
        }
        give_back(&channel).await?;
        Ok(listed)
    }

    /// Puts the dead letters of a queue back into it, of any message or of one, as if they had never been
    /// tried; says how many. One that cannot be read stays where it is: it would only die again.
    ///
    /// # Errors
    /// [`DeadLetterQueuesError`].
    pub async fn requeue(&self, queue: &str, id: Option<Uuid>) -> Result<u64, DeadLetterQueuesError> {
        let Some(route) = self.route(queue) else {
            return Ok(0);
        };
        let channel = self.link.channel().await?;
        // Also for a fleet whose consumers have never run.
        declare::exchanges(&channel, &self.settings.names).await?;
        declare::queue(&channel, &self.settings.names, route).await?;
        let out = self.link.channel().await?;
        out.confirm_select(ConfirmSelectOptions::default()).await?;
        let mut requeued = 0;
        // Those that die while this goes on are not tried again.
        for _ in 0..self.depth(&channel, route).await? {
            let Some(delivery) = self.next(&channel, route).await? else {
                break;
            };
            let payload = Bytes::from(delivery.data.clone());
            let Ok((message, _)) = wire::read(&delivery.properties, payload) else {
                continue;
            };
            if id.is_some_and(|id| id != message.id) {
                continue;
            }
            let parcel = self.settings.parcel_for(route.queue, &message);
            let key = parcel.routing_key.clone();
            let short = ShortString::try_new(key.as_str())
                .map_err(|_| PublishError::Invalid("the queue's name is too long".into()))?;
            let publishing = publisher::publish(out.clone(), short, parcel);
            let confirmation = tokio::time::timeout(self.settings.publish_timeout, publishing)
                .await
                .map_err(|_| PublishError::Timeout)??;
            publisher::outcome(&confirmation, key)?;
            // Killed between the two, there are two of it, and the inbox takes one.
            delivery.acker.ack(BasicAckOptions::default()).await?;
            requeued += 1;
        }
        give_back(&channel).await?;
        Ok(requeued)
    }

    /// Closes the connection; what was looked at is back in its queue.
    pub async fn close(self) {
        self.link.close().await;
    }

    fn route(&self, queue: &str) -> Option<&Route> {
        self.settings
            .topology
            .routes()
            .iter()
            .find(|route| route.queue == queue)
    }

    async fn depth(&self, channel: &Channel, route: &Route) -> Result<u32, LinkError> {
        let names = &self.settings.names;
        declare::detours(channel, names, route.queue, &[]).await?;
        declare::depth(channel, &names.dead(route.queue)).await
    }

    /// The next dead letter, which is nobody else's until it is acknowledged or the channel is closed.
    async fn next(&self, channel: &Channel, route: &Route) -> Result<Option<Delivery>, LinkError> {
        let name = self.settings.names.dead(route.queue);
        let got = channel.basic_get(name.into(), BasicGetOptions::default()).await?;
        Ok(got.map(|got| got.delivery))
    }
}

/// What a channel holds without having acknowledged it goes back when the channel is closed.
async fn give_back(channel: &Channel) -> Result<(), LinkError> {
    Ok(channel.close(200, "seen".into()).await?)
}

fn listed_of(queue: &str, delivery: &Delivery) -> Listed {
    let (reason, error) = wire::epitaph(&delivery.properties);
    let read = wire::read(&delivery.properties, Bytes::new()).ok();
    let (message, attempts) = read.map_or((None, 0), |(message, failed)| (Some(message), failed.tries));
    Listed {
        queue: queue.to_owned(),
        message_id: message.as_ref().map(|message| message.id),
        routing_key: message
            .as_ref()
            .map_or_else(String::new, |message| message.routing_key.clone()),
        occurred_at: message.map(|message| message.occurred_at),
        reason,
        attempts,
        error,
    }
}
