//! How far it is: a bar on a terminal, plain lines elsewhere; always on standard error.

use std::{
    io::{IsTerminal as _, Write as _},
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use super::report::grouped;

/// How often a plain line is written.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// What is shown while something goes on.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    total: u64,
    done: u64,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Bar(ProgressBar),
    Lines { start: Instant, last: Instant },
}

impl Progress {
    /// Begins to show how far `what`, such as "events sent", is on its way to `total`.
    pub fn start(what: &'static str, total: u64) -> Self {
        let shown = if std::io::stderr().is_terminal() {
            let style =
                ProgressStyle::with_template("{msg:>18} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
            let bar = ProgressBar::new(total).with_message(what);
            Shown::Bar(bar.with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
        } else {
            let now = Instant::now();
            Shown::Lines {
                start: now,
                last: now,
            }
        };
        Self {
            what,
            total,
            done: 0,
            shown,
        }
    }

    /// Some more of it is done.
    pub fn advance(&mut self, count: u64) {
        self.done += count;
        match &mut self.shown {
            Shown::Bar(bar) => bar.inc(count),
            Shown::Lines { start, last } => {
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    let (done, total) = (grouped(self.done), grouped(self.total));
                    say(&format!(
                        "{}: {done} of {total} after {} s",
                        self.what,
                        start.elapsed().as_secs()
                    ));
                }
            }
        }
    }

    /// It is over.
    pub fn finish(self) {
        if let Shown::Bar(bar) = self.shown {
            bar.finish_and_clear();
        }
    }
}

/// Tells the operator a line.
pub fn say(line: &str) {
    // Where nobody can read it, nothing is lost.
    drop(writeln!(std::io::stderr(), "{line}"));
}
