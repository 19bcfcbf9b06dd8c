//! What was decided while whoever must know of it was away, kept until that has it: on the disk of this process, so that it
//! outlives it, or in its memory.
//!
//! An entry is what somebody is to be told, and says the same however often it is told. What a process left behind that is
//! no more is told by the next that starts there.

mod file;

use std::{
    collections::{HashSet, VecDeque},
    fmt, io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use prost::Message;
use tokio::sync::oneshot;
use uuid::Uuid;

use self::file::JournalFile;

/// Entries that may wait for the disk.
const WAITING_MAX: usize = 10_000;
/// The most that one write to the disk has.
const ENTRIES_AT_ONCE: usize = 1_000;

/// Why an entry is not in the journal.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// It has as much as it may.
    #[error("the journal of decisions is full")]
    Full,
    /// The disk does not take it.
    #[error("the journal of decisions cannot be written")]
    Failed(#[source] io::Error),
}

/// What somebody is to be told.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// Names it within this process.
    pub number: u64,
    /// What they are told.
    pub message: T,
}

/// The journal of one process. Cloning shares it.
pub struct Journal<T> {
    /// Whoever writes it to the disk; none where it is in memory only.
    disk: Option<SyncSender<Job<T>>>,
    entries: Arc<Mutex<Entries<T>>>,
    bytes_max: usize,
}

impl<T> Clone for Journal<T> {
    fn clone(&self) -> Self {
        Self {
            disk: self.disk.clone(),
            entries: self.entries.clone(),
            bytes_max: self.bytes_max,
        }
    }
}

impl<T> fmt::Debug for Journal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Journal")
            .field("bytes_max", &self.bytes_max)
            .finish_non_exhaustive()
    }
}

/// Room in a journal that nothing else takes. Dropping it gives it back.
pub struct Room<T> {
    entries: Arc<Mutex<Entries<T>>>,
    bytes: usize,
}

impl<T> fmt::Debug for Room<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Room")
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl<T> Drop for Room<T> {
    fn drop(&mut self) {
        let mut entries = lock(&self.entries);
        entries.coming_bytes = entries.coming_bytes.saturating_sub(self.bytes);
    }
}

#[derive(Debug)]
struct Entries<T> {
    waiting: VecDeque<Entry<T>>,
    /// How long what waits is; of a file, how long that is: it is cut as a whole, once nothing waits.
    written_bytes: usize,
    /// How long what is on its way there is.
    coming_bytes: usize,
    next: u64,
}

impl<T> Default for Entries<T> {
    fn default() -> Self {
        Self {
            waiting: VecDeque::new(),
            written_bytes: 0,
            coming_bytes: 0,
            next: 0,
        }
    }
}

#[derive(Debug)]
enum Job<T> {
    Append {
        message: T,
        bytes: Vec<u8>,
        /// Counts until it is written, also where nobody waits for it any more.
        room: Room<T>,
        written: oneshot::Sender<Result<(), JournalError>>,
    },
    /// Nothing may wait any more.
    Clear,
}

impl<T: Message + Clone + Default + 'static> Journal<T> {
    /// A journal of at most `bytes_max` that ends with this process.
    #[must_use]
    pub fn in_memory(bytes_max: usize) -> Self {
        Self {
            disk: None,
            entries: Arc::default(),
            bytes_max,
        }
    }

    /// A journal in `dir` of at most `bytes_max`, with what others left there.
    ///
    /// # Errors
    /// Where the directory cannot be made, read or written.
    pub fn open(dir: &Path, bytes_max: usize) -> io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let gate = JournalFile::alone_in(dir)?;
        let mut entries = Entries::default();
        let left = JournalFile::left_behind(dir)?;
        let mut file = JournalFile::create(dir, &Uuid::new_v4().simple().to_string())?;
        for mut old in left {
            let contents = old.read()?;
            file.append(contents.iter().map(Vec::as_slice))?;
            for content in contents {
                let message = T::decode(content.as_slice()).map_err(io::Error::other)?;
                entries.push(message, content.len());
            }
            // They are in the new file by now.
            old.remove()?;
        }
        drop(gate);
        if !entries.waiting.is_empty() {
            tracing::info!(
                entries = entries.waiting.len(),
                "decisions that a process before left are told"
            );
        }
        let (jobs, queue) = sync_channel(WAITING_MAX);
        let entries = Arc::new(Mutex::new(entries));
        let shared = entries.clone();
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write(file, &queue, &shared))?;
        Ok(Self {
            disk: Some(jobs),
            entries,
            bytes_max,
        })
    }

    /// Adds an entry. It is where it is kept when this returns.
    ///
    /// # Errors
    /// [`JournalError`]: then it is not there.
    pub async fn append(&self, message: T) -> Result<(), JournalError> {
        let room = self.reserve(message.encoded_len()).ok_or(JournalError::Full)?;
        self.append_in(room, message).await
    }

    /// Keeps room for an entry of which it is not known yet what it says; none where there is not so much.
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> Option<Room<T>> {
        let mut entries = lock(&self.entries);
        if entries.written_bytes + entries.coming_bytes + bytes > self.bytes_max {
            return None;
        }
        entries.coming_bytes += bytes;
        Some(Room {
            entries: self.entries.clone(),
            bytes,
        })
    }

    /// Adds an entry where room was kept for it, also where it is longer.
    ///
    /// # Errors
    /// [`JournalError`]: then it is not there.
    pub async fn append_in(&self, room: Room<T>, message: T) -> Result<(), JournalError> {
        let Some(disk) = &self.disk else {
            let length = message.encoded_len();
            lock(&self.entries).push(message, length);
            drop(room);
            return Ok(());
        };
        let (written, answer) = oneshot::channel();
        let bytes = message.encode_to_vec();
        let job = Job::Append {
            message,
            bytes,
            room,
            written,
        };
        disk.try_send(job).map_err(|_| JournalError::Full)?;
        let gone = |_| Err(JournalError::Failed(io::ErrorKind::BrokenPipe.into()));
        answer.await.unwrap_or_else(gone)
    }

    /// The oldest entries, at most `max` of them.
    #[must_use]
    pub fn oldest(&self, max: usize) -> Vec<Entry<T>> {
        self.after(None, max)
    }

    /// The oldest entries behind the one of this number, or of all, at most `max` of them.
    #[must_use]
    pub fn after(&self, number: Option<u64>, max: usize) -> Vec<Entry<T>> {
        let entries = lock(&self.entries);
        let behind = entries
            .waiting
            .iter()
            .filter(|entry| number.is_none_or(|number| entry.number > number));
        behind.take(max).cloned().collect()
    }

    /// Takes out entries that were told.
    pub fn remove(&self, numbers: &[u64]) {
        let numbers: HashSet<u64> = numbers.iter().copied().collect();
        let mut told_bytes = 0;
        let mut entries = lock(&self.entries);
        entries.waiting.retain(|entry| {
            let is_told = numbers.contains(&entry.number);
            if is_told {
                told_bytes += entry.message.encoded_len();
            }
            !is_told
        });
        let is_empty = entries.waiting.is_empty();
        match &self.disk {
            None => entries.written_bytes = entries.written_bytes.saturating_sub(told_bytes),
            Some(disk) if is_empty => {
                drop(entries);
                // Where the queue is full, something is added, and the next time will do.
                drop(disk.try_send(Job::Clear));
            }
            Some(_) => {}
        }
    }

    /// How many entries wait to be told.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.entries).waiting.len()
    }
}

impl<T> Entries<T> {
    fn push(&mut self, message: T, length: usize) {
        let number = self.next;
        self.next += 1;
        self.written_bytes += length;
        self.waiting.push_back(Entry { number, message });
    }
}

fn lock<T>(entries: &Mutex<Entries<T>>) -> MutexGuard<'_, Entries<T>> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what comes, as much as has come at once, until nobody is left who could send anything.
fn write<T>(mut file: JournalFile, queue: &Receiver<Job<T>>, entries: &Mutex<Entries<T>>) {
    while let Ok(first) = queue.recv() {
        let more = std::iter::from_fn(|| queue.try_recv().ok()).take(ENTRIES_AT_ONCE);
        let jobs: Vec<Job<T>> = std::iter::once(first).chain(more).collect();
        let contents = jobs.iter().filter_map(|job| match job {
            Job::Append { bytes, .. } => Some(bytes.as_slice()),
            Job::Clear => None,
        });
        let appended = file.append(contents);
        if let Err(error) = &appended {
            tracing::error!(error = %error, "decisions cannot be written to the journal");
        }
        for job in jobs {
            let Job::Append {
                message,
                bytes,
                room,
                written,
            } = job
            else {
                continue;
            };
            let outcome = match &appended {
                Ok(()) => {
                    lock(entries).push(message, bytes.len());
                    Ok(())
                }
                Err(error) => Err(JournalError::Failed(error.kind().into())),
            };
            drop(room);
            drop(written.send(outcome));
        }
        // Only here is anything added, so it stays empty meanwhile.
        let mut guard = lock(entries);
        if guard.waiting.is_empty() {
            match file.clear() {
                Ok(()) => guard.written_bytes = 0,
                Err(error) => tracing::warn!(error = %error, "the journal is not cleared"),
            }
        }
    }
    if lock(entries).waiting.is_empty() {
        drop(file.remove());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, PartialEq, prost::Message)]
    struct Note {
        #[prost(string, tag = "1")]
        text: String,
    }

    fn note(text: &str) -> Note {
        Note {
            text: text.to_owned(),
        }
    }

    fn texts(journal: &Journal<Note>) -> Vec<String> {
        let entries = journal.oldest(10).into_iter();
        entries.map(|entry| entry.message.text).collect()
    }

    #[tokio::test]
    async fn what_was_added_outlives_the_process_until_it_is_taken_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path(), 10_000).expect("a journal");
        for id in ["a", "b"] {
            journal.append(note(id)).await.expect("room");
        }
        let first = journal.oldest(1).remove(0).number;
        // As a crash leaves it: nothing is cleared, and the lock is gone.
        let copy = tempfile::tempdir().expect("a directory");
        for entry in std::fs::read_dir(dir.path()).expect("files") {
            let path = entry.expect("a file").path();
            let to = copy.path().join(path.file_name().expect("a name"));
            std::fs::copy(path, to).expect("a copy");
        }
        let next: Journal<Note> = Journal::open(copy.path(), 10_000).expect("a journal");
        assert_eq!(texts(&next), ["a", "b"]);
        journal.remove(&[first]);
        assert_eq!(texts(&journal), ["b"]);
    }

    #[test]
    fn processes_that_start_at_the_same_time_in_one_place_have_a_journal_each() {
        let dir = tempfile::tempdir().expect("a directory");
        let journals: Vec<Journal<Note>> = std::thread::scope(|scope| {
            let open = || Journal::<Note>::open(dir.path(), 10_000).expect("a journal");
            let starts: Vec<_> = (0..16).map(|_| scope.spawn(open)).collect();
            starts
                .into_iter()
                .map(|start| start.join().expect("it starts"))
                .collect()
        });
        let files = std::fs::read_dir(dir.path()).expect("files");
        let names = files.map(|entry| entry.expect("a file").path());
        let kept = names.filter(|path| path.extension().is_some_and(|suffix| suffix == "journal"));
        assert_eq!(kept.count(), journals.len());
    }

    async fn takes_nothing_while_it_is_full(journal: Journal<Note>) {
        for text in ["a", "b"] {
            journal.append(note(text)).await.expect("room");
        }
        let length = note("a").encoded_len();
        assert!(journal.reserve(length).is_none());
        let full = journal.append(note("c")).await;
        assert!(matches!(full, Err(JournalError::Full)), "{full:?}");
        let numbers: Vec<u64> = journal.oldest(2).iter().map(|entry| entry.number).collect();
        journal.remove(&numbers);
        while journal.append(note("c")).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!((texts(&journal), journal.waiting()), (vec!["c".to_owned()], 1));
    }

    #[tokio::test]
    async fn a_full_journal_takes_nothing_until_all_of_it_was_told() {
        let dir = tempfile::tempdir().expect("a directory");
        let bytes_max = 2 * note("a").encoded_len();
        takes_nothing_while_it_is_full(Journal::open(dir.path(), bytes_max).expect("a journal")).await;
        takes_nothing_while_it_is_full(Journal::in_memory(bytes_max)).await;
    }

    #[tokio::test]
    async fn room_is_kept_for_whoever_asked_for_it_and_comes_back_where_nobody_waits_any_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let length = note("a").encoded_len();
        let on_disk = Journal::open(dir.path(), 2 * length).expect("a journal");
        for journal in [on_disk, Journal::in_memory(2 * length)] {
            let room = journal.reserve(length).expect("room");
            let given_back = journal.reserve(length).expect("room");
            assert!(journal.append(note("a")).await.is_err());
            drop(given_back);
            // Whoever waits goes away at once.
            drop(tokio::time::timeout(std::time::Duration::ZERO, journal.append(note("a"))).await);
            journal.append_in(room, note("b")).await.expect("room");
            // What was on its way before is written by now, and counts as that.
            assert_eq!(texts(&journal), ["a", "b"]);
            assert_eq!(lock(&journal.entries).coming_bytes, 0);
        }
    }

    #[tokio::test]
    async fn a_file_is_cut_as_a_whole_and_memory_entry_by_entry() {
        let dir = tempfile::tempdir().expect("a directory");
        let length = note("a").encoded_len();
        let on_disk = Journal::open(dir.path(), 2 * length).expect("a journal");
        for (journal, expected) in [(on_disk, false), (Journal::in_memory(2 * length), true)] {
            for text in ["a", "b"] {
                journal.append(note(text)).await.expect("room");
            }
            journal.remove(&[journal.oldest(1).remove(0).number]);
            assert_eq!(journal.append(note("c")).await.is_ok(), expected);
        }
    }
}
