//! New recordings from a running server, whatever program it is.

use std::collections::BTreeMap;
use std::io;

use serde_json::Value;

use super::compare::mask_times;
use super::replay::{Faces, exchange};
use super::{Answer, Data, Face, Recording, Step};
use crate::go::time::Time;

/// Numbers of ports and what stands for them in a file: 9096 and `cluster` for `{cluster}`.
pub type Ports = BTreeMap<u16, String>;

/// Sends the steps of a list of requests and keeps the answers: numbered, with times and ports that differ from run
/// to run replaced, long bodies as digests. `command` says how it was asked for.
pub async fn record(
    mut requests: Recording,
    faces: &Faces,
    ports: &Ports,
    command: &str,
) -> io::Result<Recording> {
    for (no, step) in requests.steps.iter_mut().enumerate() {
        let Some(addr) = faces.get(&step.to) else {
            let text = format!("step {no} goes to {:?}, which has no address", step.to);
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        };
        step.no = no;
        let answer = exchange(*addr, &filled(step, ports)).await;
        let answer = answer.map_err(|error| io::Error::new(error.kind(), format!("step {no}: {error}")))?;
        step.answer = named(answer, ports, true);
    }
    let today = Time::now().to_string();
    let today = today.split('T').next().unwrap_or_default();
    requests.recorded = format!("{}, {today}, by `{command}`", version(faces).await);
    Ok(requests)
}

/// Who answers, in its own words.
async fn version(faces: &Faces) -> String {
    let questions = [
        (Face::Rest, "GET", "/version", "version", "ipfs-cluster"),
        (Face::Proxy, "POST", "/api/v0/version", "Version", "Kubo behind a proxy"),
    ];
    let mut told = Vec::new();
    for (face, method, target, key, program) in questions {
        let Some(addr) = faces.get(&face) else { continue };
        let Ok(answer) = exchange(*addr, &Step::request(method, target)).await else { continue };
        let document: Value = serde_json::from_str(answer.body.text()).unwrap_or_default();
        if let Some(version) = document[key].as_str() {
            told.push(format!("{program} {version}"));
        }
    }
    if told.is_empty() { "a server that tells no version".into() } else { told.join(", ") }
}

/// A request with the numbers of ports in it.
pub(super) fn filled(step: &Step, ports: &Ports) -> Step {
    let fill = |text: &str| {
        ports.iter().fold(text.to_owned(), |text, (port, name)| {
            text.replace(&format!("{{{name}}}"), &port.to_string())
        })
    };
    let mut step = step.clone();
    step.target = fill(&step.target);
    step.host = step.host.as_deref().map(fill);
    for (_, value) in &mut step.headers {
        *value = fill(value);
    }
    if let Some(Data::Text(text)) = &mut step.body {
        *text = fill(text);
    }
    step
}

/// An answer with names for the ports in it.
pub(super) fn named(mut answer: Answer, ports: &Ports, without_times: bool) -> Answer {
    let name = |text: &str| {
        let text = ports.iter().fold(text.to_owned(), |text, (port, name)| replace_port(&text, *port, name));
        if without_times { mask_times(&text) } else { text }
    };
    for (_, value) in answer.headers.iter_mut().chain(&mut answer.trailers) {
        *value = name(value);
    }
    let bytes = answer.bytes.iter_mut();
    for data in answer.chunks.iter_mut().chain([&mut answer.body]).chain(bytes) {
        if let Data::Text(text) = data {
            *text = name(text);
        }
    }
    answer
}

/// Writes `{name}` for a number that stands by itself.
fn replace_port(text: &str, port: u16, name: &str) -> String {
    let number = port.to_string();
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find(&number) {
        let (before, after) = (&rest[..at], &rest[at + number.len()..]);
        let is_part =
            before.ends_with(|c: char| c.is_ascii_digit()) || after.starts_with(|c: char| c.is_ascii_digit());
        out.push_str(before);
        if is_part {
            out.push_str(&number);
        } else {
            out.push_str(&format!("{{{name}}}"));
        }
        rest = after;
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_have_names_where_they_stand_by_themselves() {
        let text = "/tcp/9096/p2p 127.0.0.1:9096, 19096 and 90961";
        assert_eq!(
            replace_port(text, 9096, "cluster"),
            "/tcp/{cluster}/p2p 127.0.0.1:{cluster}, 19096 and 90961"
        );
    }
}
