//! How keys and ids of the CRDT's set are spelt: a key is `/` and the base32 of a pinned CID, an id is `/` and the
//! base32 of a node's multihash.

use cluster_compat::types::Cid;

use super::pin_pb::parse_cid;

const ALPHABET: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";

const INVALID: u8 = 0xff;

const DIGITS: [u8; 256] = {
    let mut digits = [INVALID; 256];
    let mut i = 0;
    while i < ALPHABET.len() {
        digits[ALPHABET[i] as usize] = i as u8;
        i += 1;
    }
    digits
};

/// `/` and the base32 of some bytes: upper case, no padding.
pub fn spell(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(1 + bytes.len().div_ceil(5) * 8);
    text.push('/');
    let mut bits = 0u32;
    let mut n_bits = 0;
    for byte in bytes {
        bits = bits << 8 | u32::from(*byte);
        n_bits += 8;
        while n_bits >= 5 {
            n_bits -= 5;
            text.push(char::from(ALPHABET[(bits >> n_bits & 31) as usize]));
        }
    }
    if n_bits > 0 {
        text.push(char::from(ALPHABET[(bits << (5 - n_bits) & 31) as usize]));
    }
    text
}

/// The bytes a text from [`spell`] stands for; `None` for any other text.
pub fn unspell(text: &[u8]) -> Option<Vec<u8>> {
    let (slash, digits) = text.split_first()?;
    // 1, 3 or 6 digits over do not make whole bytes
    if *slash != b'/' || matches!(digits.len() % 8, 1 | 3 | 6) {
        return None;
    }
    let mut bytes = Vec::with_capacity(digits.len() * 5 / 8);
    let mut bits = 0u32;
    let mut n_bits = 0;
    for digit in digits {
        let digit = DIGITS[usize::from(*digit)];
        if digit == INVALID {
            return None;
        }
        bits = bits << 5 | u32::from(digit);
        n_bits += 5;
        if n_bits >= 8 {
            n_bits -= 8;
            bytes.push((bits >> n_bits) as u8);
        }
    }
    // bits left over must be zero, or the text is not what `spell` gives
    (bits & ((1 << n_bits) - 1) == 0).then_some(bytes)
}

/// The key of a pinned CID.
pub fn of_cid(cid: &Cid) -> String {
    spell(&cid.to_bytes())
}

/// The CID of a key.
pub fn to_cid(key: &[u8]) -> Option<Cid> {
    parse_cid(&unspell(key)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_the_base32_of_the_cid() {
        let cid: Cid = "QmbWqxBEKC3P8tqsKc98xmWNzrzDtRLMiMPL8wBuTGsMnR".parse().unwrap();
        let key = of_cid(&cid);
        assert_eq!(key, "/CIQMHRDTH3EK77IGZ6PJ75IP7RV42LWILJQXAACLW4EWNHBR32KDSGQ");
        assert_eq!(to_cid(key.as_bytes()), Some(cid));
        for odd in ["", "/", "/no", "/CIQ1", "CIQMHRDTH3EK77IGZ6PJ75IP7RV42LWILJQXAACLW4EWNHBR32KDSGQ"] {
            assert_eq!(to_cid(odd.as_bytes()), None, "{odd}");
        }
    }

    #[test]
    fn spelling_survives_both_ways_for_every_length() {
        for length in 0..70usize {
            let bytes: Vec<u8> = (0..length).map(|i| (i * 37 + length) as u8).collect();
            assert_eq!(unspell(spell(&bytes).as_bytes()), Some(bytes));
        }
        assert_eq!(unspell(b"/AB"), None, "bits left over");
    }
}
