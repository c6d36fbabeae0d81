//! The pinset as JSON lines, one pin each: written by `state export`, read by `state import`.

use std::io::{Read, Write};
use std::sync::mpsc;

use cluster_compat::types::{Document as _, Pin};

use super::{Error, Pinset};

/// Pins per snapshot.
const PAGE_PINS: usize = 1024;

/// How much is read at a time.
const CHUNK_BYTES: usize = 256 * 1024;

/// Longest document of a pin; whatever is longer is no pin.
const MAX_PIN_BYTES: usize = 64 * 1024 * 1024;

/// Pages that are read ahead of the one that is written.
const PAGES_AHEAD: usize = 2;

/// Writes all pins in the order of the store, as the reference does; says how many. Blocks. One thread reads while this
/// one writes.
pub fn export(pinset: &Pinset, mut out: impl Write) -> Result<u64, Error> {
    let failed = |cause: std::io::Error| Error::Export(cause.to_string());
    let (pages, read) = mpsc::sync_channel(PAGES_AHEAD);
    std::thread::scope(|scope| {
        let reader = std::thread::Builder::new().name("export".to_owned());
        let reader = reader.spawn_scoped(scope, move || read_pages(pinset, &pages)).map_err(failed)?;
        let mut n_pins = 0;
        let mut text = Vec::new();
        // ends when the reader does; where this ends first, the reader finds nobody left
        for pins in read {
            let pins: Vec<Pin> = pins?;
            text.clear();
            for pin in &pins {
                pin.write_json(&mut text);
                text.push(b'\n');
            }
            out.write_all(&text).map_err(failed)?;
            n_pins += pins.len() as u64;
        }
        if reader.join().is_err() {
            return Err(Error::Aborted("reading the pins panicked".to_owned()));
        }
        out.flush().map_err(failed)?;
        Ok(n_pins)
    })
}

/// Sends all pages, or the error that ends them.
fn read_pages(pinset: &Pinset, pages: &mpsc::SyncSender<Result<Vec<Pin>, Error>>) {
    let mut cursor = None;
    loop {
        let page = pinset.page(cursor, PAGE_PINS);
        let (page, next) = match page {
            Ok((pins, next)) => (Ok(pins), next),
            Err(cause) => (Err(cause), None),
        };
        if pages.send(page).is_err() || next.is_none() {
            return;
        }
        cursor = next;
    }
}

/// Reads pins: JSON objects with any white space around them. The first error is the last item. Blocks.
pub fn import<R: Read>(reader: R) -> Import<R> {
    Import { reader, buffer: Vec::new(), start: 0, is_at_end: false, is_over: false, n_pins: 0 }
}

/// See [`import`].
pub struct Import<R> {
    reader: R,
    /// What has been read; documents before `start` are done with.
    buffer: Vec<u8>,
    start: usize,
    is_at_end: bool,
    is_over: bool,
    n_pins: u64,
}

impl<R: Read> Import<R> {
    fn pin(&mut self) -> Result<Option<Pin>, Error> {
        loop {
            let rest = &self.buffer[self.start..];
            let mut documents = serde_json::Deserializer::from_slice(rest).into_iter::<Pin>();
            match documents.next() {
                Some(Ok(pin)) => {
                    self.start += documents.byte_offset();
                    self.n_pins += 1;
                    return Ok(Some(pin));
                }
                None if self.is_at_end => return Ok(None),
                Some(Err(cause)) if self.is_at_end || !cause.is_eof() => {
                    return Err(self.failed(words(&cause, self.n_pins + 1)));
                }
                Some(Err(_)) if rest.len() > MAX_PIN_BYTES => {
                    return Err(self.failed(format!("no end within {MAX_PIN_BYTES} bytes")));
                }
                None | Some(Err(_)) => self.fill()?,
            }
        }
    }

    fn fill(&mut self) -> Result<(), Error> {
        self.buffer.drain(..self.start);
        self.start = 0;
        let wanted = CHUNK_BYTES.max(self.buffer.len()) as u64;
        let n_read = self.reader.by_ref().take(wanted).read_to_end(&mut self.buffer);
        let n_read = n_read.map_err(|e| self.failed(e.to_string()))?;
        self.is_at_end = n_read == 0;
        Ok(())
    }

    fn failed(&self, cause: String) -> Error {
        let number = self.n_pins + 1;
        tracing::error!(target: "service", "pin {number} of the input: {cause}");
        Error::Import { number, cause }
    }
}

impl<R: Read> Iterator for Import<R> {
    type Item = Result<Pin, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.is_over {
            return None;
        }
        let pin = self.pin();
        self.is_over = !matches!(pin, Ok(Some(_)));
        pin.transpose()
    }
}

/// Why a document is no pin. A bad CID, peer or time says so in the reference's words; what is no JSON, or of
/// another shape, in the decoder's.
fn words(cause: &serde_json::Error, number: u64) -> String {
    let text = cause.to_string();
    let is_shape = ["invalid type", "invalid value", "invalid length", "missing field", "duplicate field"];
    if !cause.is_data() || is_shape.iter().any(|start| text.starts_with(start)) {
        return format!("json: pin {number}: {text}");
    }
    text.rsplit_once(" at line ").map_or(text.clone(), |(reason, _)| reason.to_owned())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::Value;

    use super::*;
    use crate::store::{Error as StoreError, Mem, Table, kv};
    use crate::wire::{key, pin_pb};

    /// Recorded pins as stored, and as the reference lists them.
    fn recorded() -> Vec<(Vec<u8>, Value)> {
        let recorded: Value = serde_json::from_str(include_str!("../../fixtures/wire/pins.json")).unwrap();
        let items = recorded["items"].as_array().unwrap().iter();
        items.map(|i| (hex::decode(i["protobuf"].as_str().unwrap()).unwrap(), i["rest"].clone())).collect()
    }

    fn pinset(values: &[Vec<u8>]) -> Pinset {
        let store = Arc::new(Mem::new());
        kv::write(&*store, |t| {
            for value in values {
                let cid = pin_pb::decode(value).unwrap().cid;
                t.put(Table::Values, key::of_cid(&cid).as_bytes(), value)?;
            }
            Ok::<_, StoreError>(())
        })
        .unwrap();
        Pinset::new(store)
    }

    #[test]
    fn stored_pins_are_exported_as_the_reference_lists_them() {
        for (value, listed) in recorded() {
            let mut out = Vec::new();
            export(&pinset(&[value]), &mut out).unwrap();
            let line: Value = serde_json::from_slice(&out).unwrap();
            // one recording gives no listing: that pin cannot be listed
            if listed.is_object() {
                assert_eq!(line, listed);
            }
            assert!(out.ends_with(b"}\n"));
        }
    }

    #[test]
    fn the_keys_of_an_exported_line_stand_in_the_reference_s_order() {
        let pin = hex::decode(
            "0a221220c3c4733ec8affd06cf9e9ff50ffc6bcd2ec85a6170004bb709669c31de94391a10012001320f080110011a016e52060a01611201623880e2cfaa06",
        )
        .unwrap();
        let mut out = Vec::new();
        export(&pinset(&[pin]), &mut out).unwrap();
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "{\"replication_factor_min\":-1,\"replication_factor_max\":-1,\"name\":\"n\",\"mode\":\"recursive\",\
             \"shard_size\":0,\"user_allocations\":null,\"expire_at\":\"0001-01-01T00:00:00Z\",\
             \"metadata\":{\"a\":\"b\"},\"pin_update\":null,\"origins\":[],\
             \"cid\":\"QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR\",\"type\":\"pin\",\"allocations\":[],\
             \"max_depth\":-1,\"reference\":null,\"timestamp\":\"2023-11-14T22:13:20Z\"}\n"
        );
    }

    #[test]
    fn an_export_reads_back_to_the_same_stored_pins() {
        let values: Vec<_> = recorded().into_iter().map(|(value, _)| value).collect();
        let pinset = pinset(&values);
        let mut out = Vec::new();
        export(&pinset, &mut out).unwrap();
        for pin in import(&out[..]) {
            let pin = pin.unwrap();
            let stored = pinset.get(&pin.cid).unwrap().unwrap();
            assert_eq!(hex::encode(pin_pb::encode(&pin)), hex::encode(pin_pb::encode(&stored)));
        }
        assert_eq!(import(&out[..]).count(), pinset.page(None, 1000).unwrap().0.len());
    }

    /// Gives one byte at a time.
    struct Slow<'a>(&'a [u8]);

    impl Read for Slow<'_> {
        fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
            let n = self.0.len().min(out.len()).min(1);
            out[..n].copy_from_slice(&self.0[..n]);
            self.0 = &self.0[n..];
            Ok(n)
        }
    }

    #[test]
    fn white_space_and_missing_keys_are_fine() {
        let text =
            b" {\n\"cid\": \"QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR\",\n \"name\":\"x\"}{\"cid\":\
                     \"bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy\"}\n\n ";
        for pins in [import(&text[..]).collect::<Vec<_>>(), import(Slow(text)).collect()] {
            let names: Vec<_> = pins.into_iter().map(|pin| pin.unwrap().options.name).collect();
            assert_eq!(names, ["x", ""]);
        }
        assert_eq!(import(&b" \n"[..]).count(), 0);
    }

    #[test]
    fn bad_input_is_an_error_that_names_the_pin_and_ends_the_import() {
        let good = "{\"cid\":\"bafkreigh2akiscaildcqabsyg3dfr6chu3fgpregiymsck7e7aqa4s52zy\"}\n";
        for bad in ["nonsense", "null", "{}", "{\"cid\":\"x\"}", "{\"cid\":", "[1]"] {
            let text = format!("{good}{bad}\n{good}");
            let pins: Vec<_> = import(text.as_bytes()).collect();
            assert_eq!(pins.len(), 2, "{bad}");
            let refused = pins[1].as_ref().unwrap_err();
            assert!(matches!(refused, Error::Import { number: 2, .. }), "{bad}: {refused}");
            let is_words = refused.to_string() == "invalid cid: cid too short";
            assert!(is_words || refused.to_string().starts_with("json: pin 2: "), "{bad}: {refused}");
        }
    }
}
