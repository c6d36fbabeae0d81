//! The values keys hold: how each is read from JSON and from a variable, and written.

use std::collections::BTreeMap;

use super::json::{Json, Kind, Writer};
use super::section::{Env, Key, Table, read_env_table, read_table, write_table};
use crate::go::json::to_string;
use crate::go::quote::quote;

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

/// Go's text for a value of the wrong kind. `path` is `Struct.key.key`.
pub(super) fn mismatch(kind: &Kind<'_>, path: &str, go_type: &str) -> String {
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
