//! Reads streams that background processes hold open after their job is over, to nowhere, so that none of them dies of
//! SIGPIPE or stands still.

use std::future::poll_fn;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use tokio::io::unix::AsyncFd;

/// Bytes that are read at once, to the stack.
const CHUNK: usize = 16 * 1024;

/// Chunks between two pauses: what nobody reads may not cost a processor (at most some 100 MiB/s).
const CHUNKS_PER_TURN: usize = 64;

const PAUSE: Duration = Duration::from_millis(10);

/// Counts one stream for as long as it lives.
struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Reads a pipe to its end in a task of its own.
pub(crate) fn discard(pipe: AsyncFd<OwnedFd>, held: Arc<AtomicUsize>) {
    held.fetch_add(1, Ordering::Relaxed);
    let counted = Counted(held);
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(async move {
            let _counted = counted;
            while !read_some(&pipe).await {
                tokio::time::sleep(PAUSE).await;
            }
        });
    }
}

/// Reads one turn's worth, waiting for it; whether that was the end.
async fn read_some(pipe: &AsyncFd<OwnedFd>) -> bool {
    let mut chunks = 0;
    poll_fn(|cx| {
        let mut scratch = [0; CHUNK];
        while chunks < CHUNKS_PER_TURN {
            let mut guard = match pipe.poll_read_ready(cx) {
                Poll::Ready(Ok(guard)) => guard,
                Poll::Ready(Err(_)) => return Poll::Ready(true),
                Poll::Pending => return Poll::Pending,
            };
            match rustix::io::read(pipe.get_ref(), &mut scratch) {
                Ok(0) => return Poll::Ready(true),
                Ok(_) => chunks += 1,
                Err(rustix::io::Errno::AGAIN) if guard.ready().is_read_closed() => return Poll::Ready(true),
                Err(rustix::io::Errno::AGAIN) => guard.clear_ready(),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Poll::Ready(true),
            }
        }
        Poll::Ready(false)
    })
    .await
}
