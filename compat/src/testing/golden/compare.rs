//! When two answers are the same: times and a few counters are masked, header lines may come in any order.

use serde_json::Value;

use super::{Answer, Data, Step};

/// Header lines that are not compared: the length is held against the body instead.
const UNCOMPARED: [&str; 2] = ["date", "content-length"];

/// Names whose number differs from run to run.
const COUNTERS: [&str; 9] = [
    "expire",
    "received_at",
    "weight",
    "created",
    "RepoSize",
    "StorageMax",
    "NumObjects",
    "repo_size",
    "storage_max",
];

pub(super) fn is_uncompared(name: &str) -> bool {
    UNCOMPARED.contains(&name.to_ascii_lowercase().as_str())
}

/// A step that was answered otherwise than expected.
#[derive(Debug, Clone)]
pub struct Difference {
    /// The number of the step.
    pub no: usize,
    /// Which it was.
    pub title: String,
    /// What should have come, as lines.
    pub expected: Vec<String>,
    /// What came.
    pub actual: Vec<String>,
}

impl std::fmt::Display for Difference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}", self.title)?;
        for (sign, lines, others) in
            [('-', &self.expected, &self.actual), ('+', &self.actual, &self.expected)]
        {
            for line in lines.iter().filter(|line| !others.contains(line)) {
                write!(f, "\n    {sign} {line}")?;
            }
        }
        if self.expected.iter().all(|line| self.actual.contains(line)) {
            write!(f, "\n    expected {:?}\n    actual {:?}", self.expected, self.actual)?;
        }
        Ok(())
    }
}

/// How an answer differs from the expected one, if it does.
pub fn difference(step: &Step, expected: &Answer, actual: &Answer) -> Option<Difference> {
    let mut actual = actual.clone();
    shape(expected, &mut actual, step.any_chunks);
    let mut expected = expected.clone();
    let lines = |answer: &Answer| lines(answer, step);
    let (mut left, mut right) = (lines(&expected), lines(&actual));
    if left != right && step.any_list_order {
        for answer in [&mut expected, &mut actual] {
            answer.body = sorted_lists(&answer.body);
            answer.chunks = answer.chunks.iter().map(sorted_lists).collect();
        }
        (left, right) = (lines(&expected), lines(&actual));
    }
    let title = step.title();
    (left != right).then_some(Difference { no: step.no, title, expected: left, actual: right })
}

/// Leaves of an answer what the expected one has kept: a digest of a long body, no chunks where they do not count.
fn shape(expected: &Answer, actual: &mut Answer, any_chunks: bool) {
    if let Data::Digest { .. } = expected.body {
        actual.body = actual.body.digest();
        actual.chunks.clear();
    }
    if any_chunks {
        actual.chunks.clear();
    }
    for (kept, chunk) in expected.chunks.iter().zip(&mut actual.chunks) {
        if let Data::Digest { .. } = kept {
            *chunk = chunk.digest();
        }
    }
    if expected.closed.is_none() {
        actual.closed = None;
    }
}

/// An answer as lines, masked, and sorted where the order is free; two equal lists are equal answers.
pub fn comparable(answer: &Answer, any_order: bool) -> Vec<String> {
    lines(answer, &Step { any_order, ..Step::default() })
}

fn lines(answer: &Answer, step: &Step) -> Vec<String> {
    if let Some(reason) = &answer.no_reply {
        return vec![format!("no reply: {reason}")];
    }
    if let Some(bytes) = &answer.bytes {
        let mut lines = raw_lines(&text(bytes, step));
        lines.extend(answer.closed.map(|closed| format!("closed: {closed}")));
        return lines;
    }
    let mut lines = vec![
        format!("status: {} {} {}", answer.version, answer.status, answer.reason),
        format!("framing: {}", answer.framing),
    ];
    for (kind, list) in [("header", &answer.headers), ("trailer", &answer.trailers)] {
        let is_free = |name: &str| step.any_header.iter().any(|free| free.eq_ignore_ascii_case(name));
        let kept = list.iter().filter(|(name, _)| !is_uncompared(name) && !is_free(name));
        let mut kept: Vec<_> = kept.map(|(name, value)| format!("{kind}: {name}: {}", mask(value))).collect();
        kept.sort();
        lines.extend(kept);
    }
    if step.mask_body {
        return lines;
    }
    let mut rows: Vec<_> = if step.any_chunks {
        Vec::new()
    } else {
        answer.chunks.iter().map(|chunk| format!("chunk: {}", text(chunk, step))).collect()
    };
    let body = text(&answer.body, step);
    let mut body: Vec<_> = body.split('\n').map(|row| format!("body: {row}")).collect();
    if step.any_order {
        rows.sort();
        body.sort();
    }
    lines.extend(rows);
    lines.extend(body);
    lines
}

fn text(data: &Data, step: &Step) -> String {
    match data {
        Data::Text(text) => mask_names(&mask(text), &step.mask),
        Data::Digest { bytes, sha256 } => format!("{bytes} bytes {sha256}"),
        other => other.text().to_owned(),
    }
}

/// Raw answers: header lines of each head sorted, dates hidden.
fn raw_lines(text: &str) -> Vec<String> {
    // a second answer on the connection begins a line, whatever ended the first
    let text = text.replace("HTTP/1.", "\nHTTP/1.");
    let mut lines: Vec<String> = Vec::new();
    let mut head: Option<usize> = None;
    for line in text.split('\n') {
        let line = if line.starts_with("Date: ") { "Date: <date>\r" } else { line };
        if line.starts_with("HTTP/1.") {
            head = Some(lines.len() + 1);
        } else if line == "\r"
            && let Some(start) = head.take()
        {
            lines[start..].sort();
        }
        lines.push(line.to_owned());
    }
    lines
}

/// A JSON document, or one a line, with every innermost list sorted.
fn sorted_lists(data: &Data) -> Data {
    fn sort(value: &mut Value) {
        match value {
            Value::Array(items) => {
                items.iter_mut().for_each(sort);
                items.sort_by_key(Value::to_string);
            }
            Value::Object(map) => map.values_mut().for_each(sort),
            _ => {}
        }
    }
    let sorted = |line: &str| match serde_json::from_str::<Value>(line) {
        Ok(mut value) => {
            sort(&mut value);
            value.to_string()
        }
        Err(_) => line.to_owned(),
    };
    match data {
        Data::Text(text) => Data::Text(text.split('\n').map(sorted).collect::<Vec<_>>().join("\n")),
        other => other.clone(),
    }
}

/// Hides the values of names in JSON text.
fn mask_names(text: &str, names: &[String]) -> String {
    let mut text = text.to_owned();
    for name in names {
        let key = format!("\"{name}\":");
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(at) = rest.find(&key) {
            let (before, after) = rest.split_at(at + key.len());
            out.push_str(before);
            out.push_str("<masked>");
            let value = after.trim_start();
            rest = &value[value_len(value)..];
        }
        out.push_str(rest);
        text = out;
    }
    text
}

/// How long the JSON value is that a text begins with.
fn value_len(text: &str) -> usize {
    let (mut depth, mut in_string, mut escaped) = (0_usize, false, false);
    for (at, c) in text.char_indices() {
        if in_string {
            match c {
                _ if escaped => escaped = false,
                '\\' => escaped = true,
                '"' => {
                    in_string = false;
                    if depth == 0 {
                        return at + 1;
                    }
                }
                _ => {}
            }
            continue;
        }
        match c {
            '"' => in_string = true,
            '[' | '{' => depth += 1,
            ']' | '}' if depth == 0 => return at,
            ']' | '}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            ',' | '\n' if depth == 0 => return at,
            _ => {}
        }
    }
    text.len()
}

/// Hides times and the numbers behind [`COUNTERS`].
fn mask(text: &str) -> String {
    let text = mask_times(text);
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    'next: while let Some(at) = rest.find('"') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        for name in COUNTERS {
            let Some(number) = rest[1..].strip_prefix(name).and_then(|rest| rest.strip_prefix("\":")) else {
                continue;
            };
            let n_digits = number.bytes().take_while(|byte| byte.is_ascii_digit() || *byte == b'-').count();
            if n_digits > 0 {
                out.push_str(&rest[..name.len() + 3]);
                out.push_str("<int>");
                rest = &number[n_digits..];
                continue 'next;
            }
        }
        out.push('"');
        rest = &rest[1..];
    }
    out.push_str(rest);
    out
}

/// Hides times, but not their offsets nor Go's zero time.
pub(super) fn mask_times(text: &str) -> String {
    const SHAPE: &[u8] = b"0000-00-00T00:00:00";
    let bytes = text.as_bytes();
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        let rest = &bytes[at..];
        let is_time = rest.len() > SHAPE.len()
            && !rest.starts_with(b"0001-01-01T")
            && SHAPE.iter().zip(rest).all(|(shape, byte)| match shape {
                b'0' => byte.is_ascii_digit(),
                other => byte == other,
            });
        if is_time {
            out.push_str("<time>");
            at += SHAPE.len();
            if bytes.get(at) == Some(&b'.') {
                at += 1 + bytes[at + 1..].iter().take_while(|byte| byte.is_ascii_digit()).count();
            }
            continue;
        }
        let Some(c) = text[at..].chars().next() else { break };
        out.push(c);
        at += c.len_utf8();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_counters_are_masked() {
        let text = r#"{"created":"2026-11-21T15:22:18.179Z","at":"0001-01-01T00:00:00Z","expire":12,"x":1}"#;
        let expected = r#"{"created":"<time>Z","at":"0001-01-01T00:00:00Z","expire":<int>,"x":1}"#;
        assert_eq!(mask(text), expected);
    }

    #[test]
    fn names_are_masked_whatever_their_value() {
        let text = r#"{"a":"x\"y","b":[1,{"a":2}],"c":true}"#;
        let names = ["a".to_owned(), "c".to_owned()];
        assert_eq!(mask_names(text, &names), r#"{"a":<masked>,"b":[1,{"a":<masked>}],"c":<masked>}"#);
        assert_eq!(mask_names(text, &["b".to_owned()]), r#"{"a":"x\"y","b":<masked>,"c":true}"#);
    }

    #[test]
    fn the_order_of_lists_counts_unless_it_is_free() {
        let answer = |body: &str| Answer { body: Data::Text(body.into()), ..Answer::default() };
        let (one, other) = (answer("{\"a\":[2,1]}\n"), answer("{\"a\":[1,2]}\n"));
        let mut step = Step::default();
        assert!(difference(&step, &one, &other).is_some());
        step.any_list_order = true;
        assert!(difference(&step, &one, &other).is_none());
        assert!(difference(&step, &one, &answer("{\"a\":[1,3]}\n")).is_some());
    }

    #[test]
    fn heads_of_raw_answers_come_in_any_order() {
        let one = raw_lines("HTTP/1.1 200 OK\r\nB: 1\r\nA: 2\r\n\r\nbody");
        assert_eq!(one, raw_lines("HTTP/1.1 200 OK\r\nA: 2\r\nB: 1\r\n\r\nbody"));
        assert_ne!(one, raw_lines("HTTP/1.1 200 OK\r\nA: 2\r\nB: 2\r\n\r\nbody"));
    }
}
