//! Child processes that do not outlive us.

use std::io;
use std::net::SocketAddr;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError, mpsc};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::time::{Instant, sleep};

const POLL: Duration = Duration::from_millis(20);

/// A server process. Dropping it kills it: what a test server holds is never missed.
#[derive(Debug)]
pub(in crate::harness) struct Process {
    child: Child,
}

impl Process {
    /// Starts `program` with what `set_up` adds. Where `setpriv` is there (Linux), the kernel kills
    /// the process when ours ends, even by a kill.
    pub(in crate::harness) fn start(program: &str, set_up: impl FnOnce(&mut Command)) -> Result<Self> {
        let mut command = if death_signal_available() {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--", program]);
            command
        } else {
            Command::new(program)
        };
        command.stdin(Stdio::null());
        set_up(&mut command);
        // Its own group, so that a Ctrl-C for the tests does not end servers in the middle of one.
        std::os::unix::process::CommandExt::process_group(&mut command, 0);
        let child = spawn(command).with_context(|| format!("cannot run {program}"))?;
        Ok(Self { child })
    }

    /// Its process id.
    pub(in crate::harness) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub(in crate::harness) fn signal(&mut self, signal: Signal) -> Result<()> {
        ensure!(self.child.try_wait()?.is_none(), "the process has ended already");
        // It cannot be somebody else: its process id is ours until we have waited for it.
        kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?;
        Ok(())
    }

    /// Waits for its end.
    pub(in crate::harness) async fn ended(&mut self) -> Result<ExitStatus> {
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            sleep(POLL).await;
        }
    }

    /// Waits until `ready` succeeds, while the process lives.
    pub(in crate::harness) async fn becomes_ready<R>(
        &mut self,
        patience: Duration,
        ready: impl Fn() -> R,
    ) -> Result<()>
    where
        R: Future<Output = Result<()>>,
    {
        let since = Instant::now();
        loop {
            let Err(error) = ready().await else {
                return Ok(());
            };
            if let Some(status) = self.child.try_wait()? {
                bail!("it ended before it answered ({status})");
            }
            if since.elapsed() > patience {
                return Err(error.context(format!("it did not answer within {} s", patience.as_secs())));
            }
            sleep(POLL).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Opens a connection to a loopback server and gives up soon.
pub(in crate::harness) async fn connect(address: SocketAddr) -> Result<tokio::net::TcpStream> {
    let connected =
        tokio::time::timeout(Duration::from_secs(2), tokio::net::TcpStream::connect(address)).await;
    Ok(connected.context("no connection within 2 s")??)
}

type Order = (Command, mpsc::Sender<io::Result<Child>>);

/// Spawns from one thread that lives as long as the process: the kernel sends a parent-death signal
/// when the *thread* that spawned the child ends, and a test's runtime ends long before its process.
fn spawn(command: Command) -> Result<Child> {
    static SPAWNER: OnceLock<Mutex<mpsc::Sender<Order>>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (orders, inbox) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in inbox {
                // Whoever ordered it waits for the answer.
                let _ = answer.send(command.spawn());
            }
        });
        Mutex::new(orders)
    });
    let (answer, outcome) = mpsc::channel();
    spawner
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .send((command, answer))
        .ok();
    Ok(outcome.recv().context("the spawning thread is gone")??)
}

fn death_signal_available() -> bool {
    static AVAILABLE: OnceLock<bool> = OnceLock::new();
    *AVAILABLE.get_or_init(|| {
        cfg!(target_os = "linux")
            && Command::new("setpriv")
                .args(["--pdeathsig", "KILL", "--", "true"])
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|status| status.success())
    })
}
