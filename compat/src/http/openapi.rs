//! The document that describes a face, kept as YAML for people and served as JSON.
//!
//! The test `openapi` holds the documents against the tables of routes and against what the parsers read.

use std::sync::OnceLock;

use bytes::Bytes;

/// A document of `compat/openapi/`.
#[derive(Debug)]
pub struct Document {
    yaml: &'static str,
    json: OnceLock<Bytes>,
}

/// The REST API.
pub static REST: Document = Document::new(include_str!("../../openapi/rest.yaml"));

/// The pinning service.
pub static PINSVC: Document = Document::new(include_str!("../../openapi/pinsvc.yaml"));

impl Document {
    const fn new(yaml: &'static str) -> Self {
        Self { yaml, json: OnceLock::new() }
    }

    /// The document as JSON, made when it is first asked for.
    pub fn json(&self) -> Bytes {
        let made = || {
            let document = serde_norway::from_str::<serde_json::Value>(self.yaml);
            // a document that cannot be read fails the test, and is an empty one here
            let mut json = serde_json::to_vec(&document.unwrap_or_default()).unwrap_or_default();
            json.push(b'\n');
            json.into()
        };
        self.json.get_or_init(made).clone()
    }
}
