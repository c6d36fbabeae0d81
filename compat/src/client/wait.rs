//! Waiting until a pin has a status on enough peers.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::{Error, RestClient};
use crate::types::{Cid, GlobalPinInfo, TrackerStatus};

/// What is waited for.
#[derive(Debug, Clone, Copy)]
pub struct Wait {
    /// Whose status.
    pub cid: Cid,
    /// The status every peer shall have.
    pub target: TrackerStatus,
    /// How many peers suffice; 0 or less is all.
    pub limit: i64,
    /// Pause before each look.
    pub every: Duration,
    /// Longest wait; zero is for ever.
    pub timeout: Duration,
}

/// Why waiting ended without the status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WaitError {
    /// The peer could not be asked.
    #[error(transparent)]
    Call(#[from] Error),
    /// A peer reports an error, so the status will not come. (Go: `api/rest/client/methods.go`)
    #[error("error has occurred while attempting to reach status: {0}")]
    Failed(TrackerStatus),
    /// The time is up. (Go: `context`)
    #[error("context deadline exceeded")]
    DeadlineExceeded,
}

impl RestClient {
    /// Looks at the status until it is reached; the last one seen.
    pub async fn wait(&self, wait: Wait) -> Result<GlobalPinInfo, WaitError> {
        let looking = async {
            let mut ticks = tokio::time::interval_at(Instant::now() + wait.every, wait.every);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                ticks.tick().await;
                let status = self.status(wait.cid, false).await?;
                if is_reached(&wait, &status)? {
                    return Ok(status);
                }
            }
        };
        if wait.timeout.is_zero() {
            return looking.await;
        }
        tokio::time::timeout(wait.timeout, looking).await.map_err(|_| WaitError::DeadlineExceeded)?
    }
}

/// Whether enough peers have the status.
fn is_reached(wait: &Wait, status: &GlobalPinInfo) -> Result<bool, WaitError> {
    let errors = [
        TrackerStatus::UNDEFINED,
        TrackerStatus::CLUSTER_ERROR,
        TrackerStatus::PIN_ERROR,
        TrackerStatus::UNPIN_ERROR,
    ];
    let statuses = || status.peer_map.values().map(|info| info.status);
    if statuses().any(|status| errors.contains(&status)) {
        return Err(WaitError::Failed(wait.target));
    }
    let limit = usize::try_from(wait.limit).unwrap_or(0).min(status.peer_map.len());
    if limit > 0 {
        return Ok(statuses().filter(|status| *status == wait.target).count() >= limit);
    }
    let is_pinning = wait.target == TrackerStatus::PINNED;
    Ok(statuses().all(|status| status == wait.target || (is_pinning && status == TrackerStatus::REMOTE)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::go::time::Time;
    use crate::types::PinInfoShort;

    fn reached(statuses: &[TrackerStatus], target: TrackerStatus, limit: i64) -> Result<bool, WaitError> {
        let wait =
            Wait { cid: Cid::default(), target, limit, every: Duration::ZERO, timeout: Duration::ZERO };
        let mut status = GlobalPinInfo::default();
        for (n, one) in statuses.iter().enumerate() {
            let info = PinInfoShort {
                peername: String::new(),
                ipfs_peer_id: None,
                ipfs_peer_addresses: Vec::new(),
                status: *one,
                timestamp: Time::ZERO,
                error: String::new(),
                attempt_count: 0,
                priority_pin: false,
            };
            status.peer_map.insert(n.to_string(), info);
        }
        is_reached(&wait, &status)
    }

    #[test]
    fn all_peers_or_as_many_as_asked_for() {
        use TrackerStatus as S;
        assert_eq!(reached(&[S::PINNED, S::REMOTE], S::PINNED, 0), Ok(true));
        assert_eq!(reached(&[S::PINNED, S::PINNING], S::PINNED, 0), Ok(false));
        assert_eq!(reached(&[S::PINNED, S::PINNING], S::PINNED, 1), Ok(true));
        assert_eq!(reached(&[S::PINNED], S::PINNED, 5), Ok(true));
        assert_eq!(reached(&[S::UNPINNED, S::REMOTE], S::UNPINNED, 0), Ok(false));
        assert_eq!(reached(&[S::PINNED, S::PIN_ERROR], S::PINNED, 1), Err(WaitError::Failed(S::PINNED)));
        assert_eq!(reached(&[], S::PINNED, 1), Ok(true));
    }
}
