//! Heads without measure, and bytes that are no text.

use crate::support::*;

#[tokio::test]
async fn heads_without_measure_are_refused() {
    let faces = faces().await;
    for (name, addr, line) in faces.all() {
        for (what, request) in [
            ("one long line", format!("{line} HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(80_000))),
            ("a line without end", format!("{line} HTTP/1.1\r\nHost: x\r\nX: {}", "a".repeat(80_000))),
            ("a long target", format!("{line}{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(80_000))),
            ("a method without end", "A".repeat(80_000)),
            ("many lines", format!("{line} HTTP/1.1\r\nHost: x\r\n{}\r\n", "A: b\r\n".repeat(500))),
        ] {
            let answer = ask(addr, &request).await;
            assert!(answer.starts_with("HTTP/1.1 431 "), "{name}, {what}: {answer}");
        }
        // empty lines before a request are none of it, and are not waited for in their thousands
        let answer = ask(addr, &"\r\n".repeat(50_000)).await;
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{name}: {answer}");
    }
    faces.are_well("large heads").await;
}

#[tokio::test]
async fn bytes_that_are_no_text_are_refused_or_carried_and_crash_nobody() {
    let faces = faces().await;
    let close = b"HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    for (name, addr, _) in faces.all() {
        for method in ["GET", "POST", "DELETE", "PUT", "OPTIONS"] {
            for target in [
                &b"/pins/\xff\xfe"[..],
                b"/pins/%ff%fe",
                b"/pins/%00",
                b"/pins/\xc3\x28?name=\xff&meta-\xff=\xfe",
                b"/pins?filter=%ff&cids=%ff,%fe",
                b"/allocations?filter=%c3%28",
                b"/api/v0/pin/add?arg=%ff%fe",
                b"/api/v0/pin/add/\xff",
                b"/api/v0/pin/ls?arg=%00&type=%ff",
                b"/api/v0/add?cid-version=%ff&chunker=%ff",
                b"/pins/ipfs/%ff/%fe",
                b"/monitor/metrics/%ff",
                b"/pins?name=%ff&cid=%ff&before=%ff&limit=%ff&meta=%7b%ff",
            ] {
                let request =
                    [method.as_bytes(), b" ", target, b" ", close, b"X: \xff\xfe\r\nOrigin: \xff\r\n\r\n"];
                let reply = tell(addr, &request.concat()).await;
                let shown = String::from_utf8_lossy(&reply);
                let status = shown.get(9..12).unwrap_or_default();
                // Kubo, and so the proxy, says 500 to what it cannot read
                let is_refused = !status.is_empty() && (status != "500" || name == "proxy");
                assert!(is_refused, "{name} {method} {}: {shown}", target.escape_ascii());
            }
        }
        for (head, body) in [
            ("POST /peers", &b"{\"peer_id\":\"\xff\xfe\"}"[..]),
            ("POST /peers", b"\xff\xfe\xfd"),
            ("POST /pins", b"{\"cid\":\"\xff\"}"),
            ("POST /add", b"--b\r\nContent-Disposition: form-data; name=\"\xff\"; filename=\"\xff\xfe\"\r\n\r\n\xff\r\n--b--\r\n"),
            ("POST /api/v0/add", b"--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"%ff%fe\"\r\n\r\n\xff\r\n--b--\r\n"),
            ("POST /api/v0/add", b"--b\r\n\xff\xff: \xfe\r\n\r\n--b--\r\n"),
        ] {
            let kind = if body.starts_with(b"--b") { "multipart/form-data; boundary=b" } else { "application/json" };
            let head = format!(
                "{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let reply = tell(addr, &[head.as_bytes(), body].concat()).await;
            assert!(reply.starts_with(b"HTTP/1.1 "), "{name} {head}: {}", reply.escape_ascii());
        }
    }
    faces.are_well("bytes that are no text").await;
}
