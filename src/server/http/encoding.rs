//! Percent-encoding, Base64, and the token that names a version.

use crate::server::token;
use crate::types::Stamp;

/// The bytes that a percent-encoded text stands for; none if a `%` is not followed by two digits.
pub(super) fn percent_decode(text: &str, plus_is_space: bool) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    loop {
        rest = match rest {
            [] => return Some(bytes),
            [b'%', high, low, tail @ ..] => {
                let digit = |digit: &u8| char::from(*digit).to_digit(16);
                bytes.push((digit(high)? * 16 + digit(low)?) as u8);
                tail
            }
            [b'%', ..] => return None,
            [b'+', tail @ ..] if plus_is_space => {
                bytes.push(b' ');
                tail
            }
            [byte, tail @ ..] => {
                bytes.push(*byte);
                tail
            }
        };
    }
}

const BASE64: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// Base64 with padding (RFC 4648, section 4).
pub(super) fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let bits = chunk.iter().fold(0u32, |bits, byte| (bits << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let index = (bits >> (18 - 6 * place)) & 63;
            text.push(if place <= chunk.len() { char::from(BASE64[index as usize]) } else { '=' });
        }
    }
    text
}

/// The bytes that a Base64 text stands for, with or without padding; none if it is not one.
pub(super) fn base64_decode(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3 + 2);
    for chunk in text.chunks(4) {
        let mut bits = 0u32;
        for letter in chunk {
            let index = BASE64.iter().position(|known| known == letter)?;
            bits = (bits << 6) | index as u32;
        }
        bits <<= 6 * (4 - chunk.len());
        let whole = [(bits >> 16) as u8, (bits >> 8) as u8, bits as u8];
        match chunk.len() {
            4 => bytes.extend_from_slice(&whole),
            3 => bytes.extend_from_slice(&whole[..2]),
            2 => bytes.extend_from_slice(&whole[..1]),
            _ => return None,
        }
    }
    Some(bytes)
}

/// An `ETag` that names a version. Opaque: its form may change with any release.
pub(super) fn etag(stamp: &Stamp) -> String {
    format!("\"{}\"", token::version(stamp))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding() {
        let decode = |text, plus| percent_decode(text, plus);
        assert_eq!(decode("a%2Fb%00%ff+", false), Some(b"a/b\0\xff+".to_vec()));
        assert_eq!(decode("a+b", true), Some(b"a b".to_vec()));
        for bad in ["%", "%1", "a%zz", "%+1"] {
            assert_eq!(decode(bad, false), None, "{bad}");
        }
    }

    #[test]
    fn base64_is_that_of_the_rfc_and_reads_back() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (bytes, text) in cases {
            assert_eq!(base64(bytes.as_bytes()), text);
            assert_eq!(base64_decode(text).as_deref(), Some(bytes.as_bytes()));
        }
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(base64_decode(&base64(&all)), Some(all));
        for bad in ["Z", "Zg!=", "Zg=Z", "Zm9vY"] {
            assert_eq!(base64_decode(bad), None, "{bad}");
        }
    }
}
