//! SIGINT, SIGTERM and SIGHUP, counted together. (spec: cli 2.6)
//!
//! The first stops the peer in order, the second says how to be rid of it, the third ends the process at once.

use std::io::Write as _;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// What the second signal prints. (Go: `cmdutils/cmdutils.go`, `handleSignals`)
const BANNER: &str = "\n\n\n!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!\n\
     Shutdown is taking too long! Press Ctrl-c again to manually kill cluster.\n\
     Note that this may corrupt the local cluster state.\n\
     !!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!!\n\n\n";

/// The three signals, from the moment they are listened to.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    /// Takes the signals over; from now on they no longer end the process by themselves.
    pub fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Resolves at the next signal.
    pub async fn first(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }

    /// Acts on every further signal: a banner, then the end of the process. Never returns.
    pub async fn escalate(mut self) {
        self.first().await;
        // a closed standard error must not stop anybody from being killed
        let _ = std::io::stderr().write_all(BANNER.as_bytes());
        self.first().await;
        let _ = std::io::stderr().write_all(b"exiting cluster NOW");
        std::process::exit(1);
    }
}
