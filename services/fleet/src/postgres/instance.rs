//! The files of one private instance: where they are, and how they come to be.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::unistd::geteuid;

use super::SUPERUSER;
use super::binaries::Binaries;
use super::error::Error;
use super::user::RunAs;

/// Above this the log of earlier starts is set aside, so that it cannot fill a disk.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How much of the log's end is read for a last line.
const LOG_TAIL_BYTES: u64 = 4 * 1024;

/// The paths of an instance below an absolute data directory.
#[derive(Clone, Debug)]
pub(super) struct Instance {
    data_dir: PathBuf,
}

impl Instance {
    /// Makes the data directory where there is none.
    pub(super) fn at(data_dir: &Path) -> Result<Self, Error> {
        // What root makes on the way has to let the lesser user pass.
        let mode = if geteuid().is_root() { 0o711 } else { 0o700 };
        DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(data_dir)
            .map_err(Error::io("create", data_dir))?;
        let data_dir = data_dir.canonicalize().map_err(Error::io("resolve", data_dir))?;
        Ok(Self { data_dir })
    }

    pub(super) fn data_dir(&self) -> &Path {
        &self.data_dir
    }

    /// PostgreSQL's own directory.
    pub(super) fn cluster(&self) -> PathBuf {
        self.data_dir.join("postgres")
    }

    /// Where `initdb` works, so that a crash in the middle leaves nothing half made under the name.
    fn building(&self) -> PathBuf {
        self.data_dir.join("postgres.new")
    }

    pub(super) fn password_file(&self) -> PathBuf {
        self.data_dir.join("postgres.password")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.data_dir.join("postgres.log")
    }

    /// Takes the data directory for this process. The lock goes with the file, so the kernel gives
    /// it back even after a kill.
    pub(super) fn lock(&self) -> Result<File, Error> {
        let path = self.data_dir.join("postgres.lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut holder = String::new();
                // Only for the sentence; a lock file that cannot be read is no second failure.
                let _ = file.read_to_string(&mut holder);
                let holder = format!("process {}", holder.trim());
                return Err(Error::DataDirInUse {
                    data_dir: self.data_dir.clone(),
                    holder,
                });
            }
            Err(TryLockError::Error(error)) => return Err(Error::io("lock", &path)(error)),
        }
        file.set_len(0)
            .and_then(|()| write!(file, "{}", std::process::id()))
            .map_err(Error::io("write", &path))?;
        Ok(file)
    }

    /// The major version that made the instance, if there is one.
    pub(super) fn major(&self) -> Result<Option<String>, Error> {
        let path = self.cluster().join("PG_VERSION");
        match fs::read_to_string(&path) {
            Ok(version) => Ok(Some(version.trim().to_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", &path)(error)),
        }
    }

    /// Reads the superuser's password; on the very first start, makes it.
    pub(super) fn password(&self, new_instance: bool) -> Result<String, Error> {
        let path = self.password_file();
        match fs::read_to_string(&path) {
            Ok(password) if !password.trim().is_empty() => return Ok(password.trim().to_owned()),
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(Error::io("read", &path)(error));
            }
            _ if !new_instance => return Err(Error::Password { path }),
            _ => {}
        }
        let password = hex::encode(rand::random::<[u8; 32]>());
        let draft = self.data_dir.join("postgres.password.new");
        write_private(&draft, &password)?;
        fs::rename(&draft, &path).map_err(Error::io("write", &path))?;
        Ok(password)
    }

    /// Makes the instance. It appears under its name only when it is whole.
    pub(super) fn make(&self, binaries: &Binaries, run_as: &RunAs, password: &str) -> Result<(), Error> {
        let building = self.building();
        let password_file = self.data_dir.join("postgres.initdb");
        // C.UTF-8 knows letters beyond ASCII; older systems and macOS have only C.
        let mut outcome = Ok(());
        for locale in ["C.UTF-8", "C"] {
            remove_all(&building)?;
            DirBuilder::new()
                .mode(0o700)
                .create(&building)
                .map_err(Error::io("create", &building))?;
            run_as.own(&building)?;
            write_private(&password_file, password)?;
            run_as.own(&password_file)?;
            outcome = initdb(binaries, run_as, &building, &password_file, locale);
            fs::remove_file(&password_file).map_err(Error::io("remove", &password_file))?;
            if outcome.is_ok() {
                break;
            }
        }
        if outcome.is_err() {
            remove_all(&building)?;
            return outcome;
        }
        let cluster = self.cluster();
        fs::rename(&building, &cluster).map_err(Error::io("create", &cluster))?;
        // The new name itself has to survive a power cut, or the next start would begin anew.
        File::open(&self.data_dir)
            .and_then(|dir| dir.sync_all())
            .map_err(Error::io("sync", &self.data_dir))
    }

    /// Opens the log for appending, and says where this start begins in it.
    pub(super) fn open_log(&self) -> Result<(File, u64), Error> {
        let path = self.log();
        if fs::metadata(&path).is_ok_and(|metadata| metadata.len() > LOG_BYTES_MAX) {
            let aside = self.data_dir.join("postgres.log.1");
            fs::rename(&path, &aside).map_err(Error::io("set aside", &path))?;
        }
        let file = OpenOptions::new()
            .append(true)
            .create(true)
            .mode(0o600)
            .open(&path)
            .map_err(Error::io("open", &path))?;
        let bytes = file.metadata().map_err(Error::io("look at", &path))?.len();
        Ok((file, bytes))
    }

    /// The line that says why the server ended: the last fatal one since `from`, else the last one.
    pub(super) fn last_words(&self, from: u64) -> String {
        let said = read_tail(&self.log(), from).unwrap_or_default();
        let lines = || said.lines().rev().filter(|line| !line.trim().is_empty());
        let fatal = lines().find(|line| line.contains("FATAL:") || line.contains("PANIC:"));
        fatal
            .or_else(|| lines().next())
            .unwrap_or("it said nothing")
            .trim()
            .to_owned()
    }
}

fn initdb(
    binaries: &Binaries,
    run_as: &RunAs,
    building: &Path,
    password_file: &Path,
    locale: &str,
) -> Result<(), Error> {
    let mut command = server_command(&binaries.dir.join("initdb"), run_as, "KILL");
    let output = command
        .arg("--pgdata")
        .arg(building)
        .args([
            "--username",
            SUPERUSER,
            "--auth",
            "scram-sha-256",
            "--encoding",
            "UTF8",
        ])
        .args(["--locale", locale])
        .arg("--pwfile")
        .arg(password_file)
        .current_dir(building)
        .stdin(Stdio::null())
        .output()
        .map_err(Error::io("run", &binaries.dir.join("initdb")))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said
        .lines()
        .rev()
        .find(|line| line.contains("error:"))
        .or(said.lines().next_back());
    Err(Error::Initdb {
        output: last.unwrap_or("it said nothing").trim().to_owned(),
    })
}

/// A command for one of PostgreSQL's programs: as the right user, in an environment that does not
/// lead it elsewhere, and ended by `death_signal` when we are killed, where the system can do that.
pub(super) fn server_command(program: &Path, run_as: &RunAs, death_signal: &str) -> Command {
    let mut command = if death_signal_available() {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", death_signal, "--"]).arg(program);
        command
    } else {
        Command::new(program)
    };
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("PG")) {
            command.env_remove(name);
        }
    }
    // Its messages are read here, so they have to be in one language.
    command.env("LC_ALL", "C");
    run_as.apply(&mut command);
    command
}

/// Whether `setpriv` is here and knows parent-death signals; the one of BusyBox does not.
fn death_signal_available() -> bool {
    cfg!(target_os = "linux")
        && Command::new("setpriv")
            .args(["--pdeathsig", "INT", "--", "true"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success())
}

/// Writes a file that only we can read.
fn write_private(path: &Path, content: &str) -> Result<(), Error> {
    remove_all(path)?;
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .map_err(Error::io("create", path))?;
    file.write_all(content.as_bytes())
        .and_then(|()| file.sync_all())
        .map_err(Error::io("write", path))
}

/// Removes a file or a directory with all below it; nothing there is what was wanted.
fn remove_all(path: &Path) -> Result<(), Error> {
    let removed = match fs::symlink_metadata(path) {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(Error::io("remove", path)(error)),
        _ => Ok(()),
    }
}

fn read_tail(path: &Path, from: u64) -> io::Result<String> {
    let mut file = File::open(path)?;
    let end = file.metadata()?.len();
    file.seek(SeekFrom::Start(from.max(end.saturating_sub(LOG_TAIL_BYTES))))?;
    let mut bytes = Vec::new();
    file.take(LOG_TAIL_BYTES).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}
