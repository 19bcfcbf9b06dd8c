//! `ReserveQuota`: amounts that are held until it is known what was used.

use std::time::Duration;

use jiff::Timestamp;
use octroi_kit::db::{DatabaseError, as_stored};
use uuid::Uuid;

use super::{Service, question::Question};
use crate::{
    answers::RequestKey,
    domain::{
        check::{Check, decision_id},
        decision::{Attempt, Decision, Level},
        hold::{Hold, OPEN_MAX, hold_number, slice_of},
        slice::SliceKind,
    },
    error::Error,
    escrow::{Ask, Carved, Need, Terms},
    store::SliceRow,
};

/// How often a hold is tried anew because the limits changed meanwhile.
const TRIES_MAX: u32 = 8;
/// How long one that was refused waits before it is tried again, once, because a look finds room for it.
const FREED_PAUSE: Duration = Duration::from_millis(5);

/// What became of trying to hold.
enum Held {
    Yes,
    No,
    /// Something changed meanwhile.
    Again,
}

/// The answer to a reservation.
#[derive(Clone, Debug)]
pub struct Reservation {
    /// The decision.
    pub decision: Decision,
    /// The hold and when it expires, where it was allowed.
    pub hold: Option<(Hold, Timestamp)>,
}

fn not_reserved(question: &Question, levels: &[Level]) -> Reservation {
    Reservation {
        decision: question.decide(levels, Attempt::Refused),
        hold: None,
    }
}

impl Service {
    /// Takes amounts and holds them for `ttl_s` seconds.
    ///
    /// # Errors
    /// [`Error`] where it cannot be decided; a denial is none.
    pub async fn reserve_quota(
        &self,
        check: Check,
        key: RequestKey,
        ttl_s: i64,
    ) -> Result<Reservation, Error> {
        let reserve = self.reserve_once(&check, &key, ttl_s);
        let turn = (check.account.clone(), key.clone());
        let reserved = self.turns.one_at_a_time(turn, reserve).await;
        reserved.inspect(|reserved| self.note_reservation(&check, &key, reserved))
    }

    async fn reserve_once(&self, check: &Check, key: &RequestKey, ttl_s: i64) -> Result<Reservation, Error> {
        let number = hold_number(&check.account, &key.caller, key.request.as_str());
        let decision_id = decision_id(check.account.as_str(), &key.caller, key.request.as_str());
        let mut was_refused = false;
        for _ in 0..TRIES_MAX {
            let question = self.question(check, decision_id.clone()).await?;
            let rows = self.hold_reader.read(number, Some(&check.account)).await?;
            if let Some(before) = (self.reserved_before(check, key, number, &question, &rows.slices)).await? {
                return Ok(before);
            }
            if !question.missing_features.is_empty() {
                let levels = self.fresh_levels(check, &question).await?;
                return Ok(not_reserved(&question, &levels));
            }
            let hold = Hold {
                id: number,
                // As ids keep it, too: a repeat is told the same.
                reserved_at: as_stored(question.now),
                caller: key.caller.clone(),
                items: check.items.clone(),
            };
            let expires_at = hold.renewed_until(hold.reserved_at, ttl_s);
            if rows.is_full && question.needs.iter().any(|need| !need.windows.is_empty()) {
                return Err(Error::TooManyHolds { max: OPEN_MAX });
            }
            match self.carve_hold(check, &question, &hold, expires_at).await? {
                Held::Yes => {
                    let levels = self
                        .escrow
                        .levels(&check.account, &question.keys(), question.now)
                        .await?;
                    return Ok(Reservation {
                        decision: question.decide(&levels, Attempt::Took),
                        hold: Some((hold, expires_at)),
                    });
                }
                Held::No => {
                    let levels = self.fresh_levels(check, &question).await?;
                    // What stood in the way may have ended between the refusal and this look.
                    if was_refused || !question.has_room(&levels) {
                        return Ok(not_reserved(&question, &levels));
                    }
                    was_refused = true;
                    tokio::time::sleep(FREED_PAUSE).await;
                }
                Held::Again => {}
            }
        }
        Err(Error::Database(DatabaseError::Aborted))
    }

    /// Carves a slice of each limited metric, all of them or none.
    async fn carve_hold(
        &self,
        check: &Check,
        question: &Question,
        hold: &Hold,
        expires_at: Timestamp,
    ) -> Result<Held, Error> {
        let account = &check.account;
        let asks = asks(check, question, hold, expires_at);
        if asks.is_empty() {
            return Ok(Held::Yes);
        }
        let carved = self.escrow.carve_all(asks.clone()).await?;
        if carved.iter().all(|one| matches!(one, Carved::Slice(_))) {
            return Ok(Held::Yes);
        }
        let stale = carved.iter().find_map(|one| match one {
            Carved::Stale(revision) => Some(*revision),
            _ => None,
        });
        if let Some(revision) = stale {
            self.holdings.outdated(account, revision);
            return Ok(Held::Again);
        }
        if carved.contains(&Carved::Exists) {
            // Another attempt of the request was faster.
            return Ok(Held::Again);
        }
        // What replicas have and do not spend may be held instead.
        let mut recalled = false;
        for (ask, _) in (asks.iter().zip(&carved)).filter(|(_, one)| matches!(one, Carved::Full(_))) {
            recalled |= self.escrow.recall_all(account, &ask.metric).await?;
        }
        if !recalled {
            return Ok(Held::No);
        }
        let again = self.escrow.carve_all(asks).await?;
        if again.iter().all(|one| matches!(one, Carved::Slice(_))) {
            return Ok(Held::Yes);
        }
        let full = again.iter().any(|one| matches!(one, Carved::Full(_)));
        Ok(if full { Held::No } else { Held::Again })
    }

    /// Where the account stands now, whatever is remembered.
    async fn fresh_levels(&self, check: &Check, question: &Question) -> Result<Vec<Level>, Error> {
        (self.escrow)
            .levels(&check.account, &question.keys(), Timestamp::MAX)
            .await
    }

    /// The hold that the same request made before, whatever became of it.
    async fn reserved_before(
        &self,
        check: &Check,
        key: &RequestKey,
        number: Uuid,
        question: &Question,
        rows: &[SliceRow],
    ) -> Result<Option<Reservation>, Error> {
        let Some(first) = rows.first() else {
            return Ok(None);
        };
        // What limits the metrics may have changed since; what was asked for has not.
        let content = check.content_hash();
        let same = |row: &SliceRow| {
            row.content_hash
                .as_deref()
                .is_none_or(|before| *before == content)
        };
        if !rows.iter().all(same) {
            return Err(Error::RequestIdReused {
                request_id: key.request.clone(),
            });
        }
        let hold = Hold {
            id: number,
            reserved_at: Hold::made_at(first.slice.hard_end_at),
            caller: key.caller.clone(),
            items: check.items.clone(),
        };
        let levels = self.fresh_levels(check, question).await?;
        Ok(Some(Reservation {
            decision: Decision {
                repeated_request: true,
                ..question.decide(&levels, Attempt::Took)
            },
            hold: Some((hold, first.slice.spend_until)),
        }))
    }

    pub(super) async fn slices_of_hold(&self, hold: Uuid) -> Result<Vec<SliceRow>, Error> {
        Ok(self.hold_reader.read(hold, None).await?.slices)
    }
}

fn asks(check: &Check, question: &Question, hold: &Hold, expires_at: Timestamp) -> Vec<Ask> {
    let content = check.content_hash();
    let limited = question.needs.iter().filter(|need| !need.windows.is_empty());
    let ask = |need: &Need| Ask {
        account: check.account.clone(),
        metric: need.metric.clone(),
        kept: false,
        kind: SliceKind::Hold,
        need: need.amount,
        want: need.amount,
        windows: need.windows.clone(),
        revision: question.limits.revision,
        terms: Terms::Given {
            spend_until: expires_at,
            hard_end_at: hold.hard_end_at(),
        },
        id: slice_of(hold.id, &need.metric),
        owner: hold.id,
        content_hash: Some(content),
    };
    limited.map(ask).collect()
}
