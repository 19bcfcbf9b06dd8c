//! The file of a journal: records one behind the other, each with its length and a checksum. A record is in it as a
//! whole or not at all; what a crash left of the last one is cut off.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};

/// The length of a record's content, in 4 bytes, and the first 8 bytes of its SHA-256.
const HEAD_BYTES: usize = 12;
/// What the name of a journal ends with.
const SUFFIX: &str = "journal";
/// Who looks through a directory has this file in it locked.
const GATE: &str = "gate";

/// A file that this process alone writes.
#[derive(Debug)]
pub(super) struct JournalFile {
    file: File,
    path: PathBuf,
}

impl JournalFile {
    /// Waits until no other process looks through `dir` or makes a file there, and keeps others from it until what is
    /// returned is dropped. Without it, a file that is made but not locked yet is taken for one that was left behind.
    pub(super) fn alone_in(dir: &Path) -> io::Result<File> {
        let gate = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(dir.join(GATE))?;
        gate.lock()?;
        Ok(gate)
    }

    /// Makes a new file in `dir`, and locks it for as long as it is open. Only while [`alone_in`](Self::alone_in) it.
    pub(super) fn create(dir: &Path, name: &str) -> io::Result<Self> {
        let path = dir.join(name).with_extension(SUFFIX);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        file.try_lock()?;
        // Its name must be there after a crash, as what is in it.
        File::open(dir)?.sync_all()?;
        Ok(Self { file, path })
    }

    /// The files in `dir` that processes left behind that are no more. Only while [`alone_in`](Self::alone_in) it.
    pub(super) fn left_behind(dir: &Path) -> io::Result<Vec<Self>> {
        let mut left = Vec::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            if path.extension().is_none_or(|extension| extension != SUFFIX) {
                continue;
            }
            let file = match OpenOptions::new().read(true).write(true).open(&path) {
                // Whoever ended just now took it along.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                opened => opened?,
            };
            // Whoever lives has it locked.
            if file.try_lock().is_ok() {
                left.push(Self { file, path });
            }
        }
        Ok(left)
    }

    /// The contents of its records, the oldest first.
    pub(super) fn read(&mut self) -> io::Result<Vec<Vec<u8>>> {
        let mut bytes = Vec::new();
        self.file.seek(SeekFrom::Start(0))?;
        self.file.read_to_end(&mut bytes)?;
        let mut contents = Vec::new();
        let mut rest = bytes.as_slice();
        while let Some((content, behind)) = split(rest) {
            contents.push(content.to_vec());
            rest = behind;
        }
        Ok(contents)
    }

    /// Adds records. They are on the disk when this returns.
    pub(super) fn append<'c>(&mut self, contents: impl Iterator<Item = &'c [u8]>) -> io::Result<()> {
        let end = self.file.seek(SeekFrom::End(0))?;
        let mut bytes = Vec::new();
        for content in contents {
            put(&mut bytes, content)?;
        }
        let written = self.file.write_all(&bytes).and_then(|()| self.file.sync_data());
        if written.is_err() {
            // Nobody was told of them, and what is behind them must be found.
            self.file.set_len(end)?;
        }
        written
    }

    /// Takes every record out.
    pub(super) fn clear(&mut self) -> io::Result<()> {
        self.file.set_len(0)
    }

    /// Deletes the file, where its writer has not done so while it ended.
    pub(super) fn remove(self) -> io::Result<()> {
        match std::fs::remove_file(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            removed => removed,
        }
    }
}

fn checksum(content: &[u8]) -> [u8; 8] {
    let mut checksum = [0; 8];
    let hash = Sha256::digest(content);
    for (to, from) in checksum.iter_mut().zip(hash) {
        *to = from;
    }
    checksum
}

fn put(bytes: &mut Vec<u8>, content: &[u8]) -> io::Result<()> {
    let length = u32::try_from(content.len()).map_err(io::Error::other)?;
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&checksum(content));
    bytes.extend_from_slice(content);
    Ok(())
}

/// The first record's content, and what is behind it; none where no whole record is left.
fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (head, rest) = bytes.split_at_checked(HEAD_BYTES)?;
    let (length, sum) = head.split_at_checked(4)?;
    let length = u32::from_be_bytes(length.try_into().ok()?);
    let (content, behind) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    (sum == checksum(content)).then_some((content, behind))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECORDS: [&[u8]; 3] = [b"one", b"", b"three"];

    #[test]
    fn records_are_read_as_they_were_written_and_half_a_one_is_not_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut file = JournalFile::create(dir.path(), "a").expect("a file");
        file.append(RECORDS.into_iter()).expect("written");
        assert_eq!(file.read().expect("read"), RECORDS);
        let whole = std::fs::read(&file.path).expect("bytes");
        for cut in 1..17 {
            std::fs::write(&file.path, &whole[..whole.len() - cut]).expect("cut");
            assert_eq!(
                file.read().expect("read"),
                RECORDS[..2],
                "{cut} bytes are missing"
            );
        }
        let mut wrong = whole.clone();
        *wrong.last_mut().expect("a byte") ^= 1;
        std::fs::write(&file.path, wrong).expect("changed");
        assert_eq!(file.read().expect("read"), RECORDS[..2]);
    }

    #[test]
    fn a_journal_is_left_behind_once_nobody_has_it_open() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut file = JournalFile::create(dir.path(), "a").expect("a file");
        file.append(RECORDS.into_iter()).expect("written");
        let left = |dir: &Path| JournalFile::left_behind(dir).expect("a list");
        assert!(left(dir.path()).is_empty(), "it has an owner");
        drop(file);
        let mut found = left(dir.path());
        assert_eq!(found.len(), 1);
        let mut file = found.remove(0);
        assert_eq!(file.read().expect("read"), RECORDS);
        file.remove().expect("deleted");
        assert!(left(dir.path()).is_empty());
    }
}
