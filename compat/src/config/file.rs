//! The outer shape of `service.json`: sections that hold components by name.

use super::json::{Json, Kind};

/// The sections besides `source` and `cluster`, in the order of the file.
pub(super) const SECTIONS: [&str; 10] = [
    "consensus",
    "api",
    "ipfs_connector",
    "state",
    "pin_tracker",
    "monitor",
    "allocator",
    "informer",
    "observations",
    "datastore",
];

/// A configuration file taken apart, its components not yet read.
#[derive(Debug, Default)]
pub(super) struct Document<'a> {
    /// The URL of the configuration; empty where the file is one itself.
    pub(super) source: String,
    /// The `cluster` section.
    pub(super) cluster: Option<&'a Json<'a>>,
    sections: [Vec<(&'a str, &'a Json<'a>)>; SECTIONS.len()],
}

impl<'a> Document<'a> {
    /// Takes a file apart. Section names match in any case, unknown ones are dropped; component names match
    /// exactly.
    pub(super) fn new(json: &'a Json<'a>) -> Result<Self, String> {
        let mut document = Self::default();
        let entries = match &json.kind {
            Kind::Object(entries) => entries,
            Kind::Null => return Ok(document),
            other => {
                return Err(format!(
                    "json: cannot unmarshal {} into Go value of type config.jsonConfig",
                    other.word()
                ));
            }
        };
        for (name, value) in entries {
            let name = name.to_ascii_lowercase();
            if name == "source" {
                match &value.kind {
                    Kind::String(source) => document.source.clone_from(source),
                    Kind::Null => {}
                    other => return Err(mismatch(other, &name, "string")),
                }
            } else if name == "cluster" {
                document.cluster = if matches!(value.kind, Kind::Null) { None } else { Some(value) };
            } else if let Some(at) = SECTIONS.iter().position(|section| *section == name) {
                match &value.kind {
                    Kind::Object(components) => {
                        document.sections[at]
                            .extend(components.iter().map(|(name, json)| (name.as_str(), json)));
                    }
                    Kind::Null => document.sections[at].clear(),
                    other => return Err(mismatch(other, &name, "config.jsonSection")),
                }
            }
        }
        Ok(document)
    }

    /// The JSON of a component; `null` counts as absent.
    pub(super) fn component(&self, section: usize, name: &str) -> Option<&'a Json<'a>> {
        let found = self.sections[section].iter().rev().find(|(key, _)| *key == name);
        found.map(|(_, json)| *json).filter(|json| !matches!(json.kind, Kind::Null))
    }

    /// The components of a section, the last of each name.
    pub(super) fn components(&self, section: usize) -> &[(&'a str, &'a Json<'a>)] {
        &self.sections[section]
    }
}

/// Keys of the flat files of versions 0.0.x, which had no sections.
const FLAT_KEYS: [&str; 4] =
    ["cluster_peers", "cluster_multiaddress", "api_listen_multiaddress", "ipfs_api_multiaddress"];

/// The first key that tells a flat file of a version 0.0.x, if there is one.
pub(super) fn flat_key(json: &Json<'_>) -> Option<&'static str> {
    let Kind::Object(entries) = &json.kind else { return None };
    FLAT_KEYS.into_iter().find(|key| entries.iter().any(|(name, _)| name == key))
}

fn mismatch(kind: &Kind<'_>, section: &str, go_type: &str) -> String {
    format!(
        "json: cannot unmarshal {} into Go struct field jsonConfig.{section} of type {go_type}",
        kind.word()
    )
}

/// The `cluster` section of a parsed file, if it has one.
pub(super) fn cluster_section<'a>(json: &'a Json<'a>) -> Option<&'a Json<'a>> {
    Document::new(json).ok().and_then(|document| document.cluster)
}
