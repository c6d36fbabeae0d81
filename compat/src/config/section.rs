//! The machinery the sections share: a table of keys per component, read from JSON and from variables.
//!
//! A component has two faces. Its *table* ([`Table`]) holds what the file and the environment say, as plain
//! texts and numbers, in the order of the file. Its *section* (`Cluster`, `Crdt`, …) holds what that means.
//! Loading goes table → section over the defaults; the environment goes section → table → section again, so a
//! variable is checked by the same code as the file.

use std::collections::BTreeMap;
use std::path::Path;

use super::json::{Json, Kind, Writer};
use super::value::{Value, mismatch};
use crate::go::time::Duration;
use crate::types::{Multiaddr, parse_multiaddr};

/// The environment variables a configuration is loaded with.
#[derive(Debug, Clone, Default)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// The variables of this process; bytes that are no UTF-8 are replaced.
    pub fn process() -> Self {
        std::env::vars_os()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect()
    }

    /// The variable's value; an empty value is a value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.get(name).map(String::as_str)
    }
}

impl FromIterator<(String, String)> for Env {
    fn from_iter<T: IntoIterator<Item = (String, String)>>(variables: T) -> Self {
        Self(variables.into_iter().collect())
    }
}

/// A component of the configuration, and whether the file holds it.
///
/// APIs, informers, consensus and datastores count only where present; the others apply anyway.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Section<T> {
    /// Whether the file holds this section (as an object; `null` counts as absent).
    pub present: bool,
    /// Its values: those of the file over the defaults, then those of the environment.
    pub value: T,
}

impl<T> std::ops::Deref for Section<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

impl<T> std::ops::DerefMut for Section<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.value
    }
}

/// How a component is read, checked and written. Errors are the reference's texts.
pub(super) trait Component {
    /// What the file and the environment say.
    type Table: Table + Default;

    /// The name in the file.
    fn key(&self) -> &'static str;

    /// The prefix of its variables, without the final `_`.
    fn env_prefix(&self) -> &'static str;

    /// Puts the values of the table over those here. `folder` is the configuration folder.
    fn apply(&mut self, table: Self::Table, folder: &Path) -> Result<(), String>;

    /// Whether the values can be worked with.
    fn validate(&self) -> Result<(), String>;

    /// The table that says what is here, keys at their default left out where the reference does.
    fn to_table(&self) -> Self::Table;

    /// The table the file is read into: what a missing key says.
    fn blank_table(&self) -> Self::Table {
        Self::Table::default()
    }

    /// The error for a section whose JSON has values of the wrong kind.
    fn mismatch(&self, text: String) -> String {
        text
    }
}

/// The calls of [`Component`] the whole configuration makes, without its types.
pub(super) trait Part {
    fn key(&self) -> &'static str;
    fn is_present(&self) -> bool;
    fn set_present(&mut self, present: bool);
    fn load(&mut self, json: &Json<'_>, folder: &Path) -> Result<(), String>;
    fn apply_env(&mut self, env: &Env, folder: &Path) -> Result<(), String>;
    fn validate(&self) -> Result<(), String>;
    fn write(&self, out: &mut Writer, display: bool);
}

impl<T: Component> Part for Section<T> {
    fn key(&self) -> &'static str {
        self.value.key()
    }

    fn is_present(&self) -> bool {
        self.present
    }

    fn set_present(&mut self, present: bool) {
        self.present = present;
    }

    fn load(&mut self, json: &Json<'_>, folder: &Path) -> Result<(), String> {
        load(&mut self.value, json, folder)
    }

    fn apply_env(&mut self, env: &Env, folder: &Path) -> Result<(), String> {
        apply_env(&mut self.value, env, folder)
    }

    fn validate(&self) -> Result<(), String> {
        self.value.validate()
    }

    fn write(&self, out: &mut Writer, display: bool) {
        write_table(&mut self.value.to_table(), out, display);
    }
}

/// Reads the JSON of a component over its defaults and checks the outcome.
pub(super) fn load<C: Component>(component: &mut C, json: &Json<'_>, folder: &Path) -> Result<(), String> {
    let mut table = component.blank_table();
    read_table(&mut table, json, "").map_err(|text| component.mismatch(text))?;
    component.apply(table, folder)?;
    component.validate()
}

/// Puts the variables of a component over its values and checks the outcome.
pub(super) fn apply_env<C: Component>(component: &mut C, env: &Env, folder: &Path) -> Result<(), String> {
    let mut table = component.to_table();
    read_env_table(&mut table, component.env_prefix(), env)?;
    component.apply(table, folder)?;
    component.validate()
}

/// One key of a table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Key {
    /// The name in the file.
    pub(super) name: &'static str,
    /// The reference's internal name: in capitals it ends the variable's name, and errors show it.
    pub(super) go: &'static str,
    /// Left out of the file when empty, zero or false.
    pub(super) omit_empty: bool,
    /// Never shown in logs.
    pub(super) hidden: bool,
}

impl Key {
    pub(super) const fn new(name: &'static str, go: &'static str) -> Self {
        Self { name, go, omit_empty: false, hidden: false }
    }

    pub(super) const fn omit_empty(self) -> Self {
        Self { omit_empty: true, ..self }
    }

    pub(super) const fn hidden(self) -> Self {
        Self { hidden: true, ..self }
    }
}

/// What a component's JSON object says, key by key.
pub(super) trait Table {
    /// The reference's name of the type, with its package, as errors show it.
    const GO_TYPE: &'static str;

    /// The keys in the order of the file, with their values.
    fn keys(&mut self) -> Vec<(Key, &mut dyn Value)>;
}

/// Declares a [`Table`]: `Name = "go.type" { key: Type = "InternalName" flags…, … }`.
macro_rules! table {
    ($(#[$meta:meta])* $name:ident = $go_type:literal {
        $($field:ident: $type:ty = $go:literal $($flag:ident)*),* $(,)?
    }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq)]
        pub(super) struct $name {
            $(pub(super) $field: $type,)*
        }

        impl $crate::config::section::Table for $name {
            const GO_TYPE: &'static str = $go_type;

            fn keys(
                &mut self,
            ) -> Vec<($crate::config::section::Key, &mut dyn $crate::config::value::Value)> {
                use $crate::config::section::Key;
                use $crate::config::value::Value;
                vec![$((Key::new(stringify!($field), $go)$(.$flag())*, &mut self.$field as &mut dyn Value)),*]
            }
        }
    };
}
pub(super) use table;

/// Reads an object into a table. Keys match in any case, the exact spelling first; the last one counts.
pub(super) fn read_table<T: Table>(table: &mut T, json: &Json<'_>, path: &str) -> Result<(), String> {
    let entries = match &json.kind {
        Kind::Object(entries) => entries,
        Kind::Null => return Ok(()),
        other => {
            return Err(if path.is_empty() {
                format!("json: cannot unmarshal {} into Go value of type {}", other.word(), T::GO_TYPE)
            } else {
                mismatch(other, path, T::GO_TYPE)
            });
        }
    };
    let (_, table_name) = T::GO_TYPE.rsplit_once('.').unwrap_or(("", T::GO_TYPE));
    let mut keys = table.keys();
    for (name, value) in entries {
        let exact = keys.iter().position(|(key, _)| key.name == name);
        let found = exact.or_else(|| keys.iter().position(|(key, _)| key.name.eq_ignore_ascii_case(name)));
        let Some((key, slot)) = found.and_then(|at| keys.get_mut(at)) else { continue };
        let prefix = path.split_once('.').map_or("", |(_, keys)| keys);
        let dot = if prefix.is_empty() { "" } else { "." };
        slot.read(value, table_name, &format!("{table_name}.{prefix}{dot}{}", key.name))?;
    }
    Ok(())
}

/// Reads the variables of a table: `prefix` + `_` + the internal name of each key.
pub(super) fn read_env_table<T: Table>(table: &mut T, prefix: &str, env: &Env) -> Result<(), String> {
    for (key, value) in table.keys() {
        let name = format!("{prefix}_{}", key.go.to_ascii_uppercase());
        value.read_env(&name, &key, env)?;
    }
    Ok(())
}

/// Writes a table as an object.
pub(super) fn write_table<T: Table>(table: &mut T, out: &mut Writer, display: bool) {
    out.open('{');
    for (key, value) in table.keys() {
        if key.omit_empty && !display && value.is_empty() {
            continue;
        }
        out.key(key.name);
        if key.hidden && display {
            out.string("XXX_hidden_XXX");
        } else {
            value.write(out, display);
        }
    }
    out.close('}');
}

/// `text` where there is one, else nothing changes.
pub(super) fn set_text(text: String, slot: &mut String) {
    if !text.is_empty() {
        *slot = text;
    }
}

/// `value` unless it is zero.
pub(super) fn set_number<T: Default + PartialEq>(value: T, slot: &mut T) {
    if value != T::default() {
        *slot = value;
    }
}

/// Parses `text` into `slot` unless it is empty; errors name `component.key`.
pub(super) fn set_duration(
    component: &str,
    key: &str,
    text: &str,
    slot: &mut Duration,
) -> Result<(), String> {
    if text.is_empty() {
        return Ok(());
    }
    *slot = Duration::parse(text).map_err(|reason| format!("error parsing {component}.{key}: {reason}"))?;
    Ok(())
}

/// Parses addresses; errors begin with `doing`.
pub(super) fn parse_addrs(doing: &str, texts: &[String]) -> Result<Vec<Multiaddr>, String> {
    texts.iter().map(|text| parse_addr(doing, text)).collect()
}

/// Parses an address; errors begin with `doing`.
pub(super) fn parse_addr(doing: &str, text: &str) -> Result<Multiaddr, String> {
    parse_multiaddr(text).map_err(|reason| format!("{doing}: {reason}"))
}

/// The texts of addresses.
pub(super) fn addr_texts(addrs: &[Multiaddr]) -> Vec<String> {
    addrs.iter().map(Multiaddr::to_string).collect()
}

/// An address of the defaults. A test reads every one of them, so the empty address never shows.
pub(super) fn default_addr(text: &str) -> Multiaddr {
    text.parse().unwrap_or_else(|_| Multiaddr::empty())
}

/// Refuses with `text` unless `valid`.
pub(super) fn require(valid: bool, text: &str) -> Result<(), String> {
    if valid { Ok(()) } else { Err(text.to_owned()) }
}
