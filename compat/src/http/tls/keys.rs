//! Certificate chains and private keys out of PEM files, found as Go finds them.

use std::sync::Arc;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs1KeyDer, PrivatePkcs8KeyDer, PrivateSec1KeyDer,
};
use rustls::sign::{CertifiedKey, SigningKey};
use rustls::{Error, InconsistentKeys};

const CERTIFICATE: &str = "CERTIFICATE";

/// One block of a PEM file.
struct Block {
    label: String,
    is_encrypted: bool,
    bytes: Vec<u8>,
}

/// The chain of `certificate` and the key of `key`; the error is in the reference's words, as far as it has any.
pub fn key_pair(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, String> {
    let chain = chain(blocks(certificate))?;
    let key = signing_key(blocks(key))?;
    let pair = CertifiedKey::new(chain, key);
    match pair.keys_match() {
        // a key that does not tell its public half is found out by the first client
        Ok(()) | Err(Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
        Err(Error::InconsistentKeys(_)) => Err("tls: private key does not match public key".into()),
        Err(e) => Err(format!("x509: the first certificate cannot be read: {e}")),
    }
}

/// Every certificate of a PEM file.
#[cfg(test)]
pub(super) fn certificates(pem: &[u8]) -> Vec<CertificateDer<'static>> {
    let found = blocks(pem).into_iter().filter(|block| block.label == CERTIFICATE);
    found.map(|block| block.bytes.into()).collect()
}

fn chain(blocks: Vec<Block>) -> Result<Vec<CertificateDer<'static>>, String> {
    let (found, others): (Vec<Block>, Vec<Block>) =
        blocks.into_iter().partition(|block| block.label == CERTIFICATE);
    if !found.is_empty() {
        return Ok(found.into_iter().map(|block| block.bytes.into()).collect());
    }
    Err(match &others[..] {
        [] => "tls: failed to find any PEM data in certificate input".into(),
        [one] if one.label.ends_with("PRIVATE KEY") => {
            "tls: failed to find certificate PEM data in certificate input, but did find a private key; \
             PEM inputs may have been switched"
                .into()
        }
        others => format!(
            "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of the \
             following types: [{}]",
            labels(others)
        ),
    })
}

fn signing_key(mut blocks: Vec<Block>) -> Result<Arc<dyn SigningKey>, String> {
    let is_key = |block: &Block| block.label == "PRIVATE KEY" || block.label.ends_with(" PRIVATE KEY");
    if let Some(at) = blocks.iter().position(is_key) {
        return parse(&blocks.swap_remove(at));
    }
    Err(match &blocks[..] {
        [] => "tls: failed to find any PEM data in key input".into(),
        [one] if one.label == CERTIFICATE => {
            "tls: found a certificate rather than a key in the PEM for the private key".into()
        }
        others => format!(
            "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM \
             blocks of the following types: [{}]",
            labels(others)
        ),
    })
}

/// Labels do not always say what a block holds: every encoding is tried.
fn parse(block: &Block) -> Result<Arc<dyn SigningKey>, String> {
    let der = || block.bytes.clone();
    let forms: [PrivateKeyDer<'static>; 3] = [
        PrivatePkcs1KeyDer::from(der()).into(),
        PrivatePkcs8KeyDer::from(der()).into(),
        PrivateSec1KeyDer::from(der()).into(),
    ];
    let key = forms.iter().find_map(|form| aws_lc_rs::sign::any_supported_type(form).ok());
    key.ok_or_else(|| {
        let why = if block.is_encrypted || block.label.starts_with("ENCRYPTED") {
            "it is encrypted; store it without a passphrase"
        } else {
            "it is no RSA key of 2048 to 8192 bits, no ECDSA key on P-256, P-384 or P-521, and no Ed25519 key"
        };
        format!("tls: failed to parse private key: {why}")
    })
}

fn labels(blocks: &[Block]) -> String {
    blocks.iter().map(|block| block.label.as_str()).collect::<Vec<_>>().join(" ")
}

/// The blocks of a PEM file; text between them, and blocks that cannot be read, are left out.
fn blocks(pem: &[u8]) -> Vec<Block> {
    let text = String::from_utf8_lossy(pem);
    let mut blocks = Vec::new();
    let mut open: Option<(Block, String)> = None;
    for line in text.lines().map(str::trim_end) {
        let framed = |start| line.strip_prefix(start).and_then(|rest: &str| rest.strip_suffix("-----"));
        if let Some(label) = framed("-----BEGIN ") {
            let block = Block { label: label.to_owned(), is_encrypted: false, bytes: Vec::new() };
            open = Some((block, String::new()));
        } else if let Some(label) = framed("-----END ") {
            if let Some((mut block, body)) = open.take()
                && block.label == label
                && let Ok(bytes) = BASE64_STANDARD.decode(body)
            {
                block.bytes = bytes;
                blocks.push(block);
            }
        } else if let Some((block, body)) = &mut open {
            match line.split_once(':') {
                Some((name, value)) => {
                    block.is_encrypted |= name == "Proc-Type" && value.contains("ENCRYPTED");
                }
                None => body.push_str(line.trim()),
            }
        }
    }
    blocks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pem(label: &str) -> Vec<u8> {
        format!("-----BEGIN {label}-----\nAAAA\n-----END {label}-----\n").into_bytes()
    }

    fn refused(certificate: &[u8], key: &[u8]) -> String {
        key_pair(certificate, key).unwrap_err()
    }

    #[test]
    fn what_a_file_lacks_is_said_as_the_reference_says_it() {
        let certificate = pem(CERTIFICATE);
        let cases = [
            (refused(b"x", b""), "tls: failed to find any PEM data in certificate input"),
            (
                refused(&pem("EC PRIVATE KEY"), b""),
                "tls: failed to find certificate PEM data in certificate input, but did find a private key; PEM \
                 inputs may have been switched",
            ),
            (
                refused(&[pem("A"), pem("B C")].concat(), b""),
                "tls: failed to find \"CERTIFICATE\" PEM block in certificate input after skipping PEM blocks of \
                 the following types: [A B C]",
            ),
            (refused(&certificate, b"x"), "tls: failed to find any PEM data in key input"),
            (
                refused(&certificate, &certificate),
                "tls: found a certificate rather than a key in the PEM for the private key",
            ),
            (
                refused(&certificate, &pem("PUBLIC KEY")),
                "tls: failed to find PEM block with type ending in \"PRIVATE KEY\" in key input after skipping PEM \
                 blocks of the following types: [PUBLIC KEY]",
            ),
        ];
        for (refusal, expected) in cases {
            assert_eq!(refusal, expected);
        }
        let key = refused(&certificate, &pem("PRIVATE KEY"));
        assert!(key.starts_with("tls: failed to parse private key: it is no RSA key"), "{key}");
        let key = refused(&certificate, &pem("ENCRYPTED PRIVATE KEY"));
        assert!(key.starts_with("tls: failed to parse private key: it is encrypted"), "{key}");
    }

    #[test]
    fn blocks_are_found_among_other_text() {
        let text = "bag attributes: x\r\n-----BEGIN A-----\r\nProc-Type: 4,ENCRYPTED\r\n\r\nAAAA\r\nAA==\r\n-----END A-----\r\n\
                    -----BEGIN B-----\n!\n-----END B-----\n-----BEGIN C-----\nAAAA\n-----END D-----\n-----BEGIN E-----\nAAAA";
        let found = blocks(text.as_bytes());
        assert_eq!(found.len(), 1);
        assert_eq!((found[0].label.as_str(), found[0].is_encrypted, found[0].bytes.len()), ("A", true, 4));
        assert!(blocks(b"\xff\xfe-----BEGIN").is_empty());
    }
}
