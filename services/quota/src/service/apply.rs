//! `ApplyEntitlements` and `ApplyCatalog`: billing says what holds. And the account's zone, which its windows follow.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use octroi_core::{AccountId, Anchor, Clock, Entitlements, Period};
use octroi_kit::db::{Scope, lock_catalog_version};
use sqlx::PgConnection;

use super::Service;
use crate::{
    cache::Part,
    domain::{
        begun::Begun,
        calendar::{Calendar, Segment},
        holding::{AccountEntitlements, Catalog},
        limits::entitlements_in_force,
    },
    error::Error,
    store,
};

/// How far back a billing period may have begun that ends the MONTH window of that time; one that began before
/// ends it now.
const BEGAN_LATELY: SignedDuration = SignedDuration::from_hours(24);

impl Service {
    /// Sets what an account is entitled to. The same version again changes nothing. Nothing is carved from the limits of
    /// before after it; what was carved is settled before the answer, as far as its owners have told the ledger what
    /// they answered.
    ///
    /// # Errors
    /// [`Error::VersionStale`] where a newer one was applied.
    pub async fn apply_entitlements(
        &self,
        account: AccountId,
        given: AccountEntitlements,
    ) -> Result<u64, Error> {
        let (of, clock) = (account.clone(), self.db.clock().clone());
        let version = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move { apply_entitlements(connection, &of, &given, &clock).await })
            })
            .await?;
        self.changed(&account).await;
        Ok(version)
    }

    /// Lets what was changed of an account act at once. Other replicas find it when they carve next, and each by itself
    /// within a second.
    pub(super) async fn changed(&self, account: &AccountId) {
        self.cache.forget(std::slice::from_ref(account), &Part::ALL).await;
        self.holdings.forget(account);
        if let Err(error) = self.escrow.settle_account(account).await {
            tracing::warn!(error = %error, "slices of the limits of before are settled by their replicas");
        }
    }

    /// Sets metrics and the default plan. The same version again changes nothing.
    ///
    /// # Errors
    /// [`Error::VersionStale`] where a newer one was applied.
    pub async fn apply_catalog(&self, catalog: Catalog) -> Result<u64, Error> {
        let clock = self.db.clock().clone();
        let version = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(async move {
                    store::close_all_gates(connection).await?;
                    // What was followed before had the limits of before.
                    let now = clock.now();
                    let current = lock_catalog_version(connection).await?;
                    if current > catalog.version {
                        return Err(Error::VersionStale {
                            given: catalog.version,
                            current,
                        });
                    }
                    if current < catalog.version {
                        let before = store::find_default_plan(connection).await?;
                        let (before, begun) = before.unzip();
                        let begun = begun.unwrap_or_default();
                        let begun = begun.followed_by(before.as_ref(), &catalog.default_entitlements, now);
                        store::update_catalog(connection, &catalog, &begun).await?;
                    }
                    Ok(catalog.version)
                })
            })
            .await?;
        self.holdings.forget_all();
        Ok(version)
    }
}

/// The same, in the transaction of whoever asks.
///
/// # Errors
/// [`Error::VersionStale`] where a newer one was applied.
pub(crate) async fn apply_entitlements(
    connection: &mut PgConnection,
    account: &AccountId,
    given: &AccountEntitlements,
    clock: &Clock,
) -> Result<u64, Error> {
    store::close_gate(connection, account).await?;
    // What was followed before had the limits of before.
    let now = clock.now();
    let before = store::find_entitlements(connection, account).await?;
    let begun = store::list_begun(connection, &[account]).await?;
    let current = store::upsert_entitlements(connection, account, given).await?;
    if current > given.version {
        return Err(Error::VersionStale {
            given: given.version,
            current,
        });
    }
    if (before.as_ref()).is_some_and(|before| before.version == given.version) {
        return Ok(current);
    }
    let calendar = store::lock_calendar(connection, account).await?;
    let calendar = calendar.and_then(|calendar| with_anchor(&calendar, given.anchor_at, now));
    let begun = begun.get(account).cloned().unwrap_or_default();
    let (mut begun, in_force) = begin_limits(connection, (before.as_ref(), &begun), given, now).await?;
    if let Some(calendar) = &calendar {
        store::end_months(connection, account, calendar.last().from).await?;
        if calendar.last().from <= now {
            begun.begin_again(&in_force, Period::Month, now);
        }
    }
    store::update_begun(connection, account, &begun).await?;
    store::update_state(connection, account, calendar.as_ref(), now).await?;
    Ok(current)
}

/// When the limits began that hold from `now` on, and these, given what held before with when that began.
async fn begin_limits(
    connection: &mut PgConnection,
    (before, begun): (Option<&AccountEntitlements>, &Begun),
    given: &AccountEntitlements,
    now: Timestamp,
) -> Result<(Begun, Entitlements), Error> {
    let default_plan = store::find_default_plan(connection).await?.map(|(plan, _)| plan);
    let in_force = |pushed: &AccountEntitlements| {
        let default_plan = default_plan.as_ref().unwrap_or(&pushed.entitlements);
        entitlements_in_force(&pushed.entitlements, pushed.stage, default_plan).clone()
    };
    let before = before.map(in_force).or_else(|| default_plan.clone());
    let after = in_force(given);
    Ok((begun.followed_by(before.as_ref(), &after, now), after))
}

/// The calendar with a billing period that began at `anchor_at`; none where it has that period already.
fn with_anchor(calendar: &Calendar, anchor_at: Timestamp, now: Timestamp) -> Option<Calendar> {
    let zone = calendar.last().zone.clone();
    let anchor = Anchor::at(anchor_at, &zone);
    if calendar.last().anchor == anchor {
        return None;
    }
    let lately = now.duration_since(anchor_at) < BEGAN_LATELY;
    Some(calendar.with(Segment {
        from: if lately { anchor_at } else { now },
        zone,
        anchor,
        cuts_month: true,
    }))
}

/// Lets the windows of an account follow another zone from the end of those that run. `version` is the zone's: what is
/// told of an older one comes late.
///
/// # Errors
/// [`Error::Database`].
pub(crate) async fn change_zone(
    connection: &mut PgConnection,
    account: &AccountId,
    (zone, version): (&TimeZone, u64),
    now: Timestamp,
) -> Result<(), Error> {
    store::close_gate(connection, account).await?;
    if !store::update_zone_version(connection, account, version).await? {
        return Ok(());
    }
    let pushed = store::find_entitlements(connection, account).await?;
    let anchor = pushed.map(|pushed| Anchor::at(pushed.anchor_at, zone));
    let calendar = match store::lock_calendar(connection, account).await? {
        Some(calendar) if calendar.last().zone == *zone => return Ok(()),
        Some(calendar) => calendar.with(Segment {
            from: now,
            zone: zone.clone(),
            anchor: anchor.unwrap_or(calendar.last().anchor),
            cuts_month: false,
        }),
        None => Calendar::new(zone.clone(), anchor.unwrap_or(Anchor::FIRST_OF_MONTH)),
    };
    store::update_state(connection, account, Some(&calendar), now).await?;
    // Of an account that was not written down before as well.
    store::update_zone_version(connection, account, version).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use jiff::ToSpan as _;

    use super::*;

    #[test]
    fn a_period_that_began_lately_ends_the_month_where_it_began_and_one_of_long_ago_ends_it_now() {
        let now: Timestamp = "2026-03-10T12:00:00Z".parse().expect("an instant");
        let calendar = Calendar::new(TimeZone::UTC, Anchor::FIRST_OF_MONTH);
        for (began, cut) in [
            (now - 1.hour(), now - 1.hour()),
            (now + 1.hour(), now + 1.hour()),
            (now - 200.hours(), now),
        ] {
            let changed = with_anchor(&calendar, began, now).expect("another anchor");
            assert_eq!(changed.window(Period::Month, cut).start, cut);
            assert_eq!(with_anchor(&changed, began, now), None, "the same period again");
        }
    }
}
