//! Which cores somebody may run on.
//!
//! Server and generator must not share a core, or each is measured with the other's work in it. A thread
//! hands its cores down to all that it starts, threads and processes. So the surest way is to
//! [start](on) something where it belongs; what runs already is [moved](process).

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use nix::{
    sched::{CpuSet, sched_getaffinity, sched_setaffinity},
    unistd::Pid,
};

use super::proc;

/// How the cores of this machine are shared out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cores {
    /// For what is measured.
    pub server: Vec<usize>,
    /// For whoever sends the load.
    pub generator: usize,
}

impl Cores {
    /// One core for the generator, and `server` of the others for what is measured.
    ///
    /// # Errors
    /// When there are not so many.
    pub fn share_out(server: usize) -> Result<Self> {
        let mut ours = allowed()?;
        ensure!(
            server > 0 && ours.len() > server,
            "{server} cores for the server and one for the generator are needed, of {} that there are",
            ours.len()
        );
        let generator = ours.split_off(server)[0];
        Ok(Self {
            server: ours,
            generator,
        })
    }

    /// All of them.
    #[must_use]
    pub fn all(&self) -> Vec<usize> {
        let mut all = self.server.clone();
        all.push(self.generator);
        all
    }
}

/// The cores that this thread may run on.
///
/// # Errors
/// When the system does not say.
pub fn allowed() -> Result<Vec<usize>> {
    let set = sched_getaffinity(Pid::from_raw(0))?;
    let all = 0..CpuSet::count();
    Ok(all.filter(|core| set.is_set(*core).unwrap_or(false)).collect())
}

/// Lets this thread, and all that it starts from now on, run on `cores` only.
///
/// # Errors
/// When there are no such cores.
pub fn this_thread(cores: &[usize]) -> Result<()> {
    // The system takes 0 for the thread that asks.
    set(0, cores)
}

/// Does `work` on `cores`; what it starts stays there, and this thread goes back to its own.
///
/// # Errors
/// When there are no such cores.
pub fn on<T>(cores: &[usize], work: impl FnOnce() -> T) -> Result<T> {
    let before = allowed()?;
    this_thread(cores)?;
    let done = work();
    this_thread(&before)?;
    Ok(done)
}

/// Moves all threads of a process. What sizes itself by the number of its cores at its start has done so
/// already: start such a process with [`on`].
///
/// # Errors
/// When it has ended, or there are no such cores.
pub fn process(pid: u32, cores: &[usize]) -> Result<()> {
    let mut moved = BTreeSet::new();
    // A thread that was started meanwhile has the old cores if its parent had not been moved yet.
    loop {
        let threads = proc::threads(pid)?;
        let mut is_done = true;
        for tid in threads {
            if moved.insert(tid) {
                is_done = false;
                // It may have ended in between; the process is looked for again anyway.
                let _ = set(tid, cores);
            }
        }
        if is_done {
            return Ok(());
        }
    }
}

/// Moves a process and everything that it has started, such as a PostgreSQL with its back ends.
///
/// # Errors
/// When it has ended, or there are no such cores.
pub fn tree(pid: u32, cores: &[usize]) -> Result<()> {
    process(pid, cores)?;
    for child in proc::tree(pid)?.iter().skip(1) {
        // It may have ended in between.
        let _ = process(child.pid, cores);
    }
    Ok(())
}

fn set(tid: u32, cores: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core)
            .with_context(|| format!("there is no core {core}"))?;
    }
    let tid = Pid::from_raw(i32::try_from(tid)?);
    sched_setaffinity(tid, &set).with_context(|| format!("cannot run on the cores {cores:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_started_on_a_core_stays_there_and_we_go_back() {
        let before = allowed().expect("some");
        let core = before[before.len() - 1];
        let there = on(&[core], || std::thread::spawn(allowed)).expect("it is ours");
        assert_eq!(there.join().expect("no panic").expect("some"), [core]);
        assert_eq!(allowed().expect("some"), before);
    }

    #[test]
    fn a_process_is_moved() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("a process");
        let core = allowed().expect("some")[0];
        let moved = tree(child.id(), &[core]);
        let pid = Pid::from_raw(i32::try_from(child.id()).expect("small"));
        let set = sched_getaffinity(pid).expect("it runs");
        child.kill().and_then(|()| child.wait()).expect("it ends");
        moved.expect("it runs");
        let cores: Vec<usize> = (0..CpuSet::count())
            .filter(|core| set.is_set(*core).unwrap_or(false))
            .collect();
        assert_eq!(cores, [core]);
    }

    #[test]
    fn cores_that_are_not_there_are_refused() {
        assert!(this_thread(&[CpuSet::count()]).is_err());
        assert!(Cores::share_out(0).is_err());
        assert!(Cores::share_out(CpuSet::count()).is_err());
    }
}
