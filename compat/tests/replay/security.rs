//! Credentials, tokens and cross-origin headers of both APIs, as recorded; and many who shake no hands.

use std::io;
use std::path::Path;
use std::time::Duration;

use cluster_compat::http::tls;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

/// Clients that connect and then say nothing.
const N_SILENT: usize = 1000;
/// How long one exchange may take beside them.
const LIMIT: Duration = Duration::from_secs(20);

#[tokio::test]
async fn credentials_are_asked_for_as_recorded() {
    replay("security/basic-auth").await;
}

#[tokio::test]
async fn tokens_are_given_and_taken_as_recorded() {
    replay("security/tokens").await;
}

#[tokio::test]
async fn origins_are_answered_as_recorded_by_default() {
    replay("security/cors-default").await;
}

#[tokio::test]
async fn origins_are_answered_as_recorded_when_configured() {
    replay("security/cors-configured").await;
}

/// `GET /version` with TLS and a password.
async fn version(addr: std::net::SocketAddr) -> io::Result<String> {
    let client = tls::Client::unchecking().map_err(io::Error::other)?;
    let mut stream = client.connect("localhost", TcpStream::connect(addr).await?).await?;
    let request = "GET /version HTTP/1.1\r\nHost: x\r\nAuthorization: Basic dXNlcjpzZWNyZXQ=\r\nConnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_handshakes_that_hang_hold_nobody_up_and_end() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/tls");
    let mut config = Config::defaults(Consensus::Crdt, Engine::Lmdb, &folder);
    let face = &mut config.restapi.value;
    face.ssl_cert_file = "rsa.crt".into();
    face.ssl_key_file = "rsa.key".into();
    face.basic_auth_credentials = Some([("user".into(), "secret".into())].into());
    let api: Arc<dyn ClusterApi> = Arc::new(FakeCluster::new());
    let rest = Rest::new(face, &folder, api).unwrap();
    let (listener, addr) = listen().await;
    let mut serving = JoinSet::new();
    serving.spawn(rest.serve(vec![listener], CancellationToken::new()));
    let mut silent = Vec::new();
    for n in 0..N_SILENT {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        // a third each: nothing, half a header, a header without its record
        stream.write_all(&b"\x16\x03\x01\x01\x00\x01"[..n % 3 * 3]).await.unwrap();
        silent.push(stream);
    }
    let answer = tokio::time::timeout(LIMIT, version(addr)).await.expect("an answer in time").unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    for mut stream in silent {
        let mut byte = [0];
        let ended = tokio::time::timeout(LIMIT, stream.read(&mut byte)).await.expect("an end in time");
        assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    }
}
