//! `RecordUsage` and `ReturnQuota`: what is used without asking before, and what is given back. Neither is denied, and
//! the windows know of both before the answer.

use std::collections::BTreeSet;

use jiff::Timestamp;
use octroi_core::{MetricKind, Violations, source};
use octroi_proto::usage::v1::Origin;

use super::{
    Service,
    follow_ledger::Used,
    ledger::{LedgerAnswer, Request},
    window_teller::Untold,
};
use crate::{
    answers::RequestKey,
    domain::{
        check::Check,
        decision::{Asked, Level},
        limits::hard_max,
    },
    error::Error,
    escrow::TOLD_KNOWN,
    store::Change,
};

impl Service {
    /// Records what was used. What no limit has room for is overrun. Answers whether the request was done before.
    ///
    /// # Errors
    /// [`Error::AmountOutOfRange`] where a window would have more than can be counted; [`Error`] where it is not
    /// recorded.
    pub async fn record_usage(&self, used: Check, key: RequestKey) -> Result<bool, Error> {
        let question = self.question(&used, String::new()).await?;
        let request = request(&used, &key, source::RECORD, Origin::Direct, question.at);
        let levels = self
            .escrow
            .levels(&used.account, &question.keys(), Timestamp::MAX)
            .await?;
        let beyond = |(asked, level): (&Asked, &Level)| !level.can_count(asked.amount);
        if let Some(index) = question.asked.iter().zip(&levels).position(beyond)
            && !self.find_recording(&request).await?
        {
            let metric = question
                .asked
                .get(index)
                .map(|asked| &asked.effective.limit.metric);
            let place = used.items.iter().position(|item| Some(&item.metric) == metric);
            return Err(Error::AmountOutOfRange {
                place: place.unwrap_or_default(),
            });
        }
        self.record_and_tell(request).await
    }

    /// Gives back units of LEVEL metrics, all of them or none. Answers whether the request was done before.
    ///
    /// # Errors
    /// [`Error::LevelBelowZero`] where more would be given back than is held; the same request is then refused for
    /// good.
    pub async fn return_quota(&self, returned: Check, key: RequestKey) -> Result<bool, Error> {
        let question = self.question(&returned, String::new()).await?;
        let catalog = self.holdings.catalog().await?;
        let mut violations = Violations::default();
        for (index, item) in returned.items.iter().enumerate() {
            let metric = catalog.metrics.get(&item.metric);
            if metric.is_some_and(|metric| metric.kind != MetricKind::Level) {
                let rule = "must be a LEVEL metric, of which units can be given back";
                violations.add(format!("items[{index}].metric"), rule);
            }
        }
        violations.finish()?;
        let request = request(&returned, &key, source::RETURN, Origin::Return, question.at);
        match self.record_and_tell(request.clone()).await {
            // Written down: an attempt that is still on its way must not be recorded after this answer.
            Err(Error::LevelBelowZero { place }) if !self.record_denial(&request).await? => {
                Err(Error::LevelBelowZero { place })
            }
            // An earlier attempt was recorded meanwhile.
            Err(Error::LevelBelowZero { .. }) => self.record_and_tell(request).await,
            other => other,
        }
    }

    async fn record_and_tell(&self, mut request: Request) -> Result<bool, Error> {
        let repeated = match self.record(&request).await? {
            LedgerAnswer::Repeated => true,
            // Only a return is ever refused for good, and where it was stays so.
            LedgerAnswer::Denied => return Err(Error::LevelBelowZero { place: None }),
            LedgerAnswer::Recorded | LedgerAnswer::Unpaid(_) => false,
        };
        if repeated {
            // It counts where the first attempt does, which may have ended here.
            request.at = self.find_time(&request).await?;
            if request.at < self.db.clock().now() - TOLD_KNOWN {
                // The windows have heard of it from the bus, and it may be forgotten that they have.
                return Ok(true);
            }
        }
        self.tell_windows(&request).await?;
        Ok(repeated)
    }

    /// Tells the windows what the ledger has taken, before the bus does. Each event is told once, whoever is first.
    pub(super) async fn tell_windows(&self, request: &Request) -> Result<(), Error> {
        let Some(limits) = self.limits_of(&request.account).await? else {
            return Ok(());
        };
        let catalog = self.holdings.catalog().await?;
        let mut untold: Vec<Untold> = Vec::with_capacity(request.lines.len());
        for line in &request.lines {
            let used = Used {
                account: request.account.clone(),
                metric: line.metric.clone(),
                amount: line.amount.get(),
                charged: line.charges.iter().map(|charge| charge.amount.get()).sum(),
                event_at: request.at,
                returned: request.origin == Origin::Return,
                source: request.source.clone(),
                event_id: line.event_id.clone(),
            };
            let kind = catalog.kind_of(&line.metric);
            let windows = limits.windows_of(&line.metric, kind, request.at).into_iter();
            let windows = windows.map(|(key, limit)| {
                let max = limit.and_then(|limit| hard_max(&limit.limit));
                ((request.account.clone(), key), max)
            });
            let change = Change {
                // Thresholds follow the ledger alone.
                followed: 0,
                ..used.change()
            };
            untold.extend(used.applied().map(|applied| Untold {
                applied,
                windows: windows.collect(),
                change,
            }));
        }
        let overdrawn = self.window_teller.tell(untold).await?;
        (self.escrow)
            .windows_changed(BTreeSet::from([request.account.clone()]))
            .await;
        if let Err(error) = self.recall_from(overdrawn).await {
            tracing::warn!(error = %error, "what replicas have set aside of a limit that is full is not recalled");
        }
        self.escrow.look_again(&request.account);
        Ok(())
    }
}

/// What a check records under sources that begin with `prefix`.
fn request(check: &Check, key: &RequestKey, prefix: &str, origin: Origin, at: Timestamp) -> Request {
    Request {
        source: format!("{prefix}{}", key.caller),
        origin,
        ..Request::decided(check, key, at)
    }
}
