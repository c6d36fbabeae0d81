//! Replies packed with gzip: Kubo sends none, a web server before it may.

use std::io::{self, Write};

use bytes::{Buf, Bytes};
use flate2::write::MultiGzDecoder;

/// Packed bytes unpacked at once; one of them can become a thousand.
const STEP_BYTES: usize = 4 * 1024;

/// Unpacks a body that arrives in pieces, a few megabytes at a time.
#[derive(Debug)]
pub(super) struct Inflate {
    decoder: MultiGzDecoder<Vec<u8>>,
    packed: Bytes,
}

impl Inflate {
    pub(super) fn new() -> Self {
        Self { decoder: MultiGzDecoder::new(Vec::new()), packed: Bytes::new() }
    }

    /// Takes a piece; the one before has been unpacked.
    pub(super) fn feed(&mut self, piece: Bytes) {
        self.packed = piece;
    }

    /// What comes out next; empty when another piece is needed. The error is Go's text.
    pub(super) fn next(&mut self) -> Result<Bytes, String> {
        while self.packed.has_remaining() {
            let step = self.packed.split_to(STEP_BYTES.min(self.packed.len()));
            self.decoder.write_all(&step).map_err(wording)?;
            if !self.decoder.get_ref().is_empty() {
                break;
            }
        }
        Ok(std::mem::take(self.decoder.get_mut()).into())
    }

    /// At the end of the body: what is left, or that something is missing.
    pub(super) fn finish(&mut self) -> Result<Bytes, String> {
        self.decoder.try_finish().map_err(wording)?;
        Ok(std::mem::take(self.decoder.get_mut()).into())
    }
}

fn wording(failure: io::Error) -> String {
    match failure.kind() {
        io::ErrorKind::UnexpectedEof => "unexpected EOF".into(),
        _ => format!("gzip: {failure}"),
    }
}

#[cfg(test)]
mod tests {
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    fn packed(text: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        encoder.write_all(text).unwrap();
        encoder.finish().unwrap()
    }

    fn unpack(pieces: &[&[u8]]) -> Result<(Vec<u8>, usize), String> {
        let mut inflate = Inflate::new();
        let (mut whole, mut longest) = (Vec::new(), 0);
        for piece in pieces {
            inflate.feed(Bytes::copy_from_slice(piece));
            loop {
                let out = inflate.next()?;
                if out.is_empty() {
                    break;
                }
                longest = longest.max(out.len());
                whole.extend_from_slice(&out);
            }
        }
        whole.extend_from_slice(&inflate.finish()?);
        Ok((whole, longest))
    }

    #[test]
    fn packed_pieces_come_out_whole() {
        let text = b"{\"Message\":\"x\"}".repeat(1000);
        let packed = packed(&text);
        for cut in [1, 5, 11, packed.len() / 2, packed.len() - 1] {
            assert_eq!(unpack(&[&packed[..cut], &packed[cut..]]).unwrap().0, text, "cut at {cut}");
        }
    }

    #[test]
    fn a_bomb_comes_out_in_bearable_portions() {
        let packed = packed(&vec![0; 64 << 20]);
        let (whole, longest) = unpack(&[&packed]).unwrap();
        assert_eq!(whole.len(), 64 << 20);
        assert!(longest <= 8 << 20, "{longest}");
    }

    #[test]
    fn what_is_cut_short_or_not_packed_is_an_error() {
        let packed = packed(b"text");
        for n_missing in [1, 4, 10] {
            assert!(unpack(&[&packed[..packed.len() - n_missing]]).is_err(), "{n_missing}");
        }
        assert!(unpack(&[b"plain text, not packed"]).unwrap_err().starts_with("gzip: "));
    }
}
