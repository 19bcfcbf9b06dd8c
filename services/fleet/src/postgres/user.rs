//! Who PostgreSQL runs as: it refuses root, so from root it runs as a lesser user.

use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::unistd::{Uid, User, geteuid};

use super::error::{Error, UserError};

/// Tried in this order, so that files are owned by a name that an operator expects.
const LESSER_USERS: [&str; 2] = ["postgres", "nobody"];

/// The user that runs PostgreSQL and owns its files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RunAs {
    /// We are not root: PostgreSQL runs as we do.
    Ourselves,
    /// We are root: PostgreSQL runs as this user.
    Lesser { name: String, uid: u32, gid: u32 },
}

impl RunAs {
    /// Decides for the instance in `cluster`, which need not exist yet. An instance that a lesser
    /// user made before keeps that user, so that the same data can be started with and without root.
    pub(super) fn choose(cluster: &Path) -> Result<Self, Error> {
        let owner = match fs::symlink_metadata(cluster) {
            Ok(metadata) => Some((metadata.uid(), metadata.gid())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(Error::io("look at", cluster)(error)),
        };
        let us = geteuid();
        match owner {
            Some((uid, _)) if !us.is_root() && uid != us.as_raw() => Err(UserError::NotOurs {
                data: cluster.to_owned(),
                owner: uid,
            }
            .into()),
            _ if !us.is_root() => Ok(Self::Ourselves),
            Some((uid, gid)) if uid != 0 => {
                let name = match User::from_uid(Uid::from_raw(uid)) {
                    Ok(Some(user)) => user.name,
                    _ => format!("user id {uid}"),
                };
                Ok(Self::Lesser { name, uid, gid })
            }
            _ => Self::lesser(),
        }
    }

    fn lesser() -> Result<Self, Error> {
        for name in LESSER_USERS {
            if let Ok(Some(user)) = User::from_name(name) {
                return Ok(Self::Lesser {
                    name: user.name,
                    uid: user.uid.as_raw(),
                    gid: user.gid.as_raw(),
                });
            }
        }
        Err(UserError::NoLesserUser.into())
    }

    /// The user's name, for people.
    pub(super) fn name(&self) -> String {
        match self {
            Self::Lesser { name, .. } => name.clone(),
            Self::Ourselves => match User::from_uid(geteuid()) {
                Ok(Some(user)) => user.name,
                _ => format!("user id {}", geteuid()),
            },
        }
    }

    /// Makes `command` run as this user. The standard library also drops root's other groups.
    pub(super) fn apply(&self, command: &mut Command) {
        if let Self::Lesser { uid, gid, .. } = self {
            command.uid(*uid).gid(*gid);
        }
    }

    /// Gives `path` and all below it to this user.
    pub(super) fn own(&self, path: &Path) -> Result<(), Error> {
        let Self::Lesser { uid, gid, .. } = self else {
            return Ok(());
        };
        let mut pending = vec![path.to_owned()];
        while let Some(path) = pending.pop() {
            // A link is given away itself, never what it points to.
            lchown(&path, Some(*uid), Some(*gid)).map_err(Error::io("give away", &path))?;
            let metadata = fs::symlink_metadata(&path).map_err(Error::io("look at", &path))?;
            if metadata.is_dir() {
                for entry in fs::read_dir(&path).map_err(Error::io("list", &path))? {
                    pending.push(entry.map_err(Error::io("list", &path))?.path());
                }
            }
        }
        Ok(())
    }

    /// Opens a directory of ours to passing through, not to reading: what is secret in it has its
    /// own mode.
    pub(super) fn open_to_pass(&self, dir: &Path) -> Result<(), Error> {
        if *self == Self::Ourselves {
            return Ok(());
        }
        let mode = fs::metadata(dir)
            .map_err(Error::io("look at", dir))?
            .permissions()
            .mode();
        if mode & 0o011 == 0o011 {
            return Ok(());
        }
        fs::set_permissions(dir, fs::Permissions::from_mode(mode | 0o011)).map_err(Error::io("open", dir))
    }

    /// Checks that this user can pass through every directory above `path`, which must be absolute.
    pub(super) fn check_reach(&self, path: &Path) -> Result<(), Error> {
        let Self::Lesser { name, uid, gid } = self else {
            return Ok(());
        };
        match first_closed_directory(path, *uid, *gid) {
            None => Ok(()),
            Some(blocked_at) => Err(UserError::Unreachable {
                path: path.to_owned(),
                blocked_at,
                user: name.clone(),
            }
            .into()),
        }
    }
}

/// The topmost directory above `path` that this user may not pass through. Modes alone decide:
/// access lists that open a directory further are rare enough that the sentence is worth more.
fn first_closed_directory(path: &Path, uid: u32, gid: u32) -> Option<PathBuf> {
    let mut above: Vec<&Path> = path.ancestors().skip(1).collect();
    above.reverse();
    above
        .into_iter()
        .find(|dir| {
            let Ok(metadata) = fs::metadata(dir) else {
                return true;
            };
            let bit = if metadata.uid() == uid {
                0o100
            } else if metadata.gid() == gid {
                0o010
            } else {
                0o001
            };
            metadata.mode() & bit == 0
        })
        .map(Path::to_owned)
}
