//! `GetUsageReportJob`, `ListUsageReportJobs`, `CancelUsageReportJob`.

use octroi_core::AccountId;
use octroi_kit::db::Scope;

use super::Service;
use crate::{
    domain::report_job::{JobPlace, ReportJob, ReportJobId},
    error::Error,
    store,
};

impl Service {
    /// One job of an account.
    ///
    /// # Errors
    /// [`Error::ReportNotFound`] where the account has none of this id.
    pub async fn get_usage_report_job(
        &self,
        account: AccountId,
        job_id: ReportJobId,
    ) -> Result<ReportJob, Error> {
        self.db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move {
                    let found = store::find_report_job(connection, &account, job_id).await?;
                    found.ok_or(Error::ReportNotFound)
                })
            })
            .await
    }

    /// Up to `limit` jobs of an account, the newest first.
    ///
    /// # Errors
    /// [`Error`] where the account does not exist.
    pub async fn list_usage_report_jobs(
        &self,
        account: AccountId,
        after: Option<JobPlace>,
        limit: i64,
    ) -> Result<Vec<ReportJob>, Error> {
        self.directory.get(&account).await?;
        self.db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(
                    async move { Ok(store::list_report_jobs(connection, &account, after, limit).await?) },
                )
            })
            .await
    }

    /// Ends a job, and answers it as it stands then. Whoever writes it stops at its next piece; its file is swept away.
    ///
    /// # Errors
    /// [`Error::ReportNotFound`] where the account has none of this id.
    pub async fn cancel_usage_report_job(
        &self,
        account: AccountId,
        job_id: ReportJobId,
    ) -> Result<ReportJob, Error> {
        let now = self.db.clock().now();
        self.db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move {
                    let found = store::cancel_report_job(connection, &account, job_id, now).await?;
                    found.ok_or(Error::ReportNotFound)
                })
            })
            .await
    }
}
