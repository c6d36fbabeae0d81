//! The side that looks at a certificate: ctl at a peer, the proxy at its daemon.

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::verify_server_name;
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, InvalidMessage, SignatureScheme,
};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::Error;

/// How servers are looked at.
#[derive(Clone)]
pub struct Client(Arc<ClientConfig>);

impl PartialEq for Client {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Client {}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

impl Client {
    /// Trusts what the system trusts, `SSL_CERT_FILE` and `SSL_CERT_DIR` included.
    pub fn checking() -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = NamesFirst(Arc::new(Verifier::new(Arc::clone(&provider))?));
        Self::with(provider, Arc::new(verifier))
    }

    /// Takes any certificate, for `--no-check-certificate`.
    pub fn unchecking() -> Result<Self, Error> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let verifier = Anyone(provider.signature_verification_algorithms);
        Self::with(provider, Arc::new(verifier))
    }

    /// Trusts the first certificate of a file and nothing else.
    #[cfg(test)]
    pub(in crate::http) fn trusting_pem(pem: &[u8]) -> Self {
        Self::trusting(super::keys::certificates(pem).remove(0), aws_lc_rs::default_provider())
    }

    /// Trusts `certificate` and nothing else.
    #[cfg(test)]
    pub(super) fn trusting(certificate: CertificateDer<'static>, provider: CryptoProvider) -> Self {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(certificate).unwrap();
        let provider = Arc::new(provider);
        let verifier = rustls::client::WebPkiServerVerifier::builder_with_provider(
            Arc::new(roots),
            Arc::clone(&provider),
        );
        Self::with(provider, Arc::new(NamesFirst(verifier.build().unwrap()))).unwrap()
    }

    fn with(provider: Arc<CryptoProvider>, verifier: Arc<dyn ServerCertVerifier>) -> Result<Self, Error> {
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .dangerous()
            .with_custom_certificate_verifier(verifier)
            .with_no_client_auth();
        Ok(Self(Arc::new(config)))
    }

    /// Shakes hands with the server called `host`, a name or an address.
    pub async fn connect<S>(&self, host: &str, stream: S) -> io::Result<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let name = match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
            Ok(ip) => ServerName::from(ip),
            Err(_) => ServerName::try_from(host.to_owned()).map_err(io::Error::other)?,
        };
        TlsConnector::from(Arc::clone(&self.0)).connect(name, stream).await
    }
}

/// Why a handshake failed, in the words of Go where it has plain ones.
pub fn words(error: &io::Error) -> String {
    let Some(cause) = error.get_ref().and_then(|cause| cause.downcast_ref::<rustls::Error>()) else {
        return match error.kind() {
            io::ErrorKind::UnexpectedEof => "EOF".into(),
            _ => error.to_string(),
        };
    };
    match cause {
        rustls::Error::InvalidCertificate(cause) => {
            format!("tls: failed to verify certificate: x509: {}", certificate_words(cause))
        }
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => {
            "http: server gave HTTP response to HTTPS client".into()
        }
        rustls::Error::AlertReceived(AlertDescription::HandshakeFailure) => {
            "remote error: tls: handshake failure".into()
        }
        rustls::Error::AlertReceived(AlertDescription::ProtocolVersion) => {
            "remote error: tls: protocol version not supported".into()
        }
        cause => format!("tls: {cause}"),
    }
}

fn certificate_words(cause: &CertificateError) -> String {
    match cause {
        CertificateError::NotValidForNameContext { expected: ServerName::IpAddress(ip), presented } => {
            let ip = IpAddr::from(*ip);
            let ips = inner(presented, "IpAddress(");
            if ips.is_empty() {
                format!("cannot validate certificate for {ip} because it doesn't contain any IP SANs")
            } else {
                format!("certificate is valid for {ips}, not {ip}")
            }
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            let name = expected.to_str();
            let names = inner(presented, "DnsName(");
            if names.is_empty() {
                format!("certificate is not valid for any names, but wanted to match {name}")
            } else {
                format!("certificate is valid for {names}, not {name}")
            }
        }
        CertificateError::UnknownIssuer => "certificate signed by unknown authority".into(),
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => {
            format!("certificate has expired or is not yet valid: {cause}")
        }
        cause => cause.to_string(),
    }
}

/// The names of one kind, comma separated, out of the library's list of all.
fn inner(presented: &[String], kind: &str) -> String {
    let of_kind = presented.iter().filter_map(|name| name.strip_prefix(kind)?.strip_suffix(')'));
    let plain = of_kind.map(|name| match name.parse::<IpAddr>() {
        Ok(ip) => ip.to_string(),
        Err(_) => name.trim_matches('"').to_owned(),
    });
    plain.collect::<Vec<_>>().join(", ")
}

/// Looks at the name before the chain, as Go does: what it says of a certificate that fails both is of more use.
#[derive(Debug)]
struct NamesFirst(Arc<dyn ServerCertVerifier>);

impl ServerCertVerifier for NamesFirst {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        chain: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        verify_server_name(&ParsedCertificate::try_from(certificate)?, name)?;
        self.0.verify_server_cert(certificate, chain, name, ocsp, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.0.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_verify_schemes()
    }
}

/// Believes whoever holds the key of the certificate shown, whoever that is.
#[derive(Debug)]
struct Anyone(WebPkiSupportedAlgorithms);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, certificate, signed, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, certificate, signed, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}
