//! Bytes to a server and its answer taken apart.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::{Answer, Data, Step};

/// The bytes of a request.
pub fn request(step: &Step) -> Vec<u8> {
    let body = step.body.as_ref().map(Data::bytes).unwrap_or_default();
    let host = step.host.as_deref().unwrap_or("127.0.0.1");
    let mut head = format!("{} {} HTTP/1.1\r\nHost: {host}\r\n", step.method, step.target);
    let has = |name: &str| step.headers.iter().any(|(key, _)| key.eq_ignore_ascii_case(name));
    for (name, value) in &step.headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let says_length = !body.is_empty() || ["POST", "PUT", "PATCH"].contains(&step.method.as_str());
    if step.chunked_body.is_some() {
        head.push_str("Transfer-Encoding: chunked\r\n");
    } else if says_length && !has("content-length") {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    if !has("connection") {
        head.push_str("Connection: close\r\n");
    }
    head.push_str("\r\n");
    // recordings hold each byte of a head as one character
    let mut request: Vec<u8> = head.chars().map(|c| u8::try_from(c).unwrap_or(b'?')).collect();
    match &step.chunked_body {
        None => request.extend(body),
        Some(chunks) => {
            for chunk in chunks.iter().map(Data::bytes) {
                request.extend(format!("{:x}\r\n", chunk.len()).into_bytes());
                request.extend(chunk);
                request.extend(b"\r\n");
            }
            request.extend(b"0\r\n\r\n");
        }
    }
    request
}

/// Sends bytes on a connection of their own and reads until the server closes it.
pub async fn send(server: SocketAddr, request: &[u8]) -> io::Result<Vec<u8>> {
    let mut stream = TcpStream::connect(server).await?;
    // a server may refuse before it has read everything
    let _ = stream.write_all(request).await;
    let mut reply = Vec::new();
    match stream.read_to_end(&mut reply).await {
        // what it answered before it cut the connection counts
        Err(_) if !reply.is_empty() => {}
        other => drop(other?),
    }
    Ok(reply)
}

/// Longest silence after which the answer to a raw request is taken for whole.
const RAW_SILENCE: Duration = Duration::from_secs(3);

/// Sends bytes as they stand and reads until the server closes the connection or is silent; says which it was.
pub async fn send_raw(server: SocketAddr, request: &[u8]) -> io::Result<(Vec<u8>, bool)> {
    let mut stream = TcpStream::connect(server).await?;
    // a server may refuse before it has read everything
    let _ = stream.write_all(request).await;
    let mut reply = Vec::new();
    loop {
        match tokio::time::timeout(RAW_SILENCE, stream.read_buf(&mut reply)).await {
            Ok(Ok(1..)) => {}
            Ok(Ok(0) | Err(_)) => return Ok((reply, true)),
            Err(_) => return Ok((reply, false)),
        }
    }
}

/// Takes an answer apart.
pub fn parse(reply: &[u8], method: &str) -> Option<Answer> {
    let mut reader = Reader { rest: reply };
    let (version, status, reason, headers) = loop {
        let line = reader.line()?;
        let (version, rest) = line.split_once(' ')?;
        let (status, reason) = rest.split_once(' ').unwrap_or((rest, ""));
        let head = (version.to_string(), status.parse::<u16>().ok()?, reason.to_string(), reader.headers()?);
        if head.1 >= 200 || head.1 == 101 {
            break head;
        }
    };
    let find =
        |name: &str| headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value);
    let (mut chunks, mut trailers) = (Vec::new(), Vec::new());
    let (framing, body) = if method == "HEAD" || matches!(status, 204 | 304) {
        ("none", Vec::new())
    } else if find("transfer-encoding").is_some() {
        let mut body = Vec::new();
        loop {
            let size = usize::from_str_radix(&reader.line()?, 16).ok()?;
            if size == 0 {
                trailers = reader.headers()?;
                break;
            }
            let chunk = reader.exactly(size)?;
            body.extend_from_slice(chunk);
            chunks.push(Data::from_bytes(chunk.to_vec()));
            reader.exactly(2)?;
        }
        ("chunked", body)
    } else if let Some(length) = find("content-length") {
        ("content-length", reader.exactly(length.parse().ok()?)?.to_vec())
    } else {
        ("until-close", reader.rest.to_vec())
    };
    let (framing, body) = (framing.to_string(), Data::from_bytes(body));
    Some(Answer { version, status, reason, headers, framing, chunks, body, trailers, ..Answer::default() })
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn line(&mut self) -> Option<String> {
        let end = self.rest.windows(2).position(|pair| pair == b"\r\n")?;
        let line = self.rest[..end].iter().copied().map(char::from).collect();
        self.rest = &self.rest[end + 2..];
        Some(line)
    }

    fn exactly(&mut self, n: usize) -> Option<&'a [u8]> {
        let (data, rest) = self.rest.split_at_checked(n)?;
        self.rest = rest;
        Some(data)
    }

    fn headers(&mut self) -> Option<Vec<(String, String)>> {
        let mut headers = Vec::new();
        loop {
            let line = self.line()?;
            if line.is_empty() {
                return Some(headers);
            }
            let (name, value) = line.split_once(':')?;
            headers.push((name.to_string(), value.trim().to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_taken_apart_to_its_trailers() {
        let reply =
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nA: b\r\nTransfer-Encoding: chunked\r\n\r\n\
                      3\r\nabc\r\n1\r\nd\r\n0\r\nX-Stream-Error: \r\nX-Stream-Error: e\r\n\r\n";
        let answer = parse(reply, "GET").unwrap();
        assert_eq!((answer.status, answer.framing.as_str(), answer.chunks.len()), (200, "chunked", 2));
        assert_eq!(answer.body, Data::Text("abcd".into()));
        assert_eq!(answer.trailers.len(), 2);
        assert!(parse(&reply[..reply.len() - 3], "GET").is_none());
    }
}
