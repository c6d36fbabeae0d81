//! `identity.json`: who this peer is.

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use libp2p_identity::Keypair;

use super::json::{Json, Writer, parse};
use super::section::{Env, read_env_table, read_table, table, write_table};
use super::{Error, write_private};
use crate::types::{PeerId, parse_peer_id};

/// A peer's id and its key.
#[derive(Debug, Clone)]
pub struct Identity {
    /// The peer id of the key.
    pub id: PeerId,
    /// The key: Ed25519 where we made it; RSA, Secp256k1 and ECDSA load too.
    pub keypair: Keypair,
    /// The key as the file has it: not every type can be encoded again.
    private_key: String,
}

table! {
    IdentityTable = "config.identityJSON" {
        id: String = "ID",
        private_key: String = "PrivateKey",
    }
}

impl Identity {
    /// A new random identity.
    pub fn generate() -> Result<Self, Error> {
        Self::new(Keypair::generate_ed25519())
    }

    /// The identity of a key that can be encoded: any but RSA.
    pub fn new(keypair: Keypair) -> Result<Self, Error> {
        let bytes = keypair.to_protobuf_encoding().map_err(|reason| Error::Value(reason.to_string()))?;
        Ok(Self { id: keypair.public().to_peer_id(), keypair, private_key: STANDARD.encode(bytes) })
    }

    /// Parses the text of an identity file. Errors are the reference's texts.
    pub fn parse(text: &str) -> Result<Self, String> {
        Self::from_json(&parse(text)?)
    }

    /// Takes `id` and `private_key` from an object; other keys do not matter.
    pub(super) fn from_json(json: &Json<'_>) -> Result<Self, String> {
        let mut table = IdentityTable::default();
        read_table(&mut table, json, "")?;
        Self::from_table(&table)
    }

    fn from_table(table: &IdentityTable) -> Result<Self, String> {
        let id = parse_peer_id(&table.id).map_err(|reason| format!("error decoding cluster ID: {reason}"))?;
        let bytes = decode_base64(&table.private_key)
            .map_err(|reason| format!("error decoding private_key: {reason}"))?;
        let keypair =
            decode_key(&bytes).map_err(|reason| format!("error parsing private_key ID: {reason}"))?;
        if keypair.public().to_peer_id() != id {
            return Err("identity ID does not match the private_key".to_owned());
        }
        Ok(Self { id, keypair, private_key: table.private_key.clone() })
    }

    fn to_table(&self) -> IdentityTable {
        IdentityTable { id: self.id.to_base58(), private_key: self.private_key.clone() }
    }

    /// The identity with `CLUSTER_ID` and `CLUSTER_PRIVATEKEY` over it.
    pub fn with_env(self, env: &Env) -> Result<Self, Error> {
        let mut table = self.to_table();
        read_env_table(&mut table, "CLUSTER", env).map_err(Error::Value)?;
        Self::from_table(&table).map_err(Error::Value)
    }

    /// The text of the file: four spaces, no final line end.
    pub fn to_json(&self) -> String {
        let mut out = Writer::new("    ");
        write_table(&mut self.to_table(), &mut out, false);
        out.finish()
    }

    /// Writes the file, readable by its owner only.
    pub fn save(&self, path: &Path) -> Result<(), Error> {
        tracing::info!(target: "config", "Saving identity");
        write_private(path, &self.to_json()).map_err(Error::Value)
    }

    /// Loads `identity.json`, or the identity that versions before 0.11 kept in the `cluster` section of
    /// `service.json`, which is then saved as `identity.json`; then applies the variables.
    ///
    /// The second value tells whether the identity was taken out of `service.json`.
    pub fn load(path: &Path, service_json: &Path, env: &Env) -> Result<(Self, bool), Error> {
        let is_missing = std::fs::metadata(path).is_err_and(|e| e.kind() == std::io::ErrorKind::NotFound);
        let identity = if is_missing {
            let identity = Self::extract(service_json)
                .map_err(|reason| Error::Value(format!("error loading identity: {reason}")))?;
            identity.save(path).map_err(|reason| Error::Value(format!("error saving identity: {reason}")))?;
            identity
        } else {
            let text = super::read_file(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            text.and_then(|text| Self::parse(&text)).map_err(|reason| {
                Error::Value(format!("error loading identity from {}: {reason}", path.display()))
            })?
        };
        let identity = identity.with_env(env).map_err(|reason| {
            Error::Value(format!("error applying environment variables to the identity: {reason}"))
        })?;
        Ok((identity, is_missing))
    }

    /// The identity in the `cluster` section of a configuration file.
    fn extract(service_json: &Path) -> Result<Self, String> {
        let bytes = super::read_file(service_json)?;
        let text = String::from_utf8_lossy(&bytes);
        let json = parse(&text)?;
        match super::file::cluster_section(&json) {
            Some(section) => Self::from_json(section),
            None => Self::from_table(&IdentityTable::default()),
        }
    }
}

/// Decodes standard base64 with padding; line ends are skipped. The error is Go's.
pub(super) fn decode_base64(text: &str) -> Result<Vec<u8>, String> {
    let compact: String = text.chars().filter(|c| !matches!(c, '\r' | '\n')).collect();
    STANDARD.decode(&compact).map_err(|reason| {
        let at = match reason {
            base64::DecodeError::InvalidByte(at, _) | base64::DecodeError::InvalidLastSymbol(at, _) => at,
            base64::DecodeError::InvalidLength(length) => length,
            base64::DecodeError::InvalidPadding => compact.len(),
        };
        format!("illegal base64 data at input byte {at}")
    })
}

/// Decodes the libp2p protobuf of a private key.
pub(super) fn decode_key(bytes: &[u8]) -> Result<Keypair, String> {
    if bytes.is_empty() {
        return Err("proto: required field crypto.pb.PrivateKey.Type not set".to_owned());
    }
    Keypair::from_protobuf_encoding(bytes).map_err(|reason| format!("proto: {reason}"))
}
