//! Where the keeper and the tests of one checkout meet: locks, the lease, and the answers.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail, ensure};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use super::{Backend, IDLE_MAX, Kind, check};

/// The program that calls [`super::keep`].
const KEEPER: &str = "octroi-test-backends";

/// How long a server may take until it answers: RabbitMQ needs 20 s on two busy cores, and a first
/// container needs its image.
const ANSWER_MAX: Duration = Duration::from_secs(300);

/// How often a tenant who waits looks whether there is still somebody to wait for.
const KEEPER_CHECK: Duration = Duration::from_secs(1);

const KEEPER_START_MAX: Duration = Duration::from_secs(20);
const POLL: Duration = Duration::from_millis(20);

/// A directory that the keeper and its tenants share.
#[derive(Clone, Debug)]
pub struct Place {
    dir: PathBuf,
}

/// What the keeper says about a server.
#[derive(Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Answer {
    Ready(Backend),
    Refused(String),
}

impl Place {
    /// The place that all tests of this checkout share. It is in the system's temporary directory and
    /// not under `target/`, because a lesser user than root must be able to pass through to it.
    ///
    /// # Errors
    /// When the directory cannot be made, or belongs to somebody else.
    pub fn of_this_checkout() -> Result<Self> {
        let checkout = checkout();
        let digest = hex::encode(Sha256::digest(checkout.as_os_str().as_encoded_bytes()));
        let name = format!(
            "octroi-backends-{}-{}",
            nix::unistd::geteuid(),
            digest.get(..12).unwrap_or_default()
        );
        Self::at(&std::env::temp_dir().join(name))
    }

    /// A place in `dir`, which is made where there is none.
    ///
    /// # Errors
    /// When the directory cannot be made, or belongs to somebody else.
    pub fn at(dir: &Path) -> Result<Self> {
        let created = DirBuilder::new().recursive(true).mode(0o711).create(dir);
        created.with_context(|| format!("cannot create {}", dir.display()))?;
        // The name can be guessed, so somebody else may have been here first.
        let metadata = fs::symlink_metadata(dir)?;
        ensure!(
            metadata.is_dir() && metadata.uid() == nix::unistd::geteuid().as_raw(),
            "{} is not a directory of ours: remove it",
            dir.display()
        );
        // Whatever the umask says: from root, PostgreSQL runs as somebody else and has to pass here.
        fs::set_permissions(dir, fs::Permissions::from_mode(0o711))?;
        Ok(Self { dir: dir.to_owned() })
    }

    /// Where the files of a server go.
    pub(super) fn server(&self, kind: Kind) -> PathBuf {
        self.dir.join(kind.name())
    }

    fn answer(&self, kind: Kind) -> PathBuf {
        self.dir.join(format!("{}.json", kind.name()))
    }

    fn wish(&self, kind: Kind) -> PathBuf {
        self.dir.join(format!("{}.wanted", kind.name()))
    }

    fn log(&self) -> PathBuf {
        self.dir.join("keeper.log")
    }

    fn lock_file(&self, name: &str) -> Result<File> {
        let path = self.dir.join(name);
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .with_context(|| format!("cannot open {}", path.display()))
    }

    /// The file that tenants lock together and the keeper, at the end, alone.
    pub(super) fn lease(&self) -> Result<File> {
        self.lock_file("lease")
    }

    /// Marks this process as the keeper for as long as the file is open.
    pub(super) fn become_keeper(&self) -> Result<File> {
        let mut file = self.lock_file("keeper.lock")?;
        // Waits at most for somebody who just looks whether a keeper lives.
        file.lock().context("cannot become the keeper")?;
        file.set_len(0)?;
        write!(file, "{}", std::process::id())?;
        Ok(file)
    }

    /// Only asked under the start lock, so that two who look do not take each other for the keeper.
    fn keeper_lives(&self) -> Result<bool> {
        match self.lock_file("keeper.lock")?.try_lock() {
            Ok(()) => Ok(false),
            Err(TryLockError::WouldBlock) => Ok(true),
            Err(TryLockError::Error(error)) => Err(error).context("cannot look for the keeper"),
        }
    }

    /// The process of the keeper that lives here, or last did, for whoever wants to end it.
    #[must_use]
    pub fn keeper(&self) -> Option<u32> {
        fs::read_to_string(self.dir.join("keeper.lock"))
            .ok()?
            .parse()
            .ok()
    }

    pub(super) fn wanted(&self, kind: Kind) -> bool {
        self.wish(kind).exists()
    }

    /// Takes a wish as answered, so that the next one is seen as new.
    pub(super) fn fulfil(&self, kind: Kind) {
        // Where it is gone already, somebody has cleared the place.
        let _ = fs::remove_file(self.wish(kind));
    }

    pub(super) fn publish(&self, kind: Kind, outcome: &Result<Backend>) -> Result<()> {
        let answer = match outcome {
            Ok(backend) => Answer::Ready(backend.clone()),
            Err(error) => Answer::Refused(format!("{error:#}")),
        };
        let draft = self.dir.join(format!("{}.draft", kind.name()));
        // It carries credentials, and the directory can be passed through by all.
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&draft)?;
        serde_json::to_writer(&file, &answer)?;
        fs::rename(draft, self.answer(kind))?;
        Ok(())
    }

    pub(super) fn withdraw(&self, kind: Kind) {
        // Where there was no answer there is none to take back.
        let _ = fs::remove_file(self.answer(kind));
    }

    /// Forgets what an earlier keeper left.
    pub(super) fn clear(&self) -> Result<()> {
        for kind in Kind::ALL {
            self.withdraw(kind);
            self.fulfil(kind);
            let files = self.server(kind);
            match fs::remove_dir_all(&files) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error).with_context(|| format!("cannot remove {}", files.display()));
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn read_answer(&self, kind: Kind) -> Option<Answer> {
        // It is renamed into place whole, so a file that cannot be read is one that is not there.
        serde_json::from_slice(&fs::read(self.answer(kind)).ok()?).ok()
    }

    /// Makes sure that a keeper lives, starting one if need be.
    fn ensure_keeper(&self, idle_max: Duration) -> Result<()> {
        let start = self.lock_file("start.lock")?;
        start
            .lock()
            .context("cannot wait for another test that starts the keeper")?;
        if self.keeper_lives()? {
            return Ok(());
        }
        self.clear()?;
        let log = File::create(self.log())?;
        let program = keeper_program()?;
        // In its own group, and with its own output: a runner that ends a test with all its children,
        // or waits until its output closes, must not end or wait for the keeper.
        let mut keeper = Command::new(&program)
            .arg(&self.dir)
            .arg(idle_max.as_secs().to_string())
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .process_group(0)
            .current_dir(checkout())
            .spawn()
            .with_context(|| format!("cannot run {}", program.display()))?;
        let mut waited = Duration::ZERO;
        while waited < KEEPER_START_MAX {
            if self.keeper_lives()? {
                return Ok(());
            }
            if let Some(status) = keeper.try_wait()? {
                bail!(
                    "the keeper of the test back ends ended at once ({status}): {}",
                    self.last_words()
                );
            }
            std::thread::sleep(POLL);
            waited += POLL;
        }
        bail!(
            "the keeper of the test back ends did not start: {}",
            self.last_words()
        )
    }

    fn last_words(&self) -> String {
        let log = fs::read_to_string(self.log()).unwrap_or_default();
        log.lines().next_back().unwrap_or("it said nothing").to_owned()
    }
}

/// A process that uses the servers of a place. They stay for as long as it holds its lease.
#[derive(Debug)]
pub struct Tenant {
    place: Place,
    idle_max: Duration,
    /// Locked together with other tenants; the kernel unlocks it however this process ends.
    _lease: File,
}

impl Tenant {
    /// This process's tenancy in the place of its checkout.
    ///
    /// # Errors
    /// When the place cannot be used.
    pub fn of_this_checkout() -> Result<&'static Self> {
        static TENANT: OnceLock<Tenant> = OnceLock::new();
        if let Some(tenant) = TENANT.get() {
            return Ok(tenant);
        }
        // Two tests may come here at once; a second lease of the same process does no harm.
        let tenant = Self::move_in(Place::of_this_checkout()?, IDLE_MAX)?;
        Ok(TENANT.get_or_init(|| tenant))
    }

    /// Takes a lease of `place`, whose keeper, if this starts it, goes when nobody has had one for
    /// `idle_max`. Waits for a keeper that is just on its way out.
    ///
    /// # Errors
    /// When the lease cannot be had.
    pub fn move_in(place: Place, idle_max: Duration) -> Result<Self> {
        let lease = place.lease()?;
        lease
            .lock_shared()
            .context("cannot take a lease of the test back ends")?;
        Ok(Self {
            place,
            idle_max,
            _lease: lease,
        })
    }

    /// Asks for a server and waits until it answers.
    ///
    /// # Errors
    /// The keeper's refusal, which says what to install, or that it took too long.
    pub async fn ask(&self, kind: Kind) -> Result<Backend> {
        if let Some(Answer::Refused(_)) = self.place.read_answer(kind) {
            // What stood in the way for an earlier test may have been put right since.
            self.place.withdraw(kind);
        }
        let since = Instant::now();
        while since.elapsed() < ANSWER_MAX {
            // Again and again, as the keeper may end while we wait.
            self.place.ensure_keeper(self.idle_max)?;
            File::create(self.place.wish(kind))?;
            if let Some(backend) = self.wait_for_answer(kind).await? {
                return Ok(backend);
            }
        }
        bail!(
            "{kind} did not answer within {} s: {}",
            ANSWER_MAX.as_secs(),
            self.place.last_words()
        )
    }

    async fn wait_for_answer(&self, kind: Kind) -> Result<Option<Backend>> {
        let since = Instant::now();
        while since.elapsed() < KEEPER_CHECK {
            match self.place.read_answer(kind) {
                Some(Answer::Ready(backend)) if check(kind, &backend.url).await.is_ok() => {
                    return Ok(Some(backend));
                }
                Some(Answer::Refused(why)) => return Err(anyhow!(why)),
                // Not there yet, or just being brought back.
                _ => sleep(POLL).await,
            }
        }
        Ok(None)
    }
}

/// The root of the checkout that this was built from.
fn checkout() -> &'static Path {
    let crate_dir = Path::new(env!("CARGO_MANIFEST_DIR"));
    crate_dir.parent().unwrap_or(crate_dir)
}

/// The keeper lies beside the test binary, or, as that is in `deps/`, one above.
fn keeper_program() -> Result<PathBuf> {
    let us = std::env::current_exe()?;
    us.ancestors()
        .skip(1)
        .take(2)
        .map(|dir| dir.join(KEEPER))
        .find(|path| path.is_file())
        .with_context(|| format!("{KEEPER} is not built: run `cargo build --workspace --bins`"))
}
