//! Connections as clients see them, byte by byte.

use futures::StreamExt;
use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

use super::*;
use crate::api;

const LIMIT: Duration = Duration::from_secs(10);
/// A time limit under test.
const SHORT: Duration = Duration::from_millis(150);

/// A handler with one path for each kind of answer.
fn handler() -> Handler {
    Arc::new(|request: Request, _peer| {
        boxed(async move {
            match request.uri().path() {
                "/small" => respond::document(StatusCode::OK, "{\"b\":1}\n"),
                "/large" => respond::document(StatusCode::OK, "x".repeat(2049)),
                "/none" => respond::stream(items(vec![]), document).await,
                "/items" => {
                    respond::stream(
                        items(vec![Ok(1), Ok(2), Err(api::Error::internal("mid\nerr"))]),
                        document,
                    )
                    .await
                }
                "/fails" => {
                    respond::stream(items(vec![Err(api::Error::internal("first err"))]), document).await
                }
                "/echo" => {
                    let te = request.headers().get_all(TE).iter().count();
                    let body = request.into_body().collect().await;
                    match body {
                        Ok(body) => respond::document(
                            StatusCode::OK,
                            format!("{te}:{}", String::from_utf8_lossy(&body.to_bytes())),
                        ),
                        Err(_) => respond::document(StatusCode::BAD_REQUEST, "cut"),
                    }
                }
                "/headers" => {
                    let mut response = respond::empty(StatusCode::OK);
                    for name in ["x-b", "vary", "content-type", "x-a"] {
                        response
                            .headers_mut()
                            .append(HeaderName::from_static(name), HeaderValue::from_static("1"));
                    }
                    response
                }
                "/upgrade" => {
                    let on_upgrade =
                        hyper::upgrade::on(request.map(|_| http_body_util::Empty::<Bytes>::new()));
                    drop(on_upgrade);
                    respond::empty(StatusCode::OK)
                }
                "/late" => {
                    tokio::time::sleep(SHORT).await;
                    respond::document(StatusCode::OK, "late\n")
                }
                "/slow" => {
                    let items = futures::stream::iter(1..=4).then(|n| async move {
                        tokio::time::sleep(SHORT * 4).await;
                        Ok(n)
                    });
                    respond::stream(items.boxed(), document).await
                }
                "/never" => std::future::pending().await,
                "/panic" => panic!("in a handler"),
                _ => respond::document(StatusCode::NOT_FOUND, "not found\n"),
            }
        })
    })
}

fn items(items: Vec<api::Result<u32>>) -> api::Items<u32> {
    futures::stream::iter(items).boxed()
}

fn document(_: StatusCode, message: &str) -> Bytes {
    Bytes::from(format!("{{\"message\":\"{message}\"}}\n"))
}

fn connect(options: ConnOptions) -> (DuplexStream, JoinSet<()>) {
    let (client, server) = tokio::io::duplex(64 << 10);
    let mut tasks = JoinSet::new();
    tasks.spawn(serve_stream(server, PeerAddr::Unix, handler(), options, CancellationToken::new()));
    (client, tasks)
}

/// Sends `bytes` in pieces of `step` and reads until the server closes; the date is taken out.
async fn exchange_by(bytes: &[u8], step: usize, options: ConnOptions) -> String {
    let (mut client, _tasks) = connect(options);
    for piece in bytes.chunks(step) {
        if client.write_all(piece).await.is_err() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let mut answer = Vec::new();
    tokio::time::timeout(LIMIT, client.read_to_end(&mut answer)).await.expect("the server closes").unwrap();
    let text = String::from_utf8(answer).unwrap();
    let lines = text.split_inclusive("\r\n").filter(|line| !line.starts_with("Date: "));
    lines.collect()
}

async fn exchange(text: &str) -> String {
    exchange_by(text.as_bytes(), usize::MAX, ConnOptions::default()).await
}

async fn get(target: &str) -> String {
    exchange(&format!("GET {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")).await
}

#[tokio::test]
async fn short_bodies_have_a_length_and_long_ones_are_one_chunk() {
    assert_eq!(
        get("/small").await,
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\nContent-Length: 8\r\n\r\n{\"b\":1}\n"
    );
    let large = get("/large").await;
    assert!(large.contains("Transfer-Encoding: chunked\r\n\r\n801\r\nxxx"), "{large}");
    assert!(large.ends_with("x\r\n0\r\n\r\n"), "{large}");
}

#[tokio::test]
async fn each_item_is_a_chunk_and_errors_are_trailers_nobody_asked_for() {
    let answer = get("/items").await;
    assert!(answer.contains("Trailer: X-Stream-Error\r\n"), "{answer}");
    let body = answer.split_once("\r\n\r\n").unwrap().1;
    assert_eq!(body, "2\r\n1\n\r\n2\r\n2\n\r\n0\r\nX-Stream-Error: \r\nX-Stream-Error: mid err\r\n\r\n");
    let answer = get("/fails").await;
    assert!(answer.starts_with("HTTP/1.1 500 Internal Server Error\r\n"), "{answer}");
    assert!(answer.contains("Trailer: X-Stream-Error\r\n"), "{answer}");
    assert!(answer.ends_with("\r\n\r\n18\r\n{\"message\":\"first err\"}\n\r\n0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_204_keeps_its_trailer_line() {
    let answer = get("/none").await;
    assert_eq!(
        answer,
        "HTTP/1.1 204 No Content\r\nContent-Type: application/json\r\nTrailer: X-Stream-Error\r\nConnection: close\r\n\r\n"
    );
    let answer = exchange("GET /items HTTP/1.0\r\n\r\n").await;
    assert!(
        answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.contains("\r\nTrailer: X-Stream-Error\r\n"),
        "{answer}"
    );
    assert!(answer.ends_with("\r\n\r\n1\n2\n"), "{answer}");
}

#[tokio::test]
async fn headers_leave_sorted_by_name() {
    let answer = get("/headers").await;
    let names: Vec<&str> =
        answer.lines().filter_map(|line| line.split_once(": ").map(|(name, _)| name)).collect();
    assert_eq!(names, ["Content-Type", "Vary", "X-A", "X-B", "Connection", "Content-Length"]);
}

#[tokio::test]
async fn requests_on_one_connection_are_answered_in_order_however_they_are_cut() {
    let requests = b"POST /echo HTTP/1.1\r\nHost: x\r\nTE: gzip\r\nContent-Length: 5\r\n\r\nhello\
        POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\nX-A: b\r\n\r\n\
        POST /nothing HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabc\
        GET /items HTTP/1.1\r\nHost: x\r\n\r\n\
        GET /none HTTP/1.1\r\nHost: x\r\n\r\n\
        GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
    for step in [1, 3, 7, 64, requests.len()] {
        let answer = exchange_by(requests, step, ConnOptions::default()).await;
        let bodies: Vec<&str> = answer.split("HTTP/1.1 ").skip(1).collect();
        assert_eq!(bodies.len(), 6, "step {step}: {answer}");
        assert!(bodies[0].ends_with("\r\n\r\n1:hello"), "{answer}");
        assert!(bodies[1].ends_with("\r\n\r\n0:abc"), "{answer}");
        assert!(bodies[2].starts_with("404") && !bodies[2].contains("close"), "{answer}");
        assert!(bodies[3].contains("X-Stream-Error: mid err\r\n"), "{answer}");
        assert!(
            bodies[4].starts_with("204") && bodies[4].contains("\r\nTrailer: X-Stream-Error\r\n"),
            "{answer}"
        );
        assert!(bodies[5].ends_with("{\"b\":1}\n"), "{answer}");
    }
}

#[tokio::test]
async fn a_head_request_has_the_length_of_the_body_it_does_not_get() {
    let answer = exchange("HEAD /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(answer.contains("Content-Length: 8\r\n") && answer.ends_with("\r\n\r\n"), "{answer}");
    let answer = exchange("HEAD /headers HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert!(!answer.contains("Content-Length"), "{answer}");
}

#[tokio::test]
async fn heads_above_the_limit_are_refused_and_those_at_it_are_served() {
    let head = |length: usize| {
        let start = "GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\nX-Pad: ";
        format!("{start}{}\r\n\r\n", "a".repeat(length - start.len() - 4))
    };
    assert!(exchange(&head(8192)).await.starts_with("HTTP/1.1 200 OK"));
    assert_eq!(
        exchange(&head(8193)).await,
        "HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Type: text/plain; charset=utf-8\r\n\
         Connection: close\r\n\r\n431 Request Header Fields Too Large"
    );
    let endless = "GET /small HTTP/1.1\r\nX: ".to_string() + &"a".repeat(60_000);
    assert!(exchange(&endless).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test]
async fn what_is_no_http_is_refused_after_the_answers_before_it() {
    let answer = exchange("GET /small HTTP/1.1\r\nHost: x\r\n\r\nnonsense\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    assert!(answer.ends_with("\r\nConnection: close\r\n\r\n400 Bad Request"), "{answer}");
    assert!(exchange("GET / HTTP/2.0\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 505 "));
    assert!(
        exchange("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: br\r\n\r\n")
            .await
            .starts_with("HTTP/1.1 501 ")
    );
}

#[tokio::test]
async fn odd_requests_of_the_protocol_itself_are_answered() {
    let answer = exchange("OPTIONS * HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
    assert_eq!(answer, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    let answer = exchange("GET /small HTTP/1.1\r\nHost: x\r\nExpect: pie\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 417 Expectation Failed\r\n"), "{answer}");
    let expect = "Expect: 100-continue\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}";
    let answer = exchange(&format!("POST /echo HTTP/1.1\r\nHost: x\r\n{expect}")).await;
    assert!(answer.starts_with("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"), "{answer}");
    let answer = exchange(&format!("POST /nothing HTTP/1.1\r\nHost: x\r\n{expect}")).await;
    assert!(answer.starts_with("HTTP/1.1 404 Not Found\r\n"), "{answer}");
    let unread = "POST /nothing HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 100\r\n\r\n";
    let answer = exchange(unread).await;
    assert!(answer.starts_with("HTTP/1.1 404 ") && answer.contains("\r\nConnection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn late_heads_and_idle_connections_are_closed_without_a_word() {
    let options = ConnOptions { idle_timeout: SHORT, read_header_timeout: SHORT, ..ConnOptions::default() };
    assert_eq!(exchange_by(b"", 1, options).await, "");
    assert_eq!(exchange_by(b"GET /small HTTP/1.1\r\nHost: x\r\n", 100, options).await, "");
    assert!(exchange_by(b"GET /sma", 100, options).await.starts_with("HTTP/1.1 400 Bad Request\r\n"));
    let answer = exchange_by(b"GET /small HTTP/1.1\r\nHost: x\r\n\r\n", 100, options).await;
    assert!(answer.ends_with("{\"b\":1}\n"), "{answer}");
    let answer =
        exchange_by(b"GET /small HTTP/1.1\r\nHost: x\r\n\r\nGET /small HTTP/1.1\r\n", 100, options).await;
    assert!(answer.ends_with("{\"b\":1}\n"), "{answer}");
}

#[tokio::test]
async fn a_body_that_does_not_come_in_time_is_an_error_of_its_reader() {
    let options = ConnOptions { read_timeout: SHORT, ..ConnOptions::default() };
    let answer =
        exchange_by(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\nabc", 100, options).await;
    assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n") && answer.ends_with("cut"), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
}

#[tokio::test]
async fn a_request_for_another_protocol_may_be_answered_as_any_other() {
    let answer = exchange(
        "GET /upgrade HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: other\r\n\r\n\
         GET /small HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
    )
    .await;
    assert_eq!(answer.matches("HTTP/1.1 200 OK").count(), 2, "{answer}");
}

#[tokio::test]
async fn a_panic_closes_its_connection_and_no_other() {
    let listener = Listener::bind(&"/ip4/127.0.0.1/tcp/0".parse().unwrap()).await.unwrap();
    let Some(multiaddr::Protocol::Tcp(port)) = listener.local_addr().iter().nth(1) else { panic!("no port") };
    let stop = CancellationToken::new();
    let mut tasks = JoinSet::new();
    tasks.spawn(serve(listener, handler(), ConnOptions::default(), stop.clone()));
    for (path, expected) in [("/panic", ""), ("/small", "HTTP/1.1 200 OK")] {
        let mut client = tokio::net::TcpStream::connect(("127.0.0.1", port)).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
        client.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(LIMIT, client.read_to_string(&mut answer)).await.expect("an end").unwrap();
        assert!(answer.starts_with(expected) && answer.is_empty() == expected.is_empty(), "{path}: {answer}");
    }
    stop.cancel();
    tokio::time::timeout(LIMIT, tasks.join_next()).await.expect("serve ends").unwrap().unwrap();
}

/// Sends `text`, ends the client's side and reads what comes.
async fn half_closed(text: &str, options: ConnOptions) -> String {
    let (mut client, _tasks) = connect(options);
    client.write_all(text.as_bytes()).await.unwrap();
    client.shutdown().await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(LIMIT, client.read_to_string(&mut answer)).await.expect("an end").unwrap();
    answer
}

#[tokio::test]
async fn a_client_that_has_ended_its_side_gets_its_answers() {
    let close = "HTTP/1.1\r\nHost: x\r\nConnection: close\r\n";
    for (request, end) in [
        (format!("GET /small {close}\r\n"), "{\"b\":1}\n"),
        (format!("GET /late {close}\r\n"), "late\n"),
        ("GET /late HTTP/1.1\r\nHost: x\r\n\r\n".to_string(), "late\n"),
        ("GET /late HTTP/1.0\r\n\r\n".to_string(), "late\n"),
        (format!("GET /late {close}Upgrade: other\r\n\r\n"), "late\n"),
        (format!("POST /echo {close}Content-Length: 5\r\n\r\nhello"), "0:hello"),
        (format!("POST /echo {close}Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n\r\n"), "0:ab"),
        (format!("GET /items {close}\r\n"), "X-Stream-Error: mid err\r\n\r\n"),
        (format!("GET /late HTTP/1.1\r\nHost: x\r\n\r\nGET /small {close}\r\n"), "{\"b\":1}\n"),
        ("GET /late HTTP/1.1\r\nHost: x\r\n\r\nGET /sma".to_string(), "late\n"),
        // a body that breaks off is none
        (format!("POST /echo {close}Content-Length: 50\r\n\r\nhello"), "cut"),
    ] {
        let answer = half_closed(&request, ConnOptions::default()).await;
        assert!(answer.ends_with(end), "{request}{answer}");
        assert_eq!(answer.matches("HTTP/1.").count(), request.matches(" HTTP/1.").count(), "{answer}");
    }
    assert_eq!(half_closed("", ConnOptions::default()).await, "");
}

#[tokio::test]
async fn an_answer_goes_on_as_long_as_a_half_closed_client_takes_it() {
    // the whole takes longer than the grace, its pieces do not
    let options = ConnOptions { half_closed_grace: SHORT * 12, ..ConnOptions::default() };
    let answer = half_closed("GET /slow HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", options).await;
    assert!(answer.contains("2\r\n4\n\r\n0\r\n"), "{answer}");
}

#[tokio::test]
async fn work_for_a_client_that_is_gone_ends_within_the_grace() {
    let options = ConnOptions { half_closed_grace: SHORT, ..ConnOptions::default() };
    let requests = ["", "Upgrade: other\r\nConnection: upgrade\r\n"]
        .map(|lines| format!("GET /never HTTP/1.1\r\nHost: x\r\n{lines}\r\n"));
    for request in &requests {
        let (mut client, mut tasks) = connect(options);
        client.write_all(request.as_bytes()).await.unwrap();
        drop(client);
        tokio::time::timeout(LIMIT, tasks.join_next()).await.expect("the connection ends").unwrap().unwrap();
        // nor does one that only listens keep it for ever
        assert_eq!(half_closed(request, options).await, "");
    }
    // a write that fails tells it earlier than the grace does
    let (mut client, mut tasks) = connect(ConnOptions { half_closed_grace: LIMIT * 2, ..options });
    client.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    drop(client);
    tokio::time::timeout(LIMIT, tasks.join_next()).await.expect("the connection ends").unwrap().unwrap();
}
