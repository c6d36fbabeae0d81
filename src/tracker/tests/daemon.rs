//! A daemon that knows `pin/ls`, `pin/add` and `pin/rm`, fails and stalls on request, and says what it saw.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};

use cluster_compat::types::Cid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::sync::futures::Notified;

use crate::ipfs::{Client, Options};
use crate::task::Tasks;

/// What the daemon holds and how it behaves; tests change it at will.
#[derive(Default)]
pub(super) struct State {
    /// CID text and pin type.
    pub(super) held: BTreeMap<String, &'static str>,
    /// CIDs whose `pin/add` or `pin/rm` does not end before [`Daemon::release`].
    pub(super) stalled: BTreeSet<String>,
    /// CIDs whose `pin/add` and `pin/rm` fail, with this message.
    pub(super) failing: BTreeMap<String, String>,
    /// Message with which every `pin/ls` fails.
    pub(super) no_list: Option<String>,
    /// After this many lines `pin/ls` waits for [`Daemon::release`].
    pub(super) list_stalls_after: Option<usize>,
    /// Everything after `/api/v0/`, in order.
    pub(super) requests: Vec<String>,
    /// CIDs of requests whose client left while they stalled.
    pub(super) aborted: Vec<String>,
    /// Requests that stall now, and the most there ever were, by command.
    pub(super) n_running: BTreeMap<String, (usize, usize)>,
}

#[derive(Clone)]
pub(super) struct Daemon {
    state: Arc<Mutex<State>>,
    released: Arc<Notify>,
    port: u16,
}

impl Daemon {
    pub(super) async fn start(tasks: &Tasks) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let daemon = Self { state: Arc::default(), released: Arc::default(), port };
        let (serving, connections, stop) = (daemon.clone(), tasks.clone(), tasks.token());
        tasks.spawn("fake daemon", async move {
            while let Some(Ok((stream, _))) = stop.run_until_cancelled(listener.accept()).await {
                let (daemon, stop) = (serving.clone(), stop.clone());
                connections.spawn("fake daemon connection", async move {
                    stop.run_until_cancelled(daemon.serve(stream)).await;
                });
            }
        });
        daemon
    }

    pub(super) fn client(&self, unpin_disable: bool) -> Client {
        let limit = std::time::Duration::from_secs(60);
        Client::with_options(Options {
            node_multiaddress: format!("/ip4/127.0.0.1/tcp/{}", self.port),
            ipfs_request_timeout: limit,
            pin_timeout: limit,
            unpin_timeout: limit,
            repogc_timeout: limit,
            informer_trigger_interval: 0,
            unpin_disable,
        })
        .unwrap()
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(super) fn hold(&self, cids: impl IntoIterator<Item = Cid>, kind: &'static str) {
        self.lock().held.extend(cids.into_iter().map(|cid| (cid.to_string(), kind)));
    }

    pub(super) fn holds(&self, cid: &Cid) -> bool {
        self.lock().held.contains_key(&cid.to_string())
    }

    pub(super) fn n_requests(&self, prefix: &str) -> usize {
        self.lock().requests.iter().filter(|request| request.starts_with(prefix)).count()
    }

    /// Ends every stall, now and later.
    pub(super) fn release(&self) {
        let mut state = self.lock();
        state.stalled.clear();
        state.list_stalls_after = None;
        drop(state);
        self.released.notify_waiters();
    }

    /// One request; the connection ends with it.
    async fn serve(&self, mut stream: TcpStream) {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let head = String::from_utf8(head).unwrap();
        let target = head.split(' ').nth(1).unwrap().strip_prefix("/api/v0/").unwrap().to_owned();
        self.lock().requests.push(target.clone());
        let (command, query) = target.split_once('?').unwrap();
        let argument = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            pairs.find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        // from here on no release is missed
        let released = self.released.notified();
        let result = match (command, argument("arg")) {
            ("pin/ls", None) => return self.list(stream, &argument("type").unwrap(), released).await,
            ("pin/ls", Some(cid)) => self.look(&cid, &argument("type").unwrap()),
            (_, Some(cid)) => {
                let is_stalled = self.lock().stalled.contains(&cid);
                if is_stalled && !self.stall(&mut stream, command, &cid, released).await {
                    return;
                }
                self.change(command, &cid)
            }
            _ => Err(format!("unexpected {target}")),
        };
        answer(&mut stream, result).await;
    }

    /// Whether it was released before the client left.
    async fn stall(&self, stream: &mut TcpStream, command: &str, cid: &str, released: Notified<'_>) -> bool {
        let count = |by: isize| {
            let mut state = self.lock();
            let (now, most) = state.n_running.entry(command.to_owned()).or_default();
            *now = now.checked_add_signed(by).unwrap();
            *most = (*most).max(*now);
        };
        count(1);
        let is_released = tokio::select! {
            () = released => true,
            _ = stream.read_u8() => false,
        };
        count(-1);
        if !is_released {
            self.lock().aborted.push(cid.to_owned());
        }
        is_released
    }

    fn change(&self, command: &str, cid: &str) -> Result<String, String> {
        let mut state = self.lock();
        if let Some(message) = state.failing.get(cid) {
            return Err(message.clone());
        }
        if command == "pin/add" {
            state.held.insert(cid.to_owned(), "recursive");
        } else if state.held.remove(cid).is_none() {
            return Err("not pinned or pinned indirectly".into());
        }
        Ok(format!("{{\"Pins\":[\"{cid}\"]}}\n"))
    }

    fn look(&self, cid: &str, kind: &str) -> Result<String, String> {
        let state = self.lock();
        if let Some(message) = &state.no_list {
            return Err(message.clone());
        }
        match state.held.get(cid) {
            Some(held) if *held == kind || !["recursive", "direct"].contains(held) => Ok(line(cid, held)),
            _ => Err(format!("path '{cid}' is not pinned")),
        }
    }

    async fn list(&self, mut stream: TcpStream, kind: &str, released: Notified<'_>) {
        let failure = self.lock().no_list.clone();
        if let Some(message) = failure {
            return answer(&mut stream, Err(message)).await;
        }
        let (lines, stalls_after) = {
            let state = self.lock();
            let lines =
                state.held.iter().filter(|(_, held)| **held == kind).map(|(cid, held)| line(cid, held));
            (lines.collect::<Vec<_>>(), state.list_stalls_after)
        };
        let n_first = stalls_after.unwrap_or(lines.len()).min(lines.len());
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n";
        let _ = stream.write_all(format!("{head}{}", lines[..n_first].concat()).as_bytes()).await;
        if stalls_after.is_none() || self.stall(&mut stream, "pin/ls", kind, released).await {
            let _ = stream.write_all(lines[n_first..].concat().as_bytes()).await;
        }
    }
}

async fn answer(stream: &mut TcpStream, result: Result<String, String>) {
    let (status, body) = match result {
        Ok(body) => ("200 OK", body),
        Err(message) => {
            let body = format!("{{\"Message\":\"{message}\",\"Code\":0,\"Type\":\"error\"}}\n");
            ("500 Internal Server Error", body)
        }
    };
    let head = "Content-Type: application/json\r\nConnection: close";
    let text = format!("HTTP/1.1 {status}\r\n{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    // a client that left is no failure of the daemon
    let _ = stream.write_all(text.as_bytes()).await;
}

fn line(cid: &str, kind: &str) -> String {
    format!("{{\"Cid\":\"{cid}\",\"Type\":\"{kind}\"}}\n")
}
