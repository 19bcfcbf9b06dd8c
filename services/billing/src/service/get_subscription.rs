//! `GetSubscription`.

use jiff::Timestamp;
use octroi_core::AccountId;
use octroi_kit::db::Scope;

use super::Service;
use crate::{
    domain::{billing_period, subscription::Subscription},
    error::Error,
    store,
};

impl Service {
    /// The account's subscription, in the period that contains `now`.
    ///
    /// # Errors
    /// [`Error::SubscriptionNotFound`].
    pub async fn get_subscription(&self, account: AccountId, now: Timestamp) -> Result<Subscription, Error> {
        let asked = account.clone();
        let found = self
            .db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move {
                    Ok::<_, Error>(store::subscription::find_live_subscription(connection, &asked).await?)
                })
            })
            .await?;
        found
            .map(|subscription| in_present_period(subscription, now))
            .ok_or(Error::SubscriptionNotFound(account))
    }
}

/// The job that writes the next period may be seconds behind.
pub(super) fn in_present_period(mut subscription: Subscription, now: Timestamp) -> Subscription {
    let periods = billing_period::up_to(
        subscription.interval,
        subscription.anchor_at,
        subscription.period,
        now,
    );
    if let Some(present) = periods.last() {
        subscription.period = *present;
    }
    subscription
}
