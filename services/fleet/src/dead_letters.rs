//! `octroi dead-letters`: shows the messages that nobody could handle, and puts them back.

use clap::{Args, Subcommand};
use octroi_kit::{
    bus::{Backend, Topology, rabbitmq::DeadLetterQueues},
    config::Loader,
    dead_letter::{self, Listed},
};
use octroi_proto::event::QUEUES;
use uuid::Uuid;

use crate::{all, cli::Service, config, migrate, output};

/// What to do with them.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show them, a line each, at most 1,000 of a table or a queue.
    List(Which),
    /// Have them handled again, as if they had never been tried, by the queue that they died in.
    Requeue(Which),
}

/// Which of them; without anything, all.
#[derive(Clone, Debug, Args)]
pub struct Which {
    /// Only those of this service's queues.
    #[arg(long)]
    service: Option<Service>,
    /// Only this message.
    #[arg(long)]
    id: Option<Uuid>,
}

/// Does it, in the tables of the services and, where the bus is RabbitMQ, in the broker's queues.
///
/// # Errors
/// A sentence that says what does not answer.
pub async fn execute(loader: &Loader, command: &Command) -> anyhow::Result<()> {
    config::validate(loader)?;
    let (Command::List(which) | Command::Requeue(which)) = command;
    let services = match which.service {
        Some(service) => vec![service],
        None => Service::WITH_DATABASE.to_vec(),
    };
    let loader = if config::without_address(loader, &services)?.is_empty() {
        loader.clone()
    } else {
        all::addressed(loader)?
    };
    let bus = loader.section::<config::Bus>("bus")?.0;
    let queues = match bus.backend {
        Backend::RabbitMq => {
            Some(DeadLetterQueues::open(&bus, Topology::new(QUEUES.iter().copied())?).await?)
        }
        Backend::InProcess => None,
    };
    match command {
        Command::List(_) => list(&loader, &services, queues.as_ref(), which.id).await?,
        Command::Requeue(_) => requeue(&loader, &services, queues.as_ref(), which.id).await?,
    }
    if let Some(queues) = queues {
        queues.close().await;
    }
    Ok(())
}

async fn list(
    loader: &Loader,
    services: &[Service],
    queues: Option<&DeadLetterQueues>,
    id: Option<Uuid>,
) -> anyhow::Result<()> {
    let mut listed = Vec::new();
    for service in services {
        let (db, _) = migrate::schema(loader, *service).await?;
        listed.extend(dead_letter::list(&db, id).await?);
        for (queues, queue) in queues_of(queues, *service) {
            listed.extend(queues.list(queue, id).await?);
        }
    }
    for letter in &listed {
        output::say(&shown(letter));
    }
    if listed.is_empty() {
        output::say("there are no dead letters");
    }
    Ok(())
}

async fn requeue(
    loader: &Loader,
    services: &[Service],
    queues: Option<&DeadLetterQueues>,
    id: Option<Uuid>,
) -> anyhow::Result<()> {
    for service in services {
        let (db, _) = migrate::schema(loader, *service).await?;
        let asked = dead_letter::ask_requeue(&db, id).await?;
        let mut put_back = 0;
        for (queues, queue) in queues_of(queues, *service) {
            put_back += queues.requeue(queue, id).await?;
        }
        output::say(&format!(
            "{}: {put_back} put back, {asked} will be by the running process",
            service.name()
        ));
    }
    Ok(())
}

/// The queues of a service on the broker, where there is one.
fn queues_of(
    queues: Option<&DeadLetterQueues>,
    service: Service,
) -> impl Iterator<Item = (&DeadLetterQueues, &'static str)> {
    let own = QUEUES
        .iter()
        .map(|(queue, _)| *queue)
        .filter(move |queue| queue.split('.').next() == Some(service.name()));
    queues
        .into_iter()
        .flat_map(move |queues| own.clone().map(move |queue| (queues, queue)))
}

fn shown(letter: &Listed) -> String {
    let id = letter
        .message_id
        .map_or_else(|| "(unreadable)".to_owned(), |id| id.to_string());
    let occurred_at = letter
        .occurred_at
        .map_or_else(|| "-".to_owned(), |at| format!("{at:.0}"));
    format!(
        "{}  {id}  {}  {occurred_at}  {}, {} tries: {}",
        letter.queue, letter.routing_key, letter.reason, letter.attempts, letter.error
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_letter_is_one_line_that_says_where_and_why_it_died() {
        let letter = Listed {
            queue: "usage.rollup".into(),
            message_id: Some(Uuid::nil()),
            routing_key: "usage.recorded".into(),
            occurred_at: Some(jiff::Timestamp::UNIX_EPOCH),
            reason: "delivery_limit".into(),
            attempts: 5,
            error: "a bug".into(),
        };
        assert_eq!(
            shown(&letter),
            "usage.rollup  00000000-0000-0000-0000-000000000000  usage.recorded  1970-01-01T00:00:00Z  \
             delivery_limit, 5 tries: a bug"
        );
    }

    #[test]
    fn every_queue_of_the_fleet_belongs_to_a_service_that_is_looked_at() {
        for (queue, _) in QUEUES {
            let owner = queue.split('.').next();
            assert!(
                Service::WITH_DATABASE
                    .iter()
                    .any(|service| Some(service.name()) == owner),
                "{queue}"
            );
        }
    }
}
