//! TLS before HTTP (spec: rest-api 1.2).
//!
//! ```text
//!  key files ── keys ── Server ── accept: first bytes ──► handshake ── conn
//!                                         └─ plain HTTP: a sentence    others: closed
//! ```
//!
//! - No protocol is negotiated by ALPN: HTTP/1.1 alone is spoken, as by the reference.
//! - A handshake has a time limit, and a connection's place while it lasts; nothing of it waits for ever.
//! - The cryptographic provider is passed on, never installed for the whole process.

mod client;
mod keys;
mod p521;

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::sign::SingleCertAndKey;
use rustls::{ServerConfig, SupportedCipherSuite};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tracing::debug;

use super::conn::ConnOptions;
pub use client::{Client, words};
pub use keys::key_pair;

/// Why TLS cannot be served, or not be trusted.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file of the configuration.
    #[error("error loading TLS certificate/key: {0}")]
    Keys(String),
    /// The cryptographic library, or the system's roots.
    #[error("tls: {0}")]
    Library(#[from] rustls::Error),
}

/// Longest handshake where a section has no time limit at all.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long the last words to a client that speaks no TLS may take to arrive.
const LINGER: Duration = Duration::from_millis(500);
/// What a client hears that speaks HTTP without TLS. (Go: `net/http`)
const PLAIN_HTTP: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";
/// Starts of requests that are recognised. (Go: `net/http`, `tlsRecordHeaderLooksLikeHTTP`)
const REQUESTS: [&[u8; HEADER]; 5] = [b"GET /", b"HEAD ", b"POST ", b"PUT /", b"OPTIO"];
/// Length of a record's header.
const HEADER: usize = 5;
/// Length of the start of a handshake: its kind, its length, the version it asks for.
const HELLO: usize = 6;
/// The alert, behind its record's kind and version, that an older version gets. (Go: `crypto/tls`)
const TOO_OLD: [u8; 4] = [0, 2, 2, 70];

/// The suites of the reference as far as there are any: in TLS 1.2 it names four for RSA keys, of which three have no
/// forward secrecy or an encryption that has been broken in practice, and none for ECDSA keys.
const SUITES: [SupportedCipherSuite; 5] = [
    aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
    aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
    aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    aws_lc_rs::cipher_suite::TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
    aws_lc_rs::cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,
];

/// The side that has the certificate.
#[derive(Clone)]
pub struct Server(Arc<ServerConfig>);

impl Server {
    /// From a certificate chain and its key, PEM files both.
    pub fn load(certificate: &Path, key: &Path) -> Result<Self, Error> {
        let read = |path| crate::config::read_file(path).map_err(Error::Keys);
        let pair = key_pair(&read(certificate)?, &read(key)?).map_err(Error::Keys)?;
        let provider = CryptoProvider {
            cipher_suites: SUITES.to_vec(),
            kx_groups: vec![
                aws_lc_rs::kx_group::X25519,
                aws_lc_rs::kx_group::SECP256R1,
                aws_lc_rs::kx_group::SECP384R1,
                &p521::SECP521R1,
            ],
            ..aws_lc_rs::default_provider()
        };
        let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
            .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
        config.ignore_client_order = true;
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands within the time that `options` leave; `None` is a client that does not get there.
    pub async fn accept<S>(&self, stream: S, options: &ConnOptions) -> Option<TlsStream<Rewound<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        match tokio::time::timeout(limit(options), self.shake_hands(stream)).await {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(e)) => {
                debug!("http: TLS handshake error: {e}");
                None
            }
            Err(_) => {
                debug!("http: TLS handshake error: i/o timeout");
                None
            }
        }
    }

    async fn shake_hands<S>(&self, mut stream: S) -> io::Result<TlsStream<Rewound<S>>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut start = [0; HEADER + HELLO];
        let (header, hello) = start.split_at_mut(HEADER);
        stream.read_exact(header).await?;
        let refused = |what| Err(io::Error::new(io::ErrorKind::InvalidData, what));
        if !is_record(header) {
            if REQUESTS.iter().any(|request| *header == request[..]) {
                end_plain(stream, PLAIN_HTTP).await;
                return refused("client sent an HTTP request to an HTTPS server");
            }
            end_plain(stream, b"").await;
            return refused("first record does not look like a TLS handshake");
        }
        let mut length = HEADER;
        if header[0] == 22 && usize::from(u16::from_be_bytes([header[3], header[4]])) >= HELLO {
            stream.read_exact(hello).await?;
            length += HELLO;
            if hello[0] == 1 && hello[4..] < [3, 3][..] {
                let alert = [&[21, header[1], header[2]], &TOO_OLD[..]].concat();
                end_plain(stream, &alert).await;
                return refused("client offered only unsupported versions");
            }
        }
        let rewound = Rewound { start, length, n_taken: 0, stream };
        TlsAcceptor::from(Arc::clone(&self.0)).accept(rewound).await
    }
}

/// The shortest of the limits that are set, as in Go.
fn limit(options: &ConnOptions) -> Duration {
    let limits = [options.read_header_timeout, options.read_timeout, options.write_timeout];
    limits.into_iter().filter(|limit| !limit.is_zero()).min().unwrap_or(HANDSHAKE_TIMEOUT)
}

/// Whether a first record can be one of TLS: a handshake or an alert, of a version below 16.
fn is_record(header: &[u8]) -> bool {
    matches!(header[0], 21 | 22) && header[1] < 16
}

/// Says `words` and closes, when the other side has closed or after a moment: closed at once, with input unread, the
/// words would be lost.
async fn end_plain<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, words: &[u8]) {
    let ending = async {
        stream.write_all(words).await?;
        stream.shutdown().await?;
        let mut sink = [0; 4096];
        while stream.read(&mut sink).await? > 0 {}
        io::Result::Ok(())
    };
    let _ = tokio::time::timeout(LINGER, ending).await;
}

/// A stream whose first bytes were read already.
#[derive(Debug)]
pub struct Rewound<S> {
    start: [u8; HEADER + HELLO],
    /// How many of them there are.
    length: usize,
    n_taken: usize,
    stream: S,
}

impl<S: AsyncRead + Unpin> AsyncRead for Rewound<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let rest = &this.start[this.n_taken..this.length];
        if !rest.is_empty() {
            let n = rest.len().min(buf.remaining());
            buf.put_slice(&rest[..n]);
            this.n_taken += n;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Rewound<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests;
