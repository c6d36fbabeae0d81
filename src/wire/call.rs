//! What frames a call between peers: the name of the method, and the head of each answer (spec: wire 4.1, 4.2).

use super::Error;
use super::msgpack::{Reader, Writer};

const SERVICE_KEYS: [&str; 2] = ["Name", "Method"];
const RESPONSE_KEYS: [&str; 3] = ["Service", "Error", "ErrType"];

/// The method a caller wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ServiceId {
    /// `Cluster`, `PinTracker`, …
    pub service: String,
    /// `ID`, `StatusAll`, …
    pub method: String,
}

/// The head of an answer; the reply itself is the value after it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Response {
    /// What was called; nothing where that could not be read.
    pub service: ServiceId,
    /// Why it failed; empty is success.
    pub error: String,
    /// What kind of failure; 0 is one of the method itself.
    pub error_type: i64,
}

impl ServiceId {
    fn write(&self, out: &mut Writer) {
        let mut record = out.record();
        record.field(SERVICE_KEYS[0]).raw(self.service.as_bytes());
        record.field(SERVICE_KEYS[1]).raw(self.method.as_bytes());
        record.end();
    }

    /// The bytes of a service id.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        self.write(&mut out);
        out.into_bytes()
    }

    fn read(reader: &mut Reader<'_>) -> Result<Self, Error> {
        let mut id = Self::default();
        reader.record(&SERVICE_KEYS, |r, index| {
            if index == 0 {
                id.service = r.text()?;
            } else {
                id.method = r.text()?;
            }
            Ok(())
        })?;
        Ok(id)
    }

    /// Reads a service id; bytes after it are ignored.
    pub fn decode(data: &[u8]) -> Result<Self, Error> {
        Self::read(&mut Reader::new(data))
    }
}

impl Response {
    /// The bytes of an answer's head.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Writer::new();
        let mut record = out.record();
        if self.service != ServiceId::default() {
            self.service.write(record.field(RESPONSE_KEYS[0]));
        }
        record.text(RESPONSE_KEYS[1], &self.error);
        record.int(RESPONSE_KEYS[2], self.error_type);
        record.end();
        out.into_bytes()
    }

    /// Reads the head of an answer; bytes after it are ignored.
    pub fn decode(data: &[u8]) -> Result<Self, Error> {
        let mut response = Self::default();
        Reader::new(data).record(&RESPONSE_KEYS, |r, index| {
            match index {
                0 => response.service = ServiceId::read(r)?,
                1 => response.error = r.text()?,
                _ => response.error_type = r.int()?,
            }
            Ok(())
        })?;
        Ok(response)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn service_ids_are_read_in_every_form_the_reference_takes() {
        let version = ServiceId { service: "Cluster".into(), method: "Version".into() };
        for form in [
            "82a44e616d65a7436c7573746572a64d6574686f64a756657273696f6e",
            "92a7436c7573746572a756657273696f6e",
            "82d9044e616d65d907436c7573746572d9064d6574686f64d90756657273696f6e",
            "83a44e616d65a7436c7573746572a64d6574686f64a756657273696f6ea15801",
        ] {
            assert_eq!(ServiceId::decode(&hex::decode(form).unwrap()).unwrap(), version, "{form}");
        }
        // keys are case-sensitive
        let other_case = "82a46e616d65a7436c7573746572a66d6574686f64a756657273696f6e";
        assert_eq!(ServiceId::decode(&hex::decode(other_case).unwrap()), Ok(ServiceId::default()));
        assert_eq!(ServiceId::decode(&[0xc0]), Ok(ServiceId::default()));
        for form in [&[1][..], &[0xff; 4], &[0xc1], b""] {
            assert!(ServiceId::decode(form).is_err(), "{form:?}");
        }
    }

    #[test]
    fn the_head_of_a_refusal_is_the_references() {
        let form = concat!(
            "83a75365727669636582a44e616d65a7436c7573746572a64d6574686f64a55065657273a54572726f72da0036636c69656e7420646f65",
            "73206e6f742068617665207065726d697373696f6e7320746f2063616c6c20436c75737465722e5065657273a74572725479706503"
        );
        let response = Response {
            service: ServiceId { service: "Cluster".into(), method: "Peers".into() },
            error: "client does not have permissions to call Cluster.Peers".into(),
            error_type: 3,
        };
        assert_eq!(hex::encode(response.encode()), form);
        assert_eq!(Response::decode(&hex::decode(form).unwrap()), Ok(response));
    }
}
