//! Spawning, stopping and waiting: every task has a name and an owner.
//!
//! A room gets a [`Tasks`] from its builder and spawns through it. Stopping is two steps: [`Tasks::stop`] fires
//! the token that every loop selects on, [`Tasks::join`] waits, and after the grace period names and aborts the
//! tasks that are late. A panic in a task is remembered and reported by `join`, and by [`Tasks::panicked`] at once.

use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tracing::{error, warn};

/// How long tasks may take to stop before they are named and aborted.
pub const GRACE: Duration = Duration::from_secs(30);

/// The tasks of one owner, and the token that stops them. Clones share both.
#[derive(Clone)]
pub struct Tasks {
    inner: Arc<Inner>,
}

struct Inner {
    stop: CancellationToken,
    /// Taken by `spawn`, by finishing tasks and by `join`; never held over an await.
    running: Mutex<Running>,
    panicked: watch::Sender<Option<String>>,
}

#[derive(Default)]
struct Running {
    next: u64,
    tasks: HashMap<u64, (String, JoinHandle<()>)>,
}

impl Tasks {
    /// An owner of its own.
    pub fn new() -> Self {
        Self::with_token(CancellationToken::new())
    }

    /// An owner that stops when `parent` stops, or alone.
    pub fn child(&self) -> Self {
        let child = Self::with_token(self.inner.stop.child_token());
        let _ = child.inner.panicked.send_replace(None);
        child
    }

    fn with_token(stop: CancellationToken) -> Self {
        let (panicked, _) = watch::channel(None);
        Self { inner: Arc::new(Inner { stop, running: Mutex::default(), panicked }) }
    }

    /// Fires when the tasks shall stop.
    pub fn token(&self) -> CancellationToken {
        self.inner.stop.clone()
    }

    /// Tells the tasks to stop; returns at once.
    pub fn stop(&self) {
        self.inner.stop.cancel();
    }

    /// Runs `future` under `name`. The future itself watches [`Tasks::token`].
    #[allow(clippy::disallowed_methods, reason = "the one place that spawns")]
    pub fn spawn(&self, name: impl Into<String>, future: impl Future<Output = ()> + Send + 'static) {
        let name = name.into();
        let inner = Arc::clone(&self.inner);
        let mut running = self.lock();
        let id = running.next;
        running.next += 1;
        let task_name = name.clone();
        let handle = tokio::spawn(async move {
            let _leave = Leave { inner: &inner, id, name: &task_name };
            future.await;
        });
        running.tasks.insert(id, (name, handle));
        // a task that ended before its handle was stored has no one left to remove it
        running.tasks.retain(|_, (_, handle)| !handle.is_finished());
    }

    /// Runs `job` every `every`, first at once when `at_once`, until stopped. The pause counts from the end of a run.
    pub fn every<F, R>(&self, name: impl Into<String>, every: Duration, at_once: bool, mut job: F)
    where
        F: FnMut() -> R + Send + 'static,
        R: Future<Output = ()> + Send + 'static,
    {
        let stop = self.token();
        self.spawn(name, async move {
            let mut wait = if at_once { Duration::ZERO } else { every };
            loop {
                tokio::select! {
                    biased;
                    () = stop.cancelled() => return,
                    () = tokio::time::sleep(wait) => {}
                }
                job().await;
                wait = every;
            }
        });
    }

    /// Resolves with its name when a task panics.
    pub async fn panicked(&self) -> String {
        let mut watch = self.inner.panicked.subscribe();
        loop {
            if let Some(name) = watch.borrow_and_update().clone() {
                return name;
            }
            if watch.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits for all tasks; those still running after `grace` are named and aborted.
    pub async fn join(&self, grace: Duration) {
        let deadline = tokio::time::Instant::now() + grace;
        loop {
            let next = {
                let mut running = self.lock();
                let id = running.tasks.keys().next().copied();
                id.and_then(|id| running.tasks.remove(&id))
            };
            let Some((name, mut handle)) = next else { return };
            match tokio::time::timeout_at(deadline, &mut handle).await {
                Ok(Ok(())) => {}
                Ok(Err(failure)) => error!(task = name, %failure, "task failed"),
                Err(_) => {
                    warn!(task = name, "task did not stop in time; aborting it");
                    handle.abort();
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Running> {
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Default for Tasks {
    fn default() -> Self {
        Self::new()
    }
}

struct Leave<'a> {
    inner: &'a Inner,
    id: u64,
    name: &'a str,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let _ = self.inner.panicked.send_replace(Some(self.name.to_owned()));
        }
        self.inner.running.lock().unwrap_or_else(PoisonError::into_inner).tasks.remove(&self.id);
    }
}
