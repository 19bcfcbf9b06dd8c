//! What the benches stand on: a generator of load that costs next to nothing, something to compare with, and
//! a report that computes for itself whether targets are met.
//!
//! # The way of a figure
//!
//! 1. [`pin`] gives the server its cores and the generator its own.
//! 2. [`load`] runs a [`Case`](load::Case): so many connections with so many requests open on each, sent as
//!    [`traffic`] writes them over `http2`, for a fixed time. The answers are read and counted, latencies go
//!    into a [`histogram`], and [`cpu`] says who worked how much. That is a [`Round`](load::Round).
//! 3. [`rounds`] has the sides of a comparison take turns, makes void rounds again, and takes the median.
//! 4. [`report`] prints and writes the rows.
//!
//! [`usage`] is the traffic of usage, and [`naive`] is the table that it is compared with. [`quota`] is the traffic of quota; [`floor`] is a server that does nothing, which is what everything on
//! tonic is compared with, and [`route`] is the same behind our own layers. `proc` reads what Linux knows; nothing
//! here runs elsewhere.
//!
//! [`suite`] is what `make bench-quota` runs: its cases, and what they must reach. [`usage_suite`] is the same of
//! `make bench-usage`.
//!
//! # A bench
//!
//! ```no_run
//! use octroi_proto::quota::v1::CheckMode;
//! use octroi_tests::bench::{
//!     cpu::Meter,
//!     floor::{self, Floor, Shape},
//!     load::{self, Case, Round},
//!     pin::{self, Cores},
//!     quota::Checks,
//!     report::{Report, Target, Unit},
//!     rounds::{self, Side},
//! };
//!
//! const TARGETS: [Target; 1] = [Target { case: "check_quota PEEK, of the floor", bound: 0.9 }];
//!
//! # fn start_octroi() -> anyhow::Result<(std::net::SocketAddr, u32, String)> { anyhow::bail!("") }
//! # fn now() -> jiff::Timestamp { jiff::Timestamp::UNIX_EPOCH }
//! fn main() -> anyhow::Result<()> {
//!     if floor::serve_if_asked()? {
//!         return Ok(());
//!     }
//!     let cores = Cores::share_out(1)?;
//!     // All that starts from here on stays on the server's core, and sees no other: a service makes a thread
//!     // for each core that it sees. The generator moves itself to its own.
//!     pin::this_thread(&cores.server)?;
//!     let mut report = Report::new("quota", &Report::dir(), &TARGETS)?;
//!     let floor = Floor::start(Shape::PerCore, &cores.server)?;
//!     let (address, pid, token) = start_octroi()?;
//!
//!     let floor_case = Case {
//!         cores: Some(cores.clone()),
//!         meters: vec![Meter::process("server", floor.pid())],
//!         ..Case::new(floor.address)
//!     };
//!     let case = Case {
//!         address,
//!         token: Some(token),
//!         meters: vec![Meter::process("server", pid)],
//!         ..floor_case.clone()
//!     };
//!     let accounts = ["demo".to_owned()];
//!     let checks = |run| Checks::new(run, "api.requests", &accounts, CheckMode::Peek, 3);
//!     let (mut floor_checks, mut checks) = (checks(1), checks(2));
//!     let [floor, ours] = rounds::interleaved(
//!         5,
//!         [
//!             Side::new("floor", || load::run(&floor_case, &mut floor_checks)),
//!             Side::new("check_quota PEEK", || load::run(&case, &mut checks)),
//!         ],
//!     )?;
//!     let figure = ours.figure_against(&floor, Round::requests_per_s);
//!     report.add("check_quota PEEK, of the floor", Unit::RequestsPerSecond, &figure)?;
//!     let p99 = ours.figure(|round| round.latency_us(990));
//!     report.add("check_quota PEEK, p99", Unit::Micros, &p99)?;
//!     report.note_rounds([&floor, &ours]);
//!     report.finish(now())
//! }
//! ```

mod accounts;
pub mod counted;
pub mod cpu;
pub mod floor;
pub mod histogram;
mod http2;
pub mod layer;
pub mod load;
pub mod naive;
mod page;
pub mod pin;
mod proc;
pub mod quota;
pub mod report;
pub mod rounds;
pub mod route;
mod served;
pub mod stores;
pub mod suite;
pub mod traffic;
pub mod usage;
pub mod usage_suite;
