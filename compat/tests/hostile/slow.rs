//! Senders that dawdle, and readers that do not read.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cluster_compat::http::conn::{self, ConnOptions, Handler, boxed};
use cluster_compat::http::respond;
use cluster_compat::types::{Pin, parse_cid};
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::*;

/// A time limit under test.
const SHORT: Duration = Duration::from_millis(400);

/// Writes a byte now and then until the server has enough of it; how long that took.
async fn dribble(addr: std::net::SocketAddr, start: &str, piece: &[u8]) -> Duration {
    let mut client = TcpStream::connect(addr).await.unwrap();
    client.write_all(start.as_bytes()).await.unwrap();
    let (mut read, mut write) = client.into_split();
    let since = Instant::now();
    let mut dribbling = JoinSet::new();
    let piece = piece.to_vec();
    dribbling.spawn(async move {
        while write.write_all(&piece).await.is_ok() {
            tokio::time::sleep(SHORT / 20).await;
        }
    });
    let mut reply = Vec::new();
    let ended = tokio::time::timeout(LIMIT, read.read_to_end(&mut reply)).await;
    let _ = ended.unwrap_or_else(|_| panic!("{start}: dribbles for ever"));
    since.elapsed()
}

#[tokio::test]
async fn a_head_that_dribbles_in_has_its_time_and_no_more() {
    let faces = faces_with(Limits { head: SHORT, idle: SHORT, ..Limits::default() }).await;
    for (name, addr, line) in faces.all() {
        for start in [String::new(), format!("{line} HTTP/1.1\r\nHost: x\r\nX: ")] {
            let took = dribble(addr, &start, b"a").await;
            assert!(took >= SHORT / 2 && took < LIMIT / 2, "{name}, {start}: {took:?}");
        }
        // the time of the second head counts from its first byte
        let first = format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n{line} HTTP/1.1\r\nX: ");
        dribble(addr, &first, b"a").await;
    }
    faces.are_well("dribbled heads").await;
}

#[tokio::test]
async fn a_body_that_dribbles_in_ends_with_the_requests_time_and_pins_nothing() {
    let faces = faces_with(Limits { head: SHORT, request: SHORT, idle: SHORT }).await;
    let part = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\n";
    for (addr, path) in [
        (faces.rest, "/add"),
        (faces.proxy, "/api/v0/add"),
        (faces.proxy, "/api/v0/other"),
        (faces.pinsvc, "/pins"),
    ] {
        let start = format!(
            "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: 100000\r\n\r\n{part}"
        );
        dribble(addr, &start, b"a").await;
        let start = start.replace("Content-Length: 100000", "Transfer-Encoding: chunked");
        let start = start.replace(part, &format!("{:x}\r\n{part}\r\n", part.len()));
        dribble(addr, &start, b"1\r\na\r\n").await;
    }
    assert!(faces.cluster.pins().is_empty());
    faces.are_well("dribbled bodies").await;
}

#[tokio::test]
async fn listings_that_nobody_reads_are_not_made_and_hold_up_nobody() {
    const N_CLIENTS: usize = 100;
    /// Rows of a kilobyte that may be under way to one client: hyper's buffer and those of the system.
    const MAX_ROWS: usize = 16 << 10;
    let (made, alive) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    struct Alive(Arc<AtomicUsize>);
    impl Drop for Alive {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let handler: Handler = {
        let (made, alive) = (Arc::clone(&made), Arc::clone(&alive));
        Arc::new(move |request, _| {
            let (made, alive) = (Arc::clone(&made), Arc::clone(&alive));
            boxed(async move {
                if request.uri().path() != "/endless" {
                    return respond::document(http::StatusCode::OK, "{}\n");
                }
                alive.fetch_add(1, Ordering::Relaxed);
                let alive = Alive(alive);
                let mut pin = Pin::new(parse_cid(CID).unwrap());
                pin.options.name = "n".repeat(700);
                let rows = futures::stream::repeat_with(move || {
                    let _ = &alive;
                    made.fetch_add(1, Ordering::Relaxed);
                    Ok(pin.clone())
                });
                respond::stream(rows.boxed(), |_, _| Bytes::new()).await
            })
        })
    };
    let (listener, addr) = listen().await;
    let mut serving = JoinSet::new();
    serving.spawn(conn::serve(listener, handler, ConnOptions::default(), CancellationToken::new()));
    let mut clients = Vec::new();
    for _ in 0..N_CLIENTS {
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        clients.push(client);
    }
    // until no more is made
    let settled = async {
        let mut before = usize::MAX;
        loop {
            ask(addr, "GET /id HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            let now = made.load(Ordering::Relaxed);
            if now == before && alive.load(Ordering::Relaxed) == N_CLIENTS {
                return now;
            }
            before = now;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let n_made = tokio::time::timeout(LIMIT, settled).await.expect("listings that nobody reads rest");
    assert!(n_made <= N_CLIENTS * MAX_ROWS, "{n_made} rows for {N_CLIENTS} clients that read none");
    for client in clients {
        client.set_zero_linger().unwrap();
    }
    let gone = async {
        while alive.load(Ordering::Relaxed) > 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(LIMIT, gone).await.expect("their listings end with them");
}
