//! Many connections at once.

use std::sync::Arc;
use std::time::Duration;

use cluster_compat::http::conn::{self, ConnOptions, Handler, Request, boxed};
use cluster_compat::http::respond;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::support::*;

/// Connections that say nothing more hold up nobody, on any face, before and after their first request.
async fn crowd(n_idle: usize) {
    let faces = faces().await;
    for (name, addr, line) in faces.all() {
        let mut idle = Vec::new();
        for n in 0..n_idle {
            let mut client = TcpStream::connect(addr).await.unwrap();
            if n % 2 == 0 {
                client.write_all(format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
                let read = tokio::time::timeout(LIMIT, client.read_exact(&mut [0; 9])).await;
                read.unwrap_or_else(|_| panic!("{name}: connection {n} is not served")).unwrap();
            }
            idle.push(client);
        }
        faces.are_well(&format!("{n_idle} idle connections of {name}")).await;
    }
}

#[tokio::test]
async fn where_all_places_are_taken_the_longest_idle_connection_gives_up_its_own() {
    let handler: Handler = Arc::new(|request: Request, _| {
        boxed(async move {
            if request.uri().path() == "/never" {
                std::future::pending::<()>().await;
            }
            respond::document(http::StatusCode::OK, "{}\n")
        })
    });
    let (listener, addr) = listen().await;
    let options = ConnOptions { max_connections: 4, ..ConnOptions::default() };
    let mut serving = JoinSet::new();
    serving.spawn(conn::serve(listener, handler, options, CancellationToken::new()));
    let mut busy = TcpStream::connect(addr).await.unwrap();
    busy.write_all(b"GET /never HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut clients = Vec::new();
    for _ in 0..20 {
        let mut client = TcpStream::connect(addr).await.unwrap();
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let served = tokio::time::timeout(LIMIT, client.read_exact(&mut [0; 12])).await;
        served.expect("a place for the next").unwrap();
        clients.push(client);
    }
    // the first to come was the first to go, and went between two requests
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(LIMIT, clients[0].read_to_end(&mut rest)).await;
    ended.expect("the first connection is closed").unwrap();
    assert!(rest.ends_with(b"{}\n"), "{}", rest.escape_ascii());
    let still = tokio::time::timeout(Duration::from_millis(100), busy.read(&mut [0; 1])).await;
    assert!(still.is_err(), "the one with a request keeps its place");
}

/// `CROWD=8000` makes it a crowd indeed, where so many files may be open twice.
#[tokio::test]
async fn idle_connections_hold_up_nobody() {
    crowd(std::env::var("CROWD").ok().and_then(|n| n.parse().ok()).unwrap_or(300)).await;
}
