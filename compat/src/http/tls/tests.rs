//! Handshakes with every kind of key, and with those who make none.

use rustls::pki_types::CertificateDer;
use rustls::{NamedGroup, ProtocolVersion};
use tokio::io::DuplexStream;
use tokio::task::JoinSet;

use super::*;

/// How long anything here may take.
const LIMIT: Duration = Duration::from_secs(20);

fn file(name: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/tls").join(name)
}

fn load(certificate: &str, key: &str) -> Result<Server, Error> {
    Server::load(&file(certificate), &file(key))
}

/// A client that trusts one certificate, and its provider changed by `change`.
fn client(certificate: &str, change: impl FnOnce(&mut CryptoProvider)) -> Client {
    let pem = std::fs::read(file(certificate)).unwrap();
    let certificate: CertificateDer<'static> = keys::certificates(&pem).remove(0);
    let mut provider = aws_lc_rs::default_provider();
    change(&mut provider);
    Client::trusting(certificate, provider)
}

/// What a server makes of the other end of the stream.
fn serving(server: &Server, options: ConnOptions) -> (DuplexStream, JoinSet<Option<String>>) {
    let (here, there) = tokio::io::duplex(1 << 16);
    let server = server.clone();
    let mut serving = JoinSet::new();
    serving.spawn(async move {
        let mut stream = server.accept(there, &options).await?;
        let mut text = [0; 5];
        stream.read_exact(&mut text).await.ok()?;
        stream.write_all(b"world").await.ok()?;
        stream.shutdown().await.ok()?;
        Some(String::from_utf8_lossy(&text).into_owned())
    });
    (here, serving)
}

/// Says hello through TLS; what was agreed on.
async fn greet(server: &Server, client: &Client) -> io::Result<(ProtocolVersion, NamedGroup, Vec<u8>)> {
    let (here, mut serving) = serving(server, ConnOptions::default());
    let greeting = async {
        let mut stream = client.connect("localhost", here).await?;
        stream.write_all(b"hello").await?;
        let mut text = Vec::new();
        stream.read_to_end(&mut text).await?;
        assert_eq!(text, b"world");
        let session = stream.get_ref().1;
        let group = session.negotiated_key_exchange_group().unwrap().name();
        let alpn = session.alpn_protocol().unwrap_or_default().to_vec();
        io::Result::Ok((session.protocol_version().unwrap(), group, alpn))
    };
    let greeted = tokio::time::timeout(LIMIT, greeting).await.expect("no greeting")?;
    assert_eq!(serving.join_next().await.unwrap().unwrap().as_deref(), Some("hello"));
    Ok(greeted)
}

#[tokio::test]
async fn every_kind_of_key_that_go_loads_is_served() {
    for (certificate, key) in [
        ("rsa.crt", "rsa.key"),
        ("rsa.crt", "rsa-pkcs1.key"),
        ("p256.crt", "p256.key"),
        ("p521.crt", "p521.key"),
        ("ed25519.crt", "ed25519.key"),
    ] {
        let server = load(certificate, key).unwrap();
        let (version, _, alpn) = greet(&server, &client(certificate, |_| ())).await.unwrap();
        assert_eq!((version, alpn), (ProtocolVersion::TLSv1_3, vec![]), "{certificate} {key}");
    }
}

#[test]
fn keys_that_cannot_be_served_are_refused_with_the_reason() {
    for (certificate, key, words) in [
        ("rsa.crt", "rsa-encrypted.key", "tls: failed to parse private key: it is encrypted"),
        ("rsa.crt", "rsa-legacy.key", "tls: failed to parse private key: it is encrypted"),
        ("rsa.crt", "p256.key", "tls: private key does not match public key"),
        ("p256.crt", "rsa.key", "tls: private key does not match public key"),
        ("rsa1024.crt", "rsa1024.key", "tls: failed to parse private key: it is no RSA key of 2048"),
        ("rsa.key", "rsa.crt", "tls: failed to find certificate PEM data in certificate input, but did"),
        ("rsa.crt", "rsa.crt", "tls: found a certificate rather than a key"),
        ("rsa.crt", "none.key", "open "),
    ] {
        let refusal = load(certificate, key).err().unwrap().to_string();
        let words = format!("error loading TLS certificate/key: {words}");
        assert!(refusal.starts_with(&words), "{certificate} {key}: {refusal}");
    }
}

#[tokio::test]
async fn the_groups_of_the_reference_are_agreed_on_in_both_versions() {
    let server = load("rsa.crt", "rsa.key").unwrap();
    let groups: [&'static dyn rustls::crypto::SupportedKxGroup; 4] = [
        aws_lc_rs::kx_group::X25519,
        aws_lc_rs::kx_group::SECP256R1,
        aws_lc_rs::kx_group::SECP384R1,
        &p521::SECP521R1,
    ];
    for group in groups {
        for is_old in [false, true] {
            let client = client("rsa.crt", |provider| {
                provider.kx_groups = vec![group];
                provider.cipher_suites.retain(|suite| suite.tls13().is_none() == is_old);
            });
            let (version, agreed, _) = greet(&server, &client).await.unwrap();
            let expected = if is_old { ProtocolVersion::TLSv1_2 } else { ProtocolVersion::TLSv1_3 };
            assert_eq!((version, agreed), (expected, group.name()));
        }
    }
}

#[tokio::test]
async fn suites_beside_those_of_the_reference_are_not_agreed_on() {
    let server = load("rsa.crt", "rsa.key").unwrap();
    for suite in [
        aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256,
    ] {
        let client = client("rsa.crt", |provider| provider.cipher_suites = vec![suite]);
        let (here, mut serving) = serving(&server, ConnOptions::default());
        let refusal = client.connect("localhost", here).await.unwrap_err().to_string();
        assert!(refusal.contains("HandshakeFailure"), "{refusal}");
        assert_eq!(serving.join_next().await.unwrap().unwrap(), None);
    }
}

#[tokio::test]
async fn a_certificate_nobody_vouches_for_is_refused_unless_told_otherwise() {
    let server = load("rsa.crt", "rsa.key").unwrap();
    for (host, expected) in [
        ("localhost", "certificate signed by unknown authority"),
        ("example.org", "certificate is valid for localhost, not example.org"),
        ("10.0.0.1", "certificate is valid for 127.0.0.1, ::1, not 10.0.0.1"),
    ] {
        let (here, _serving) = serving(&server, ConnOptions::default());
        let refusal = client("other.crt", |_| ()).connect(host, here).await.unwrap_err();
        assert_eq!(words(&refusal), format!("tls: failed to verify certificate: x509: {expected}"));
    }
    let bare = load("rsa-bare.crt", "rsa.key").unwrap();
    let (here, _serving) = serving(&bare, ConnOptions::default());
    let refusal = client("other.crt", |_| ()).connect("127.0.0.1", here).await.unwrap_err();
    assert!(words(&refusal).ends_with("for 127.0.0.1 because it doesn't contain any IP SANs"), "{refusal}");
    greet(&server, &Client::unchecking().unwrap()).await.unwrap();
    greet(&bare, &Client::unchecking().unwrap()).await.unwrap();
    Client::checking().unwrap();
}

/// What a client reads that sends `bytes` and no more, and whether the handshake was given up.
async fn answer(bytes: &[u8], options: ConnOptions) -> Vec<u8> {
    let server = load("rsa.crt", "rsa.key").unwrap();
    let (mut here, mut serving) = serving(&server, options);
    here.write_all(bytes).await.unwrap();
    let mut text = Vec::new();
    tokio::time::timeout(LIMIT, here.read_to_end(&mut text)).await.expect("not closed").unwrap();
    drop(here);
    assert_eq!(serving.join_next().await.unwrap().unwrap(), None);
    text
}

#[tokio::test]
async fn plain_http_is_told_so_and_anything_else_is_closed_without_a_word() {
    for start in ["GET / HTTP/1.1\r\nHost: x\r\n\r\n", "POST /", "PUT /x", "HEAD /", "OPTIONS *"] {
        assert_eq!(answer(start.as_bytes(), ConnOptions::default()).await, PLAIN_HTTP, "{start}");
    }
    for start in
        [&b"hello\r\n"[..], b"DELETE / HTTP/1.1\r\n\r\n", b"\0\0\0\0\0\0", b"\x16\xff\xff\xff\xff", b"GET x"]
    {
        assert_eq!(answer(start, ConnOptions::default()).await, b"", "{start:?}");
    }
    // TLS 1.1 and older
    let old = answer(b"\x16\x03\x01\x00\x30\x01\x00\x00\x2c\x03\x02", ConnOptions::default()).await;
    assert_eq!(old, [21, 3, 1, 0, 2, 2, 70]);
    // broken inside of TLS: an alert at most
    for start in [&b"\x16\x03\x01\x00\x05hello"[..], b"\x16\x03\x01\xff\xff", b"\x15\x03\x01\x00\x02\x02\x28"]
    {
        assert!(matches!(answer(start, ConnOptions::default()).await[..], [] | [21, 3, ..]), "{start:?}");
    }
}

#[tokio::test]
async fn handshakes_that_hang_end_with_the_shortest_limit() {
    let of = |head, read, write| ConnOptions {
        read_header_timeout: Duration::from_millis(head),
        read_timeout: Duration::from_millis(read),
        write_timeout: Duration::from_millis(write),
        ..ConnOptions::default()
    };
    for (options, expected) in [
        (of(5000, 0, 0), Duration::from_secs(5)),
        (of(5000, 3000, 4000), Duration::from_secs(3)),
        (of(0, 0, 7000), Duration::from_secs(7)),
        (of(0, 0, 0), HANDSHAKE_TIMEOUT),
    ] {
        assert_eq!(limit(&options), expected);
    }
    // nothing, less than a header, and a header that promises more
    for start in [&b""[..], b"\x16\x03", b"\x16\x03\x01\x02\x00\x01", b"\x16\x03\x01\x00\x01\x01"] {
        assert_eq!(answer(start, of(30, 0, 0)).await, b"", "{start:?}");
    }
}
