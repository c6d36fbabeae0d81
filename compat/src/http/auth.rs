//! Who may ask: user names with passwords, or tokens signed with them (spec: rest-api 7).
//!
//! A token is a JWT whose issuer is a user and whose HMAC key is that user's password. Everything golang-jwt 4.5
//! takes is taken here and nothing else. Names and passwords are compared by their digests and in constant time,
//! each time with all of them, so that nobody learns from the clock how far a guess went.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, PAD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use hmac::{Hmac, Mac};
use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use serde::Deserialize;
use serde::de::{IgnoredAny, MapAccess, Visitor};
use sha2::{Digest, Sha256, Sha384, Sha512};
use subtle::{Choice, ConstantTimeEq};
use tracing::debug;

use super::conn::{Handler, Request};
use super::mux;
use super::respond::{self, Response};
use crate::go::json;

/// Challenges, as the reference words them.
const BASIC: HeaderValue = HeaderValue::from_static("Basic realm=\"Restricted IPFS Cluster API\"");
const BEARER: HeaderValue = HeaderValue::from_static("Bearer realm=\"Restricted IPFS Cluster API\"");
const BAD_TOKEN: HeaderValue =
    HeaderValue::from_static("Bearer realm=\"Restricted IPFS Cluster API\", error=\"invalid_token\"");

/// The head of the tokens that are given out.
const TOKEN_HEAD: &[u8] = br#"{"alg":"HS256","typ":"JWT"}"#;

/// Go's decoders do not look at the bits behind the last byte.
const LENIENT: GeneralPurposeConfig = PAD.with_decode_allow_trailing_bits(true);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, LENIENT);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    LENIENT.with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::RequireNone),
);

/// The error document of a face; it is also where a face logs its refusals.
pub type Document = fn(StatusCode, &str) -> Bytes;

/// Users and passwords of a face.
pub struct Credentials {
    passwords: BTreeMap<String, String>,
    digests: Vec<(Vec<u8>, Vec<u8>)>,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // passwords have no place in a log
        f.debug_struct("Credentials").field("n_users", &self.passwords.len()).finish_non_exhaustive()
    }
}

/// The user of a request that was let through (an extension of requests).
#[derive(Debug, Clone)]
pub struct User {
    name: String,
    credentials: Arc<Credentials>,
}

impl User {
    /// The token of this user: the same at any time, and valid until the password changes.
    pub fn token(&self) -> String {
        let claims = match self.name.as_str() {
            "" => b"{}".to_vec(),
            name => json::to_vec(&BTreeMap::from([("iss", name)])),
        };
        let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(TOKEN_HEAD), URL_SAFE_NO_PAD.encode(claims));
        let password = self.credentials.passwords.get(&self.name).map_or("", String::as_str);
        let signature = mac::<Hmac<Sha256>>(password, &signed).finalize().into_bytes();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Why a request is not let through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    Missing,
    WrongPassword,
    BadToken,
}

impl Credentials {
    /// From the `basic_auth_credentials` of a section.
    pub fn new(passwords: BTreeMap<String, String>) -> Self {
        let digests = passwords.iter().map(|(user, password)| (digest(user), digest(password))).collect();
        Self { passwords, digests }
    }

    /// Lets requests with credentials through to `handler`, preflights and `GET /health` without; refuses the
    /// others with 401, `document` and the `custom` headers of the configuration.
    pub fn layer(
        self,
        handler: Handler,
        custom: Arc<[(HeaderName, HeaderValue)]>,
        document: Document,
    ) -> Handler {
        let credentials = Arc::new(self);
        Arc::new(move |mut request, peer| {
            if !is_open(&request) {
                match credentials.user(request.headers()) {
                    Ok(name) => {
                        let user = User { name, credentials: Arc::clone(&credentials) };
                        request.extensions_mut().insert(user);
                    }
                    Err(refusal) => {
                        let mut response = refusal.into_response(document);
                        respond::add_custom(&mut response, &custom);
                        return Box::pin(async move { response });
                    }
                }
            }
            handler(request, peer)
        })
    }

    /// The user that a request's first `Authorization` line stands for.
    fn user(&self, headers: &HeaderMap) -> Result<String, Refusal> {
        let line = headers.get(AUTHORIZATION).map_or(&b""[..], HeaderValue::as_bytes);
        if let Some((user, password)) = basic(line) {
            return self.check(&user, &password).ok_or(Refusal::WrongPassword);
        }
        match after_scheme(line, b"bearer ") {
            Some(token) => self.verify(token, now()).map_err(|cause| {
                debug!("http: a token was refused: {cause}");
                Refusal::BadToken
            }),
            None => Err(Refusal::Missing),
        }
    }

    fn check(&self, user: &[u8], password: &[u8]) -> Option<String> {
        let (user_digest, password_digest) = (digest(user), digest(password));
        let is_known = self.digests.iter().fold(Choice::from(0), |is_known, (one_user, one_password)| {
            is_known | (one_user.ct_eq(&user_digest) & one_password.ct_eq(&password_digest))
        });
        let is_whole = !user.is_empty() && !password.is_empty();
        (bool::from(is_known) && is_whole).then(|| String::from_utf8_lossy(user).into_owned())
    }

    /// The issuer of a token that is valid at `now` (seconds since 1970).
    fn verify(&self, token: &[u8], now: i64) -> Result<String, &'static str> {
        let parts: Vec<&[u8]> = token.split(|byte| *byte == b'.').collect();
        let [head, claims, signature] = parts[..] else {
            return Err("token contains an invalid number of segments");
        };
        let signed = &token[..head.len() + 1 + claims.len()];
        let decode = |part: &[u8]| URL_SAFE.decode(part).map_err(|_| "a segment is not base64");
        let head: Option<Head> =
            serde_json::from_slice(&decode(head)?).map_err(|_| "the head cannot be read")?;
        let claims = String::from_utf8_lossy(&decode(claims)?).into_owned();
        let claims = serde_json::Deserializer::from_str(&claims).into_iter::<Claims>().next();
        let claims = claims.and_then(Result::ok).ok_or("the claims cannot be read")?;
        let signature = decode(signature)?;
        let password = self.passwords.get(&claims.issuer).ok_or("issuer not found")?;
        let is_signed = match head.unwrap_or_default().alg.as_str() {
            "HS256" => mac::<Hmac<Sha256>>(password, signed).verify_slice(&signature),
            "HS384" => mac::<Hmac<Sha384>>(password, signed).verify_slice(&signature),
            "HS512" => mac::<Hmac<Sha512>>(password, signed).verify_slice(&signature),
            _ => return Err("unexpected token signing method (not HMAC)"),
        };
        is_signed.map_err(|_| "signature is invalid")?;
        if claims.expires_at.is_some_and(|at| now >= at) {
            return Err("token is expired");
        }
        if claims.issued_at.is_some_and(|at| now < at) {
            return Err("token used before issued");
        }
        if claims.not_before.is_some_and(|at| now < at) {
            return Err("token is not valid yet");
        }
        Ok(claims.issuer)
    }
}

impl Refusal {
    fn into_response(self, document: Document) -> Response {
        let (challenges, message): (&[HeaderValue], _) = match self {
            Self::Missing => (&[BEARER, BASIC], "unauthorized: no auth provided"),
            Self::WrongPassword => (&[BASIC], "unauthorized: access denied"),
            Self::BadToken => (&[BAD_TOKEN], "unauthorized: invalid token"),
        };
        let status = StatusCode::UNAUTHORIZED;
        let mut response = respond::document(status, document(status, message));
        for challenge in challenges {
            response.headers_mut().append(WWW_AUTHENTICATE, challenge.clone());
        }
        response
    }
}

/// What may be asked without credentials: anything by OPTIONS, and whether the peer is alive.
fn is_open(request: &Request) -> bool {
    request.method() == Method::OPTIONS
        || (request.method() == Method::GET && &*mux::decoded_path(request.uri()) == b"/health")
}

/// What stands behind a scheme and its blank, in any case; `scheme` is in lower case.
fn after_scheme<'a>(line: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let (start, rest) = line.split_at_checked(scheme.len())?;
    start.eq_ignore_ascii_case(scheme).then_some(rest)
}

/// User and password of a `Basic` line; `None` if it is none or cannot be read.
fn basic(line: &[u8]) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut user = STANDARD.decode(after_scheme(line, b"basic ")?).ok()?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    let password = user.split_off(colon + 1);
    user.pop();
    Some((user, password))
}

fn digest(text: impl AsRef<[u8]>) -> Vec<u8> {
    Sha256::digest(text).to_vec()
}

#[allow(clippy::expect_used, reason = "HMAC takes keys of any length")]
fn mac<M: Mac + hmac::digest::KeyInit>(password: &str, signed: impl AsRef<[u8]>) -> M {
    let mut mac = <M as Mac>::new_from_slice(password.as_bytes()).expect("HMAC takes keys of any length");
    mac.update(signed.as_ref());
    mac
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}

/// The head of a token; its keys are matched exactly, and what is no text is as if it were missing.
#[derive(Default)]
struct Head {
    alg: String,
}

impl<'de> Deserialize<'de> for Head {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let fields = BTreeMap::<String, serde_json::Value>::deserialize(deserializer)?;
        let alg = fields.get("alg").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned();
        Ok(Self { alg })
    }
}

/// The claims that count. Times are in seconds since 1970.
#[derive(Default)]
struct Claims {
    issuer: String,
    expires_at: Option<i64>,
    not_before: Option<i64>,
    issued_at: Option<i64>,
}

impl<'de> Deserialize<'de> for Claims {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ClaimsVisitor)
    }
}

/// Reads claims as Go's decoder does: names in any case, the last of equal names, `null` for nothing.
struct ClaimsVisitor;

impl<'de> Visitor<'de> for ClaimsVisitor {
    type Value = Claims;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("claims")
    }

    fn visit_unit<E>(self) -> Result<Claims, E> {
        Ok(Claims::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Claims, A::Error> {
        let mut claims = Claims::default();
        while let Some(mut key) = map.next_key::<String>()? {
            key.make_ascii_lowercase();
            match key.as_str() {
                "iss" => {
                    if let Some(issuer) = map.next_value()? {
                        claims.issuer = issuer;
                    }
                }
                "sub" | "jti" => {
                    map.next_value::<Option<String>>()?;
                }
                "aud" => {
                    map.next_value::<Option<Audience>>()?;
                }
                "exp" => claims.expires_at = map.next_value::<Option<Seconds>>()?.map(|at| at.0),
                "nbf" => claims.not_before = map.next_value::<Option<Seconds>>()?.map(|at| at.0),
                "iat" => claims.issued_at = map.next_value::<Option<Seconds>>()?.map(|at| at.0),
                _ => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(claims)
    }
}

/// A text or a list of texts.
#[derive(Deserialize)]
#[serde(untagged)]
enum Audience {
    One(#[allow(dead_code, reason = "only its type counts")] String),
    Many(#[allow(dead_code, reason = "only its type counts")] Vec<String>),
}

/// A time: a number, or a text that is one. Fractions are cut off; what no 64 bits hold is the distant past, as it
/// is in Go.
struct Seconds(i64);

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let seconds = match serde_json::Value::deserialize(deserializer)? {
            serde_json::Value::Number(number) => number.as_f64(),
            serde_json::Value::String(text) if text.trim() == text => {
                serde_json::from_str::<serde_json::Number>(&text).ok().and_then(|number| number.as_f64())
            }
            _ => None,
        };
        let seconds = seconds.ok_or_else(|| serde::de::Error::custom("not a number"))?.floor();
        #[allow(clippy::cast_possible_truncation, reason = "within the range of an i64")]
        let is_held = seconds.abs() < 9.2e18;
        Ok(Self(if is_held { seconds as i64 } else { i64::MIN }))
    }
}

#[cfg(test)]
mod tests;
