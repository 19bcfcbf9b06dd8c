//! Rows that many cases have.

use anyhow::Result;

use super::rig::{LEDGER, SERVER};
use crate::bench::{
    load::Round,
    report::{Report, Unit},
    rounds::Series,
    stores::{POSTGRES, REDIS},
};

/// What one answer costs whom, where the case has those meters.
const OTHERS: [&str; 3] = [LEDGER, POSTGRES, REDIS];

/// How long callers wait.
pub(super) fn add_latencies(report: &mut Report, series: &Series) -> Result<()> {
    let name = &series.name;
    for (quantile, per_mille) in [("p50", 500), ("p99", 990)] {
        let figure = series.figure(|round| round.latency_us(per_mille));
        report.add(&format!("{name}: {quantile}"), Unit::Micros, &figure)?;
    }
    Ok(())
}

/// What the others beside the server do for it.
pub(super) fn add_others(report: &mut Report, series: &Series) -> Result<()> {
    for other in OTHERS {
        let figure = series.figure(|round| round.cpu_us_per_request(other));
        let case = format!("{}: CPU of {other}", series.name);
        report.add(&case, Unit::CpuMicrosPerRequest, &figure)?;
    }
    Ok(())
}

/// A server beside which cases are measured: its rate, its CPU, its latencies.
pub(super) fn add_base(report: &mut Report, series: &Series) -> Result<()> {
    let name = &series.name;
    let rate = series.figure(Round::requests_per_s);
    report.add(name, Unit::RequestsPerSecond, &rate)?;
    let cpu = series.figure(|round| round.cpu_us_per_request(SERVER));
    report.add(&format!("{name}: CPU"), Unit::CpuMicrosPerRequest, &cpu)?;
    add_latencies(report, series)
}

/// A case beside floor and route. Its rates count only where what it took was recorded.
pub(super) fn add_checks(
    report: &mut Report,
    series: &Series,
    [floor, route]: [&Series; 2],
    is_recorded: bool,
) -> Result<()> {
    let name = &series.name;
    let rate = Round::requests_per_s;
    for (base, of) in [("route", route), ("floor", floor)] {
        let figure = series.figure_against(of, rate);
        let case = format!("{name}: of the {base}");
        report.add_where(&case, Unit::RequestsPerSecond, &figure, is_recorded)?;
    }
    let cpu = series.figure_against(route, |round| round.cpu_us_per_request(SERVER));
    let case = format!("{name}: CPU of the route");
    report.add_where(&case, Unit::CpuMicrosPerRequest, &cpu, is_recorded)?;
    add_latencies(report, series)?;
    add_others(report, series)
}
