//! `GenerateUsageReport`: a page of a report.

use octroi_kit::db::Scope;

use super::{Service, reports::Bounds};
use crate::{
    domain::report::{BucketRow, Cursor, Report, ReportQuery, Row},
    error::Error,
};

/// A page of a report.
#[derive(Clone, Debug)]
pub struct ReportPage {
    /// What it is of.
    pub report: Report,
    /// What the metrics come to over the range: of the first page alone.
    pub totals: Vec<BucketRow>,
    /// The rows.
    pub rows: Vec<Row>,
    /// Where the next page begins; none at the end.
    pub next: Option<Cursor>,
}

impl Service {
    /// Up to `limit` rows of a report, from the cursor on.
    ///
    /// # Errors
    /// [`Error`] where account or metrics do not exist, or the page has too many events to read.
    pub async fn generate_usage_report(
        &self,
        query: ReportQuery,
        cursor: Option<Cursor>,
        limit: usize,
    ) -> Result<ReportPage, Error> {
        let recorded_before = cursor.as_ref().map(|cursor| cursor.recorded_before);
        let report = self.report(query, recorded_before).await?;
        let _turn = self.reports.turn().await?;
        let service = self.clone();
        self.db
            .transaction(Scope::Account(report.query.account.clone()), move |connection| {
                Box::pin(async move {
                    let from = cursor.as_ref().map(|cursor| &cursor.position);
                    let page = service
                        .read(connection, &report, from, Bounds::page(limit))
                        .await?;
                    let totals = match &cursor {
                        None => service.totals(connection, &report).await?,
                        Some(_) => Vec::new(),
                    };
                    let next = page.next.map(|position| Cursor {
                        recorded_before: report.recorded_before,
                        position,
                    });
                    Ok(ReportPage {
                        report,
                        totals,
                        rows: page.rows,
                        next,
                    })
                })
            })
            .await
    }
}
