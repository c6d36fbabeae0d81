//! Exchanges with a server that says what the test wants.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::{Error, Options, RestClient, Wait, WaitError};
use crate::api::{self, Entry, EntryKind, Upload};
use crate::types::{AddParams, Cid, TrackerStatus, parse_multiaddr};

/// Answers one connection with `reply` after a request that ends in `until`; gives what it read.
#[allow(clippy::disallowed_methods, reason = "the test joins it")]
async fn serve(reply: &'static str, until: &'static str) -> (SocketAddr, JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut seen = Vec::new();
        while !seen.ends_with(until.as_bytes()) {
            if socket.read_buf(&mut seen).await.unwrap() == 0 {
                break;
            }
        }
        socket.write_all(reply.as_bytes()).await.unwrap();
        String::from_utf8_lossy(&seen).into_owned()
    });
    (address, served)
}

async fn client(addresses: &[SocketAddr]) -> RestClient {
    let hosts = addresses
        .iter()
        .map(|address| parse_multiaddr(&format!("/ip4/{}/tcp/{}", address.ip(), address.port())).unwrap())
        .collect();
    RestClient::new(Options { hosts, ..Options::default() }).await.unwrap()
}

#[tokio::test]
async fn a_document_is_read_and_credentials_are_sent() {
    let (address, served) =
        serve("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{\"version\":\"1.1.6\"}\n", "\r\n\r\n").await;
    let hosts = vec![parse_multiaddr(&format!("/ip4/127.0.0.1/tcp/{}", address.port())).unwrap()];
    let options = Options { hosts, username: "user".into(), password: "a:b".into(), ..Options::default() };
    let client = RestClient::new(options).await.unwrap();
    assert_eq!(client.version().await.unwrap().version, "1.1.6");
    let seen = served.await.unwrap();
    assert!(seen.starts_with("GET /version HTTP/1.1\r\n"), "{seen}");
    assert!(seen.contains("Authorization: Basic dXNlcjphOmI=\r\n"), "{seen}");
}

#[tokio::test]
async fn refusals_keep_their_code_and_words() {
    let (address, _served) = serve(
        "HTTP/1.1 401 Unauthorized\r\nContent-Length: 31\r\n\r\n{\"code\":401,\"message\":\"denied\"}",
        "\r\n\r\n",
    )
    .await;
    let error = client(&[address]).await.id().await.unwrap_err();
    assert_eq!(error, Error { code: 401, message: "denied".into() });
    let (address, _served) =
        serve("HTTP/1.1 502 Bad Gateway\r\nContent-Length: 5\r\n\r\nsorry", "\r\n\r\n").await;
    let error = client(&[address]).await.peers().next().await.unwrap().unwrap_err();
    assert_eq!(error, Error { code: 502, message: "sorry".into() });
}

#[tokio::test]
async fn a_stream_gives_its_items_and_then_the_error_of_its_trailer() {
    let (address, _served) = serve(
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Stream-Error\r\n\r\n\
         15\r\n{\"peername\":\"a\"}\n{\"pe\r\ne\r\nername\":\"b\"}\n\n\r\n0\r\nX-Stream-Error: too late\r\n\r\n",
        "\r\n\r\n",
    )
    .await;
    let items: Vec<_> = client(&[address]).await.peers().collect().await;
    let names: Vec<_> = items.iter().flatten().map(|id| id.peername.as_str()).collect();
    assert_eq!(names, ["a", "b"]);
    assert_eq!(items.last().unwrap().as_ref().unwrap_err(), &Error { code: 500, message: "too late".into() });
}

#[tokio::test]
async fn the_next_endpoint_is_asked_only_when_there_was_no_answer() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let (silent, _first) = serve("", "\r\n\r\n").await;
    let (second, _second) =
        serve("HTTP/1.1 200 OK\r\nContent-Length: 17\r\n\r\n{\"version\":\"two\"}", "\r\n\r\n").await;
    assert_eq!(client(&[closed, silent, second]).await.version().await.unwrap().version, "two");

    let (first, _first) = serve("HTTP/1.1 500 No\r\nContent-Length: 2\r\n\r\nno", "\r\n\r\n").await;
    let error = client(&[first, closed]).await.version().await.unwrap_err();
    assert_eq!(error.code, 500);

    let error = client(&[closed]).await.version().await.unwrap_err();
    let expected = format!("Get \"http://{closed}/version\": dial tcp {closed}: connect: connection refused");
    assert_eq!(error, Error { code: 0, message: expected });
}

#[tokio::test]
async fn a_wait_ends_when_its_time_is_up() {
    let (silent, _served) = serve("", "never").await;
    let wait = Wait {
        cid: Cid::default(),
        target: TrackerStatus::PINNED,
        limit: 0,
        every: Duration::from_millis(1),
        timeout: Duration::from_millis(20),
    };
    assert_eq!(client(&[silent]).await.wait(wait).await.unwrap_err(), WaitError::DeadlineExceeded);
}

struct Files(VecDeque<(Entry, Vec<&'static str>)>, Option<api::Error>);

#[async_trait]
impl Upload for Files {
    async fn next_entry(&mut self) -> api::Result<Option<Entry>> {
        self.0.retain(|(_, pieces)| !pieces.contains(&"given"));
        let Some((entry, pieces)) = self.0.front_mut() else {
            return self.1.take().map_or(Ok(None), Err);
        };
        pieces.insert(0, "given");
        Ok(Some(entry.clone()))
    }

    async fn read(&mut self) -> api::Result<Option<Bytes>> {
        let pieces = &mut self.0[0].1;
        Ok((pieces.len() > 1).then(|| Bytes::from(pieces.remove(1))))
    }
}

fn entry(path: &[u8], kind: EntryKind) -> Entry {
    Entry { path: path.to_vec(), kind, abspath: Some(String::new()) }
}

#[tokio::test]
async fn files_are_sent_as_a_form() {
    let reply = "HTTP/1.1 200 OK\r\nContent-Length: 24\r\n\r\n{\"name\":\"a\",\"cid\":null}\n";
    let (address, served) = serve(reply, "\r\n0\r\n\r\n").await;
    let files = Files(
        VecDeque::from([
            (entry(b"d", EntryKind::Directory), vec![]),
            (entry(b"d/a \xff", EntryKind::File), vec!["he", "llo"]),
            (entry(b"d/l", EntryKind::Symlink(b"to".to_vec())), vec![]),
        ]),
        None,
    );
    let outputs: Vec<_> =
        client(&[address]).await.add(&AddParams::default().to_query(), Box::new(files)).collect().await;
    assert_eq!(outputs.len(), 1);
    assert_eq!(outputs[0].as_ref().unwrap().name, "a");
    let seen = served.await.unwrap();
    let (head, body) = seen.split_once("\r\n\r\n").unwrap();
    let boundary = head.split("boundary=").nth(1).unwrap().lines().next().unwrap();
    // Chunk sizes aside.
    let body: String = body.split("\r\n").filter(|line| !line.bytes().all(|b| b.is_ascii_hexdigit())).fold(
        String::new(),
        |mut all, line| {
            all.push_str(line);
            all.push('\n');
            all
        },
    );
    let expected = "--B
Abspath-Encoded: 
Content-Disposition: form-data; name=\"file\"; filename=\"d\"
Content-Type: application/x-directory
--B
Abspath-Encoded: 
Content-Disposition: form-data; name=\"file\"; filename=\"d%2Fa+%FF\"
Content-Type: application/octet-stream
he
llo
--B
Abspath-Encoded: 
Content-Disposition: form-data; name=\"file\"; filename=\"d%2Fl\"
Content-Type: application/symlink
to
--B--
";
    assert_eq!(body.replace(boundary, "B"), expected);
}

#[tokio::test]
async fn an_upload_that_breaks_off_is_named_as_the_cause() {
    let (address, _served) = serve("", "never").await;
    let files = Files(
        VecDeque::from([(entry(b"a", EntryKind::File), vec!["x"])]),
        Some(api::Error::internal("got non-2XX status code 404: http://x/")),
    );
    let error = client(&[address])
        .await
        .add(&crate::go::query::Query::default(), Box::new(files))
        .next()
        .await
        .unwrap()
        .unwrap_err();
    let expected = format!("Post \"http://{address}/add?\": got non-2XX status code 404: http://x/");
    assert_eq!(error, Error { code: 0, message: expected });
}
