//! The connections of the shim, and what it does when there is none.
//!
//! containerd keeps its connection as long as it knows of the shim. When it dies after the shim was started and before
//! it has noted that, nobody will ever call: a shim with neither a container nor a connection ends by itself.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio::sync::Notify;
use tokio::time::timeout;

/// How long the shim waits for somebody.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is connected.
#[derive(Debug, Default)]
pub struct Guests {
    count: AtomicUsize,
    changed: Notify,
}

impl Guests {
    /// Returns when nobody has been connected for some time while `has_work` said no.
    pub async fn stay_away(&self, has_work: impl Fn() -> bool) {
        loop {
            let changed = self.changed.notified();
            if self.count.load(Ordering::Relaxed) > 0 || has_work() {
                changed.await;
            } else if timeout(PATIENCE, changed).await.is_err() && !has_work() {
                return;
            }
        }
    }

    /// Waits until nobody is connected, but not longer than `limit`.
    pub async fn leave(&self, limit: Duration) {
        let gone = async {
            loop {
                let changed = self.changed.notified();
                if self.count.load(Ordering::Relaxed) == 0 {
                    return;
                }
                changed.await;
            }
        };
        // Whoever stays longer is disconnected.
        let _ = timeout(limit, gone).await;
    }

    fn change(&self, by: impl Fn(&AtomicUsize)) {
        by(&self.count);
        self.changed.notify_waiters();
    }
}

/// A connection, counted as long as it lives.
pub struct Guest {
    stream: UnixStream,
    guests: Arc<Guests>,
}

impl Guest {
    /// Counts a connection.
    pub fn new(stream: UnixStream, guests: Arc<Guests>) -> Self {
        guests.change(|count| {
            count.fetch_add(1, Ordering::Relaxed);
        });
        Self { stream, guests }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.guests.change(|count| {
            count.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

impl AsyncRead for Guest {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Guest {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
