//! What can stand in the way of a private PostgreSQL, each as one sentence for the operator.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a private PostgreSQL could not be started or prepared.
#[derive(Debug)]
pub enum Error {
    /// There are no binaries to run.
    Binaries(BinariesError),
    /// There is no user that can run them.
    User(UserError),
    /// Another process holds the data directory.
    DataDirInUse {
        /// The data directory.
        data_dir: PathBuf,
        /// The process that holds it, as far as its lock file says.
        holder: String,
    },
    /// The instance is there, but the file with its password is not, or no longer opens it.
    Password {
        /// The password file.
        path: PathBuf,
    },
    /// `initdb` failed.
    Initdb {
        /// Its last words.
        output: String,
    },
    /// The server ended before it answered.
    Start {
        /// Its last words.
        last_line: String,
        /// Where the rest is.
        log: PathBuf,
    },
    /// The server runs but did not answer in time.
    Silent {
        /// How long was waited.
        waited_s: u64,
        /// Where its log is.
        log: PathBuf,
    },
    /// A PostgreSQL left behind in the data directory does not go away.
    LeftoverStays {
        /// One of its processes.
        pid: i32,
        /// The instance's directory.
        data: PathBuf,
    },
    /// A database or service name that cannot be an identifier.
    Name {
        /// The name.
        name: String,
    },
    /// The file system refused.
    Io {
        /// What was tried, as a verb.
        doing: &'static str,
        /// On what.
        path: PathBuf,
        /// What it answered.
        source: io::Error,
    },
    /// A statement or a connection failed.
    Sql {
        /// What was tried.
        doing: &'static str,
        /// What the server answered.
        source: Box<sqlx::Error>,
    },
    /// No port was free.
    NoPort {
        /// What the system answered.
        source: io::Error,
    },
    /// No thread could be started for the supervisor.
    Thread {
        /// What the system answered.
        source: io::Error,
    },
    /// The supervisor's thread ended without saying why, which is a defect.
    SupervisorLost,
}

impl Error {
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }

    pub(super) fn sql(doing: &'static str) -> impl FnOnce(sqlx::Error) -> Self {
        move |source| Self::Sql {
            doing,
            source: Box::new(source),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Binaries(error) => error.fmt(f),
            Self::User(error) => error.fmt(f),
            Self::DataDirInUse { data_dir, holder } => write!(
                f,
                "another octroi ({holder}) already uses the data directory {}: stop it, or give this one \
                 its own with OCTROI_DATA_DIR",
                data_dir.display()
            ),
            Self::Password { path } => write!(
                f,
                "the private PostgreSQL does not open with the password in {}: restore that file, or move \
                 the postgres directory beside it away to begin anew",
                path.display()
            ),
            Self::Initdb { output } => write!(f, "initdb could not make the private PostgreSQL: {output}"),
            Self::Start { last_line, log } => {
                write!(
                    f,
                    "the private PostgreSQL did not start: {last_line} (more in {})",
                    log.display()
                )
            }
            Self::Silent { waited_s, log } => write!(
                f,
                "the private PostgreSQL runs but did not answer within {waited_s} s (more in {})",
                log.display()
            ),
            Self::LeftoverStays { pid, data } => write!(
                f,
                "an earlier PostgreSQL (process {pid}) still runs in {} and does not stop: end it first",
                data.display()
            ),
            Self::Name { name } => write!(
                f,
                "{name:?} cannot name a database or a service: 1 to 50 of a-z, 0-9 and _, a letter first"
            ),
            Self::Io { doing, path, source } => write!(f, "cannot {doing} {}: {source}", path.display()),
            Self::Sql { doing, source } => write!(f, "cannot {doing}: {source}"),
            Self::NoPort { source } => write!(f, "no free port on 127.0.0.1: {source}"),
            Self::Thread { source } => write!(f, "no thread for the private PostgreSQL: {source}"),
            Self::SupervisorLost => {
                f.write_str("the supervisor of the private PostgreSQL ended unexpectedly")
            }
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } | Self::NoPort { source } | Self::Thread { source } => Some(source),
            Self::Sql { source, .. } => Some(source),
            _ => None,
        }
    }
}

/// Why no binaries can be used.
#[derive(Debug)]
pub enum BinariesError {
    /// No directory on the ladder holds `initdb` and `postgres`.
    None {
        /// The places that were looked at.
        tried: Vec<String>,
    },
    /// The directory given by configuration does not hold a PostgreSQL that can be used.
    Given {
        /// The directory that was given.
        dir: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// The data directory was made by another major version than any binaries found.
    OtherVersion {
        /// The instance's directory.
        data: PathBuf,
        /// The major version that made it.
        data_major: String,
        /// The directory of the binaries.
        binaries: PathBuf,
        /// Their major version.
        binaries_major: u32,
    },
}

impl fmt::Display for BinariesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None { tried } => write!(
                f,
                "no PostgreSQL was found on this machine: install it (Debian: apt-get install postgresql; \
                 macOS: brew install postgresql), or run `make up`, which fetches one into .tools/, or set \
                 OCTROI_DATABASE__BIN to a directory with initdb and postgres; looked at: {}",
                tried.join(", ")
            ),
            Self::Given { dir, why } => {
                write!(f, "OCTROI_DATABASE__BIN={} cannot be used: {why}", dir.display())
            }
            Self::OtherVersion {
                data,
                data_major,
                binaries,
                binaries_major,
            } => write!(
                f,
                "{} was made by PostgreSQL {data_major}, but the binaries in {} are PostgreSQL \
                 {binaries_major}: set OCTROI_DATABASE__BIN to binaries of version {data_major}, or move the \
                 directory away",
                data.display(),
                binaries.display()
            ),
        }
    }
}

impl std::error::Error for BinariesError {}

impl From<BinariesError> for Error {
    fn from(error: BinariesError) -> Self {
        Self::Binaries(error)
    }
}

/// Why there is no user that can run PostgreSQL here.
#[derive(Debug)]
pub enum UserError {
    /// We are root, and the machine has no lesser user to run PostgreSQL as.
    NoLesserUser,
    /// The lesser user cannot pass through a directory on the way to something it needs.
    Unreachable {
        /// What the user has to reach.
        path: PathBuf,
        /// The directory that stops it.
        blocked_at: PathBuf,
        /// The user's name.
        user: String,
    },
    /// We are not root, and the instance belongs to somebody else.
    NotOurs {
        /// The instance's directory.
        data: PathBuf,
        /// The user id that owns it.
        owner: u32,
    },
}

impl fmt::Display for UserError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoLesserUser => f.write_str(
                "PostgreSQL refuses to run as root, and this machine has neither a user postgres nor a \
                 user nobody: create one, or run octroi as another user",
            ),
            Self::Unreachable {
                path,
                blocked_at,
                user,
            } => write!(
                f,
                "PostgreSQL refuses to run as root and would run as {user}, who may not pass through {} to \
                 reach {}: open that directory with `chmod o+x`, or choose another with OCTROI_DATA_DIR",
                blocked_at.display(),
                path.display()
            ),
            Self::NotOurs { data, owner } => write!(
                f,
                "{} belongs to user id {owner}: start octroi as that user, or choose another directory \
                 with OCTROI_DATA_DIR",
                data.display()
            ),
        }
    }
}

impl std::error::Error for UserError {}

impl From<UserError> for Error {
    fn from(error: UserError) -> Self {
        Self::User(error)
    }
}
