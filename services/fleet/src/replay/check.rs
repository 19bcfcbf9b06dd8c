//! Asking first: one CONSUME a line, many of them on their way, those of one account one after the other,
//! so that what a limit denies follows from the file.

use std::collections::{HashMap, VecDeque};

use octroi_core::{AccountId, MetricSlug};
use octroi_kit::convert::to_proto_time;
use octroi_proto::quota::v1::{
    CheckItem, CheckMode, CheckQuotaRequest, CheckQuotaResponse, quota_service_client::QuotaServiceClient,
};
use tokio::{sync::mpsc, task::JoinSet, time::Instant};
use tonic::Code;

use super::{
    feed::{Entry, Pace},
    fleet::{Failure, Fleet},
    names::Names,
    progress::Progress,
    send::passed_on,
    tally::Tally,
};

/// The source of what decisions record for the command line.
pub const SOURCE: &str = "decision:operator";

/// Lines that are asked about at the same time.
const ASKED_AT_ONCE: usize = 32;
/// Lines that wait for an earlier one of their account.
const WAITING_MAX: usize = 8_192;

struct Asker<'a> {
    fleet: &'a Fleet,
    names: &'a Names,
    /// The accounts with a line on its way, and the lines that wait for it.
    busy: HashMap<AccountId, VecDeque<Entry>>,
    waiting: usize,
    flights: JoinSet<(Entry, Tally)>,
    tally: Tally,
    progress: &'a mut Progress,
}

/// Asks about all entries at their pace.
pub async fn ask(
    fleet: &Fleet,
    names: &Names,
    mut entries: mpsc::Receiver<Entry>,
    pace: Pace,
    progress: &mut Progress,
) -> Tally {
    let mut asker = Asker {
        fleet,
        names,
        busy: HashMap::new(),
        waiting: 0,
        flights: JoinSet::new(),
        tally: Tally::default(),
        progress,
    };
    let mut next_line = 1;
    loop {
        tokio::select! {
            biased;
            () = fleet.halt().cancelled() => {
                asker.tally.stop(next_line, &Failure::Stopped);
                break;
            }
            // Answers free their accounts while the next line is awaited.
            Some(landed) = asker.flights.join_next() => asker.land(landed.unwrap_or_else(|error| passed_on(error))),
            entry = entries.recv(), if asker.has_room() => {
                let Some(entry) = entry else { break };
                next_line = entry.line + 1;
                asker.take(entry, pace).await;
            }
        }
    }
    // Whoever reads on would wait for room for ever.
    drop(entries);
    asker.finish().await
}

impl Asker<'_> {
    fn has_room(&self) -> bool {
        self.flights.len() < ASKED_AT_ONCE && self.waiting < WAITING_MAX
    }

    async fn take(&mut self, entry: Entry, pace: Pace) {
        while let Some(due) = pace.due(entry.at, Instant::now()) {
            tokio::select! {
                () = self.fleet.halt().cancelled() => break,
                () = tokio::time::sleep_until(due) => {}
                Some(landed) = self.flights.join_next() => self.land(landed.unwrap_or_else(|error| passed_on(error))),
            }
        }
        match self.busy.get_mut(&entry.account) {
            Some(queue) => {
                queue.push_back(entry);
                self.waiting += 1;
            }
            None => {
                self.busy.insert(entry.account.clone(), VecDeque::new());
                self.start(entry);
            }
        }
    }

    fn start(&mut self, entry: Entry) {
        if self.fleet.halt().is_cancelled() {
            self.tally.stop(entry.line, &Failure::Stopped);
            return;
        }
        let (fleet, request_id) = (self.fleet.clone(), self.names.request_id(entry.line));
        self.flights.spawn(async move {
            let tally = consume(&fleet, &entry, request_id).await;
            (entry, tally)
        });
    }

    /// Counts an answer and lets the account's next line go.
    fn land(&mut self, (entry, landed): (Entry, Tally)) {
        self.progress.advance(1);
        self.tally.add(landed);
        if self.tally.stopped.is_some() {
            self.fleet.halt().cancel();
        }
        let next = self.busy.get_mut(&entry.account).and_then(VecDeque::pop_front);
        match next {
            Some(next) => {
                self.waiting -= 1;
                self.start(next);
            }
            None => drop(self.busy.remove(&entry.account)),
        }
    }

    async fn finish(mut self) -> Tally {
        while let Some(landed) = self.flights.join_next().await {
            self.land(landed.unwrap_or_else(|error| passed_on(error)));
        }
        // Accounts whose line did not start when the run was stopped have lines that wait.
        for entry in self.busy.values().flatten() {
            self.tally.stop(entry.line, &Failure::Stopped);
        }
        self.tally
    }
}

async fn consume(fleet: &Fleet, entry: &Entry, request_id: String) -> Tally {
    let item = |(metric, units): &(MetricSlug, octroi_core::Units)| CheckItem {
        metric: metric.to_string(),
        amount: units.as_i64(),
    };
    let request = CheckQuotaRequest {
        account_id: entry.account.to_string(),
        items: entry.uses.iter().map(item).collect(),
        features: Vec::new(),
        mode: CheckMode::Consume.into(),
        request_id,
        event_time: Some(to_proto_time(entry.at)),
        backfill: true,
        repeat: false,
    };
    let answer = fleet
        .call_telling(|link| {
            let request = request.clone();
            async move { QuotaServiceClient::new(link).check_quota(request).await }
        })
        .await;
    read_answer(entry, answer)
}

/// Counts an answer, which comes with whether an earlier try of the same question failed.
fn read_answer(entry: &Entry, answer: Result<(CheckQuotaResponse, bool), Failure>) -> Tally {
    let mut tally = Tally {
        sent: u64::try_from(entry.uses.len()).unwrap_or_default(),
        ..Tally::default()
    };
    match answer {
        Ok((answer, failed_before)) if answer.allowed => {
            tally.allowed = 1;
            tally.allowed_totals.add_events(&entry.uses);
            if !answer.repeated_request {
                tally.recorded += tally.sent;
                tally.recorded_totals.add_events(&entry.uses);
            } else {
                tally.duplicates += tally.sent;
                if failed_before {
                    tally.unsure_totals.add_events(&entry.uses);
                }
            }
        }
        Ok((answer, _)) => {
            if let Some(metric) = binding_metric(entry, &answer) {
                tally.denied.insert(metric, 1);
            }
        }
        Err(Failure::Refused(status)) if is_about_the_line(status.code()) => {
            tally.refused.note(entry.line, &Failure::Refused(status));
        }
        Err(failure) => {
            tally.sent = 0;
            tally.stop(entry.line, &failure);
        }
    }
    tally
}

/// The metric of the limit that denied; the line's first one where the answer names none.
fn binding_metric(entry: &Entry, answer: &CheckQuotaResponse) -> Option<MetricSlug> {
    let named = answer
        .binding_limit
        .and_then(|index| answer.limits.get(usize::try_from(index).ok()?));
    named
        .and_then(|limit| MetricSlug::parse(&limit.metric).ok())
        .or_else(|| entry.uses.first().map(|(metric, _)| metric.clone()))
}

/// Other refusals would meet every line.
fn is_about_the_line(code: Code) -> bool {
    !matches!(
        code,
        Code::Unauthenticated | Code::PermissionDenied | Code::Unimplemented
    )
}
