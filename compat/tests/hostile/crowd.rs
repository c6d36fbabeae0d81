//! Many connections at once.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

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
async fn idle_connections_hold_up_nobody() {
    crowd(300).await;
}

/// `CROWD=10000 cargo test -p cluster_compat --test hostile -- --ignored`
#[tokio::test]
#[ignore = "wants many open files"]
async fn thousands_of_idle_connections_hold_up_nobody() {
    crowd(std::env::var("CROWD").ok().and_then(|n| n.parse().ok()).unwrap_or(8000)).await;
}
