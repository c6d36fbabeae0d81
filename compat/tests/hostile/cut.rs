//! Connections cut at every stage, from either side.

use cluster_compat::testing::kubo::{Part, Rule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::*;

fn multipart(path: &str) -> String {
    let body = "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\r\nsome content\r\n--b--\r\n";
    format!(
        "POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: multipart/form-data; boundary=b\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

#[tokio::test]
async fn a_request_cut_anywhere_leaves_nothing_behind() {
    let faces = faces().await;
    for (addr, request) in [
        (
            faces.rest,
            format!("POST /pins/{CID}?name=a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello"),
        ),
        (faces.rest, multipart("/add?stream-channels=false")),
        (faces.proxy, multipart("/api/v0/add")),
        (faces.proxy, multipart("/api/v0/block/put?pin=true")),
        (
            faces.pinsvc,
            format!("POST /pins HTTP/1.1\r\nHost: x\r\nContent-Length: 58\r\n\r\n{{\"cid\":\"{CID}\"}}"),
        ),
    ] {
        // a route that takes no body looks at the head alone; a form is whole with its last boundary, and the fake pins
        // a file when it has ended
        let end = ["\r\n\r\nhello", "\r\n--b--"].iter().find_map(|end| request.find(end));
        let end = end.unwrap_or(request.len() - 1);
        for at in (0..end).step_by(7).chain([end]) {
            let mut client = TcpStream::connect(addr).await.unwrap();
            client.write_all(&request.as_bytes()[..at]).await.unwrap();
            if at % 2 == 0 {
                // the sender is gone without a word
                client.set_zero_linger().unwrap();
                drop(client);
            } else {
                client.shutdown().await.unwrap();
                let mut reply = Vec::new();
                let read = tokio::time::timeout(LIMIT, client.read_to_end(&mut reply)).await;
                let _ = read.unwrap_or_else(|_| panic!("no end after {at} bytes of {request}"));
                assert!(!reply.starts_with(b"HTTP/1.1 202"), "{at}: {}", reply.escape_ascii());
            }
        }
    }
    faces.are_well("cut requests").await;
    let pins: Vec<String> = faces.cluster.pins().iter().map(|pin| pin.cid.to_string()).collect();
    assert!(pins.is_empty(), "{pins:?}");
}

#[tokio::test]
async fn a_client_that_leaves_while_it_is_answered_harms_nobody() {
    let faces = faces().await;
    faces.kubo.set_rules(vec![Rule::new(
        "/endless",
        vec![
            Part::Bytes(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n".to_vec()),
            Part::Hang,
        ],
    )]);
    for (_, addr, line) in faces.all() {
        for read in [0, 1, 20] {
            let mut client = TcpStream::connect(addr).await.unwrap();
            let request = format!("{line} HTTP/1.1\r\nHost: x\r\n\r\n").repeat(8);
            client.write_all(request.as_bytes()).await.unwrap();
            let mut some = vec![0; read];
            client.read_exact(&mut some).await.unwrap();
            client.set_zero_linger().unwrap();
        }
    }
    for _ in 0..20 {
        let mut client = TcpStream::connect(faces.proxy).await.unwrap();
        client.write_all(b"POST /api/v0/endless HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        client.read_exact(&mut [0; 15]).await.unwrap();
        client.set_zero_linger().unwrap();
    }
    faces.are_well("clients that left").await;
}

#[tokio::test]
async fn a_daemon_that_cuts_its_answer_anywhere_is_never_taken_for_one_that_ended() {
    let faces = faces().await;
    for (whole, marker) in [
        (
            &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nthere\r\n0\r\n\r\n"[..],
            "0\r\n\r\n",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhellothere", "hellothere"),
    ] {
        for at in 0..whole.len() {
            faces.kubo.set_rules(vec![Rule::new("/cut", vec![Part::Bytes(whole[..at].to_vec())])]);
            let request = "POST /api/v0/cut HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
            let answer = ask(faces.proxy, request).await;
            assert!(answer.starts_with("HTTP/1.1 502 ") || !answer.ends_with(marker), "{at}: {answer}");
        }
    }
    faces.kubo.set_rules(vec![]);
    faces.are_well("cut answers").await;
}
