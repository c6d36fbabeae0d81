//! Requests that could be read in two ways, with a second one where one of the readings ends.

use crate::support::*;

/// What stands behind an ambiguous request. It must be nobody's request, or one that is read as such by all.
const HIDDEN: &str = "POST /api/v0/hidden HTTP/1.1\r\nHost: x\r\n\r\n";

/// Heads that disagree with themselves about their body, or with others about where they end.
const HEADS: [&str; 34] = [
    "Content-Length: 6\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 6\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nContent-Length: 60\r\n\r\n0\r\n\r\n",
    "Content-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "Content-Length: 44\r\nContent-Length: 0\r\n\r\n",
    "Content-Length: 0, 44\r\n\r\n",
    "Content-Length: 44, 44\r\n\r\n",
    "Content-Length: +44\r\n\r\n",
    "Content-Length: -44\r\n\r\n",
    "Content-Length: 0x2c\r\n\r\n",
    "Content-Length: 4 4\r\n\r\n",
    "Content-Length: 44a\r\n\r\n",
    "Content-Length:\r\n\r\n",
    "Content-Length: 99999999999999999999999999\r\n\r\n",
    "Content-Length : 44\r\n\r\n",
    " Content-Length: 44\r\n\r\n",
    "X: a\r\n Content-Length: 44\r\n\r\n",
    "X: a\r\n\tTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "X: a\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "X: a\0\r\nContent-Length: 44\r\n\r\n",
    "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: identity, chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: identity\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding: chunked\x0b\r\n\r\n0\r\n\r\n",
    "Transfer-Encoding:\r\nContent-Length: 44\r\n\r\n",
    "Transfer\u{2d}Encoding\0: chunked\r\n\r\n0\r\n\r\n",
    "Host: y\r\nContent-Length: 0\r\n\r\n",
    "Content-Length: 0\r\nno colon\r\n\r\n",
    ": no name\r\nContent-Length: 0\r\n\r\n",
];

/// Chunked bodies with an end that only some would see.
const BODIES: [&str; 16] = [
    "+0\r\n\r\n",
    "-0\r\n\r\n",
    "0x0\r\n\r\n",
    " 0\r\n\r\n",
    "\r\n0\r\n\r\n",
    ";a\r\n\r\n",
    "g\r\n\r\n",
    "10000000000000000\r\n\r\n",
    "FFFFFFFFFFFFFFFF\r\n\r\n",
    "5\r\nhello!\r\n0\r\n\r\n",
    "5\r\nhel\r\n0\r\n\r\n",
    "5\rhello\r\n0\r\n\r\n",
    "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
    "0\r\nX: a\rb\r\n\r\n",
    "0\r\nno colon\r\n\r\n",
    "0\r\n Content-Length: 5\r\n\r\n",
];

/// Sends it to the proxy and to the REST API; a second request reaches nobody.
async fn hides_nothing(faces: &Faces, request: &str) {
    let what = request.escape_debug();
    let answer = ask(faces.proxy, request).await;
    assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
    assert!(faces.kubo.saw("hidden").is_empty(), "{what}: the daemon saw two requests");
    let to_rest = request
        .replace("/api/v0/first", "/pins/recover")
        .replace("POST /api/v0/hidden", &format!("DELETE /pins/{CID}"));
    let answer = ask(faces.rest, &to_rest).await;
    assert!(answer.matches("HTTP/1.1 ").count() <= 1, "{what}: {answer}");
    assert!(!faces.cluster.calls().iter().any(|call| call == "unpin"), "{what}: something was unpinned");
}

#[tokio::test]
async fn a_head_that_can_be_read_in_two_ways_hides_no_second_request() {
    let faces = faces().await;
    for head in HEADS {
        hides_nothing(&faces, &format!("POST /api/v0/first HTTP/1.1\r\nHost: x\r\n{head}{HIDDEN}")).await;
    }
    let old = "POST /api/v0/first HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    hides_nothing(&faces, &format!("{old}{HIDDEN}")).await;
    faces.are_well("smuggling").await;
}

#[tokio::test]
async fn a_chunked_body_that_ends_in_two_ways_hides_no_second_request() {
    let faces = faces().await;
    let head = "POST /api/v0/first HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in BODIES {
        hides_nothing(&faces, &format!("{head}{body}{HIDDEN}")).await;
    }
    faces.are_well("smuggling").await;
}

#[tokio::test]
async fn what_the_daemon_gets_is_framed_once_whatever_the_client_sent() {
    let faces = faces().await;
    let second = "POST /api/v0/second HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for (n, (lines, body)) in [
        ("Content-Length: 5\r\n", "hello"),
        ("Content-Length: 5\r\nContent-Length: 5\r\n", "hello"),
        ("Transfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
        ("Transfer-Encoding: ChUnKeD\r\n", "0005;x=y\r\nhello\r\n0\r\nContent-Length: 9\r\nX: y\r\n\r\n"),
        ("Connection: content-length\r\nContent-Length: 5\r\n", "hello"),
        ("Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n", "5\r\nhello\r\n0\r\n\r\n"),
    ]
    .into_iter()
    .enumerate()
    {
        let request = format!("POST /api/v0/body/{n} HTTP/1.1\r\nHost: x\r\n{lines}\r\n{body}{second}");
        let answer = ask(faces.proxy, &request).await;
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 2, "{request}: {answer}");
        let seen = faces.kubo.requests();
        let first = seen.iter().find(|seen| seen.line.contains(&format!("/body/{n}"))).unwrap();
        assert_eq!(first.body, b"hello", "{request}");
        let head = first.head.to_lowercase();
        assert_eq!(
            head.matches("content-length:").count() + head.matches("transfer-encoding:").count(),
            1,
            "{head}"
        );
    }
    assert_eq!(faces.kubo.saw("/second").len(), 6);
}
