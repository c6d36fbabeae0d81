//! The brake for a daemon that does not answer: after ten failures in a row, one request a second in all.
//!
//! Any HTTP response releases the brake. The tick for a request is made ready when the one before it is
//! taken, as the reference does, so the first request after the tenth failure still goes at once. Where the one that
//! went could not even connect, those who waited for their turn have their answer too: nobody waits longer than a
//! connection takes, and a pause.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, Semaphore, watch};
use tokio::time::Instant;
use tracing::warn;

/// Failures in a row that cost nothing. (Go: `ipfsconn/ipfshttp/ipfshttp.go`, `rateLimiter`)
const FREE_FAILURES: u64 = 10;

/// Pause before each request once the free failures are used up.
pub(super) const PAUSE: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Throttle {
    /// [`PAUSE`], shorter in tests.
    pause: Duration,
    /// Requests in a row that got no response.
    failed: AtomicU64,
    /// Whether the warning was printed.
    braking: AtomicBool,
    /// When the next tick is ready. Taken by `pass` alone, never over an await.
    next_at: Mutex<Option<Instant>>,
    /// Requests wait in line here, so that one that gives up takes no tick with it.
    line: Semaphore,
    lifted: Notify,
    /// Why the last connection could not be made.
    refused: watch::Sender<Arc<str>>,
}

impl Throttle {
    pub(super) fn new(pause: Duration) -> Self {
        Self {
            pause,
            failed: AtomicU64::new(0),
            braking: AtomicBool::new(false),
            next_at: Mutex::new(None),
            line: Semaphore::new(1),
            lifted: Notify::new(),
            refused: watch::Sender::new("".into()),
        }
    }

    /// Whether requests go without waiting.
    pub(super) fn is_open(&self) -> bool {
        self.failed.load(Ordering::Relaxed) == 0
    }

    /// Waits until a request may go; at once while the daemon answers. An error is why somebody else could not
    /// connect in the meantime.
    pub(super) async fn pass(&self) -> Result<(), Arc<str>> {
        let lifted = self.lifted.notified();
        tokio::pin!(lifted);
        // Registered before the count is read again, so that no response slips in between.
        lifted.as_mut().enable();
        if self.is_open() {
            return Ok(());
        }
        let mut refused = self.refused.subscribe();
        tokio::select! {
            biased;
            () = lifted => Ok(()),
            () = self.tick() => Ok(()),
            // the sender is ours: it is there
            _ = refused.changed() => Err(Arc::clone(&refused.borrow())),
        }
    }

    /// A connection could not be made.
    pub(super) fn refused(&self, cause: &str) {
        self.refused.send_replace(cause.into());
    }

    async fn tick(&self) {
        // The semaphore is never closed; if it were, nothing would need to wait.
        let _turn = self.line.acquire().await;
        let ready_at = *self.next_at.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(ready_at) = ready_at {
            tokio::time::sleep_until(ready_at).await;
        }
        let next = if self.failed.load(Ordering::Relaxed) > FREE_FAILURES {
            if !self.braking.swap(true, Ordering::Relaxed) {
                warn!(target: "ipfshttp", "Rate-limiting requests to 1req/s");
            }
            Some(Instant::now() + self.pause)
        } else {
            None
        };
        *self.next_at.lock().unwrap_or_else(PoisonError::into_inner) = next;
    }

    /// A request got a response.
    pub(super) fn answered(&self) {
        if self.is_open() {
            return;
        }
        self.failed.store(0, Ordering::Relaxed);
        *self.next_at.lock().unwrap_or_else(PoisonError::into_inner) = None;
        if self.braking.swap(false, Ordering::Relaxed) {
            warn!(target: "ipfshttp", "Lifting up rate limit");
        }
        self.lifted.notify_waiters();
    }

    /// A request got none.
    pub(super) fn unanswered(&self) {
        self.failed.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use futures::FutureExt;

    use super::*;

    async fn failing(pause: Duration, n_failures: usize) -> Throttle {
        let throttle = Throttle::new(pause);
        for _ in 0..n_failures {
            throttle.pass().await.unwrap();
            throttle.unanswered();
        }
        throttle
    }

    #[tokio::test]
    async fn ten_failures_are_free_and_then_requests_keep_their_distance() {
        let start = Instant::now();
        let throttle = failing(Duration::from_secs(3600), 12).await;
        assert!(start.elapsed() < Duration::from_secs(60));
        assert!(throttle.pass().now_or_never().is_none());

        let pause = Duration::from_millis(20);
        let throttle = failing(pause, 12).await;
        let start = Instant::now();
        for _ in 0..5 {
            throttle.pass().await.unwrap();
            throttle.unanswered();
        }
        // the first pause began with the twelfth request
        assert!(start.elapsed() >= pause * 4, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn one_response_lets_all_who_wait_go() {
        let throttle = Arc::new(failing(Duration::from_secs(3600), 12).await);
        let mut waiting = Box::pin(futures::future::join_all((0..50).map(|_| throttle.pass())));
        assert!(waiting.as_mut().now_or_never().is_none());
        throttle.answered();
        assert!(waiting.now_or_never().is_some());
        assert!(throttle.pass().now_or_never().is_some());
    }

    #[tokio::test]
    async fn one_who_cannot_connect_answers_for_all_who_wait() {
        let throttle = failing(Duration::from_secs(3600), 12).await;
        let mut waiting = Box::pin(futures::future::join_all((0..50).map(|_| throttle.pass())));
        assert!(waiting.as_mut().now_or_never().is_none());
        throttle.refused("connection refused");
        let answers = waiting.now_or_never().unwrap();
        assert!(answers.iter().all(|answer| answer == &Err("connection refused".into())), "{answers:?}");
        // whoever comes later waits for the next attempt
        assert!(throttle.pass().now_or_never().is_none());
    }

    #[tokio::test]
    async fn one_who_gives_up_takes_no_tick_with_it() {
        let pause = Duration::from_secs(1);
        let throttle = failing(pause, 12).await;
        let start = Instant::now();
        assert!(throttle.pass().now_or_never().is_none());
        throttle.pass().await.unwrap();
        assert!(start.elapsed() < pause * 2, "{:?}", start.elapsed());
    }
}
