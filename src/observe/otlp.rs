//! Spans as OpenTelemetry collectors take them: the protobuf of OTLP, as far as spans need it.

use super::trace::{Finished, Kind, Value};

/// Whom spans are from.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) name: String,
    pub(super) version: &'static str,
}

/// An `ExportTraceServiceRequest`.
pub(super) fn encode(service: &Service, spans: &[Finished]) -> Vec<u8> {
    let mut out = Vec::with_capacity(256 + spans.len() * 256);
    nested(&mut out, 1, |resource_spans| {
        nested(resource_spans, 1, |resource| {
            attribute(resource, 1, "service.name", &Value::Text(service.name.clone()));
            attribute(resource, 1, "service.version", &Value::Text(service.version.to_owned()));
        });
        nested(resource_spans, 2, |scope_spans| {
            nested(scope_spans, 1, |scope| bytes(scope, 1, env!("CARGO_PKG_NAME").as_bytes()));
            for finished in spans {
                nested(scope_spans, 2, |out| span(out, finished));
            }
        });
    });
    out
}

fn span(out: &mut Vec<u8>, span: &Finished) {
    bytes(out, 1, &span.context.trace_id.to_be_bytes());
    bytes(out, 2, &span.context.span_id.to_be_bytes());
    if let Some(parent) = span.parent {
        bytes(out, 4, &parent.to_be_bytes());
    }
    bytes(out, 5, span.name.as_bytes());
    let kind = match span.kind {
        Kind::Server => 2,
        Kind::Client => 3,
    };
    number(out, 6, kind);
    fixed(out, 7, span.began_unix_nanos);
    fixed(out, 8, span.began_unix_nanos.saturating_add(span.took_nanos));
    for (key, value) in &span.attributes {
        attribute(out, 9, key, value);
    }
    if let Some(failure) = &span.failure {
        nested(out, 15, |status| {
            bytes(status, 2, failure.as_bytes());
            number(status, 3, 2);
        });
    }
}

fn attribute(out: &mut Vec<u8>, field: u64, key: &str, value: &Value) {
    nested(out, field, |pair| {
        bytes(pair, 1, key.as_bytes());
        nested(pair, 2, |any| match value {
            Value::Text(text) => bytes(any, 1, text.as_bytes()),
            Value::Number(n) => number(any, 3, *n),
        });
    });
}

fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

fn number(out: &mut Vec<u8>, field: u64, n: u64) {
    varint(out, field << 3);
    varint(out, n);
}

fn fixed(out: &mut Vec<u8>, field: u64, n: u64) {
    varint(out, field << 3 | 1);
    out.extend_from_slice(&n.to_le_bytes());
}

fn bytes(out: &mut Vec<u8>, field: u64, content: &[u8]) {
    varint(out, field << 3 | 2);
    varint(out, content.len() as u64);
    out.extend_from_slice(content);
}

fn nested(out: &mut Vec<u8>, field: u64, fill: impl FnOnce(&mut Vec<u8>)) {
    let mut content = Vec::new();
    fill(&mut content);
    bytes(out, field, &content);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observe::trace::Context;

    #[test]
    fn a_span_is_written_as_the_protocol_says() {
        let finished = Finished {
            context: Context { trace_id: 0x0102, span_id: 3, is_sampled: true },
            parent: Some(4),
            kind: Kind::Server,
            name: "n".into(),
            began_unix_nanos: 5,
            took_nanos: 1,
            attributes: vec![("a", Value::Number(300)), ("b", Value::Text("c".into()))],
            failure: Some("bad".into()),
        };
        let service = Service { name: "s".into(), version: "v" };
        let text = |hex: &str| hex.replace(' ', "");
        let span = "0a10 00000000000000000000000000000102 1208 0000000000000003 2208 0000000000000004 2a01 6e 3002 \
                    39 0500000000000000 41 0600000000000000 4a08 0a0161 1203 18ac02 4a08 0a0162 1203 0a0163 \
                    7a07 1203626164 1802";
        let found = hex::encode(encode(&service, &[finished]));
        assert!(found.ends_with(&text(span)), "{found}");
        let resource = "0a11 0a0c 736572766963652e6e616d65".replace(' ', "");
        assert!(found.contains(&resource[4..]), "{found}");
    }
}
