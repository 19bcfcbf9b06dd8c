//! What Linux says about processes and threads under `/proc`.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use nix::unistd::{SysconfVar, sysconf};

/// A process at one instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) parent: u32,
    /// CPU time of all its threads, those that have ended included.
    pub(super) cpu: Duration,
    /// CPU time of children that have ended and were waited for, and of theirs.
    pub(super) cpu_of_ended_children: Duration,
}

/// A thread's time since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ThreadTime {
    /// It ran.
    pub running: Duration,
    /// It could have run, but something else had the core.
    pub waiting: Duration,
}

/// What a process is and has used. The kernel counts in ticks of 10 ms, so this is for intervals of seconds.
pub(super) fn process(pid: u32) -> Result<Process> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("there is no process {pid}"))?;
    parse_stat(pid, &text, ticks_per_second()?).with_context(|| format!("{path} is not as expected: {text}"))
}

/// A process and everything that it started, and those started.
pub(super) fn tree(root: u32) -> Result<Vec<Process>> {
    let mut tree = vec![process(root)?];
    let all = processes()?;
    let mut index = 0;
    while let Some(parent) = tree.get(index).map(|one| one.pid) {
        tree.extend(all.iter().filter(|one| one.parent == parent));
        index += 1;
    }
    Ok(tree)
}

fn processes() -> Result<Vec<Process>> {
    let numbers = numbers("/proc")?.into_iter();
    // One that ended in between is none.
    Ok(numbers.filter_map(|pid| process(pid).ok()).collect())
}

/// How much memory a process has that is not swapped out.
pub(super) fn resident_bytes(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/statm");
    let text = fs::read_to_string(&path).with_context(|| format!("there is no process {pid}"))?;
    let pages: Option<u64> = text
        .split_whitespace()
        .nth(1)
        .and_then(|pages| pages.parse().ok());
    let pages = pages.with_context(|| format!("{path} is not as expected: {text}"))?;
    let page = sysconf(SysconfVar::PAGE_SIZE)?.context("the kernel does not say how long a page is")?;
    Ok(pages * u64::try_from(page)?)
}

/// The threads of a process.
pub(super) fn threads(pid: u32) -> Result<Vec<u32>> {
    numbers(&format!("/proc/{pid}/task")).with_context(|| format!("there is no process {pid}"))
}

/// The threads of this process whose names begin so.
pub(super) fn threads_named(prefix: &str) -> Result<Vec<u32>> {
    let name = |tid: &u32| fs::read_to_string(format!("/proc/self/task/{tid}/comm"));
    let mut threads = threads(std::process::id())?;
    threads.retain(|tid| name(tid).is_ok_and(|name| name.starts_with(prefix)));
    Ok(threads)
}

/// How long these cores were at work for anybody, the hypervisor included. The kernel only looks at each tick,
/// so this is for intervals of seconds.
pub(super) fn cores(cores: &[usize]) -> Result<Duration> {
    let text = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
    parse_cores(&text, cores, ticks_per_second()?).context("/proc/stat is not as expected")
}

/// The time of a thread of this process, in nanoseconds.
pub(super) fn thread_time(tid: u32) -> Result<ThreadTime> {
    read_thread_time(&format!("/proc/self/task/{tid}/schedstat"))
}

/// The time of the thread that asks.
pub(super) fn own_time() -> Result<ThreadTime> {
    read_thread_time("/proc/thread-self/schedstat")
}

fn read_thread_time(path: &str) -> Result<ThreadTime> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {path}"))?;
    let mut numbers = text.split_whitespace().map(str::parse);
    let mut next = || Some(Duration::from_nanos(numbers.next()?.ok()?));
    let time = next().zip(next());
    let (running, waiting) = time.with_context(|| format!("{path} is not as expected: {text}"))?;
    Ok(ThreadTime { running, waiting })
}

/// The entries of a directory that are numbers.
fn numbers(dir: &str) -> Result<Vec<u32>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        found.extend(
            entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse::<u32>().ok()),
        );
    }
    Ok(found)
}

fn ticks_per_second() -> Result<u64> {
    let ticks = sysconf(SysconfVar::CLK_TCK)?.context("the kernel does not say how long a tick is")?;
    Ok(u64::try_from(ticks)?)
}

/// Reads what proc(5) says of `/proc/<pid>/stat`. The second field is the program's name in brackets, and may
/// have brackets and spaces in it.
fn parse_stat(pid: u32, text: &str, ticks_per_second: u64) -> Option<Process> {
    let (_, fields) = text.rsplit_once(')')?;
    let fields: Vec<&str> = fields.split_whitespace().collect();
    // The first of these fields is the third of the file.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    let time = |ticks| duration(ticks, ticks_per_second);
    Some(Process {
        pid,
        parent: u32::try_from(number(4)?).ok()?,
        cpu: time(number(14)? + number(15)?),
        cpu_of_ended_children: time(number(16)? + number(17)?),
    })
}

/// Reads what proc(5) says of `/proc/stat`: a line a core, with the ticks of user, nice, system, idle, waiting
/// for a disk (idle too), interrupts, more interrupts, and what the hypervisor gave to others.
fn parse_cores(text: &str, cores: &[usize], ticks_per_second: u64) -> Option<Duration> {
    let mut sum = Duration::ZERO;
    for core in cores {
        let name = format!("cpu{core} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name))?;
        let ticks = line.split_whitespace().map(str::parse::<u64>);
        let ticks: Vec<u64> = ticks.collect::<Result<_, _>>().ok()?;
        let &[user, nice, system, _, _, irq, softirq, steal, ..] = ticks.as_slice() else {
            return None;
        };
        sum += duration(user + nice + system + irq + softirq + steal, ticks_per_second);
    }
    Some(sum)
}

fn duration(ticks: u64, ticks_per_second: u64) -> Duration {
    // Rounded down to a nanosecond.
    Duration::from_nanos(ticks * 1_000_000_000 / ticks_per_second)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_program_may_be_anything() {
        let text = "7 (a) b (c) S 3 7 7 0 -1 4194560 100 0 0 0 250 50 6 4 20 0 1 0 155743 3133440 358";
        let expected = Process {
            pid: 7,
            parent: 3,
            cpu: Duration::from_secs(3),
            cpu_of_ended_children: Duration::from_millis(100),
        };
        assert_eq!(parse_stat(7, text, 100), Some(expected));
        assert_eq!(parse_stat(7, "7 (a) S 3", 100), None);
    }

    #[test]
    fn a_core_is_at_work_where_it_is_not_idle() {
        let text =
            "cpu  9 9 9 9 9 9 9 9 0 0\ncpu0 1 2 4 800 900 8 16 32 0 0\ncpu1 100 0 0 7 7 0 0 0 0 0\nintr 5\n";
        assert_eq!(parse_cores(text, &[0], 100), Some(Duration::from_millis(630)));
        assert_eq!(
            parse_cores(text, &[0, 1], 100),
            Some(Duration::from_millis(1_630))
        );
        assert_eq!(parse_cores(text, &[2], 100), None);
    }

    #[test]
    fn a_thread_is_found_by_its_name_and_its_time_passes() {
        let builder = std::thread::Builder::new().name("proc-test-7".to_owned());
        let (to_begin, begun) = std::sync::mpsc::channel();
        let (to_end, end) = std::sync::mpsc::channel::<()>();
        let thread = builder.spawn(move || {
            to_begin.send(()).expect("somebody waits");
            end.recv()
        });
        let thread = thread.expect("a thread");
        // A thread gives itself its name.
        begun.recv().expect("it runs");
        let found = threads_named("proc-test-").expect("a list");
        assert_eq!(found.len(), 1);
        thread_time(found[0]).expect("it runs");
        drop(to_end);
        thread.join().expect("no panic").expect_err("nothing is sent");
        assert!(own_time().expect("we run").running > Duration::ZERO);
    }

    #[test]
    fn a_tree_has_its_root_and_its_children() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .expect("a process");
        let tree = tree(std::process::id()).expect("we run");
        assert_eq!(tree.first().map(|one| one.pid), Some(std::process::id()));
        assert!(tree.iter().any(|one| one.pid == child.id()));
        child.kill().and_then(|()| child.wait()).expect("it ends");
    }
}
