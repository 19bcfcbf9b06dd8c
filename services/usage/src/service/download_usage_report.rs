//! `DownloadUsageReport`: the file of a job that is done, piece by piece as it is read.

use futures::{Stream, stream};
use octroi_core::AccountId;
use octroi_kit::db::Scope;

use super::Service;
use crate::{
    domain::report_job::{ReportJob, ReportJobId, ReportJobState},
    error::Error,
    store,
};

/// A file that is being read.
struct Download {
    service: Service,
    job: ReportJob,
    /// The next piece.
    place: i32,
}

impl Download {
    async fn next(mut self) -> Result<Option<(Vec<u8>, Self)>, Error> {
        if self.place >= self.job.progress.chunks {
            return Ok(None);
        }
        let (account, job_id) = (self.job.query.account.clone(), self.job.job_id);
        let turn = self.service.reports.turn().await?;
        let place = self.place;
        let found = self
            .service
            .db
            .transaction(Scope::Account(account.clone()), move |connection| {
                Box::pin(async move { store::find_chunk(connection, job_id, place).await })
            })
            .await?;
        drop(turn);
        self.place += 1;
        match found {
            Some(bytes) => Ok(Some((bytes, self))),
            // It was cancelled, or is over its time, meanwhile.
            None => Err(Error::ReportWithoutFile {
                state: self.service.get_usage_report_job(account, job_id).await?.state,
            }),
        }
    }
}

impl Service {
    /// The file of a job, in pieces of up to 256 KiB.
    ///
    /// # Errors
    /// [`Error::ReportNotFound`] where the account has none of this id, [`Error::ReportWithoutFile`] where it is not done, or
    /// over its time. The stream ends with that where the file goes meanwhile.
    pub async fn download_usage_report(
        &self,
        account: AccountId,
        job_id: ReportJobId,
    ) -> Result<impl Stream<Item = Result<Vec<u8>, Error>> + Send + use<>, Error> {
        let job = self.get_usage_report_job(account, job_id).await?;
        let state = job.state_at(self.db.clock().now());
        if state != ReportJobState::Done {
            return Err(Error::ReportWithoutFile { state });
        }
        let download = Download {
            service: self.clone(),
            job,
            place: 0,
        };
        Ok(stream::try_unfold(download, Download::next))
    }
}
