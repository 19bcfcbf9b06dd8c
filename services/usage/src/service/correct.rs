//! `AmendUsage` and `VoidUsage`: what events come to is changed, all of a call or nothing, and whoever counts is told.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;
use octroi_core::{AccountId, EventId, MetricKind, MetricSlug};
use octroi_kit::{
    convert::to_proto_time,
    db::{DatabaseError, Scope, expect_rows},
    outbox,
};
use octroi_proto::events::v1::{CorrectedUsage, UsageCorrected};
use sqlx::PgConnection;
use uuid::Uuid;

use super::Service;
use crate::{
    domain::{
        correction::{Correctable, Corrected, Correction, Found, Outcome, Refusal, correct_all},
        event::{EventKey, Identity, Origin},
        events::Place,
        spends::{LevelKey, Spends, Sums},
    },
    error::Error,
    store,
};

/// Corrections of events of one account that belong together.
#[derive(Clone, Debug)]
pub struct Corrections {
    /// The account.
    pub account: AccountId,
    /// The corrections, in their order; at least one.
    pub corrections: Vec<Correction>,
    /// Who makes them.
    pub actor: String,
    /// Whether it is only asked what would become of the events.
    pub preview: bool,
}

/// A correction that is made, or would be.
#[derive(Clone, Debug, PartialEq)]
pub struct Made {
    /// The correction.
    pub corrected: Corrected,
    /// It was made before, with the same content.
    pub duplicate: bool,
}

/// Why a transaction ends without a commit.
enum End {
    /// Nothing is to be written, and this is what is answered.
    Answer(Vec<Outcome>),
    Failed(DatabaseError),
}

impl From<DatabaseError> for End {
    fn from(error: DatabaseError) -> Self {
        Self::Failed(error)
    }
}

impl Service {
    /// Makes corrections, all of them or none, and answers one result each, in their order. A preview changes nothing.
    ///
    /// # Errors
    /// [`Error`] where the call as a whole failed; then nothing was changed.
    pub async fn correct_usage(&self, call: Corrections) -> Result<Vec<Result<Made, Error>>, Error> {
        let clock = self.db.clock().clone();
        let identities: Vec<Identity> = call.corrections.iter().map(|one| one.identity.clone()).collect();
        let ids: Vec<EventId> = call.corrections.iter().map(|one| one.id.clone()).collect();
        let corrected = self
            .db
            .transaction(Scope::Account(call.account.clone()), move |connection| {
                Box::pin(async move { correct(connection, &call, clock.now()).await })
            })
            .await;
        let outcomes = match corrected {
            Ok(outcomes) => {
                self.wake.wake();
                outcomes
            }
            Err(End::Answer(outcomes)) => outcomes,
            Err(End::Failed(error)) => return Err(error.into()),
        };
        let results = outcomes.into_iter().zip(identities.into_iter().zip(ids));
        Ok(results
            .map(|(outcome, (identity, id))| result(outcome, &identity, &id))
            .collect())
    }
}

fn result(outcome: Outcome, identity: &Identity, id: &EventId) -> Result<Made, Error> {
    let refusal = match outcome {
        Outcome::Made(_, corrected) => {
            return Ok(Made {
                corrected,
                duplicate: false,
            });
        }
        Outcome::Duplicate(corrected) => {
            return Ok(Made {
                corrected,
                duplicate: true,
            });
        }
        Outcome::Refused(refusal) => refusal,
    };
    let (event_id, source_name) = (identity.event_id.to_string(), identity.source.to_string());
    Err(match refusal {
        Refusal::NotFound => Error::UsageEventNotFound {
            event_id,
            source_name,
        },
        Refusal::Reused => Error::CorrectionIdReused {
            correction_id: id.to_string(),
        },
        Refusal::CorrectedSince(revision) => Error::EventCorrectedSince {
            event_id,
            source_name,
            revision,
        },
        Refusal::NotOne => Error::AmountNotOne,
        Refusal::LevelBelowZero => Error::LevelBelowZero,
        Refusal::LevelOutOfRange => Error::SumOutOfRange,
        Refusal::Withheld => Error::BatchRefused,
    })
}

/// One transaction: locks the events, decides, and writes the corrections with what tells others of them. Where nothing is to be
/// written, the transaction ends without a commit.
async fn correct(
    connection: &mut PgConnection,
    call: &Corrections,
    now: Timestamp,
) -> Result<Vec<Outcome>, End> {
    let identities: Vec<&Identity> = call.corrections.iter().map(|one| &one.identity).collect();
    let events = store::lock_events(connection, &call.account, &identities).await?;
    let inserted = insert_keys(connection, call, &events, now).await?;
    let mut found = find(connection, call, events, &inserted).await?;
    let levels = Sums {
        levels: level_sums(&call.account, &found.events),
        ..Sums::default()
    };
    let charged = store::charge_sums(connection, &levels, now).await?;
    found.levels = (charged.before.levels.iter())
        .map(|((_, metric), amount)| (metric.clone(), *amount))
        .collect();
    let before = found.events.clone();
    let outcomes = correct_all(&call.corrections, &mut found, &call.actor, now);
    let made: Vec<(&Correctable, &Corrected)> = (outcomes.iter())
        .filter_map(|outcome| match outcome {
            Outcome::Made(event, corrected) => Some((before.get(event)?, corrected)),
            Outcome::Duplicate(_) | Outcome::Refused(_) => None,
        })
        .collect();
    if call.preview || made.is_empty() {
        return Err(End::Answer(outcomes));
    }
    // What is made now is what has a key since now.
    expect_rows(inserted.len() as u64, made.len() as u64)?;
    let message_id = outbox::new_id();
    store::append_corrections(connection, &made, message_id).await?;
    let after = Spends {
        levels: (found.levels.into_iter())
            .map(|(metric, amount)| ((call.account.clone(), metric), amount))
            .collect(),
        ..Spends::default()
    };
    store::correct_spends(connection, &charged, &after).await?;
    tell(connection, message_id, &made, now).await?;
    Ok(outcomes)
}

/// Inserts the keys of corrections whose events are there. What was made before, or is there twice, is not inserted.
async fn insert_keys(
    connection: &mut PgConnection,
    call: &Corrections,
    events: &HashMap<EventKey, Correctable>,
    now: Timestamp,
) -> Result<HashSet<EventKey>, DatabaseError> {
    let mut named: BTreeMap<EventKey, (&Correction, Timestamp)> = BTreeMap::new();
    for correction in &call.corrections {
        if let Some(event) = events.get(&correction.identity.key()) {
            named
                .entry(correction.key())
                .or_insert((correction, event.event_at));
        }
    }
    let (corrections, times): (Vec<&Correction>, Vec<Timestamp>) = named.into_values().unzip();
    store::insert_correction_keys(connection, &corrections, &times, now).await
}

/// What the ledger has of what the call names.
async fn find(
    connection: &mut PgConnection,
    call: &Corrections,
    events: HashMap<EventKey, Correctable>,
    inserted: &HashSet<EventKey>,
) -> Result<Found, DatabaseError> {
    let before: Vec<&Correction> = (call.corrections.iter())
        .filter(|one| !inserted.contains(&one.key()))
        .collect();
    if before.is_empty() {
        return Ok(Found {
            events,
            ..Found::default()
        });
    }
    let keys: Vec<EventKey> = before.iter().map(|one| one.key()).collect();
    let known = store::list_known(connection, &keys).await?;
    let ids: Vec<&EventId> = before.iter().map(|one| &one.id).collect();
    let named: Vec<(&MetricSlug, Place)> = (events.values())
        .map(|event| {
            let place = Place {
                event_at: event.event_at,
                sequence: event.sequence,
            };
            (&event.metric, place)
        })
        .collect();
    let made = store::find_corrections(connection, &call.account, &named, &ids).await?;
    Ok(Found {
        known: (known.into_iter())
            .map(|(key, known)| (key, known.payload_hash))
            .collect(),
        made,
        events,
        ..Found::default()
    })
}

/// The levels that the events move.
fn level_sums(account: &AccountId, events: &HashMap<EventKey, Correctable>) -> BTreeMap<LevelKey, i64> {
    let levels = events.values().filter(|event| event.kind == MetricKind::Level);
    levels
        .map(|event| ((account.clone(), event.metric.clone()), 0))
        .collect()
}

/// Lets rollups and windows know what was corrected.
async fn tell(
    connection: &mut PgConnection,
    message_id: Uuid,
    made: &[(&Correctable, &Corrected)],
    now: Timestamp,
) -> Result<(), DatabaseError> {
    let transaction = store::current_transaction(connection).await?;
    let told = UsageCorrected {
        corrections: made
            .iter()
            .map(|(event, made)| corrected_usage(event, made))
            .collect(),
        ledger_transaction: transaction,
    };
    outbox::enqueue_as(connection, message_id, &told, now).await?;
    store::insert_pending(connection, (transaction, message_id), made.len(), now).await
}

fn corrected_usage(event: &Correctable, made: &Corrected) -> CorrectedUsage {
    CorrectedUsage {
        account_id: event.identity.account.to_string(),
        metric: event.metric.to_string(),
        event_time: Some(to_proto_time(event.event_at)),
        record_time: Some(to_proto_time(event.recorded_at)),
        returned: event.origin == Origin::Return,
        amount_before: made.before.counted().get(),
        amount_after: made.after.counted().get(),
        counted_before: !made.before.voided,
        counted_after: !made.after.voided,
        after_message_id: event.message_id.map(|id| id.to_string()).unwrap_or_default(),
        after_time: Some(to_proto_time(event.told_at())),
    }
}
