//! Upload bodies as recorded, cut in every way.

use std::convert::Infallible;

use futures::stream;
use http_body::Frame;
use http_body_util::StreamBody;

use super::*;
use crate::api::ErrorKind;

const FILE: &str = "Content-Disposition: form-data; name=\"file\"; filename=\"a\"\r\n\
    Content-Type: application/octet-stream\r\n\r\n";

/// All entries with their contents, or the error after them; the body comes in pieces of `step`.
async fn read_by(content_type: &str, body: &[u8], step: usize) -> (Vec<(Entry, Vec<u8>)>, Option<Error>) {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
    let pieces: Vec<_> = body
        .chunks(step)
        .map(|piece| Ok::<_, Infallible>(Frame::data(Bytes::copy_from_slice(piece))))
        .collect();
    let (mut multipart, _) = Multipart::new(&headers, StreamBody::new(stream::iter(pieces))).unwrap();
    let mut entries = Vec::new();
    loop {
        match multipart.next_entry().await {
            Ok(None) => return (entries, None),
            Err(error) => return (entries, Some(error)),
            Ok(Some(entry)) => {
                let mut content = Vec::new();
                while let Some(piece) = multipart.read().await.unwrap() {
                    assert!(!piece.is_empty());
                    content.extend_from_slice(&piece);
                }
                entries.push((entry, content));
            }
        }
    }
}

/// As text: `path=content …`, then `!error`; the same for all ways to cut the body.
async fn read(body: &str) -> String {
    let mut texts = Vec::new();
    for step in [1, 2, 3, 5, 8, 4096] {
        let (entries, error) = read_by("multipart/form-data; boundary=b", body.as_bytes(), step).await;
        let mut text: Vec<String> = entries
            .iter()
            .map(|(entry, content)| {
                format!("{}={}", String::from_utf8_lossy(&entry.path), String::from_utf8_lossy(content))
            })
            .collect();
        text.extend(error.map(|error| format!("!{}", error.message)));
        texts.push(text.join(" "));
    }
    texts.dedup();
    assert_eq!(texts.len(), 1, "{texts:?}");
    texts.remove(0)
}

#[tokio::test]
async fn bodies_are_read_as_recorded() {
    assert_eq!(read(&format!("--b\r\n{FILE}hello\r\n--b--\r\n")).await, "a=hello");
    assert_eq!(read(&format!("preamble\r\n--b\r\n{FILE}hello\r\n--b--\r\nepilogue")).await, "a=hello");
    assert_eq!(read(&format!("--b\r\n{FILE}hello\r\n--b--\r\n").replace("\r\n", "\n")).await, "a=hello");
    assert_eq!(read(&format!("--b\r\n{FILE}hello")).await, format!("a=hello !{CUT}"));
    assert_eq!(read(&format!("--b\r\n{FILE}hello\r\n--b")).await, format!("a=hello !{CUT}"));
    assert_eq!(read(&format!("--b\r\n{FILE}hello\r\n--b--")).await, "a=hello");
    assert_eq!(read("").await, format!("!{CUT}"));
    assert_eq!(read("garbage without any boundary").await, format!("!{CUT}"));
    assert_eq!(read("--b--\r\n").await, "");
    assert_eq!(
        read("--b\r\nno colon\r\n\r\nx\r\n--b--\r\n").await,
        "!malformed MIME header: missing colon: \"no colon\""
    );
    assert_eq!(
        read(
            "--b\r\nContent-Disposition: form-data; filename=\"a\"\r\nContent-Type: ;;\r\n\r\nx\r\n--b--\r\n"
        )
        .await,
        "!mime: no media type"
    );
}

#[tokio::test]
async fn what_looks_like_a_boundary_is_content() {
    let tricky = "\r\n--bb\r\n--b-x\r\n\r\n-\r--b--\n--b";
    assert_eq!(
        read(&format!("--b\r\n{FILE}{tricky}\r\n--b\r\n{FILE}\r\n--b--\r\n")).await,
        format!("a={tricky} a=")
    );
    assert_eq!(read(&format!("--b\r\n{FILE}--b  \r\n{FILE}x\r\n--b--\r\n")).await, "a= a=x");
}

#[tokio::test]
async fn names_are_unescaped_and_cleaned() {
    for (given, path) in [
        ("filename=\"dir%2Fsub+x%2Fa.txt\"", "dir/sub x/a.txt"),
        ("filename=\"a%zz\"", "a%zz"),
        ("filename=plain.txt", "plain.txt"),
        ("filename*=UTF-8''na%C3%AFve.txt", "naïve.txt"),
        ("filename=\"../../etc//passwd/.\"", "etc/passwd"),
        ("name=\"file\"", ""),
    ] {
        let body = format!("--b\r\nContent-Disposition: form-data; {given}\r\n\r\nx\r\n--b--\r\n");
        assert_eq!(read(&body).await, format!("{path}=x"), "{given}");
    }
    let body = "--b\r\nContent-Disposition: form-data; filename=\"%ff%00\"\r\n\r\n\r\n--b--\r\n";
    let (entries, _) = read_by("multipart/mixed; boundary=\"b\"", body.as_bytes(), 64).await;
    assert_eq!(entries[0].0.path, b"\xff\0");
}

#[tokio::test]
async fn parts_that_are_none_are_the_senders_fault() {
    for body in [
        "--b\r\nContent-Disposition: form-data; filename=\"",
        "--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n",
        "--b\r\n\r\nx\r\n--b--\r\n",
        "--b\r\nContent-Disposition: ;;; filename=\r\n\r\nx\r\n--b--\r\n",
    ] {
        let (entries, error) = read_by("multipart/form-data; boundary=b", body.as_bytes(), 7).await;
        assert!(entries.is_empty());
        assert_eq!(error.map(|error| error.kind), Some(ErrorKind::BadRequest), "{body}");
    }
}

#[tokio::test]
async fn kinds_come_from_the_content_type() {
    let part = |kind: &str, name: &str, body: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"{name}\"\r\nContent-Type: {kind}\r\nAbspath-Encoded: %2Ftmp%2F{name}\r\n\r\n{body}\r\n"
        )
    };
    let body = part("application/x-directory", "d", "")
        + &part("application/symlink", "d%2Fl", "../target")
        + &part("text/plain; charset=x", "d%2Ff", "x")
        + "--b--\r\n";
    let (entries, error) = read_by("multipart/form-data; boundary=b", body.as_bytes(), 9).await;
    assert_eq!(error, None);
    let kinds: Vec<_> = entries.iter().map(|(entry, _)| entry.kind.clone()).collect();
    assert_eq!(kinds, [EntryKind::Directory, EntryKind::Symlink(b"../target".to_vec()), EntryKind::File]);
    assert_eq!(entries[2].0.abspath.as_deref(), Some("/tmp/d/f"));
}

#[tokio::test]
async fn an_unread_file_is_skipped() {
    let body = format!("--b\r\n{FILE}hello\r\n--b\r\n{FILE}world\r\n--b--\r\n");
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, "multipart/form-data; boundary=b".parse().unwrap());
    let (mut multipart, mut started) =
        Multipart::new(&headers, http_body_util::Full::new(Bytes::from(body))).unwrap();
    assert!(started.try_recv().is_err());
    multipart.next_entry().await.unwrap().unwrap();
    started.try_recv().unwrap();
    multipart.next_entry().await.unwrap().unwrap();
    assert_eq!(multipart.read().await.unwrap().unwrap(), "world");
    assert_eq!(multipart.read().await.unwrap(), None);
    assert_eq!(multipart.next_entry().await.unwrap(), None);
}

#[test]
fn other_content_types_are_refused_with_go_texts() {
    let refused = |content_type: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, content_type.parse().unwrap());
        Multipart::new(&headers, http_body_util::Empty::<Bytes>::new()).err()
    };
    assert_eq!(refused("multipart/form-data"), Some(NO_BOUNDARY));
    assert_eq!(refused("multipart/form-data; boundary="), Some(NOT_MULTIPART));
    assert_eq!(refused("multipart/form-data; boundary=b; boundary=c"), Some(NOT_MULTIPART));
    assert_eq!(refused("multipart/related; boundary=b"), Some(NOT_MULTIPART));
    assert_eq!(refused("MULTIPART/FORM-DATA; boundary=b"), None);
}

#[tokio::test]
async fn a_line_that_is_too_long_is_so_however_the_body_is_cut() {
    for (n, expected) in [(MAX_LINE - 1, 0), (MAX_LINE, 1), (MAX_LINE + 1, 1)] {
        let body = format!("{}\r\n--b--\r\n", "x".repeat(n));
        let text = read(&body).await;
        assert_eq!(text.matches("buffer full").count(), expected, "{n}: {text}");
    }
}
