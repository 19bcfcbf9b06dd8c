//! `StreamUsageReport`: a report as CSV, page by page as it is read.

use futures::{Stream, stream};
use octroi_core::Violations;

use super::{Service, reports::Bounds};
use crate::{
    domain::{
        csv::Csv,
        report::{Position, Report, ReportQuery, write_header, write_row},
        report_job::CHUNK_BYTES_MAX,
    },
    error::Error,
};

/// A report that is being read.
struct Reading {
    service: Service,
    report: Report,
    csv: Csv,
    from: Option<Position>,
    over: bool,
}

impl Reading {
    /// The next bytes; none at the end. Whoever does not take them keeps no connection.
    async fn next(mut self) -> Result<Option<(Vec<u8>, Self)>, Error> {
        while self.csv.is_empty() {
            if self.over {
                return Ok(None);
            }
            let (report, from) = (&self.report, self.from.as_ref());
            let page = self.service.read_page(report, from, Bounds::STREAM).await?;
            for row in &page.rows {
                write_row(&mut self.csv, &self.report, row);
            }
            self.over = page.next.is_none();
            self.from = page.next;
        }
        let bytes = self.csv.take(CHUNK_BYTES_MAX);
        Ok(Some((bytes, self)))
    }
}

impl Service {
    /// A report as CSV, in pieces of up to 256 KiB.
    ///
    /// # Errors
    /// [`Error`] where account or metrics do not exist, or there are more rows than a call may have. The stream ends with one
    /// where a page cannot be read.
    pub async fn stream_usage_report(
        &self,
        query: ReportQuery,
    ) -> Result<impl Stream<Item = Result<Vec<u8>, Error>> + Send + use<>, Error> {
        let report = self.report(query, None).await?;
        check_rows(self.count_rows(&report).await?, self.reports.rows_max)?;
        let mut csv = Csv::default();
        write_header(&mut csv, &report.query);
        let reading = Reading {
            service: self.clone(),
            report,
            csv,
            from: None,
            over: false,
        };
        Ok(stream::try_unfold(reading, Reading::next))
    }
}

fn check_rows(rows: u64, rows_max: u64) -> Result<(), Violations> {
    let mut violations = Violations::default();
    if rows > rows_max {
        let rule =
            format!("must make a report of at most {rows_max} rows: it has {rows}; a job has no such bound");
        violations.add("query.end_time", rule);
    }
    violations.finish()
}
