//! DAG-JOSE: signed and encrypted messages of JOSE in DAG-CBOR, texts in base64url as bytes.
//! (<https://ipld.io/specs/codecs/dag-jose/>; what is left out or refused follows `go-dag-jose`, as in Kubo.)

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use cluster_compat::types::Cid;

use super::{Value, cbor};

/// What a field holds.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Field {
    /// Bytes in the block, base64url without padding outside.
    Base64Url,
    /// The same, and it must be there.
    Needed,
    /// Any value.
    Any,
    /// Maps of fields.
    List(&'static [(&'static str, Field)]),
}

const RECIPIENT: &[(&str, Field)] = &[("header", Field::Any), ("encrypted_key", Field::Base64Url)];
const JWE: &[(&str, Field)] = &[
    ("aad", Field::Base64Url),
    ("ciphertext", Field::Needed),
    ("iv", Field::Base64Url),
    ("protected", Field::Base64Url),
    ("recipients", Field::List(RECIPIENT)),
    ("tag", Field::Base64Url),
    ("unprotected", Field::Any),
];
const SIGNATURE: &[(&str, Field)] =
    &[("header", Field::Any), ("protected", Field::Base64Url), ("signature", Field::Needed)];
const JWS: &[(&str, Field)] = &[("payload", Field::Needed), ("signatures", Field::List(SIGNATURE))];

const INVALID: &str = "invalid JOSE object";

/// Reads a block. A signed message gets the link that its payload is.
pub(in crate::node) fn decode(block: &[u8]) -> Result<Value, String> {
    let value = cbor::decode(block, true)?;
    if value.step("ciphertext").is_some() {
        return convert(&value, JWE, &to_text);
    }
    let Value::Map(mut entries) = convert(&value, JWS, &to_text)? else { return Err(INVALID.into()) };
    let payload = entries.iter().find(|(key, _)| key == b"payload").ok_or(INVALID)?;
    let link = payload_link(&payload.1)?;
    entries.insert(0, (b"link".to_vec(), Value::Link(link)));
    Ok(Value::Map(entries))
}

/// Writes a message, in its general or its flattened form.
pub(in crate::node) fn encode(value: &Value) -> Result<Vec<u8>, String> {
    let general = if value.step("ciphertext").is_some() {
        unflatten(value, &["encrypted_key", "header"], "recipients", "JWE")?
    } else if let Some(payload) = value.step("payload") {
        let link = payload_link(payload)?;
        match value.step("link") {
            Some(Value::Link(shown)) if *shown != link => return Err("cid mismatch".into()),
            Some(Value::Link(_)) | None => {}
            Some(other) => return Err(format!("the field \"link\" is a {}, not a link", other.kind())),
        }
        unflatten(value, &["header", "protected", "signature"], "signatures", "JWS")?
    } else {
        return Err(INVALID.into());
    };
    let fields = if general.step("ciphertext").is_some() { JWE } else { JWS };
    Ok(cbor::encode(&convert(&general, fields, &to_bytes)?))
}

/// The CID that a payload is.
fn payload_link(payload: &Value) -> Result<Cid, String> {
    let bytes = match to_bytes(payload)? {
        Value::Bytes(bytes) => bytes,
        other => return Err(format!("payload is a {}, not a text", other.kind())),
    };
    Cid::try_from(bytes.as_slice()).map_err(|cause| format!("payload is not a valid CID: {cause}"))
}

fn to_text(value: &Value) -> Result<Value, String> {
    match value {
        Value::Bytes(bytes) => Ok(Value::Text(URL_SAFE_NO_PAD.encode(bytes).into_bytes())),
        other => Err(format!("{INVALID}: bytes are expected, not a {}", other.kind())),
    }
}

fn to_bytes(value: &Value) -> Result<Value, String> {
    match value {
        Value::Text(text) => URL_SAFE_NO_PAD
            .decode(text)
            .map(Value::Bytes)
            .map_err(|cause| format!("{INVALID}: {:?}: {cause}", String::from_utf8_lossy(text))),
        other => Err(format!("{INVALID}: a text is expected, not a {}", other.kind())),
    }
}

/// The fields of a message, each turned; others are refused.
fn convert(
    value: &Value,
    fields: &[(&str, Field)],
    turn: &dyn Fn(&Value) -> Result<Value, String>,
) -> Result<Value, String> {
    let Value::Map(entries) = value else { return Err(INVALID.into()) };
    let is_missing = |name: &str| !entries.iter().any(|(key, _)| name.as_bytes() == key);
    let missing = fields.iter().find(|(name, field)| *field == Field::Needed && is_missing(name));
    if let Some((name, _)) = missing {
        return Err(format!("{INVALID}: missing required fields: {name}"));
    }
    let turned = entries.iter().map(|(key, value)| {
        let field = fields.iter().find(|(name, _)| name.as_bytes() == key).map(|(_, field)| *field);
        let value = match field {
            Some(Field::Base64Url | Field::Needed) => turn(value)?,
            Some(Field::Any) => value.clone(),
            Some(Field::List(inner)) => match value {
                Value::List(items) => Value::List(
                    items.iter().map(|item| convert(item, inner, turn)).collect::<Result<_, _>>()?,
                ),
                other => return Err(format!("{INVALID}: a list is expected, not a {}", other.kind())),
            },
            None => return Err(format!("{INVALID}: no field {:?}", String::from_utf8_lossy(key))),
        };
        Ok((key.clone(), value))
    });
    turned.collect::<Result<_, String>>().map(Value::Map)
}

/// The general form of a message: what a flattened one says of its only recipient or signature goes into the list.
fn unflatten(value: &Value, flattened: &[&str], list: &str, kind: &str) -> Result<Value, String> {
    let Value::Map(entries) = value else { return Err(INVALID.into()) };
    let is_flat = |key: &[u8]| flattened.iter().any(|name| name.as_bytes() == key);
    let has_list = value.step(list).is_some();
    let (mut one, mut rest) = (Vec::new(), Vec::new());
    for (key, value) in entries {
        match key.as_slice() {
            b"link" if kind == "JWS" => {}
            key if is_flat(key) && has_list => return Err(format!("invalid {kind} serialization")),
            key if is_flat(key) => one.push((key.to_vec(), value.clone())),
            key => rest.push((key.to_vec(), value.clone())),
        }
    }
    if !has_list && (!one.is_empty() || kind == "JWS") {
        rest.push((list.as_bytes().to_vec(), Value::List(vec![Value::Map(one)])));
    }
    Ok(Value::Map(rest))
}

#[cfg(test)]
mod tests {
    use super::super::{decode_json, encode_json};
    use super::*;

    fn read(json: &str) -> Result<Vec<u8>, String> {
        encode(&decode_json(json.as_bytes(), true).unwrap())
    }

    fn told(block: &[u8]) -> String {
        String::from_utf8(encode_json(&decode(block).unwrap(), true)).unwrap()
    }

    #[test]
    fn a_signed_message_is_the_same_flattened_or_not_and_gets_its_link() {
        let payload = "AXESIA6-N2LRzk6hu8wIeI8lqKYBVXvG4-rL0uuwvP8AwPkD";
        let flat =
            read(&format!(r#"{{"payload":"{payload}","protected":"AQI","signature":"AwQ"}}"#)).unwrap();
        let list = format!(r#""payload":"{payload}","signatures":[{{"protected":"AQI","signature":"AwQ"}}]"#);
        assert_eq!(read(&format!("{{{list}}}")).unwrap(), flat);
        let cid = Cid::try_from(URL_SAFE_NO_PAD.decode(payload).unwrap().as_slice()).unwrap();
        let shown = format!(r#"{{"link":{{"/":"{cid}"}},{list}}}"#);
        assert_eq!(told(&flat), shown);
        assert_eq!(read(&shown).unwrap(), flat);
    }

    #[test]
    fn an_encrypted_message_is_the_same_flattened_or_not() {
        let flat =
            read(r#"{"ciphertext":"AQI","encrypted_key":"AwQ","iv":"BQY","unprotected":{"a":1}}"#).unwrap();
        let shown =
            r#"{"ciphertext":"AQI","iv":"BQY","recipients":[{"encrypted_key":"AwQ"}],"unprotected":{"a":1}}"#;
        assert_eq!(told(&flat), shown);
        assert_eq!(read(shown).unwrap(), flat);
    }

    #[test]
    fn what_is_no_message_is_refused() {
        for bad in [
            "{}",
            "[]",
            r#"{"payload":"AQI","signatures":[]}"#,
            r#"{"payload":1}"#,
            r#"{"ciphertext":"AQI","other":1}"#,
            r#"{"ciphertext":"AQI","header":{},"recipients":[]}"#,
            r#"{"ciphertext":"not base64!"}"#,
            r#"{"payload":"AXESIA6-N2LRzk6hu8wIeI8lqKYBVXvG4-rL0uuwvP8AwPkD"}"#,
        ] {
            read(bad).unwrap_err();
        }
        decode(&[0xa0]).unwrap_err();
        decode(&[0x01]).unwrap_err();
    }
}
