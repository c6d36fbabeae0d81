//! The two usual spellings of a CID, read without allocation: base58 of version 0, and unpadded base32 of version 1
//! with a SHA2-256. Lists hold them by the million. Whatever else a text may be is left to the careful reader, which
//! also finds the words for what is wrong with it.

use super::Cid;

const SHA2_256: u8 = 0x12;

const DIGEST_LEN: usize = 32;

/// Not a digit.
const NONE: u8 = 0xff;

const BASE32: [u8; 256] = {
    let mut digits = [NONE; 256];
    let mut i = 0;
    while i < 26 {
        digits[b'a' as usize + i] = i as u8;
        // Go takes either case
        digits[b'A' as usize + i] = i as u8;
        i += 1;
    }
    while i < 32 {
        digits[b'2' as usize + i - 26] = i as u8;
        i += 1;
    }
    digits
};

const BASE58: [u8; 256] = {
    let alphabet = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
    let mut digits = [NONE; 256];
    let mut i = 0;
    while i < alphabet.len() {
        digits[alphabet[i] as usize] = i as u8;
        i += 1;
    }
    digits
};

/// The CID, if it is spelt in one of the usual ways.
pub(super) fn parse(text: &[u8]) -> Option<Cid> {
    match text {
        [b'Q', b'm', ..] if text.len() == 46 => parse_v0(text),
        [b'b', digits @ ..] => parse_v1(digits),
        _ => None,
    }
}

fn parse_v0(text: &[u8]) -> Option<Cid> {
    // 36 bytes, lowest limb first; 34 of them are the multihash
    let mut limbs = [0u32; 9];
    let (first, rest) = text.split_first()?;
    let mut carry_in = |digits: &[u8]| {
        let (mut value, mut factor) = (0u64, 1u64);
        for digit in digits {
            let digit = BASE58[usize::from(*digit)];
            if digit == NONE {
                return None;
            }
            value = value * 58 + u64::from(digit);
            factor *= 58;
        }
        for limb in &mut limbs {
            value += u64::from(*limb) * factor;
            *limb = value as u32;
            value >>= 32;
        }
        (value == 0).then_some(())
    };
    carry_in(&[*first])?;
    // 58^5 is the largest power below 2^32
    for digits in rest.chunks(5) {
        carry_in(digits)?;
    }
    let mut bytes = [0u8; 36];
    for (place, limb) in bytes.chunks_mut(4).zip(limbs.iter().rev()) {
        place.copy_from_slice(&limb.to_be_bytes());
    }
    match bytes.split_first_chunk()? {
        ([0, 0, SHA2_256, 32], digest) => Cid::new_v0(hash(digest)?).ok(),
        _ => None,
    }
}

fn parse_v1(digits: &[u8]) -> Option<Cid> {
    // version, a codec of one or two bytes, code, length, digest
    let mut bytes = [0u8; 5 + DIGEST_LEN];
    let n_bytes = digits.len() * 5 / 8;
    if !(bytes.len() - 1..=bytes.len()).contains(&n_bytes) || matches!(digits.len() % 8, 1 | 3 | 6) {
        return None;
    }
    for (place, group) in bytes.chunks_mut(5).zip(digits.chunks(8)) {
        let (mut bits, mut seen) = (0u64, 0);
        for digit in group {
            let digit = BASE32[usize::from(*digit)];
            seen |= digit;
            bits = bits << 5 | u64::from(digit);
        }
        if seen == NONE {
            return None;
        }
        let bits = bits << (64 - 5 * group.len());
        let n_bytes = (group.len() * 5 / 8).min(place.len());
        place[..n_bytes].copy_from_slice(&bits.to_be_bytes()[..n_bytes]);
    }
    let (codec, rest) = match &bytes[..n_bytes] {
        [1, codec, rest @ ..] if *codec < 0x80 => (u64::from(*codec), rest),
        [1, low, high, rest @ ..] if *low >= 0x80 && (1..0x80).contains(high) => {
            (u64::from(*low & 0x7f) | u64::from(*high) << 7, rest)
        }
        _ => return None,
    };
    match rest {
        [SHA2_256, 32, digest @ ..] => Some(Cid::new_v1(codec, hash(digest)?)),
        _ => None,
    }
}

fn hash(digest: &[u8]) -> Option<multihash::Multihash<64>> {
    if digest.len() != DIGEST_LEN {
        return None;
    }
    multihash::Multihash::wrap(u64::from(SHA2_256), digest).ok()
}

#[cfg(test)]
mod tests {
    use super::super::cid::parse_carefully;
    use super::*;

    fn digest(n: u64) -> [u8; 32] {
        let mut state = n;
        std::array::from_fn(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
    }

    #[test]
    fn the_usual_spellings_are_read_as_the_careful_reader_reads_them() {
        for n in 0..500 {
            let hash = hash(&digest(n)).unwrap();
            for codec in [0x55, 0x70, 0x71, 0x80, 0x129, 0x3fff] {
                let cid = Cid::new_v1(codec, hash);
                let text = cid.to_string();
                assert_eq!(parse(text.as_bytes()), Some(cid), "{text}");
                assert_eq!(parse_carefully(text.as_bytes()), Ok(cid));
                let upper = format!("b{}", text[1..].to_uppercase());
                assert_eq!(
                    parse(upper.as_bytes()).ok_or_else(String::new),
                    parse_carefully(upper.as_bytes())
                );
            }
            let cid = Cid::new_v0(hash).unwrap();
            assert_eq!(parse(cid.to_string().as_bytes()), Some(cid));
            assert_eq!(parse_carefully(cid.to_string().as_bytes()), Ok(cid));
        }
    }

    #[test]
    fn a_damaged_text_is_never_read_otherwise_than_by_the_careful_reader() {
        let v1 = Cid::new_v1(0x70, hash(&digest(1)).unwrap()).to_string();
        let v0 = Cid::new_v0(hash(&digest(2)).unwrap()).unwrap().to_string();
        for text in [v0, v1] {
            for at in 0..text.len() {
                for byte in [b'0', b'1', b'2', b'7', b'=', b'Z', b'a', b'z', b'l', b'\n', 0xff] {
                    let mut damaged = text.clone().into_bytes();
                    damaged[at] = byte;
                    if let Some(cid) = parse(&damaged) {
                        assert_eq!(parse_carefully(&damaged), Ok(cid), "{}", damaged.escape_ascii());
                    }
                    damaged.truncate(at);
                    if let Some(cid) = parse(&damaged) {
                        assert_eq!(parse_carefully(&damaged), Ok(cid), "{}", damaged.escape_ascii());
                    }
                }
            }
        }
    }
}
