//! The task that brings e-mails out: it addresses what waits for addresses, then delivers what is queued.
//! It is an outermost layer, and so it asks the clock.
//!
//! A mail server may take minutes to say that it took an e-mail. Such a delivery holds one place of several,
//! and all others go on.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use octroi_core::Clock;
use tokio::task::{JoinError, JoinSet};
use tokio_util::sync::CancellationToken;

use crate::{
    channels::email::{Mail, MailError},
    domain::{Email, backoff},
    error::Error,
    service::Service,
    store::Mailing,
};

/// How long the courier sleeps where nothing is due.
const POLL: Duration = Duration::from_millis(250);
/// How long it waits after the database did not answer.
const BACK_OFF: Duration = Duration::from_secs(1);
/// How many mailings are addressed at the same time.
const ADDRESSED_AT_ONCE: usize = 8;
/// How many e-mails are on their way at the same time.
const PLACES: usize = 8;

/// Brings e-mails out until `stop`. What is on its way then is brought to its end first.
pub(crate) async fn run(service: Service, mail: Mail, clock: Clock, stop: CancellationToken) {
    let courier = Courier { service, mail, clock };
    let mut under_way = JoinSet::new();
    while !stop.is_cancelled() {
        let pause = match courier.round(&mut under_way).await {
            Ok(0) => POLL,
            Ok(_) => Duration::ZERO,
            Err(error) => {
                tracing::warn!(error = %error, "e-mails cannot be brought out and wait");
                BACK_OFF
            }
        };
        tokio::select! {
            () = stop.cancelled() => break,
            Some(ended) = under_way.join_next(), if under_way.len() >= PLACES => note(ended),
            () = tokio::time::sleep(pause) => {}
        }
    }
    while let Some(ended) = under_way.join_next().await {
        note(ended);
    }
}

/// A delivery writes down by itself how it went. One that could not is tried again when its claim ends.
fn note(ended: Result<(), JoinError>) {
    if let Err(error) = ended {
        tracing::error!(error = %error, "a delivery ended before its end");
    }
}

#[derive(Clone)]
struct Courier {
    service: Service,
    mail: Mail,
    clock: Clock,
}

impl Courier {
    /// Does what is due, and answers how much that was. Deliveries are begun and not waited for.
    async fn round(&self, under_way: &mut JoinSet<()>) -> Result<usize, Error> {
        let mailings = self.service.claim_mailings(self.clock.now()).await?;
        let addressed = mailings.len();
        stream::iter(mailings)
            .for_each_concurrent(ADDRESSED_AT_ONCE, |mailing| self.address(mailing))
            .await;
        while let Some(ended) = under_way.try_join_next() {
            note(ended);
        }
        let places = PLACES.saturating_sub(under_way.len());
        if places == 0 {
            return Ok(addressed);
        }
        let emails = self.service.claim_emails(places, self.clock.now()).await?;
        let begun = emails.len();
        for email in emails {
            let courier = self.clone();
            under_way.spawn(async move { courier.deliver(email).await });
        }
        Ok(addressed + begun)
    }

    async fn address(&self, mailing: Mailing) {
        let notice_id = mailing.notice_id;
        let done = match self.service.write_emails(&mailing).await {
            Ok(emails) => {
                self.service
                    .address_mailing(mailing, emails, self.clock.now())
                    .await
            }
            Err(error) => {
                tracing::debug!(notice.id = %notice_id, error = %error, "a mailing cannot be addressed yet");
                self.service
                    .put_off_mailing(&mailing, &error, self.clock.now())
                    .await
            }
        };
        if let Err(error) = done {
            // The claim runs out, and somebody takes it up again.
            tracing::warn!(notice.id = %notice_id, error = %error, "a mailing could not be written down");
        }
    }

    async fn deliver(&self, email: Email) {
        let email_id = email.id;
        let sent = if email.tries > backoff::TRIES_MAX {
            Err(MailError::Never("the last try was cut short".into()))
        } else {
            self.mail.send(&email).await
        };
        if let Err(error) = self.service.record_delivery(email, sent, self.clock.now()).await {
            tracing::warn!(email.id = %email_id, error = %error, "a delivery could not be written down");
        }
    }
}
