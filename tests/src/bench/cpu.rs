//! CPU time of whoever takes part in a case.

use std::time::Duration;

use anyhow::Result;

use super::proc;

pub use proc::ThreadTime;

/// Whose CPU time is measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// All threads of a process.
    Process(u32),
    /// A process and all that it starts, such as a PostgreSQL with its back ends.
    Tree(u32),
    /// Those threads of this process whose names begin so.
    Threads(String),
}

/// A name for the report, and whose time it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meter {
    /// What it is called.
    pub name: String,
    /// Whose time it is.
    pub who: Who,
}

impl Meter {
    /// The time of a process.
    #[must_use]
    pub fn process(name: &str, pid: u32) -> Self {
        Self::new(name, Who::Process(pid))
    }

    /// The time of a process and all that it starts.
    #[must_use]
    pub fn tree(name: &str, pid: u32) -> Self {
        Self::new(name, Who::Tree(pid))
    }

    /// The time of those threads of this process whose names begin with `prefix`. They must not end meanwhile.
    #[must_use]
    pub fn threads(name: &str, prefix: &str) -> Self {
        Self::new(name, Who::Threads(prefix.to_owned()))
    }

    fn new(name: &str, who: Who) -> Self {
        Self {
            name: name.to_owned(),
            who,
        }
    }

    /// The CPU time used so far. Only the difference of two readings means something.
    ///
    /// # Errors
    /// When somebody whose time it is has ended.
    pub fn read(&self) -> Result<Duration> {
        match &self.who {
            Who::Process(pid) => Ok(proc::process(*pid)?.cpu),
            // What a process used goes to its parent when it ends, so nothing is missed or counted twice.
            Who::Tree(pid) => Ok(proc::tree(*pid)?
                .iter()
                .map(|process| process.cpu + process.cpu_of_ended_children)
                .sum()),
            Who::Threads(prefix) => {
                let threads = proc::threads_named(prefix)?.into_iter();
                threads.map(|tid| Ok(proc::thread_time(tid)?.running)).sum()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tree_keeps_what_its_ended_children_used() {
        let shell = "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done";
        let meter = Meter::tree("us", std::process::id());
        let before = meter.read().expect("we run");
        let status = std::process::Command::new("sh").args(["-c", shell]).status();
        assert!(status.expect("a shell").success());
        assert!(
            meter.read().expect("we run") > before,
            "the shell's time is not lost"
        );
    }

    #[test]
    fn who_has_ended_cannot_be_measured() {
        // The kernel gives no process this number.
        assert!(Meter::process("nobody", u32::MAX).read().is_err());
    }
}
