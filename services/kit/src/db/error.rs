//! What goes wrong between a service and its database, and when it is worth another try.

use octroi_core::{ErrorKind, ServiceError};
use octroi_proto::errors::v1::ErrorReason;

/// What went wrong between a service and its database.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// It cannot be reached, or has no connection left.
    #[error("the database cannot be reached")]
    Unavailable(#[source] sqlx::Error),
    /// Others hold what is needed, or the statement took too long; trying again may help.
    #[error("the database is busy")]
    Busy(#[source] sqlx::Error),
    /// A statement touched another number of rows than it must.
    #[error("expected {expected} rows, found {actual}")]
    RowsAffected {
        /// How many it must be.
        expected: u64,
        /// How many it was.
        actual: u64,
    },
    /// A row holds what it must not.
    #[error("a stored {what} cannot be read")]
    Corrupt {
        /// The noun.
        what: &'static str,
    },
    /// A statement is wrong or breaks a constraint that should have been checked before.
    #[error("a statement failed")]
    Statement(#[source] sqlx::Error),
    /// The process is stopping, and the work with it.
    #[error("the process is stopping")]
    Stopping,
    /// The task that worked on the database ended without an answer.
    #[error("the work on the database was ended")]
    Aborted,
}

impl DatabaseError {
    /// The same for another who waited for the same work; only its kind and its sentence can be shared.
    #[must_use]
    pub fn shared(&self) -> Self {
        let source = || sqlx::Error::Protocol(self.to_string());
        match self {
            Self::Unavailable(_) => Self::Unavailable(source()),
            Self::Busy(_) => Self::Busy(source()),
            Self::Stopping => Self::Stopping,
            Self::Aborted => Self::Aborted,
            Self::RowsAffected { .. } | Self::Corrupt { .. } | Self::Statement(_) => {
                Self::Statement(source())
            }
        }
    }
}

impl From<sqlx::Error> for DatabaseError {
    fn from(error: sqlx::Error) -> Self {
        match &error {
            sqlx::Error::Io(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed => Self::Unavailable(error),
            sqlx::Error::Database(database) => match database.code().as_deref() {
                // Serialization, deadlock, lock and statement timeouts.
                Some("40001" | "40P01" | "55P03" | "57014") => Self::Busy(error),
                // Connection exceptions, shutdowns, too many connections, no memory or disk, idle transactions
                // ended, and a primary that became a standby.
                Some(code)
                    if code.starts_with("08")
                        || code.starts_with("57P")
                        || code.starts_with("53")
                        || code == "25P03"
                        || code == "25006" =>
                {
                    Self::Unavailable(error)
                }
                _ => Self::Statement(error),
            },
            _ => Self::Statement(error),
        }
    }
}

impl ServiceError for DatabaseError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Unavailable(_) | Self::Busy(_) | Self::Stopping => ErrorKind::Unavailable,
            Self::RowsAffected { .. } | Self::Corrupt { .. } | Self::Statement(_) | Self::Aborted => {
                ErrorKind::Internal
            }
        }
    }

    fn reason(&self) -> &'static str {
        match self.kind() {
            ErrorKind::Unavailable => ErrorReason::DatabaseUnavailable.name(),
            _ => ErrorReason::Internal.name(),
        }
    }

    fn retry_after_s(&self) -> Option<u64> {
        (self.kind() == ErrorKind::Unavailable).then_some(1)
    }
}

/// Does `work`, and once more where others were in its way: two transactions that met new rows in another order do not
/// meet a second time.
///
/// # Errors
/// What `work` answered last.
pub async fn again_if_busy<T, F>(work: impl Fn() -> F) -> Result<T, DatabaseError>
where
    F: Future<Output = Result<T, DatabaseError>>,
{
    match work().await {
        Err(DatabaseError::Busy(_)) => work().await,
        other => other,
    }
}

/// Refuses a statement that touched another number of rows than it must.
///
/// # Errors
/// [`DatabaseError::RowsAffected`].
pub fn expect_rows(expected: u64, actual: u64) -> Result<(), DatabaseError> {
    if expected == actual {
        Ok(())
    } else {
        Err(DatabaseError::RowsAffected { expected, actual })
    }
}

/// What a stored value of the wrong form becomes; for `map_err`.
pub fn corrupt<E>(what: &'static str) -> impl FnOnce(E) -> DatabaseError {
    move |_| DatabaseError::Corrupt { what }
}
