//! The task that brings e-mails out: it addresses what waits for addresses, then delivers what is queued.
//! It is an outermost layer, and so it asks the clock.

use std::time::Duration;

use futures::{StreamExt as _, stream};
use octroi_core::Clock;
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
/// How many e-mails are on their way at the same time.
const AT_ONCE: usize = 8;

/// Brings e-mails out until `stop`. What is claimed is brought to its end first.
pub(crate) async fn run(service: Service, mail: Mail, clock: Clock, stop: CancellationToken) {
    let courier = Courier { service, mail, clock };
    while !stop.is_cancelled() {
        let pause = match courier.round().await {
            Ok(0) => POLL,
            Ok(_) => Duration::ZERO,
            Err(error) => {
                tracing::warn!(error = %error, "e-mails cannot be brought out and wait");
                BACK_OFF
            }
        };
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

struct Courier {
    service: Service,
    mail: Mail,
    clock: Clock,
}

impl Courier {
    /// Does what is due, and answers how much that was.
    async fn round(&self) -> Result<usize, Error> {
        let mailings = self.service.claim_mailings(self.clock.now()).await?;
        let addressed = mailings.len();
        stream::iter(mailings)
            .for_each_concurrent(AT_ONCE, |mailing| self.address(mailing))
            .await;
        let emails = self.service.claim_emails(self.clock.now()).await?;
        let delivered = emails.len();
        stream::iter(emails)
            .for_each_concurrent(AT_ONCE, |email| self.deliver(email))
            .await;
        Ok(addressed + delivered)
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
