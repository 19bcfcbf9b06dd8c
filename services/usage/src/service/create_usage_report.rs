//! `CreateUsageReport`: a report that is written in the background.

use octroi_core::RequestId;
use octroi_kit::db::Scope;
use uuid::Uuid;

use super::Service;
use crate::{
    domain::{
        report::ReportQuery,
        report_job::{ReportJob, ReportJobId},
    },
    error::Error,
    store::{self, NewReportJob},
};

impl Service {
    /// A new job, or the one that the caller made under this request id before.
    ///
    /// # Errors
    /// [`Error`] where account or metrics do not exist, the request id was used for another report, or the account has as many
    /// open jobs as it may have.
    pub async fn create_usage_report(
        &self,
        query: ReportQuery,
        caller: String,
        request_id: RequestId,
    ) -> Result<ReportJob, Error> {
        let report = self.report(query.clone(), None).await?;
        let new = NewReportJob {
            job_id: ReportJobId::from_uuid(Uuid::new_v4()),
            rows_expected: self.count_rows(&report).await?,
            query: report.query,
            caller,
            request_id: request_id.to_string(),
        };
        let (jobs_max, now) = (self.reports.jobs_max, self.db.clock().now());
        let job = self
            .db
            .transaction(Scope::Account(query.account.clone()), move |connection| {
                Box::pin(async move {
                    let account = &new.query.account;
                    let open = store::lock_open_jobs(connection, account).await?;
                    let (caller, request_id) = (&new.caller, &new.request_id);
                    let before = store::find_requested_job(connection, account, caller, request_id).await?;
                    if let Some(job) = before {
                        return repeated(job, query, &new);
                    }
                    if open >= u64::from(jobs_max) {
                        return Err(Error::TooManyReports { jobs_max });
                    }
                    store::insert_report_job(connection, &new, now).await?;
                    let made = store::find_report_job(connection, account, new.job_id).await?;
                    made.ok_or(Error::ReportNotFound)
                })
            })
            .await?;
        self.reports.created.notify_one();
        Ok(job)
    }
}

/// The job of a repeat. Where no zone is asked for, it has the one that the account had.
fn repeated(job: ReportJob, asked: ReportQuery, new: &NewReportJob) -> Result<ReportJob, Error> {
    let asked = ReportQuery {
        zone: asked.zone.clone().or_else(|| job.query.zone.clone()),
        ..asked
    };
    if job.query == asked {
        Ok(job)
    } else {
        Err(Error::RequestIdReused {
            request_id: new.request_id.clone(),
        })
    }
}
