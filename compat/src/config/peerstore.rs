//! The peerstore file: addresses of known peers, one per line, the first to be dialled first.

use std::path::Path;

use crate::types::{Multiaddr, parse_multiaddr};

/// Largest file that is read; a line is about a hundred bytes.
const MAX_FILE_BYTES: u64 = 64 << 20;

/// Reads the file. A missing one has no addresses; lines that do not start with `/` are comments; lines that
/// are no addresses are logged and skipped.
pub fn read(path: &Path) -> std::io::Result<Vec<Multiaddr>> {
    use std::io::Read as _;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(reason) if reason.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(reason) => return Err(reason),
    };
    let mut bytes = Vec::new();
    file.take(MAX_FILE_BYTES).read_to_end(&mut bytes)?;
    Ok(parse(&String::from_utf8_lossy(&bytes)))
}

/// The addresses of a peerstore's text.
pub fn parse(text: &str) -> Vec<Multiaddr> {
    let lines = text.lines().filter(|line| line.starts_with('/'));
    lines
        .filter_map(|line| match parse_multiaddr(line.trim_end()) {
            Ok(addr) => Some(addr),
            Err(reason) => {
                tracing::error!(target: "pstoremgr", "error parsing multiaddress in peerstore: {line}: {reason}");
                None
            }
        })
        .collect()
}

/// Writes the file anew, a line each; through a file beside it, so that a crash leaves the old or the new one.
pub fn write(path: &Path, lines: &[String]) -> std::io::Result<()> {
    let mut text = String::new();
    for line in lines {
        text.push_str(line);
        text.push('\n');
    }
    let mut beside = path.as_os_str().to_owned();
    beside.push(".new");
    std::fs::write(&beside, text)?;
    std::fs::rename(&beside, path)
}
