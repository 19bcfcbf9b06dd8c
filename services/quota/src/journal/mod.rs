//! Decisions that were answered while the ledger was away, kept on the disk of this replica until it has them.
//!
//! An entry is what the ledger would have been told. Its events have ids that follow from the request, so it counts
//! once however often it is told. What a process left behind that is no more is told by the next that starts there.

mod file;

use std::{
    collections::VecDeque,
    io,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
};

use octroi_proto::usage::v1::TrackUsageBatchRequest;
use prost::Message as _;
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

/// What the ledger is to be told.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Names it within this process.
    pub number: u64,
    /// What it is told.
    pub request: TrackUsageBatchRequest,
}

/// The journal of one process. Cloning shares it.
#[derive(Clone, Debug)]
pub struct Journal {
    jobs: SyncSender<Job>,
    entries: Arc<Mutex<Entries>>,
    bytes_max: usize,
}

#[derive(Debug, Default)]
struct Entries {
    waiting: VecDeque<Entry>,
    /// How long what is in the file is: it is cut as a whole, once nothing waits.
    written_bytes: usize,
    /// How long what is on its way there is.
    coming_bytes: usize,
    next: u64,
}

#[derive(Debug)]
enum Job {
    Append {
        request: TrackUsageBatchRequest,
        bytes: Vec<u8>,
        written: oneshot::Sender<Result<(), JournalError>>,
    },
    /// Nothing may wait any more.
    Clear,
}

impl Journal {
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
                let request = TrackUsageBatchRequest::decode(content.as_slice()).map_err(io::Error::other)?;
                entries.push(request, content.len());
            }
            // They are in the new file by now.
            old.remove()?;
        }
        drop(gate);
        if !entries.waiting.is_empty() {
            tracing::info!(
                entries = entries.waiting.len(),
                "decisions that a process before left are told to the ledger"
            );
        }
        let (jobs, queue) = sync_channel(WAITING_MAX);
        let entries = Arc::new(Mutex::new(entries));
        let shared = entries.clone();
        std::thread::Builder::new()
            .name("journal".into())
            .spawn(move || write(file, &queue, &shared))?;
        Ok(Self {
            jobs,
            entries,
            bytes_max,
        })
    }

    /// Adds an entry. It is on the disk when this returns.
    ///
    /// # Errors
    /// [`JournalError`]: then it is not there.
    pub async fn append(&self, request: TrackUsageBatchRequest) -> Result<(), JournalError> {
        let bytes = request.encode_to_vec();
        let length = bytes.len();
        {
            let mut entries = lock(&self.entries);
            if entries.written_bytes + entries.coming_bytes + length > self.bytes_max {
                return Err(JournalError::Full);
            }
            entries.coming_bytes += length;
        }
        let (written, answer) = oneshot::channel();
        let job = Job::Append {
            request,
            bytes,
            written,
        };
        let queued = self.jobs.try_send(job).map_err(|_| JournalError::Full);
        let gone = || Err(JournalError::Failed(io::ErrorKind::BrokenPipe.into()));
        let outcome = match queued {
            Ok(()) => answer.await.unwrap_or_else(|_| gone()),
            Err(error) => Err(error),
        };
        let mut entries = lock(&self.entries);
        entries.coming_bytes = entries.coming_bytes.saturating_sub(length);
        outcome
    }

    /// The oldest entries, at most `max` of them.
    #[must_use]
    pub fn oldest(&self, max: usize) -> Vec<Entry> {
        let entries = lock(&self.entries);
        entries.waiting.iter().take(max).cloned().collect()
    }

    /// Takes out entries that the ledger has.
    pub fn remove(&self, numbers: &[u64]) {
        let is_empty = {
            let mut entries = lock(&self.entries);
            entries.waiting.retain(|entry| !numbers.contains(&entry.number));
            entries.waiting.is_empty()
        };
        if is_empty {
            // Where the queue is full, something is added, and the next time will do.
            drop(self.jobs.try_send(Job::Clear));
        }
    }

    /// How many entries wait for the ledger.
    #[must_use]
    pub fn waiting(&self) -> usize {
        lock(&self.entries).waiting.len()
    }
}

impl Entries {
    fn push(&mut self, request: TrackUsageBatchRequest, length: usize) {
        let number = self.next;
        self.next += 1;
        self.written_bytes += length;
        self.waiting.push_back(Entry { number, request });
    }
}

fn lock(entries: &Mutex<Entries>) -> MutexGuard<'_, Entries> {
    entries.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Writes what comes, as much as has come at once, until nobody is left who could send anything.
fn write(mut file: JournalFile, queue: &Receiver<Job>, entries: &Mutex<Entries>) {
    while let Ok(first) = queue.recv() {
        let more = std::iter::from_fn(|| queue.try_recv().ok()).take(ENTRIES_AT_ONCE);
        let jobs: Vec<Job> = std::iter::once(first).chain(more).collect();
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
                request,
                bytes,
                written,
            } = job
            else {
                continue;
            };
            let outcome = match &appended {
                Ok(()) => {
                    lock(entries).push(request, bytes.len());
                    Ok(())
                }
                Err(error) => Err(JournalError::Failed(error.kind().into())),
            };
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
    use octroi_proto::usage::v1::UsageEvent;

    use super::*;

    fn request(id: &str) -> TrackUsageBatchRequest {
        TrackUsageBatchRequest {
            events: vec![UsageEvent {
                event_id: id.to_owned(),
                ..UsageEvent::default()
            }],
            ..TrackUsageBatchRequest::default()
        }
    }

    fn ids(journal: &Journal) -> Vec<String> {
        let entries = journal.oldest(10).into_iter();
        entries
            .flat_map(|entry| entry.request.events)
            .map(|event| event.event_id)
            .collect()
    }

    #[tokio::test]
    async fn what_was_added_outlives_the_process_until_it_is_taken_out() {
        let dir = tempfile::tempdir().expect("a directory");
        let journal = Journal::open(dir.path(), 10_000).expect("a journal");
        for id in ["a", "b"] {
            journal.append(request(id)).await.expect("room");
        }
        let first = journal.oldest(1).remove(0).number;
        // As a crash leaves it: nothing is cleared, and the lock is gone.
        let copy = tempfile::tempdir().expect("a directory");
        for entry in std::fs::read_dir(dir.path()).expect("files") {
            let path = entry.expect("a file").path();
            let to = copy.path().join(path.file_name().expect("a name"));
            std::fs::copy(path, to).expect("a copy");
        }
        let next = Journal::open(copy.path(), 10_000).expect("a journal");
        assert_eq!(ids(&next), ["a", "b"]);
        journal.remove(&[first]);
        assert_eq!(ids(&journal), ["b"]);
    }

    #[test]
    fn processes_that_start_at_the_same_time_in_one_place_have_a_journal_each() {
        let dir = tempfile::tempdir().expect("a directory");
        let journals: Vec<Journal> = std::thread::scope(|scope| {
            let open = || Journal::open(dir.path(), 10_000).expect("a journal");
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

    #[tokio::test]
    async fn a_full_journal_takes_nothing_until_the_ledger_has_all_of_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let length = request("a").encoded_len();
        let journal = Journal::open(dir.path(), 2 * length).expect("a journal");
        for id in ["a", "b"] {
            journal.append(request(id)).await.expect("room");
        }
        let numbers: Vec<u64> = journal.oldest(2).iter().map(|entry| entry.number).collect();
        for number in numbers {
            let full = journal.append(request("c")).await;
            assert!(matches!(full, Err(JournalError::Full)), "{full:?}");
            journal.remove(&[number]);
        }
        while journal.append(request("c")).await.is_err() {
            tokio::task::yield_now().await;
        }
        assert_eq!(ids(&journal), ["c"]);
    }
}
