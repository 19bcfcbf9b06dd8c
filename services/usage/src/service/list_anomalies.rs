//! `ListAnomalies`: hours whose use was out of the ordinary, newest first.

use jiff::Timestamp;
use octroi_kit::db::{DatabaseError, Scope};

use super::Service;
use crate::{
    domain::anomaly::{AnomaliesQuery, Anomaly},
    error::Error,
    store,
};

impl Service {
    /// Up to `limit` of the anomalies that are asked for, the newest first, and until when hours were looked at.
    ///
    /// # Errors
    /// [`Error`] where the account or a metric does not exist.
    pub async fn list_anomalies(
        &self,
        query: AnomaliesQuery,
        limit: i64,
    ) -> Result<(Vec<Anomaly>, Option<Timestamp>), Error> {
        self.directory.get(&query.account).await?;
        self.catalog.with_all(&query.metrics).await?;
        self.db
            .transaction(Scope::Account(query.account.clone()), move |connection| {
                Box::pin(async move {
                    let anomalies = store::list_anomalies(connection, &query, limit).await?;
                    let looked_until = store::find_looked_until(connection).await?;
                    Ok::<_, DatabaseError>((anomalies, looked_until))
                })
            })
            .await
            .map_err(Error::from)
    }
}
