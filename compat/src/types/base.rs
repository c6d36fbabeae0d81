//! Multibase text: decoding with the errors of go-multibase, encoding without allocation.

use std::ops::Deref;

use crate::go::quote::quote_char;

/// The longest text of a CID or peer id: 96 bytes in base32, a prefix, and room to spare.
const TEXT_LEN: usize = 192;

/// Bytes of base58 that fit one step of the division: 58^5 is the largest power below 2^32.
const BASE58_STEP: u64 = 58 * 58 * 58 * 58 * 58;

const BASE58_BTC: &[u8; 58] = b"123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz";
const BASE58_FLICKR: &[u8; 58] = b"123456789abcdefghijkmnopqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ";
const BASE32_STD: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
const BASE32_HEX: &[u8; 32] = b"0123456789abcdefghijklmnopqrstuv";
const BASE64_STD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const BASE64_URL: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// Short text on the stack; ASCII only.
pub struct Text {
    bytes: [u8; TEXT_LEN],
    len: usize,
}

impl Text {
    pub(crate) const fn new() -> Self {
        Self { bytes: [0; TEXT_LEN], len: 0 }
    }

    fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(self.len) {
            *slot = byte;
            self.len += 1;
        }
    }

    /// Appends bytes in base32 without padding, lower case.
    pub(crate) fn push_base32(&mut self, prefix: u8, bytes: &[u8]) {
        self.push(prefix);
        let (whole, rest) = bytes.as_chunks::<5>();
        let n_whole = whole.len() * 8;
        if let Some(places) = self.bytes.get_mut(self.len..self.len + n_whole) {
            for (place, [a, b, c, d, e]) in places.as_chunks_mut::<8>().0.iter_mut().zip(whole) {
                let bits = u64::from_be_bytes([0, 0, 0, *a, *b, *c, *d, *e]);
                for (i, digit) in place.iter_mut().enumerate() {
                    *digit = BASE32_STD[(bits >> (35 - 5 * i) & 31) as usize];
                }
            }
            self.len += n_whole;
        }
        if rest.is_empty() {
            return;
        }
        let mut padded = [0; 8];
        padded[3..3 + rest.len()].copy_from_slice(rest);
        let bits = u64::from_be_bytes(padded);
        let n_digits = (rest.len() * 8).div_ceil(5);
        for i in 0..n_digits {
            self.push(BASE32_STD[(bits >> (35 - 5 * i) & 31) as usize]);
        }
    }

    /// Appends at most 96 bytes in base58 (Bitcoin's alphabet).
    pub(crate) fn push_base58(&mut self, bytes: &[u8]) {
        let n_zeros = bytes.iter().take_while(|byte| **byte == 0).count();
        (0..n_zeros).for_each(|_| self.push(b'1'));
        let rest = &bytes[n_zeros..];
        let mut limbs = [0u32; 24];
        let n_limbs = rest.len().div_ceil(4).min(limbs.len());
        for (limb, chunk) in limbs[..n_limbs].iter_mut().rev().zip(rest.rchunks(4)) {
            *limb = chunk.iter().fold(0, |limb, byte| limb << 8 | u32::from(*byte));
        }
        // digits come out lowest first
        let mut digits = [0u8; 144];
        let mut n_digits = 0;
        let mut limbs = &mut limbs[..n_limbs];
        while !limbs.is_empty() {
            let mut remainder = 0u64;
            for limb in limbs.iter_mut() {
                let value = remainder << 32 | u64::from(*limb);
                *limb = (value / BASE58_STEP) as u32;
                remainder = value % BASE58_STEP;
            }
            let n_done = limbs.iter().take_while(|limb| **limb == 0).count();
            limbs = &mut limbs[n_done..];
            for slot in digits.iter_mut().skip(n_digits).take(5) {
                *slot = (remainder % 58) as u8;
                remainder /= 58;
            }
            n_digits = (n_digits + 5).min(digits.len());
        }
        let n_leading = digits[..n_digits].iter().rev().take_while(|digit| **digit == 0).count();
        for digit in digits[..n_digits - n_leading].iter().rev() {
            self.push(BASE58_BTC[usize::from(*digit)]);
        }
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        std::str::from_utf8(&self.bytes[..self.len]).unwrap_or_default()
    }
}

/// Decodes multibase text; the error is go-multibase's.
pub(crate) fn decode(text: &[u8]) -> Result<Vec<u8>, String> {
    let prefix = text.utf8_chunks().next().and_then(|chunk| chunk.valid().chars().next());
    let Some(prefix) = prefix else {
        return Err("selected encoding not supported".into());
    };
    let rest = &text[prefix.len_utf8()..];
    match prefix {
        '\0' => Ok(rest.to_vec()),
        '0' => decode_binary(rest),
        'f' | 'F' => decode_hex(rest),
        'b' | 'B' => decode_base32(rest, BASE32_STD, false),
        'c' | 'C' => decode_base32(rest, BASE32_STD, true),
        'v' | 'V' => decode_base32(rest, BASE32_HEX, false),
        't' | 'T' => decode_base32(rest, BASE32_HEX, true),
        'k' | 'K' => decode_base36(rest),
        'z' => decode_base58_with(rest, BASE58_BTC),
        'Z' => decode_base58_with(rest, BASE58_FLICKR),
        'm' => decode_base64(rest, BASE64_STD, false),
        'u' => decode_base64(rest, BASE64_URL, false),
        'M' => decode_base64(rest, BASE64_STD, true),
        'U' => decode_base64(rest, BASE64_URL, true),
        '🚀' => decode_emoji(rest),
        _ => Err("selected encoding not supported".into()),
    }
}

/// Decodes base58 in Bitcoin's alphabet; the error is that of mr-tron/base58.
pub(crate) fn decode_base58(text: &[u8]) -> Result<Vec<u8>, String> {
    decode_base58_with(text, BASE58_BTC)
}

fn decode_base58_with(text: &[u8], alphabet: &[u8; 58]) -> Result<Vec<u8>, String> {
    if text.is_empty() {
        return Err("zero length string".into());
    }
    let digit = |byte: u8| match alphabet.iter().position(|c| *c == byte) {
        Some(digit) => Ok(digit as u32),
        None if byte > 127 => Err("high-bit set on invalid digit".to_string()),
        None => Err(format!("invalid base58 digit ({})", quote_char(char::from(byte)))),
    };
    let n_zeros = text.iter().take_while(|byte| **byte == alphabet[0]).count();
    from_digits(&text[n_zeros..], n_zeros, 58, digit)
}

fn decode_base36(text: &[u8]) -> Result<Vec<u8>, String> {
    if text.is_empty() {
        return Err("can not decode zero-length string".into());
    }
    // Go walks runes, so a bad character is shown whole
    if let Some(bad) = String::from_utf8_lossy(text).chars().find(|c| !c.is_ascii_alphanumeric()) {
        return Err(format!("invalid base36 character ({})", quote_char(bad)));
    }
    let digit =
        |byte: u8| char::from(byte).to_digit(36).ok_or_else(|| "invalid base36 character".to_string());
    let n_zeros = text.iter().take_while(|byte| **byte == b'0').count();
    from_digits(&text[n_zeros..], n_zeros, 36, digit)
}

/// The big-endian bytes of a number, after a zero byte for each leading zero digit.
fn from_digits(
    text: &[u8],
    n_zeros: usize,
    base: u32,
    digit: impl Fn(u8) -> Result<u32, String>,
) -> Result<Vec<u8>, String> {
    // lowest limb first
    let mut limbs: Vec<u32> = Vec::with_capacity(text.len() / 4 + 1);
    for &byte in text {
        let mut carry = u64::from(digit(byte)?);
        for limb in &mut limbs {
            let value = u64::from(*limb) * u64::from(base) + carry;
            *limb = value as u32;
            carry = value >> 32;
        }
        if carry > 0 {
            limbs.push(carry as u32);
        }
    }
    let mut out = vec![0; n_zeros];
    out.extend(limbs.iter().rev().flat_map(|limb| limb.to_be_bytes()).skip_while(|byte| *byte == 0));
    Ok(out)
}

fn decode_binary(text: &[u8]) -> Result<Vec<u8>, String> {
    let mut padded = vec![b'0'; (8 - text.len() % 8) % 8];
    padded.extend_from_slice(text);
    padded
        .chunks(8)
        .map(|bits| {
            bits.iter().try_fold(0u8, |byte, bit| match bit {
                b'0' | b'1' => Ok(byte << 1 | (bit - b'0')),
                _ => Err(format!(
                    "error while conversion: strconv.ParseInt: parsing {}: invalid syntax",
                    crate::go::quote::quote(&String::from_utf8_lossy(bits))
                )),
            })
        })
        .collect()
}

fn decode_hex(text: &[u8]) -> Result<Vec<u8>, String> {
    let digit = |byte: u8| {
        char::from(byte).to_digit(16).map(|digit| digit as u8).ok_or_else(|| {
            let c = char::from(byte);
            let shown = quote_char(c);
            // `%#U` shows the character only if it can be printed
            let shown = if shown.contains('\\') && c != '\\' && c != '\'' {
                String::new()
            } else {
                format!(" '{c}'")
            };
            format!("encoding/hex: invalid byte: U+{byte:04X}{shown}")
        })
    };
    let mut out = Vec::with_capacity(text.len() / 2);
    for pair in text.chunks(2) {
        let high = digit(pair[0])?;
        match pair.get(1) {
            Some(low) => out.push(high << 4 | digit(*low)?),
            None => return Err("encoding/hex: odd length hex string".into()),
        }
    }
    Ok(out)
}

fn is_line_end(byte: &u8) -> bool {
    matches!(byte, b'\n' | b'\r')
}

fn decode_base32(text: &[u8], alphabet: &[u8; 32], padded: bool) -> Result<Vec<u8>, String> {
    let corrupt = |at: usize| Err(format!("illegal base32 data at input byte {at}"));
    let text: Vec<u8> = text.iter().copied().filter(|byte| !is_line_end(byte)).collect();
    let mut out = Vec::with_capacity(text.len() * 5 / 8 + 1);
    for (group, chunk) in text.chunks(8).enumerate() {
        let start = group * 8;
        let (mut bits, mut n_digits) = (0u64, 0);
        for (i, byte) in chunk.iter().enumerate() {
            let is_last_group = start + 8 >= text.len();
            if padded && *byte == b'=' && i >= 2 && is_last_group {
                if chunk.len() < 8 {
                    return corrupt(text.len());
                }
                if let Some(bad) = chunk[i + 1..].iter().position(|byte| *byte != b'=') {
                    return corrupt(start + i + bad);
                }
                if matches!(i, 3 | 6) {
                    return corrupt(start + i);
                }
                break;
            }
            let Some(digit) = alphabet.iter().position(|c| *c == byte.to_ascii_lowercase()) else {
                return corrupt(start + i);
            };
            bits = bits << 5 | digit as u64;
            n_digits = i + 1;
        }
        if padded && chunk.len() < 8 {
            return corrupt(start);
        }
        // a group of 1, 3 or 6 digits ends in none that Go would keep
        let n_bytes = match n_digits {
            8 => 5,
            7 => 4,
            5 => 3,
            4 => 2,
            2 => 1,
            _ => 0,
        };
        let bits = bits << (64 - 5 * n_digits.max(1));
        out.extend_from_slice(&bits.to_be_bytes()[..n_bytes]);
    }
    Ok(out)
}

fn decode_base64(text: &[u8], alphabet: &[u8; 64], padded: bool) -> Result<Vec<u8>, String> {
    let corrupt = |at: usize| Err(format!("illegal base64 data at input byte {at}"));
    let skip_line_ends = |mut at: usize| {
        while text.get(at).is_some_and(is_line_end) {
            at += 1;
        }
        at
    };
    let mut out = Vec::with_capacity(text.len() * 3 / 4 + 3);
    let mut at = 0;
    while at < text.len() {
        let (mut bits, mut n_digits) = (0u32, 0);
        let mut is_last = false;
        while n_digits < 4 {
            let Some(byte) = text.get(at) else {
                if n_digits == 0 {
                    return Ok(out);
                }
                if n_digits == 1 || padded {
                    return corrupt(at - n_digits);
                }
                break;
            };
            at += 1;
            if let Some(digit) = alphabet.iter().position(|c| c == byte) {
                bits = bits << 6 | digit as u32;
                n_digits += 1;
                continue;
            }
            if is_line_end(byte) {
                continue;
            }
            if !padded || *byte != b'=' || n_digits < 2 {
                return corrupt(at - 1);
            }
            if n_digits == 2 {
                at = skip_line_ends(at);
                match text.get(at) {
                    None => return corrupt(text.len()),
                    Some(b'=') => at += 1,
                    Some(_) => return corrupt(at - 1),
                }
            }
            at = skip_line_ends(at);
            if at < text.len() {
                return corrupt(at);
            }
            is_last = true;
            break;
        }
        let bits = bits << (6 * (4 - n_digits) + 8);
        out.extend_from_slice(&bits.to_be_bytes()[..n_digits - 1]);
        if is_last || n_digits < 4 {
            break;
        }
    }
    Ok(out)
}

fn decode_emoji(text: &[u8]) -> Result<Vec<u8>, String> {
    let text = crate::go::query::lossy(text);
    let mut out = Vec::with_capacity(text.len() / 4);
    for (at, c) in text.char_indices() {
        match multibase::decode(format!("🚀{c}")) {
            Ok((_, bytes)) => out.extend(bytes),
            Err(_) => return Err(format!("illegal base256emoji data at input byte {at}, char: '{c}'")),
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_base_agrees_with_the_multibase_crate() -> Result<(), multibase::Error> {
        use multibase::Base;
        let inputs: Vec<Vec<u8>> =
            (0..60).map(|n| (0..n).map(|i| (i * 37 + n * 11) as u8).skip(n % 3).collect()).collect();
        let bases = [
            Base::Base2,
            Base::Base16Lower,
            Base::Base16Upper,
            Base::Base32Lower,
            Base::Base32Upper,
            Base::Base32PadLower,
            Base::Base32PadUpper,
            Base::Base32HexLower,
            Base::Base32HexPadLower,
            Base::Base36Lower,
            Base::Base36Upper,
            Base::Base58Btc,
            Base::Base58Flickr,
            Base::Base64,
            Base::Base64Pad,
            Base::Base64Url,
            Base::Base64UrlPad,
            Base::Base256Emoji,
        ];
        for base in bases {
            for input in inputs.iter().filter(|input| !input.is_empty()) {
                let text = multibase::encode(base, input);
                assert_eq!(decode(text.as_bytes()), Ok(input.clone()), "{text}");
            }
        }
        for input in inputs.iter().chain([&vec![0, 0, 0], &vec![0, 0, 1], &vec![255; 90]]) {
            let mut text = Text::new();
            text.push_base58(input);
            assert_eq!(*text, *Base::Base58Btc.encode(input));
            let mut text = Text::new();
            text.push_base32(b'b', input);
            assert_eq!(*text, *multibase::encode(Base::Base32Lower, input));
        }
        Ok(())
    }

    #[test]
    fn bad_characters_are_named_as_go_names_them() {
        let cases = [
            ("abc", "selected encoding not supported"),
            ("h123", "selected encoding not supported"),
            ("é", "selected encoding not supported"),
            ("fxo", "encoding/hex: invalid byte: U+0078 'x'"),
            ("f0", "encoding/hex: odd length hex string"),
            ("f0\n", "encoding/hex: invalid byte: U+000A"),
            ("bab1", "illegal base32 data at input byte 2"),
            ("caa", "illegal base32 data at input byte 0"),
            ("zz0", "invalid base58 digit ('0')"),
            ("zé", "high-bit set on invalid digit"),
            ("ma*", "illegal base64 data at input byte 1"),
            ("ma", "illegal base64 data at input byte 0"),
            ("Maa", "illegal base64 data at input byte 0"),
            ("k*", "invalid base36 character ('*')"),
            ("🚀a", "illegal base256emoji data at input byte 0, char: 'a'"),
            ("012", "error while conversion: strconv.ParseInt: parsing \"00000012\": invalid syntax"),
        ];
        for (input, expected) in cases {
            assert_eq!(decode(input.as_bytes()), Err(expected.to_string()), "{input}");
        }
    }
}
