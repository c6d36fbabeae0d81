//! The arguments of `pin/add` and `pin/rm`: those of the query, then the lines of an uploaded file, which is how Kubo's
//! command line sends what it reads from its standard input (ruling: proxy Q-P18).

use super::{error, path};
use crate::api::{EntryKind, Upload};
use crate::go::query::Query;
use crate::http::conn::Request;
use crate::http::multipart::{Multipart, NOT_MULTIPART};
use crate::http::respond::Response;

/// Longest file of arguments: a quarter of a million CIDs.
const MAX_FILE: usize = 16 << 20;

/// All arguments as content paths, or the refusal. A missing one is the empty text.
pub(super) async fn paths(query: &Query, request: Request) -> Result<Vec<String>, Response> {
    let mut args: Vec<String> = query.get_all("arg").map(str::to_string).collect();
    let lines = lines(request).await;
    args.extend(lines.map_err(|message| error::internal(&format!("error reading request: {message}")))?);
    if args.is_empty() {
        args.push(String::new());
    }
    let paths: Result<Vec<String>, String> = args.iter().map(|arg| path::parse(arg)).collect();
    paths.map_err(|message| error::internal(&format!("Error parsing IPFS Path: {message}")))
}

/// The lines of the first file of a form; other bodies are nobody's arguments.
async fn lines(request: Request) -> Result<Vec<String>, String> {
    let (head, body) = request.into_parts();
    let mut form = match Multipart::new(&head.headers, body) {
        Ok((form, _)) => form,
        Err(NOT_MULTIPART) => return Ok(Vec::new()),
        Err(message) => return Err(message.to_string()),
    };
    match form.next_entry().await.map_err(|e| e.message)? {
        None => return Ok(Vec::new()),
        Some(entry) if entry.kind == EntryKind::File => {}
        Some(entry) => return Err(format!("{} is no file", String::from_utf8_lossy(&entry.path))),
    }
    let mut text = Vec::new();
    while let Some(piece) = form.read().await.map_err(|e| e.message)? {
        if text.len() + piece.len() > MAX_FILE {
            return Err(format!("more than {MAX_FILE} bytes of arguments"));
        }
        text.extend_from_slice(&piece);
    }
    Ok(String::from_utf8_lossy(&text).lines().map(str::to_string).collect())
}
