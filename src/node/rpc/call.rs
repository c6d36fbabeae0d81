//! A request that has found its endpoint: arguments, options, body. Texts are those of `go-ipfs-cmds`.

use std::time::Duration;

use bytes::Bytes;
use cluster_compat::go::query::Query;
use cluster_compat::go::quote::quote;
use cluster_compat::go::time::Duration as GoDuration;
use cluster_compat::http::conn::{Request, RequestBody};
use cluster_compat::http::multipart::Multipart;
use cluster_compat::types::Cid;
use http::header::{CONTENT_TYPE, HeaderMap};
use multibase::Base;
use tokio::time::Instant;

use super::answer::Failure;
use super::table::{ArgKind, Endpoint, GLOBAL, Kind, Opt};

/// Largest document that is read from a body as an argument.
const MAX_BODY_ARG: usize = 1 << 20;

/// A request.
pub(in crate::node) struct Call {
    /// Arguments in their order.
    pub(in crate::node) args: Vec<String>,
    options: Vec<(&'static str, String)>,
    pub(in crate::node) headers: HeaderMap,
    pub(in crate::node) body: RequestBody,
    /// When it has to be answered.
    pub(in crate::node) deadline: Option<Instant>,
}

/// The files of a request.
pub(in crate::node) type Files = Multipart<RequestBody>;

impl Call {
    /// Reads a request; the error is the text of a 400.
    pub(super) fn parse(endpoint: &Endpoint, arg: Option<&str>, request: Request) -> Result<Self, String> {
        let query = Query::parse(request.uri().query().unwrap_or_default());
        let (head, body) = request.into_parts();
        let mut args: Vec<String> = arg.map(str::to_owned).into_iter().collect();
        args.extend(query.get_all("arg").map(str::to_owned));
        let options = options(endpoint, &query)?;
        let is_form = head
            .headers
            .get(CONTENT_TYPE)
            .is_some_and(|kind| kind.as_bytes().starts_with(b"multipart/form-data"));
        let n_texts = endpoint.args.iter().filter(|arg| arg.kind != ArgKind::File && arg.required).count();
        for (at, wanted) in endpoint.args.iter().filter(|arg| arg.required).enumerate() {
            match wanted.kind {
                ArgKind::File if !is_form => {
                    return Err(format!("file argument '{}' is required", wanted.name));
                }
                ArgKind::File => {}
                ArgKind::TextOrBody if is_form && at < n_texts => {}
                ArgKind::Text | ArgKind::TextOrBody => {
                    if args.len() <= at {
                        return Err(format!("argument {} is required", quote(wanted.name)));
                    }
                }
            }
        }
        Ok(Self { args, options, headers: head.headers, body, deadline: None })
    }

    /// The value of an option, or its default.
    pub(in crate::node) fn text(&self, name: &str) -> &str {
        self.options.iter().find(|(known, _)| *known == name).map_or("", |(_, value)| value.as_str())
    }

    /// Whether an option was given.
    pub(in crate::node) fn has(&self, name: &str) -> bool {
        self.options.iter().any(|(known, _)| *known == name)
    }

    /// A switch; `None` where it was not given and has no default.
    pub(in crate::node) fn maybe(&self, name: &str) -> Option<bool> {
        self.options.iter().find(|(known, _)| *known == name).and_then(|(_, value)| parse_bool(value))
    }

    /// A switch that is off unless it is on.
    pub(in crate::node) fn is(&self, name: &str) -> bool {
        self.maybe(name).unwrap_or(false)
    }

    /// A number.
    pub(in crate::node) fn number(&self, name: &str) -> Option<i64> {
        self.options.iter().find(|(known, _)| *known == name).and_then(|(_, value)| parse_int(value))
    }

    /// Whether only what is here shall be looked at.
    pub(in crate::node) fn is_offline(&self) -> bool {
        self.is("offline")
    }

    /// The limit that the caller sets, if it can be read.
    pub(super) fn timeout(&self) -> Result<Option<Duration>, ()> {
        if !self.has("timeout") {
            return Ok(None);
        }
        let limit = GoDuration::parse(self.text("timeout")).map_err(drop)?;
        Ok(Some(limit.to_std()))
    }

    /// How CIDs are written.
    pub(in crate::node) fn encoder(&self) -> Result<Encoder, Failure> {
        let name = self.text("cid-base");
        if name.is_empty() {
            return Ok(Encoder { base: None });
        }
        let base =
            base(name).ok_or_else(|| Failure::new(format!("unsupported multibase encoding: {name}")))?;
        let upgrades = self.maybe("upgrade-cidv0-in-output").unwrap_or(base != Base::Base58Btc);
        Ok(Encoder { base: Some((base, upgrades)) })
    }

    /// The files of the body.
    pub(in crate::node) fn files(self) -> Result<Files, Failure> {
        let (files, _) = Multipart::new(&self.headers, self.body).map_err(Failure::request)?;
        Ok(files)
    }

    /// Arguments, and those that stand in the body, one a line.
    pub(in crate::node) async fn take_args(&mut self) -> Result<Vec<String>, Failure> {
        use cluster_compat::api::Upload as _;
        let mut args = std::mem::take(&mut self.args);
        let is_form = self.headers.get(CONTENT_TYPE).is_some();
        if !args.is_empty() || !is_form {
            return Ok(args);
        }
        let body = std::mem::replace(&mut self.body, RequestBody::from(Bytes::new()));
        let Ok((mut files, _)) = Multipart::new(&self.headers, body) else { return Ok(args) };
        let failed = |cause: cluster_compat::api::Error| Failure::new(cause.message);
        let mut text = Vec::new();
        if files.next_entry().await.map_err(failed)?.is_some() {
            while let Some(piece) = files.read().await.map_err(failed)? {
                text.extend_from_slice(&piece);
                if text.len() > MAX_BODY_ARG {
                    return Err(Failure::new(format!(
                        "more than {MAX_BODY_ARG} bytes of arguments in the body"
                    )));
                }
            }
        }
        let text = String::from_utf8_lossy(&text);
        args.extend(text.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned));
        Ok(args)
    }
}

/// Names of the bases CIDs may be written in. (Go: `go-multibase`)
const BASES: [(&str, Base); 12] = [
    ("base2", Base::Base2),
    ("base8", Base::Base8),
    ("base10", Base::Base10),
    ("base16", Base::Base16Lower),
    ("base16upper", Base::Base16Upper),
    ("base32", Base::Base32Lower),
    ("base32upper", Base::Base32Upper),
    ("base36", Base::Base36Lower),
    ("base36upper", Base::Base36Upper),
    ("base58btc", Base::Base58Btc),
    ("base64", Base::Base64),
    ("base64url", Base::Base64Url),
];

/// The base of a name or of its letter.
pub(super) fn base(name: &str) -> Option<Base> {
    let letter = || {
        let mut chars = name.chars();
        let only = chars.next()?;
        chars.next().is_none().then_some(only).and_then(|code| Base::from_code(code).ok())
    };
    BASES.iter().find(|(known, _)| *known == name).map(|(_, base)| *base).or_else(letter)
}

/// Writes CIDs as the caller wants them.
#[derive(Debug, Clone, Copy)]
pub(in crate::node) struct Encoder {
    /// The base, and whether CIDs of version 0 become version 1.
    base: Option<(Base, bool)>,
}

impl Encoder {
    /// A CID as text.
    pub(in crate::node) fn text(self, cid: &Cid) -> String {
        match self.base {
            None => cid.to_string(),
            Some((_, false)) if cid.version() == cid::Version::V0 => cid.to_string(),
            Some((base, _)) => {
                let cid = Cid::new_v1(cid.codec(), *cid.hash());
                multibase::encode(base, cid.to_bytes())
            }
        }
    }
}

fn parse_bool(text: &str) -> Option<bool> {
    match text.to_lowercase().as_str() {
        "" | "1" | "t" | "true" => Some(true),
        "0" | "f" | "false" => Some(false),
        _ => None,
    }
}

fn parse_int(text: &str) -> Option<i64> {
    let (sign, digits) = text.strip_prefix('-').map_or((1, text), |digits| (-1, digits));
    let number = match digits.to_ascii_lowercase().strip_prefix("0x") {
        Some(hex) => i64::from_str_radix(hex, 16).ok()?,
        None => digits.parse().ok()?,
    };
    Some(sign * number)
}

/// The options of a query under their first names, and the defaults of the others.
fn options(endpoint: &Endpoint, query: &Query) -> Result<Vec<(&'static str, String)>, String> {
    let mut found: Vec<(&'static str, String)> = Vec::new();
    for (key, _) in query.iter() {
        let all = endpoint.options.iter().chain(GLOBAL);
        let Some(option) = all.into_iter().find(|option| option.names.contains(&key)) else { continue };
        let name = option.names[0];
        if found.iter().any(|(known, _)| *known == name) {
            continue;
        }
        let values: Vec<&str> = query.get_all(key).collect();
        if values.len() > 1 && option.kind != Kind::Texts {
            return Err(format!(
                "expected key {name} to have only a single value, received [{}]",
                values.join(" ")
            ));
        }
        let value = values.first().copied().unwrap_or_default();
        check(option, key, value)?;
        found.push((name, values.join(",")));
    }
    for option in endpoint.options {
        if !option.default.is_empty() && !found.iter().any(|(known, _)| *known == option.names[0]) {
            found.push((option.names[0], option.default.to_owned()));
        }
    }
    Ok(found)
}

fn check(option: &Opt, key: &str, value: &str) -> Result<(), String> {
    let (kind, is_valid) = match option.kind {
        Kind::Bool => ("bool", parse_bool(value).is_some()),
        Kind::Int => ("int", parse_int(value).is_some_and(|number| i32::try_from(number).is_ok())),
        Kind::Int64 => ("int64", parse_int(value).is_some()),
        Kind::Uint => ("uint", parse_int(value).is_some_and(|number| u32::try_from(number).is_ok())),
        Kind::Text | Kind::Texts => ("string", true),
    };
    if is_valid {
        return Ok(());
    }
    let value = if value.is_empty() { "empty value".to_owned() } else { format!("value {}", quote(value)) };
    Err(format!(
        "could not convert {value} to type {} (for option {})",
        quote(kind),
        quote(&format!("-{key}"))
    ))
}
