//! Follows what corrects the ledger: units come back to windows that are open, or are taken from them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use octroi_core::{AccountId, MetricKind, MetricSlug};
use octroi_kit::{db::Scope, inbox};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    Service,
    follow_ledger::{FollowUp, Followed, hold_limits, revisions},
};
use crate::{
    consumer::{CORRECTIONS_QUEUE, LEDGER_QUEUE},
    domain::{correction::is_changed, holding::Revision, limits::EffectiveLimit},
    error::Error,
    store::{self, AccountWindow, Change},
};

/// The queues that the ledger is followed by.
const FOLLOWING: [&str; 2] = [LEDGER_QUEUE, CORRECTIONS_QUEUE];
/// What came longer ago was followed, or never will be: the inbox remembers [`inbox::MARKS_KEPT`], and a day less is believed.
const MARKS_LAST: SignedDuration = SignedDuration::from_hours(29 * 24);

/// How often it is looked for what was overtaken, which mostly is on its way, before the bus brings the correction anew.
const LOOKS: usize = 10;
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// One event that was corrected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Corrected {
    /// Whose.
    pub account: AccountId,
    /// Of what.
    pub metric: MetricSlug,
    /// When it happened.
    pub event_at: Timestamp,
    /// When the ledger took it.
    pub recorded_at: Timestamp,
    /// How many units more than before count as used; fewer, below 0.
    pub change: i64,
    /// The message that told what the event came to before, and when; none where that is not known.
    pub after: Option<(Uuid, Timestamp)>,
}

impl Corrected {
    /// What it adds to each of its windows. What counts more was never permitted; what counts less is as if it were given back,
    /// so that what slices paid stays what it was.
    #[must_use]
    pub fn change(&self) -> Change {
        let units = u128::from(self.change.unsigned_abs());
        if self.change < 0 {
            return Change {
                returned: units,
                ..Change::default()
            };
        }
        Change {
            overrun: units,
            followed: units,
            ..Change::default()
        }
    }
}

/// What a commit of corrections may change of windows, read before the transaction that changes them.
#[derive(Clone, Debug)]
pub struct CorrectedWindows {
    lines: Vec<Line>,
    limits: BTreeMap<AccountWindow, Arc<EffectiveLimit>>,
    accounts: BTreeSet<AccountId>,
    revisions: BTreeMap<AccountId, Revision>,
    now: Timestamp,
}

/// What a correction does to a window, if its event counts in it.
#[derive(Clone, Debug)]
struct Line {
    window: AccountWindow,
    kind: MetricKind,
    recorded_at: Timestamp,
    change: Change,
}

impl Service {
    /// Finds the windows that corrected events lie in. Accounts that are gone and metrics without limits have none.
    ///
    /// Nothing is given back before it counts, or others would use it meanwhile: an event, or an earlier correction of it, may
    /// have been overtaken by this.
    ///
    /// # Errors
    /// [`Error::NotFollowedYet`] where that is so; [`Error`] where it cannot be known which limits hold.
    pub async fn read_corrected_windows(
        &self,
        corrections: Vec<Corrected>,
    ) -> Result<CorrectedWindows, Error> {
        self.expect_followed(&corrections).await?;
        let accounts: BTreeSet<AccountId> = corrections.iter().map(|one| one.account.clone()).collect();
        let known = self.limits_of_all(&accounts).await?;
        let catalog = self.holdings.catalog().await?;
        let mut read = CorrectedWindows {
            lines: Vec::new(),
            limits: BTreeMap::new(),
            accounts,
            revisions: revisions(&known),
            now: self.db.clock().now(),
        };
        for one in corrections {
            let Some(Some(limits)) = known.get(&one.account) else {
                continue;
            };
            let kind = catalog.kind_of(&one.metric);
            for (key, limit) in limits.windows_of(&one.metric, kind, one.event_at) {
                let window = (one.account.clone(), key);
                if let Some(limit) = limit {
                    let limits = &mut read.limits;
                    limits.entry(window.clone()).or_insert_with(|| limit.clone());
                }
                read.lines.push(Line {
                    window,
                    kind,
                    recorded_at: one.recorded_at,
                    change: one.change(),
                });
            }
        }
        Ok(read)
    }

    async fn expect_followed(&self, corrections: &[Corrected]) -> Result<(), Error> {
        let oldest = self.db.clock().now() - MARKS_LAST;
        let after = corrections.iter().filter_map(|one| one.after);
        let after: BTreeSet<Uuid> = after.filter(|(_, at)| *at > oldest).map(|(id, _)| id).collect();
        if after.is_empty() {
            return Ok(());
        }
        for _ in 0..LOOKS {
            let after = after.clone();
            let marked = self
                .db
                .transaction(Scope::AllAccounts, move |connection| {
                    Box::pin(async move { inbox::are_marked(connection, &FOLLOWING, &after).await })
                })
                .await?;
            if marked {
                return Ok(());
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Err(Error::NotFollowedYet)
    }

    /// What is to be done once windows have followed corrections: whoever was refused may find room now.
    ///
    /// # Errors
    /// [`Error`] where the ledger or the database cannot be reached.
    pub async fn corrections_followed(
        &self,
        (follow_up, accounts): (FollowUp, BTreeSet<AccountId>),
    ) -> Result<(), Error> {
        self.windows_followed(follow_up).await?;
        for account in &accounts {
            self.escrow.look_again(account);
        }
        Ok(())
    }
}

impl CorrectedWindows {
    /// Those of the windows that the corrections change, with the accounts of all.
    ///
    /// # Errors
    /// [`Error::LimitsChanged`] where the limits are not those any more that were read; [`Error`].
    pub(crate) async fn followed(
        self,
        connection: &mut PgConnection,
    ) -> Result<(Followed, BTreeSet<AccountId>), Error> {
        hold_limits(connection, &self.revisions).await?;
        let accounts: Vec<&AccountId> = self.revisions.keys().collect();
        let begun = store::list_begun(connection, &accounts).await?;
        let mut changes: BTreeMap<AccountWindow, Change> = BTreeMap::new();
        for line in self.lines {
            let (account, window) = &line.window;
            let begun = begun.get(account).cloned().unwrap_or_default();
            if is_changed(window, line.kind, &begun, line.recorded_at, self.now) {
                *changes.entry(line.window).or_default() += line.change;
            }
        }
        Ok((
            Followed::of_changes(changes, self.limits, self.now),
            self.accounts,
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_counts_less_is_given_back_and_what_counts_more_was_not_permitted() {
        let changed = |change| {
            let corrected = Corrected {
                account: AccountId::parse("acme").expect("an account"),
                metric: MetricSlug::parse("api.requests").expect("a metric"),
                event_at: Timestamp::UNIX_EPOCH,
                recorded_at: Timestamp::UNIX_EPOCH,
                change,
                after: None,
            };
            let change = corrected.change();
            (change.returned, change.overrun, change.followed)
        };
        assert_eq!(changed(-7), (7, 0, 0));
        assert_eq!(changed(7), (0, 7, 7));
        assert_eq!(changed(0), (0, 0, 0));
    }
}
