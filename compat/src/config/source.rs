//! Configurations behind a URL.

use std::borrow::Cow;
use std::time::Duration;

use super::{Error, MAX_FILE_BYTES};

/// Longest time for a configuration to arrive. The reference waits forever; a peer that hangs without a word at
/// its start is worse than one that fails and is started again.
const FETCH_TIMEOUT: Duration = Duration::from_secs(120);

/// Fetches the text of a configuration, following redirects.
pub(super) async fn fetch(url: &str) -> Result<String, Error> {
    tracing::info!(target: "config", "loading configuration from {url}");
    let unreachable = |reason: reqwest::Error| {
        tracing::error!(target: "config", "{reason}");
        Error::Fetch(url.to_owned())
    };
    let client = reqwest::Client::builder().timeout(FETCH_TIMEOUT).build().map_err(unreachable)?;
    let mut response = client.get(&*with_scheme(url)).send().await.map_err(unreachable)?;
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(unreachable)? {
        body.extend_from_slice(&chunk);
        if body.len() as u64 > MAX_FILE_BYTES {
            return Err(Error::Json(format!("{url}: more than {MAX_FILE_BYTES} bytes")));
        }
    }
    let body = String::from_utf8_lossy(&body).into_owned();
    let status = response.status().as_u16();
    if status >= 300 {
        return Err(Error::FetchStatus { status, body });
    }
    Ok(body)
}

/// A URL without a scheme is one of HTTP: a follower's gateway is `127.0.0.1:8080` by default. (rulings: cli 11)
fn with_scheme(url: &str) -> Cow<'_, str> {
    let begins_with_a_host = url.starts_with(|c: char| c.is_alphanumeric() || c == '[');
    if begins_with_a_host && !url.contains("://") { format!("http://{url}").into() } else { url.into() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_without_a_scheme_is_asked_over_http() {
        for (url, expected) in [
            ("127.0.0.1:8080/ipns/example.org", "http://127.0.0.1:8080/ipns/example.org"),
            ("localhost:8080/ipns/x", "http://localhost:8080/ipns/x"),
            ("https://x/y", "https://x/y"),
            ("ftp://x/y", "ftp://x/y"),
            ("/ipns/example.org", "/ipns/example.org"),
        ] {
            assert_eq!(with_scheme(url), expected);
        }
    }
}
