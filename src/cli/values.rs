//! The values of flags: what was typed, parsed as Go's `flag` package parses it.

use std::collections::BTreeMap;

use cluster_compat::go::time::Duration;

use super::table::{Flag, Kind};

/// The values of flags, by any of their names.
#[derive(Debug, Default)]
pub struct Values {
    /// Canonical name by name.
    names: BTreeMap<&'static str, &'static str>,
    values: BTreeMap<&'static str, Given>,
}

#[derive(Debug)]
struct Given {
    value: Value,
    is_set: bool,
}

#[derive(Debug)]
enum Value {
    Bool(bool),
    String(String),
    Int(i64),
    Duration(Duration),
    List(Vec<String>),
}

impl Values {
    /// The defaults of `flags`.
    pub(super) fn defaults(flags: &[Flag]) -> Self {
        let mut values = Self::default();
        for flag in flags {
            let value = match &flag.kind {
                Kind::Bool => Value::Bool(false),
                Kind::String(default) => Value::String(default.clone()),
                Kind::Int(default) => Value::Int(*default),
                Kind::Duration(default) => Value::Duration(*default),
                Kind::List => Value::List(Vec::new()),
            };
            values.values.insert(flag.name(), Given { value, is_set: false });
            for name in &flag.names {
                values.names.insert(name, flag.name());
            }
        }
        values
    }

    /// Makes room for a flag that has no default.
    pub(super) fn declare(&mut self, name: &'static str) {
        self.names.insert(name, name);
    }

    fn get(&self, name: &str) -> Option<&Value> {
        self.names.get(name).and_then(|name| self.values.get(name)).map(|given| &given.value)
    }

    /// Whether the flag was given, or its variable exists.
    pub fn is_set(&self, name: &str) -> bool {
        self.names.get(name).and_then(|name| self.values.get(name)).is_some_and(|given| given.is_set)
    }

    /// A flag without a value.
    pub fn bool(&self, name: &str) -> bool {
        matches!(self.get(name), Some(Value::Bool(true)))
    }

    /// A text.
    pub fn string(&self, name: &str) -> &str {
        match self.get(name) {
            Some(Value::String(text)) => text,
            _ => "",
        }
    }

    /// A number.
    pub fn int(&self, name: &str) -> i64 {
        match self.get(name) {
            Some(Value::Int(number)) => *number,
            _ => 0,
        }
    }

    /// A duration.
    pub fn duration(&self, name: &str) -> Duration {
        match self.get(name) {
            Some(Value::Duration(span)) => *span,
            _ => Duration::ZERO,
        }
    }

    /// Texts, in the order given.
    pub fn list(&self, name: &str) -> &[String] {
        match self.get(name) {
            Some(Value::List(texts)) => texts,
            _ => &[],
        }
    }

    /// Sets `flag` from `text`; `typed` is the name for errors.
    pub(super) fn set(&mut self, flag: &Flag, typed: &str, text: &str) -> Result<(), String> {
        let invalid = |reason: &str| format!("invalid value {text:?} for flag -{typed}: {reason}");
        let value = match flag.kind {
            Kind::Bool => Value::Bool(
                parse_bool(text)
                    .ok_or_else(|| format!("invalid boolean value {text:?} for -{typed}: parse error"))?,
            ),
            Kind::String(_) => Value::String(text.to_owned()),
            Kind::Int(_) => Value::Int(parse_int(text).map_err(invalid)?),
            Kind::Duration(_) => Value::Duration(Duration::parse(text).map_err(|_| invalid("parse error"))?),
            Kind::List => {
                let mut texts = self.list(flag.name()).to_vec();
                texts.push(text.to_owned());
                Value::List(texts)
            }
        };
        self.values.insert(flag.name(), Given { value, is_set: true });
        Ok(())
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

/// A number as `strconv.ParseInt` reads it with base 0.
fn parse_int(text: &str) -> Result<i64, &'static str> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let lower = digits.to_ascii_lowercase();
    let (base, body) = match lower.as_bytes() {
        [b'0', b'x', ..] => (16, &lower[2..]),
        [b'0', b'b', ..] => (2, &lower[2..]),
        [b'0', b'o', ..] => (8, &lower[2..]),
        [b'0', _, ..] => (8, &lower[1..]),
        _ => (10, &lower[..]),
    };
    if body.is_empty() || !body.chars().all(|c| c.is_digit(base)) {
        return Err("parse error");
    }
    let magnitude = i128::from_str_radix(body, base).map_err(|_| "value out of range")?;
    i64::try_from(if negative { -magnitude } else { magnitude }).map_err(|_| "value out of range")
}
