//! The machinery the sections share: a table of keys per component, read from JSON and from variables.
//!
//! A component has two faces. Its *table* ([`Table`]) holds what the file and the environment say, as plain
//! texts and numbers, in the order of the file. Its *section* (`Cluster`, `Crdt`, …) holds what that means.
//! Loading goes table → section over the defaults; the environment goes section → table → section again, so a
//! variable is checked by the same code as the file.

use std::collections::BTreeMap;
use std::path::Path;

use super::json::{Json, Kind, Writer};
use crate::go::json::to_string;
use crate::go::quote::quote;
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
            ) -> Vec<($crate::config::section::Key, &mut dyn $crate::config::section::Value)> {
                use $crate::config::section::{Key, Value};
                vec![$((Key::new(stringify!($field), $go)$(.$flag())*, &mut self.$field as &mut dyn Value)),*]
            }
        }
    };
}
pub(super) use table;

/// A value a key may hold.
pub(super) trait Value {
    /// Reads the JSON value of the key at `path` in a struct of type `table`; `null` changes nothing.
    fn read(&mut self, json: &Json<'_>, table: &str, path: &str) -> Result<(), String>;

    /// Reads the variable `name`, or the variables that begin with it.
    fn read_env(&mut self, name: &str, key: &Key, env: &Env) -> Result<(), String>;

    /// Writes the value; `display` hides secrets and leaves nothing out.
    fn write(&mut self, out: &mut Writer, display: bool);

    /// Whether `omitempty` leaves it out.
    fn is_empty(&self) -> bool;
}

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

/// Go's text for a value of the wrong kind. `path` is `Struct.key.key`.
fn mismatch(kind: &Kind<'_>, path: &str, go_type: &str) -> String {
    format!("json: cannot unmarshal {} into Go struct field {path} of type {go_type}", kind.word())
}

/// Go's text for a variable that cannot be read.
fn env_error(name: &str, key: &Key, value: &str, go_type: &str, details: &str) -> String {
    format!(
        "envconfig.Process: assigning {name} to {}: converting '{value}' to type {go_type}. details: {details}",
        key.go
    )
}

impl Value for String {
    fn read(&mut self, json: &Json<'_>, _table: &str, path: &str) -> Result<(), String> {
        match &json.kind {
            Kind::String(text) => self.clone_from(text),
            Kind::Null => {}
            other => return Err(mismatch(other, path, "string")),
        }
        Ok(())
    }

    fn read_env(&mut self, name: &str, _key: &Key, env: &Env) -> Result<(), String> {
        if let Some(value) = env.get(name) {
            value.clone_into(self);
        }
        Ok(())
    }

    fn write(&mut self, out: &mut Writer, _display: bool) {
        out.string(self);
    }

    fn is_empty(&self) -> bool {
        String::is_empty(self)
    }
}

impl Value for bool {
    fn read(&mut self, json: &Json<'_>, _table: &str, path: &str) -> Result<(), String> {
        match json.kind {
            Kind::Bool(value) => *self = value,
            Kind::Null => {}
            ref other => return Err(mismatch(other, path, "bool")),
        }
        Ok(())
    }

    fn read_env(&mut self, name: &str, key: &Key, env: &Env) -> Result<(), String> {
        let Some(value) = env.get(name) else { return Ok(()) };
        *self = match value {
            "1" | "t" | "T" | "true" | "TRUE" | "True" => true,
            "0" | "f" | "F" | "false" | "FALSE" | "False" => false,
            _ => {
                let details = format!("strconv.ParseBool: parsing {}: invalid syntax", quote(value));
                return Err(env_error(name, key, value, "bool", &details));
            }
        };
        Ok(())
    }

    fn write(&mut self, out: &mut Writer, _display: bool) {
        out.plain(if *self { "true" } else { "false" });
    }

    fn is_empty(&self) -> bool {
        !*self
    }
}

/// An integer as `strconv` parses it with base 0: `0x`, `0o`, `0b` or `0` prefixes and `_` between digits.
fn parse_based(text: &str, signed: bool) -> Option<Result<i128, ()>> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) if signed => (true, digits),
        _ if signed => (false, text.strip_prefix('+').unwrap_or(text)),
        _ => (false, text),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, body) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    let prefixed = base != 10;
    let bad_underscores = body.ends_with('_')
        || body.contains("__")
        || (!prefixed && (body.starts_with('_') || body.contains('_')));
    let body = body.replace('_', "");
    if body.is_empty() || bad_underscores || !body.chars().all(|c| c.is_digit(base)) {
        return None;
    }
    let magnitude = i128::from_str_radix(&body, base);
    Some(magnitude.map(|value| if negative { -value } else { value }).map_err(drop))
}

/// An integer of Go's: its type's name and the bounds of its Rust twin.
macro_rules! integer {
    ($type:ty, $go:literal, $signed:literal, $parser:literal) => {
        impl Value for $type {
            fn read(&mut self, json: &Json<'_>, _table: &str, path: &str) -> Result<(), String> {
                match &json.kind {
                    Kind::Number(text) => {
                        *self = text.parse().map_err(|_| {
                            format!(
                                "json: cannot unmarshal number {text} into Go struct field {path} of type {}",
                                $go
                            )
                        })?;
                    }
                    Kind::Null => {}
                    other => return Err(mismatch(other, path, $go)),
                }
                Ok(())
            }

            fn read_env(&mut self, name: &str, key: &Key, env: &Env) -> Result<(), String> {
                let Some(value) = env.get(name) else { return Ok(()) };
                let parsed = parse_based(value, $signed);
                let reason = if parsed.is_none() { "invalid syntax" } else { "value out of range" };
                let in_range = parsed.and_then(Result::ok).and_then(|number| Self::try_from(number).ok());
                *self = in_range.ok_or_else(|| {
                    let details = format!("strconv.{}: parsing {}: {reason}", $parser, quote(value));
                    env_error(name, key, value, $go, &details)
                })?;
                Ok(())
            }

            fn write(&mut self, out: &mut Writer, _display: bool) {
                out.plain(&self.to_string());
            }

            fn is_empty(&self) -> bool {
                *self == 0
            }
        }
    };
}

integer!(i64, "int", true, "ParseInt");
integer!(u64, "uint64", false, "ParseUint");
integer!(u32, "uint32", false, "ParseUint");

impl Value for f64 {
    fn read(&mut self, json: &Json<'_>, _table: &str, path: &str) -> Result<(), String> {
        match &json.kind {
            Kind::Number(text) => {
                *self = text.parse().ok().filter(|number: &Self| number.is_finite()).ok_or_else(|| {
                    format!(
                        "json: cannot unmarshal number {text} into Go struct field {path} of type float64"
                    )
                })?;
            }
            Kind::Null => {}
            other => return Err(mismatch(other, path, "float64")),
        }
        Ok(())
    }

    fn read_env(&mut self, name: &str, key: &Key, env: &Env) -> Result<(), String> {
        let Some(value) = env.get(name) else { return Ok(()) };
        // JSON cannot write infinities and NaN, so a value that would make one is refused here.
        *self = value.parse().ok().filter(|number: &Self| number.is_finite()).ok_or_else(|| {
            let details = format!("strconv.ParseFloat: parsing {}: invalid syntax", quote(value));
            env_error(name, key, value, "float64", &details)
        })?;
        Ok(())
    }

    fn write(&mut self, out: &mut Writer, _display: bool) {
        out.plain(&to_string(self));
    }

    fn is_empty(&self) -> bool {
        *self == 0.0
    }
}

/// Items of a variable: split at `,` without trimming; a blank one has none.
fn env_items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').filter(move |_| !value.trim().is_empty())
}

fn write_texts(texts: &[String], out: &mut Writer) {
    out.open('[');
    for text in texts {
        out.item();
        out.string(text);
    }
    out.close(']');
}

fn read_texts(items: &[Json<'_>], table: &str, path: &str) -> Result<Vec<String>, String> {
    let mut texts = vec![String::new(); items.len()];
    for (text, item) in texts.iter_mut().zip(items) {
        text.read(item, table, path)?;
    }
    Ok(texts)
}

impl Value for Vec<String> {
    fn read(&mut self, json: &Json<'_>, table: &str, path: &str) -> Result<(), String> {
        match &json.kind {
            Kind::Array(items) => *self = read_texts(items, table, path)?,
            Kind::Null => self.clear(),
            other => return Err(mismatch(other, path, "[]string")),
        }
        Ok(())
    }

    fn read_env(&mut self, name: &str, _key: &Key, env: &Env) -> Result<(), String> {
        if let Some(value) = env.get(name) {
            *self = env_items(value).map(str::to_owned).collect();
        }
        Ok(())
    }

    fn write(&mut self, out: &mut Writer, _display: bool) {
        write_texts(self, out);
    }

    fn is_empty(&self) -> bool {
        self.as_slice().is_empty()
    }
}

/// A string or a list of strings; `""` is the empty list, and a single one is written without brackets.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Texts(pub(super) Vec<String>);

impl Value for Texts {
    fn read(&mut self, json: &Json<'_>, table: &str, path: &str) -> Result<(), String> {
        match &json.kind {
            Kind::Array(items) => self.0 = read_texts(items, table, path)?,
            Kind::String(text) if !text.is_empty() => self.0 = vec![text.clone()],
            Kind::String(_) | Kind::Null => self.0.clear(),
            other => return Err(mismatch(other, path, "string")),
        }
        Ok(())
    }

    fn read_env(&mut self, name: &str, key: &Key, env: &Env) -> Result<(), String> {
        self.0.read_env(name, key, env)
    }

    fn write(&mut self, out: &mut Writer, _display: bool) {
        match self.0.as_slice() {
            [one] => out.string(one),
            texts => write_texts(texts, out),
        }
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// An object whose keys are the user's. `None` is written as `null`.
pub(super) type Map<T> = Option<BTreeMap<String, T>>;

/// What differs between maps of texts and maps of lists of texts.
pub(super) trait MapItem: Value + Default {
    /// The map's type as errors show it.
    const GO_MAP: &'static str;

    /// The item a variable's `key:item` gives.
    fn from_env(text: &str) -> Self;
}

impl MapItem for String {
    const GO_MAP: &'static str = "map[string]string";

    fn from_env(text: &str) -> Self {
        text.to_owned()
    }
}

impl MapItem for Vec<String> {
    const GO_MAP: &'static str = "map[string][]string";

    fn from_env(text: &str) -> Self {
        env_items(text).map(str::to_owned).collect()
    }
}

impl<T: MapItem> Value for Map<T> {
    fn read(&mut self, json: &Json<'_>, table: &str, path: &str) -> Result<(), String> {
        match &json.kind {
            Kind::Object(entries) => {
                let map = self.get_or_insert_default();
                for (key, value) in entries {
                    let mut item = T::default();
                    item.read(value, table, path)?;
                    map.insert(key.clone(), item);
                }
            }
            Kind::Null => *self = None,
            other => return Err(mismatch(other, path, T::GO_MAP)),
        }
        Ok(())
    }

    fn read_env(&mut self, name: &str, key: &Key, env: &Env) -> Result<(), String> {
        let Some(value) = env.get(name) else { return Ok(()) };
        let mut map = BTreeMap::new();
        for pair in env_items(value) {
            match pair.split_once(':') {
                Some((name, item)) if !item.contains(':') => {
                    map.insert(name.to_owned(), T::from_env(item));
                }
                _ => {
                    let details = format!("invalid map item: {}", quote(pair));
                    return Err(env_error(name, key, value, T::GO_MAP, &details));
                }
            }
        }
        *self = Some(map);
        Ok(())
    }

    fn write(&mut self, out: &mut Writer, display: bool) {
        let Some(map) = self else { return out.plain("null") };
        out.open('{');
        for (key, item) in map {
            out.key(key);
            item.write(out, display);
        }
        out.close('}');
    }

    fn is_empty(&self) -> bool {
        self.as_ref().is_none_or(BTreeMap::is_empty)
    }
}

/// A table inside a table.
impl<T: Table + Default> Value for Nested<T> {
    fn read(&mut self, json: &Json<'_>, _table: &str, path: &str) -> Result<(), String> {
        read_table(&mut self.0, json, path)
    }

    fn read_env(&mut self, name: &str, _key: &Key, env: &Env) -> Result<(), String> {
        read_env_table(&mut self.0, name, env)
    }

    fn write(&mut self, out: &mut Writer, display: bool) {
        write_table(&mut self.0, out, display);
    }

    fn is_empty(&self) -> bool {
        false
    }
}

/// A table inside a table, always there.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Nested<T>(pub(super) T);

/// A table inside a table that the file may leave out as a whole.
impl<T: Table + Default> Value for Option<Nested<T>> {
    fn read(&mut self, json: &Json<'_>, table: &str, path: &str) -> Result<(), String> {
        match json.kind {
            Kind::Null => *self = None,
            _ => self.get_or_insert_default().read(json, table, path)?,
        }
        Ok(())
    }

    fn read_env(&mut self, name: &str, key: &Key, env: &Env) -> Result<(), String> {
        self.get_or_insert_default().read_env(name, key, env)
    }

    fn write(&mut self, out: &mut Writer, display: bool) {
        match self {
            Some(nested) => nested.write(out, display),
            None => out.plain("null"),
        }
    }

    fn is_empty(&self) -> bool {
        self.is_none()
    }
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
