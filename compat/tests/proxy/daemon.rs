//! The connections to the daemon: used again, given up with their client, and what a daemon may do to them.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use cluster_compat::http::conn::{Handler, Request, boxed};
use cluster_compat::http::respond;
use cluster_compat::testing::golden;
use cluster_compat::types::{Multiaddr, parse_multiaddr};
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::harness::*;

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: a/b\r\nContent-Length: 2\r\n\r\nok";
/// More than all buffers between two programs of one machine hold.
const PLENTY: usize = 64 << 20;

async fn listener() -> (TcpListener, Multiaddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = format!("/ip4/127.0.0.1/tcp/{}", listener.local_addr().unwrap().port());
    (listener, parse_multiaddr(&addr).unwrap())
}

/// A daemon of bytes: `each` gets every connection.
async fn bytes_daemon<F>(each: impl Fn(TcpStream) -> F + Send + 'static) -> (Multiaddr, JoinSet<()>)
where
    F: Future<Output = ()> + Send + 'static,
{
    let (listener, addr) = listener().await;
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            connections.spawn(each(stream));
        }
    });
    (addr, tasks)
}

/// Reads a head; what came behind it is returned too.
async fn read_head(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut seen = Vec::new();
    loop {
        if let Some(end) = seen.windows(4).position(|four| four == b"\r\n\r\n") {
            let rest = seen.split_off(end + 4);
            return Some((String::from_utf8(seen).unwrap(), rest));
        }
        let mut piece = [0; 4096];
        match stream.read(&mut piece).await {
            Ok(n) if n > 0 => seen.extend_from_slice(&piece[..n]),
            _ => return None,
        }
    }
}

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, work).await.unwrap_or_else(|_| panic!("{what} in {LIMIT:?}"))
}

#[tokio::test]
async fn requests_one_after_another_use_one_connection() {
    let n_connections = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&n_connections);
    let (addr, _daemon) = bytes_daemon(move |mut stream| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            while let Some((head, _)) = read_head(&mut stream).await {
                let reply: &[u8] = match head.split(' ').next() {
                    Some("HEAD") => b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n",
                    Some("OPTIONS") => b"HTTP/1.1 204 No Content\r\n\r\n",
                    _ => OK,
                };
                stream.write_all(reply).await.unwrap();
            }
        }
    })
    .await;
    let server = serve(addr).await;
    for method in ["POST", "HEAD", "GET", "OPTIONS", "DELETE", "POST"] {
        assert!(ask(&server, method, "/api/v0/x", "", b"").await.status < 300, "{method}");
    }
    let answer = ask(&server, "HEAD", "/api/v0/x", "", b"").await;
    assert_eq!((header(&answer, "Content-Length"), text(&answer)), (Some("2"), ""));
    assert_eq!(n_connections.load(Ordering::SeqCst), 1);
    assert_eq!(post(&server, "/api/v0/pin/ls").await.status, 200);
    assert!(n_connections.load(Ordering::SeqCst) <= 2, "headers are asked for on the same ones");
}

#[tokio::test]
async fn a_daemon_that_restarts_is_reached_at_once() {
    let (first, addr) = listener().await;
    let server = serve(addr).await;
    let local = first.local_addr().unwrap();
    let reply = async |listener: &TcpListener| {
        let (mut stream, _) = listener.accept().await.unwrap();
        read_head(&mut stream).await.unwrap();
        stream.write_all(OK).await.unwrap();
        stream
    };
    let (answer, stream) = tokio::join!(post(&server, "/api/v0/x"), reply(&first));
    assert_eq!(answer.status, 200);
    drop((first, stream));
    assert_eq!(post(&server, "/api/v0/x").await.status, 502, "it is down");
    let second = TcpListener::bind(local).await.unwrap();
    let (answer, _stream) = tokio::join!(post(&server, "/api/v0/x"), reply(&second));
    assert_eq!(answer.status, 200);
}

#[tokio::test]
async fn a_kept_connection_that_the_daemon_has_ended_costs_no_request() {
    let replies = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&replies);
    let (closed_tx, mut closed) = mpsc::channel(64);
    let (addr, _daemon) = bytes_daemon(move |mut stream| {
        let (counted, closed) = (Arc::clone(&counted), closed_tx.clone());
        async move {
            if read_head(&mut stream).await.is_some() {
                counted.fetch_add(1, Ordering::SeqCst);
                stream.write_all(OK).await.unwrap();
            }
            drop(stream);
            closed.send(()).await.unwrap();
        }
    })
    .await;
    let server = serve(addr).await;
    for round in 0..20 {
        let answer = ask(&server, "POST", "/api/v0/x", "", b"body").await;
        assert_eq!(answer.status, 200, "round {round}");
        closed.recv().await.unwrap();
    }
    assert_eq!(replies.load(Ordering::SeqCst), 20);
}

#[tokio::test]
async fn a_daemon_that_answers_before_it_has_read_all_is_heard() {
    let (addr, _daemon) = bytes_daemon(|mut stream| async move {
        read_head(&mut stream).await;
        let refusal = "HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 5\r\nContent-Type: a/b\r\n\r\nlarge";
        stream.write_all(refusal.as_bytes()).await.unwrap();
        // it reads no more, but waits for its caller to see the answer
        let mut sink = tokio::io::sink();
        let mut rest = stream.take(1 << 20);
        let _ = tokio::io::copy(&mut rest, &mut sink).await;
    })
    .await;
    let server = serve(addr).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    let head = format!("POST /api/v0/x HTTP/1.1\r\nHost: x\r\nContent-Length: {PLENTY}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    client.write_all(&[7; 1000]).await.unwrap();
    let (reply, _) = within("an answer", read_head(&mut client)).await.expect("a head");
    assert!(reply.starts_with("HTTP/1.1 413 "), "{reply}");
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_ends_the_daemons_request() {
    let (gone_tx, mut gone) = mpsc::channel(1);
    let (arrived_tx, mut arrived) = mpsc::channel(1);
    let (addr, _daemon) = bytes_daemon(move |mut stream| {
        let (gone, arrived) = (gone_tx.clone(), arrived_tx.clone());
        async move {
            read_head(&mut stream).await.unwrap();
            arrived.send(()).await.unwrap();
            let mut rest = Vec::new();
            let _ = stream.read_to_end(&mut rest).await;
            gone.send(()).await.unwrap();
        }
    })
    .await;
    let server = serve(addr).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    client.write_all(b"POST /api/v0/pubsub/sub HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    within("a request", arrived.recv()).await.unwrap();
    // an abort, as of a killed process; one that only ends its side is waited for a little longer
    client.set_zero_linger().unwrap();
    drop(client);
    within("an end", gone.recv()).await.unwrap();
}

#[tokio::test]
async fn what_one_side_does_not_take_the_other_cannot_send() {
    // the daemon takes nothing
    let (addr, _daemon) = bytes_daemon(|mut stream| async move {
        read_head(&mut stream).await.unwrap();
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let server = serve(addr).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    let head = format!("POST /api/v0/x HTTP/1.1\r\nHost: x\r\nContent-Length: {PLENTY}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    assert!(pushed(&mut client).await < PLENTY, "an upload does not gather in the proxy");

    // the client takes nothing
    let (sent_tx, mut sent) = mpsc::channel(1);
    let (addr, _daemon) = bytes_daemon(move |mut stream| {
        let sent = sent_tx.clone();
        async move {
            read_head(&mut stream).await.unwrap();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {PLENTY}\r\n\r\n");
            stream.write_all(head.as_bytes()).await.unwrap();
            sent.send(pushed(&mut stream).await).await.unwrap();
            std::future::pending::<()>().await;
        }
    })
    .await;
    let server = serve(addr).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    client.write_all(b"POST /api/v0/x HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let n_sent = within("a stop", sent.recv()).await.unwrap();
    assert!(n_sent < PLENTY, "a download does not gather in the proxy: {n_sent}");
}

/// How much goes into a connection before it takes nothing for a while.
async fn pushed(stream: &mut TcpStream) -> usize {
    let piece = vec![0; 1 << 20];
    let mut n = 0;
    while n < PLENTY {
        match tokio::time::timeout(std::time::Duration::from_millis(500), stream.write(&piece)).await {
            Ok(Ok(written)) => n += written,
            Ok(Err(_)) | Err(_) => break,
        }
    }
    n
}

#[tokio::test]
async fn chunks_and_trailers_of_a_request_reach_the_daemon() {
    let handler: Handler = Arc::new(|request: Request, _| {
        boxed(async move {
            let announced = request.headers().get("trailer").cloned();
            let collected = request.into_body().collect().await.unwrap();
            let trailers = collected.trailers().cloned().unwrap_or_default();
            let text = format!("{announced:?} {trailers:?} {}", collected.to_bytes().len());
            respond::document(http::StatusCode::OK, text)
        })
    });
    let (addr, _daemon) = daemon(handler).await;
    let server = serve(addr).await;
    let request = "POST /api/v0/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTrailer: X-Sum\r\n\
                   Transfer-Encoding: chunked\r\n\r\n3\r\none\r\n4;ext=1\r\nfour\r\n0\r\nX-Sum: 7\r\n\r\n";
    let reply = within("an answer", golden::send(server.addr, request.as_bytes())).await.unwrap();
    let answer = golden::parse(&reply, "POST").unwrap();
    assert_eq!(text(&answer), "Some(\"X-Sum\") {\"x-sum\": \"7\"} 7");
}

#[tokio::test]
async fn a_client_that_expects_to_be_asked_sends_its_body_after_that() {
    let handler: Handler = Arc::new(|request: Request, _| {
        boxed(async move {
            let body = request.into_body().collect().await.unwrap().to_bytes();
            respond::document(http::StatusCode::OK, body)
        })
    });
    let (addr, _daemon) = daemon(handler).await;
    let server = serve(addr).await;
    let mut client = TcpStream::connect(server.addr).await.unwrap();
    let head = "POST /api/v0/x HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";
    client.write_all(head.as_bytes()).await.unwrap();
    let (asked, rest) = within("100", read_head(&mut client)).await.unwrap();
    assert_eq!((asked.as_str(), rest.len()), ("HTTP/1.1 100 Continue\r\n\r\n", 0));
    client.write_all(b"hello").await.unwrap();
    let mut reply = String::new();
    within("an answer", client.read_to_string(&mut reply)).await.unwrap();
    assert!(reply.starts_with("HTTP/1.1 200 OK\r\n") && reply.ends_with("\r\n\r\nhello"), "{reply}");
}

#[tokio::test]
async fn answers_ahead_of_the_answer_are_left_out() {
    let (addr, _daemon) = bytes_daemon(|mut stream| async move {
        let mut ahead: VecDeque<&[u8]> = VecDeque::from([
            &b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"[..],
            b"HTTP/1.1 100 Continue\r\n\r\n",
            b"HTTP/1.1 102 Processing\r\n\r\n",
        ]);
        read_head(&mut stream).await.unwrap();
        while let Some(next) = ahead.pop_front() {
            stream.write_all(next).await.unwrap();
        }
        stream.write_all(OK).await.unwrap();
    })
    .await;
    let server = serve(addr).await;
    let answer = ask(&server, "POST", "/api/v0/x", "", b"body").await;
    assert_eq!((answer.status, text(&answer)), (200, "ok"));
}
