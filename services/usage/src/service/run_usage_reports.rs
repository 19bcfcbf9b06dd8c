//! Writing the reports that jobs are for, on whichever replica comes first, and sweeping away what is over its time.
//!
//! A job is written in runs. Whoever begins a run has a lease, which each piece of the file renews; a replica that says nothing
//! for that long loses it, and another begins the job anew. What a lost run still wants to write finds that the job has a
//! younger one, and is not written: the pieces of a file are of one run.

use std::time::Duration;

use futures::future;
use jiff::{Timestamp, ToSpan as _};
use octroi_core::{AccountId, ErrorKind, ServiceError as _};
use octroi_kit::db::{DatabaseError, Scope};
use sqlx::PgConnection;
use tokio_util::sync::CancellationToken;

use super::{
    Service,
    reports::{Bounds, resolve},
};
use crate::{
    domain::{
        csv::Csv,
        report::{Report, Row, RowTotals, write_header, write_row},
        report_job::{CHUNK_BYTES_MAX, Progress, ReportJob, ReportJobState},
    },
    error::Error,
    store::{self, Run, Written},
};

/// How often it is looked for jobs that another replica made, or lost.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// When a run is tried again that the database was in the way of.
const RETRY_AFTER_S: i64 = 5;
/// How often what is over its time is swept away.
const SWEEP_EVERY: Duration = Duration::from_secs(60);
/// How many pieces of files one statement deletes: 16 MiB.
const CHUNKS_AT_ONCE: i64 = 64;
/// How many jobs one statement changes or deletes.
const JOBS_AT_ONCE: i64 = 500;

/// Why a run ended before its report.
#[derive(Debug)]
enum Interrupted {
    /// The job was cancelled, or begun again elsewhere.
    Lost,
    /// The process stops.
    Stopping,
    /// It could not be read or written.
    Failed(Error),
}

impl From<Error> for Interrupted {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<DatabaseError> for Interrupted {
    fn from(error: DatabaseError) -> Self {
        Self::Failed(error.into())
    }
}

impl Service {
    /// Writes reports until `stop`.
    pub async fn run_usage_reports(self, stop: CancellationToken) {
        let writers = (0..self.reports.jobs_at_once).map(|_| self.run_one_by_one(&stop));
        future::join_all(writers).await;
    }

    async fn run_one_by_one(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            match self.run_next(stop).await {
                Ok(true) => continue,
                Ok(false) => {}
                Err(error) => tracing::warn!(error = %error, "no report can be begun"),
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = self.reports.created.notified() => {}
                () = tokio::time::sleep(LOOK_EVERY) => {}
            }
        }
    }

    /// Begins the next job, and answers whether there was one.
    async fn run_next(&self, stop: &CancellationToken) -> Result<bool, DatabaseError> {
        let now = self.db.clock().now();
        let lease_until = self.lease_until(now);
        let claimed = self
            .db
            .transaction(Scope::AllAccounts, move |connection| {
                Box::pin(store::claim_report_job(connection, now, lease_until))
            })
            .await?;
        let Some(job) = claimed else { return Ok(false) };
        let run = Run {
            job_id: job.job_id,
            run: job.run,
        };
        if job.state != ReportJobState::Running {
            told(run, "failed");
            return Ok(true);
        }
        let account = job.query.account.clone();
        match self.write_report(job, run, stop.clone()).await {
            Ok(()) => told(run, "done"),
            Err(interrupted) => self.end_run(account, run, interrupted).await,
        }
        Ok(true)
    }

    fn lease_until(&self, now: Timestamp) -> Timestamp {
        now.saturating_add(self.reports.lease).unwrap_or(now)
    }

    /// Says what becomes of a run that was interrupted. Where that cannot be said, its lease ends.
    async fn end_run(&self, account: AccountId, run: Run, interrupted: Interrupted) {
        let now = self.db.clock().now();
        let ended = match interrupted {
            Interrupted::Lost => {
                told(run, "lost");
                return;
            }
            Interrupted::Stopping => self.release(account, run, now).await,
            Interrupted::Failed(error)
                if matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout) =>
            {
                tracing::warn!(report.job_id = %run.job_id, error = %error, "a report is begun again later");
                self.release(account, run, now + RETRY_AFTER_S.seconds()).await
            }
            Interrupted::Failed(error) => {
                tracing::error!(report.job_id = %run.job_id, error = %error, "a report cannot be written");
                told(run, "failed");
                let failure = error.reason();
                self.db
                    .transaction(Scope::Account(account), move |connection| {
                        Box::pin(async move { store::fail_run(connection, run, failure, now).await })
                    })
                    .await
            }
        };
        if let Err(error) = ended {
            tracing::warn!(report.job_id = %run.job_id, error = %error, "a report waits for the end of its lease");
        }
    }

    async fn release(&self, account: AccountId, run: Run, retry_at: Timestamp) -> Result<(), DatabaseError> {
        self.db
            .transaction(Scope::Account(account), move |connection| {
                Box::pin(async move { store::release_run(connection, run, retry_at).await })
            })
            .await
    }

    /// Reads a report of one instant, in one transaction, and writes it in others.
    async fn write_report(
        &self,
        job: ReportJob,
        run: Run,
        stop: CancellationToken,
    ) -> Result<(), Interrupted> {
        let service = self.clone();
        self.db
            .transaction(Scope::Account(job.query.account.clone()), move |connection| {
                Box::pin(async move { service.write_at_one_instant(connection, job, run, &stop).await })
            })
            .await
    }

    async fn write_at_one_instant(
        &self,
        connection: &mut PgConnection,
        job: ReportJob,
        run: Run,
        stop: &CancellationToken,
    ) -> Result<(), Interrupted> {
        store::begin_long_read(connection).await?;
        let now = self.db.clock().now();
        // What it sees is all that was recorded; nothing of that is left out.
        let report = resolve(connection, job.query, Timestamp::MAX).await?;
        let mut writer = Writer::begin(self, &report, run).await?;
        let mut from = None;
        loop {
            if stop.is_cancelled() {
                return Err(Interrupted::Stopping);
            }
            let page = self.read(connection, &report, from.as_ref(), Bounds::JOB).await?;
            writer.add(&report, &page.rows, page.read).await?;
            from = page.next;
            if from.is_none() {
                return writer.finish(now).await;
            }
        }
    }

    /// Sweeps away what is over its time, until `stop`.
    pub async fn sweep_usage_reports(self, stop: CancellationToken) {
        loop {
            if let Err(error) = self.sweep(&stop).await {
                tracing::warn!(error = %error, "reports that are over their time are not swept away");
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(SWEEP_EVERY) => {}
            }
        }
    }

    async fn sweep(&self, stop: &CancellationToken) -> Result<(), DatabaseError> {
        let now = self.db.clock().now();
        self.transaction(move |connection| Box::pin(store::expire_jobs(connection, now, JOBS_AT_ONCE)))
            .await?;
        let without_file = self
            .transaction(|connection| Box::pin(store::list_swept_jobs(connection, JOBS_AT_ONCE)))
            .await?;
        for job_id in without_file {
            loop {
                let deleted = self
                    .transaction(move |connection| {
                        Box::pin(store::delete_chunks_of(connection, job_id, CHUNKS_AT_ONCE))
                    })
                    .await?;
                if stop.is_cancelled() {
                    return Ok(());
                }
                if deleted == 0 {
                    break;
                }
            }
        }
        let before = self.reports.keeping.forgotten_before(now);
        self.transaction(move |connection| Box::pin(store::delete_jobs(connection, before, JOBS_AT_ONCE)))
            .await?;
        Ok(())
    }

    async fn transaction<T, F>(&self, work: F) -> Result<T, DatabaseError>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> future::BoxFuture<'c, Result<T, DatabaseError>>
            + Send
            + 'static,
    {
        self.db.transaction(Scope::AllAccounts, work).await
    }
}

fn told(run: Run, outcome: &'static str) {
    metrics::counter!("octroi_usage_reports_total", "outcome" => outcome).increment(1);
    tracing::info!(report.job_id = %run.job_id, report.run = run.run, outcome, "a run of a report ended");
}

/// Writes the file of one run, piece by piece. It holds no more than a page of rows and a piece.
struct Writer {
    service: Service,
    account: AccountId,
    run: Run,
    csv: Csv,
    progress: Progress,
    totals: RowTotals,
    renewed_at: Timestamp,
}

impl Writer {
    /// Takes away what a run before has left, and begins with the names of the columns.
    async fn begin(service: &Service, report: &Report, run: Run) -> Result<Self, Interrupted> {
        let mut writer = Self {
            service: service.clone(),
            account: report.query.account.clone(),
            run,
            csv: Csv::default(),
            progress: Progress::default(),
            totals: RowTotals::default(),
            renewed_at: service.db.clock().now(),
        };
        while writer.delete_some().await? > 0 {}
        write_header(&mut writer.csv, &report.query);
        Ok(writer)
    }

    /// Deletes some pieces of a run before, and answers how many.
    async fn delete_some(&mut self) -> Result<u64, Interrupted> {
        let job_id = self.run.job_id;
        self.change(move |connection| Box::pin(store::delete_chunks_of(connection, job_id, CHUNKS_AT_ONCE)))
            .await
    }

    /// Adds the rows of a page.
    async fn add(&mut self, report: &Report, rows: &[Row], read: u64) -> Result<(), Interrupted> {
        for row in rows {
            write_row(&mut self.csv, report, row);
            row.add_to(&mut self.totals);
        }
        self.progress.rows_read += read;
        self.progress.rows_written += rows.len() as u64;
        while self.csv.len() >= CHUNK_BYTES_MAX {
            self.write_chunk().await?;
        }
        let silent = self.service.db.clock().now().duration_since(self.renewed_at);
        if silent * 3 >= self.service.reports.lease {
            self.change(|_| Box::pin(future::ok(()))).await?;
        }
        Ok(())
    }

    async fn write_chunk(&mut self) -> Result<(), Interrupted> {
        let data = self.csv.take(CHUNK_BYTES_MAX);
        let (job_id, place) = (self.run.job_id, self.progress.chunks);
        self.progress.bytes += data.len() as u64;
        self.progress.chunks += 1;
        self.change(move |connection| {
            Box::pin(async move { store::insert_chunk(connection, job_id, place, &data).await })
        })
        .await
    }

    /// Does something in a transaction in which nobody else begins the job: how far the run is, is said with it.
    async fn change<T, F>(&mut self, work: F) -> Result<T, Interrupted>
    where
        T: Send + 'static,
        F: for<'c> FnOnce(&'c mut PgConnection) -> future::BoxFuture<'c, Result<T, DatabaseError>>
            + Send
            + 'static,
    {
        let now = self.service.db.clock().now();
        let (run, progress, lease_until) = (self.run, self.progress, self.service.lease_until(now));
        let changed = self
            .service
            .db
            .transaction(Scope::Account(self.account.clone()), move |connection| {
                Box::pin(async move {
                    if !store::update_progress(connection, run, progress, lease_until).await? {
                        return Err(Interrupted::Lost);
                    }
                    Ok(work(connection).await?)
                })
            })
            .await?;
        self.renewed_at = now;
        Ok(changed)
    }

    /// Writes what is left, and says that the file is there.
    async fn finish(mut self, recorded_before: Timestamp) -> Result<(), Interrupted> {
        while !self.csv.is_empty() {
            self.write_chunk().await?;
        }
        let now = self.service.db.clock().now();
        let written = Written {
            progress: self.progress,
            totals: self.totals,
            recorded_before,
            ended_at: now,
            expires_at: self.service.reports.keeping.expires_at(now),
        };
        let run = self.run;
        let is_finished = self
            .service
            .db
            .transaction(Scope::Account(self.account), move |connection| {
                Box::pin(async move { store::finish_run(connection, run, &written).await })
            })
            .await?;
        if is_finished {
            Ok(())
        } else {
            Err(Interrupted::Lost)
        }
    }
}
