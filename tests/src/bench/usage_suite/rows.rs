//! Rows that many cases have.

use anyhow::Result;

use super::rig::{QUOTA, USAGE};
use crate::bench::{
    load::Round,
    naive::CLIENT,
    report::{Report, Unit},
    rounds::{Figure, Series},
    stores::{POSTGRES, RABBITMQ},
};

/// The floors of a group.
pub(super) struct Floors<'s> {
    pub(super) pgbench: &'s Series,
    pub(super) copy: &'s Series,
}

impl Floors<'_> {
    /// Their rates, and what a million rows cost.
    pub(super) fn add(&self, report: &mut Report) -> Result<()> {
        for series in [self.pgbench, self.copy] {
            let name = &series.name;
            let rate = series.figure(Round::decisions_per_s);
            report.add(name, Unit::EventsPerSecond, &rate)?;
            for meter in [CLIENT, POSTGRES] {
                add_cpu(report, series, meter)?;
            }
        }
        Ok(())
    }

    /// A case of recording beside them: its rates count only where `keeps_up`.
    pub(super) fn add_case(&self, report: &mut Report, series: &Series, keeps_up: bool) -> Result<()> {
        for (floor, of) in [("pgbench", self.pgbench), ("COPY", self.copy)] {
            let rate = series.figure_against(of, Round::decisions_per_s);
            let case = format!("{}: of {floor}", series.name);
            report.add_where(&case, Unit::EventsPerSecond, &rate, keeps_up)?;
        }
        Ok(())
    }
}

/// What a million events cost whom.
pub(super) fn add_costs(report: &mut Report, series: &Series) -> Result<()> {
    let client = series.figure(Round::generator_us_per_item);
    let case = format!("{}: CPU of the generator", series.name);
    report.add(&case, Unit::CpuSecondsPerMillion, &client)?;
    for meter in [USAGE, POSTGRES, QUOTA, RABBITMQ] {
        add_cpu(report, series, meter)?;
    }
    Ok(())
}

/// What a million events cost one.
pub(super) fn add_cpu(report: &mut Report, series: &Series, meter: &str) -> Result<()> {
    let figure = series.figure(|round| round.cpu_us_per_item(meter));
    let case = format!("{}: CPU of {meter}", series.name);
    report.add(&case, Unit::CpuSecondsPerMillion, &figure)
}

/// How long callers wait.
pub(super) fn add_latencies(report: &mut Report, series: &Series) -> Result<()> {
    for (quantile, per_mille) in [("p50", 500), ("p99", 990)] {
        let figure = series.figure(|round| round.latency_us(per_mille));
        let case = format!("{}: {quantile}", series.name);
        report.add(&case, Unit::Micros, &figure)?;
    }
    Ok(())
}

/// How long the rollups needed after each round, once nothing more came.
pub(super) fn add_summed_after(
    report: &mut Report,
    name: &str,
    summed_after: &[std::time::Duration],
) -> Result<()> {
    let figure = Figure::all(summed_after.iter().map(std::time::Duration::as_secs_f64));
    let case = format!("{name}: until the rollups have it");
    report.add(&case, Unit::Seconds, &figure)
}
