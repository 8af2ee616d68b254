//! Reads authorized_keys on threads of its own: a file system that doesn't answer must not hold up the one thread that serves
//! every connection.
//!
//! A thread that hangs in the kernel can't be ended from here. So whoever waits for it waits for a while only, and there are
//! at most [`THREADS`] of them.

use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use remora_identity::{Account, AuthorizedKeys, FileTooLarge, limits, strict_modes};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::task::spawn_blocking;
use tokio::time::timeout;
use tracing::{error, warn};

/// Readings at once, and so the most that can hang.
const THREADS: usize = 16;
/// How long one may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// Why the keys of one file aren't known.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("{0}")]
    Modes(#[from] strict_modes::StrictModesError),
    #[error("{0}")]
    Size(#[from] FileTooLarge),
}

/// Why nothing is known of any file.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NoAnswer {
    #[error("the file system did not answer within {} s", .0.as_secs_f32())]
    Late(Duration),
    #[error("the file system has left {THREADS} readings without an answer")]
    Stuck,
    #[error("the reading failed")]
    Failed,
}

/// What was read: each file with its keys, or why not.
pub(crate) type KeysOfFiles = Vec<(PathBuf, Result<AuthorizedKeys, ReadError>)>;

type Reader = dyn Fn(&Path, &Account) -> Result<AuthorizedKeys, ReadError> + Send + Sync;

/// Reads the files; its clones share one count of threads.
#[derive(Clone)]
pub(crate) struct KeyFiles {
    reader: Arc<Reader>,
    patience: Duration,
    threads: Arc<Semaphore>,
    overdue: Arc<AtomicUsize>,
}

impl KeyFiles {
    pub(crate) fn new() -> Self {
        KeyFiles::by(Arc::new(read), PATIENCE)
    }

    /// By another reader than the file system.
    pub(crate) fn by(reader: Arc<Reader>, patience: Duration) -> Self {
        KeyFiles { reader, patience, threads: Arc::new(Semaphore::new(THREADS)), overdue: Arc::default() }
    }

    /// Reads these files, as they are now.
    ///
    /// # Errors
    /// [`NoAnswer`], at once where too many readings hang already.
    pub(crate) async fn read(&self, paths: Vec<PathBuf>, account: Account) -> Result<KeysOfFiles, NoAnswer> {
        if self.overdue.load(Ordering::Relaxed) >= THREADS {
            return Err(NoAnswer::Stuck);
        }
        let place = timeout(self.patience, self.threads.clone().acquire_owned()).await;
        let place = place.map_err(|_| NoAnswer::Late(self.patience))?.map_err(|_| NoAnswer::Failed)?;
        let (tell, told) = oneshot::channel();
        // A task of its own counts what hangs, whether or not the connection waits that long.
        tokio::spawn(self.clone().watch(paths, account, place, tell));
        told.await.unwrap_or(Err(NoAnswer::Failed))
    }

    async fn watch(
        self,
        paths: Vec<PathBuf>,
        account: Account,
        place: OwnedSemaphorePermit,
        tell: oneshot::Sender<Result<KeysOfFiles, NoAnswer>>,
    ) {
        let mut reading = spawn_blocking(move || {
            let _place = place;
            let read = |path: PathBuf| {
                let keys = (self.reader)(&path, &account);
                (path, keys)
            };
            paths.into_iter().map(read).collect()
        });
        if let Ok(read) = timeout(self.patience, &mut reading).await {
            let _ = tell.send(read.map_err(|_| NoAnswer::Failed));
            return;
        }
        let hanging = self.overdue.fetch_add(1, Ordering::Relaxed) + 1;
        error!(
            hanging,
            "reading authorized_keys hangs: is the home directory on a file system that doesn't answer?"
        );
        let _ = tell.send(Err(NoAnswer::Late(self.patience)));
        let _ = reading.await;
        let hanging = self.overdue.fetch_sub(1, Ordering::Relaxed) - 1;
        warn!(hanging, "a reading of authorized_keys that hung has ended");
    }
}

/// Reads one file, if nobody else could have written it. Blocks.
fn read(path: &Path, account: &Account) -> Result<AuthorizedKeys, ReadError> {
    let file = crate::files::open(path)?;
    strict_modes::check_file(&file, path, &account.home, account.uid)?;
    let mut text = Vec::new();
    file.take(limits::AUTHORIZED_KEYS_MAX as u64 + 1).read_to_end(&mut text)?;
    Ok(AuthorizedKeys::parse(&text)?)
}

/// For tests: a file system that doesn't answer for some paths.
#[cfg(test)]
pub(crate) mod hanging {
    use std::sync::{Condvar, Mutex};

    use super::*;

    /// Holds the readings of every file called `hangs`, until it is dropped.
    pub(crate) struct Hold(Arc<Gate>);

    #[derive(Default)]
    struct Gate {
        open: Mutex<bool>,
        opened: Condvar,
        held: AtomicUsize,
    }

    impl Hold {
        /// The hold, and what reads under it.
        pub(crate) fn new(patience: Duration) -> (Hold, KeyFiles) {
            let gate = Arc::new(Gate::default());
            let hold = Hold(gate.clone());
            let reader = move |path: &Path, account: &Account| {
                if path.ends_with("hangs") {
                    gate.held.fetch_add(1, Ordering::Relaxed);
                    drop(gate.opened.wait_while(gate.open.lock().unwrap(), |open| !*open).unwrap());
                }
                read(path, account)
            };
            (hold, KeyFiles::by(Arc::new(reader), patience))
        }

        /// Readings that have been held so far.
        pub(crate) fn held(&self) -> usize {
            self.0.held.load(Ordering::Relaxed)
        }
    }

    impl Drop for Hold {
        fn drop(&mut self) {
            *self.0.open.lock().unwrap() = true;
            self.0.opened.notify_all();
        }
    }
}

#[cfg(test)]
mod tests {
    use remora_testkit::eventually_async;

    use super::hanging::Hold;
    use super::*;

    fn me() -> Account {
        crate::account::own_account().unwrap()
    }

    const A_WHILE: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn a_file_that_hangs_is_given_up_and_holds_up_no_other() {
        let (hold, files) = Hold::new(Duration::from_millis(200));
        let hung = tokio::spawn({
            let files = files.clone();
            async move { files.read(vec!["/hangs".into()], me()).await }
        });
        let read = files.read(vec!["/nonexistent".into()], me()).await.unwrap();
        assert!(matches!(&read[..], [(_, Err(ReadError::Io(_)))]), "{read:?}");
        assert!(!hung.is_finished(), "it still waits");
        assert!(matches!(hung.await.unwrap(), Err(NoAnswer::Late(_))));
        drop(hold);
        eventually_async(A_WHILE, "it is forgotten", || files.overdue.load(Ordering::Relaxed) == 0).await;
    }

    #[tokio::test]
    async fn no_more_than_so_many_hang_and_then_the_answer_comes_at_once() {
        let (hold, files) = Hold::new(Duration::from_millis(50));
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..2 * THREADS {
            let files = files.clone();
            let waiting = waiting.spawn(async move { files.read(vec!["/hangs".into()], me()).await });
            // Who gives up waiting leaves a thread behind that counts all the same.
            if number < 3 {
                tokio::task::yield_now().await;
                waiting.abort();
            }
        }
        while let Some(read) = waiting.join_next().await {
            assert!(read.is_err() || matches!(read, Ok(Err(NoAnswer::Late(_) | NoAnswer::Stuck))));
        }
        eventually_async(A_WHILE, "all hang", || files.overdue.load(Ordering::Relaxed) == THREADS).await;
        let read = files.read(vec!["/nonexistent".into()], me()).await;
        assert!(matches!(read, Err(NoAnswer::Stuck)));
        drop(hold);
        eventually_async(A_WHILE, "none hangs", || files.overdue.load(Ordering::Relaxed) == 0).await;
        assert!(files.read(vec!["/nonexistent".into()], me()).await.is_ok());
    }
}
