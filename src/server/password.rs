//! Comparing secrets without telling how much of a guess was right.

use std::hint::black_box;

/// Whether a guess is the secret, in a time that depends on the guess's length alone.
pub(super) fn matches(secret: &[u8], guess: &[u8]) -> bool {
    let mut difference = secret.len() ^ guess.len();
    for (index, byte) in guess.iter().enumerate() {
        // An empty secret is compared with zeros; the lengths decide then.
        let own = if secret.is_empty() { 0 } else { secret[index % secret.len()] };
        difference |= usize::from(black_box(own ^ byte));
    }
    black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_secret_itself_matches() {
        assert!(matches(b"secret", b"secret"));
        assert!(matches(b"", b""));
        for guess in [&b""[..], b"s", b"secre", b"secreT", b"secretsecret", b"secret\0"] {
            assert!(!matches(b"secret", guess), "{guess:?}");
        }
        assert!(!matches(b"", b"\0"));
    }
}
