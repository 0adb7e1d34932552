//! Inline commands: words on a line, for people with telnet.
//!
//! Source: `sdssplitargs` of Redis. Words end at blanks; `"…"` knows `\n`, `\r`, `\t`,
//! `\b`, `\a`, `\xHH` and `\` before anything else; `'…'` knows `\'` only; a closing
//! quote must stand before a blank or the end; a NUL ends the line.

use super::decode::{Span, span};

/// Splits a line into words, which are appended to `words`; none if quotes do not match.
pub(super) fn split(line: &[u8], words: &mut Vec<u8>, spans: &mut Vec<Span>) -> Option<()> {
    let line = memchr::memchr(0, line).map_or(line, |end| &line[..end]);
    let mut rest = line;
    loop {
        while let [blank, tail @ ..] = rest
            && is_blank(*blank)
        {
            rest = tail;
        }
        if rest.is_empty() {
            return Some(());
        }
        let start = words.len();
        rest = word(rest, words)?;
        spans.push(span(start, words.len()));
    }
}

fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t'..=b'\r')
}

/// Appends one word; what follows it, or none if quotes do not match.
fn word<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Option<&'a [u8]> {
    while let [byte, tail @ ..] = rest {
        match byte {
            b'"' => return double_quoted(tail, words),
            b'\'' => return single_quoted(tail, words),
            // Redis ends words at fewer bytes than it skips between them.
            b' ' | b'\n' | b'\r' | b'\t' => return Some(rest),
            other => words.push(*other),
        }
        rest = tail;
    }
    Some(rest)
}

fn closed(rest: &[u8]) -> Option<&[u8]> {
    rest.first().is_none_or(|byte| is_blank(*byte)).then_some(rest)
}

fn double_quoted<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'"', tail @ ..] => return closed(tail),
            [b'\\', b'x', high, low, tail @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                words.push((hex(*high) << 4) | hex(*low));
                tail
            }
            [b'\\', escaped, tail @ ..] => {
                words.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                tail
            }
            [byte, tail @ ..] => {
                words.push(*byte);
                tail
            }
            [] => return None,
        };
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], words: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        rest = match rest {
            [b'\'', tail @ ..] => return closed(tail),
            [b'\\', b'\'', tail @ ..] => {
                words.push(b'\'');
                tail
            }
            [byte, tail @ ..] => {
                words.push(*byte);
                tail
            }
            [] => return None,
        };
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        _ => (digit | 0x20) - b'a' + 10,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &[u8]) -> Option<Vec<Vec<u8>>> {
        let (mut buffer, mut spans) = (Vec::new(), Vec::new());
        split(line, &mut buffer, &mut spans)?;
        Some(spans.iter().map(|span| buffer[span.start as usize..span.end as usize].to_vec()).collect())
    }

    #[test]
    fn lines_are_split_as_redis_splits_them() {
        type Words = Option<&'static [&'static [u8]]>;
        let cases: [(&[u8], Words); 16] = [
            (b"", Some(&[])),
            (b" \t \r", Some(&[])),
            (b"PING", Some(&[b"PING"])),
            (b"  set  a   b \r", Some(&[b"set", b"a", b"b"])),
            (br#"set "a b" 'c d'"#, Some(&[b"set", b"a b", b"c d"])),
            (br#"echo "\x41\n\r\t\b\a\\\"\q""#, Some(&[b"echo", b"A\n\r\t\x08\x07\\\"q"])),
            (br#"echo "\xzz""#, Some(&[b"echo", b"xzz"])),
            (br"echo 'it\'s \n'", Some(&[b"echo", br"it's \n"])),
            (br#"echo """#, Some(&[b"echo", b""])),
            (br#"echo foo"bar""#, Some(&[b"echo", b"foobar"])),
            (br#"echo "a"b"#, None),
            (br#"echo "a"#, None),
            (b"echo 'a", None),
            (b"echo 'a'b", None),
            (b"echo a\0b c", Some(&[b"echo", b"a"])),
            (br#"echo "a\"#, None),
        ];
        for (line, expected) in cases {
            let expected = expected.map(|words| words.iter().map(|word| word.to_vec()).collect::<Vec<_>>());
            assert_eq!(words(line), expected, "{}", line.escape_ascii());
        }
    }
}
