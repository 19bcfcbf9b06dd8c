//! Takes an instance over from a server that an earlier `octroi` left behind when it was killed.
//!
//! A process counts as left behind only when it is a PostgreSQL that works inside this very
//! instance, so that a process id used again by somebody else is never signalled. Where the system
//! shows that under `/proc` it is read there; elsewhere `ps` is asked about the one process that
//! `postmaster.pid` names.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::error::Error;

const POLL: Duration = Duration::from_millis(20);

/// How long a fast stop may take; it includes a checkpoint.
const STOP_MAX: Duration = Duration::from_secs(10);

/// How long the children of a dead server may take: they notice its death by themselves.
const ORPHANS_MAX: Duration = Duration::from_secs(2);

/// How long a killed process may take to be gone.
const KILL_MAX: Duration = Duration::from_secs(5);

/// Ends whatever PostgreSQL still works in `cluster`, in an orderly way where its first process lives.
pub(super) fn clear(cluster: &Path) -> Result<(), Error> {
    let holders = processes_in(cluster);
    let named = named_in_pid_file(cluster);
    if holders.is_empty() {
        return forget_reused_pid(cluster, named);
    }
    let grace = match named {
        Some(postmaster) if holders.contains(&postmaster) => {
            tracing::warn!(
                process.id = postmaster.as_raw(),
                "stopping a PostgreSQL that an earlier octroi left behind"
            );
            signal(postmaster, Signal::SIGINT);
            STOP_MAX
        }
        _ => ORPHANS_MAX,
    };
    if wait_until_gone(cluster, grace).is_empty() {
        return Ok(());
    }
    // Safe for the data: with its first process dead, what is left can only be recovered anyway.
    for pid in processes_in(cluster) {
        signal(pid, Signal::SIGKILL);
    }
    match wait_until_gone(cluster, KILL_MAX).first() {
        None => Ok(()),
        Some(pid) => Err(Error::LeftoverStays {
            pid: pid.as_raw(),
            data: cluster.to_owned(),
        }),
    }
}

/// PostgreSQL refuses to start when the process that `postmaster.pid` names is alive, whatever that
/// process is; after a restart of a machine or a container it is often somebody else. We hold the lock
/// of the data directory, so such a file says nothing any more. When in doubt it stays: it is what
/// keeps two servers from writing to the same files.
fn forget_reused_pid(cluster: &Path, named: Option<Pid>) -> Result<(), Error> {
    let Some(pid) = named else {
        return Ok(());
    };
    if kill(pid, None).is_err() || look_at(pid, cluster) != Sight::Elsewhere {
        return Ok(());
    }
    let path = cluster.join("postmaster.pid");
    fs::remove_file(&path).map_err(Error::io("remove", &path))
}

fn signal(pid: Pid, signal: Signal) {
    // It may have ended in between, which is what the signal is for.
    let _ = kill(pid, signal);
}

fn wait_until_gone(cluster: &Path, patience: Duration) -> Vec<Pid> {
    let mut waited = Duration::ZERO;
    loop {
        let holders = processes_in(cluster);
        if holders.is_empty() || waited >= patience {
            return holders;
        }
        std::thread::sleep(POLL);
        waited += POLL;
    }
}

fn named_in_pid_file(cluster: &Path) -> Option<Pid> {
    let content = fs::read_to_string(cluster.join("postmaster.pid")).ok()?;
    let pid: i32 = content.lines().next()?.trim().parse().ok()?;
    (pid > 1).then(|| Pid::from_raw(pid))
}

/// The PostgreSQL processes that work in `cluster`.
fn processes_in(cluster: &Path) -> Vec<Pid> {
    let all: Vec<Pid> = match fs::read_dir("/proc") {
        Ok(entries) => entries
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .map(Pid::from_raw)
            .collect(),
        Err(_) => named_in_pid_file(cluster).into_iter().collect(),
    };
    all.into_iter()
        .filter(|pid| look_at(*pid, cluster) == Sight::Here)
        .collect()
}

/// What can be seen of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sight {
    /// A PostgreSQL that works in this instance.
    Here,
    /// Something else, or gone.
    Elsewhere,
    /// A PostgreSQL, of which the system does not show where it works.
    Unclear,
}

fn look_at(pid: Pid, cluster: &Path) -> Sight {
    let process = Path::new("/proc").join(pid.to_string());
    if !Path::new("/proc/self/comm").exists() {
        return ask_ps(pid, cluster);
    }
    let is_postgres = fs::read(process.join("comm")).is_ok_and(|name| name.starts_with(b"postgres"));
    if !is_postgres {
        return Sight::Elsewhere;
    }
    // Every process of PostgreSQL changes into the instance's directory and stays there. A container
    // may hide that of other users even from root; the command line is shown to everybody.
    match fs::read_link(process.join("cwd")) {
        Ok(directory) if directory == cluster => Sight::Here,
        Ok(_) => Sight::Elsewhere,
        Err(_) => {
            let command = fs::read(process.join("cmdline")).unwrap_or_default();
            names(&String::from_utf8_lossy(&command), cluster)
        }
    }
}

fn ask_ps(pid: Pid, cluster: &Path) -> Sight {
    let asked = Command::new("ps")
        .args(["-ww", "-o", "command=", "-p"])
        .arg(pid.to_string())
        .output();
    let command = asked.map(|output| output.stdout).unwrap_or_default();
    let command = String::from_utf8_lossy(&command);
    if command.contains("postgres") {
        names(&command, cluster)
    } else {
        Sight::Elsewhere
    }
}

/// Only the first process of an instance names it in its command line.
fn names(command: &str, cluster: &Path) -> Sight {
    match cluster.to_str() {
        Some(cluster) if command.contains(cluster) => Sight::Here,
        _ => Sight::Unclear,
    }
}
