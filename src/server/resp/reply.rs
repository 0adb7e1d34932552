//! Encoding replies, in RESP2 or RESP3.

use std::borrow::Cow;
use std::io::Write;

/// A reply that is an error: a code in capitals, a space, and a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct ErrorReply(pub Cow<'static, str>);

impl From<&'static str> for ErrorReply {
    fn from(text: &'static str) -> ErrorReply {
        ErrorReply(Cow::Borrowed(text))
    }
}

impl From<String> for ErrorReply {
    fn from(text: String) -> ErrorReply {
        ErrorReply(Cow::Owned(text))
    }
}

pub(super) const SYNTAX: &str = "ERR syntax error";
pub(super) const NOT_AN_INTEGER: &str = "ERR value is not an integer or out of range";
pub(super) const TOO_LONG: &str = "ERR string exceeds maximum allowed size (proto-max-bulk-len)";

/// Appends replies to a buffer.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    /// Whether the client speaks RESP3.
    pub resp3: bool,
}

impl Writer<'_> {
    pub fn new(out: &mut Vec<u8>, resp3: bool) -> Writer<'_> {
        Writer { out, resp3 }
    }

    fn line(&mut self, kind: u8, number: impl std::fmt::Display) {
        self.out.push(kind);
        write!(self.out, "{number}\r\n").expect("a vector takes all");
    }

    /// A short text that holds no line end.
    pub fn simple(&mut self, text: &str) {
        self.out.push(b'+');
        self.out.extend_from_slice(text.as_bytes());
        self.out.extend_from_slice(b"\r\n");
    }

    pub fn ok(&mut self) {
        self.out.extend_from_slice(b"+OK\r\n");
    }

    /// An error; line ends within it become spaces.
    pub fn error(&mut self, error: &ErrorReply) {
        self.out.push(b'-');
        self.out.extend(error.0.bytes().map(|byte| if byte == b'\r' || byte == b'\n' { b' ' } else { byte }));
        self.out.extend_from_slice(b"\r\n");
    }

    pub fn integer(&mut self, number: i64) {
        match number {
            0 => self.out.extend_from_slice(b":0\r\n"),
            1 => self.out.extend_from_slice(b":1\r\n"),
            other => self.line(b':', other),
        }
    }

    pub fn bulk(&mut self, bytes: &[u8]) {
        self.line(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// A text for people to read.
    pub fn verbatim(&mut self, text: &str) {
        if self.resp3 {
            self.line(b'=', text.len() + 4);
            self.out.extend_from_slice(b"txt:");
            self.out.extend_from_slice(text.as_bytes());
            self.out.extend_from_slice(b"\r\n");
        } else {
            self.bulk(text.as_bytes());
        }
    }

    pub fn null(&mut self) {
        self.out.extend_from_slice(if self.resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }

    /// The head of an array; its items follow.
    pub fn array(&mut self, items: usize) {
        self.line(b'*', items);
    }

    /// The head of a map; twice as many items follow.
    pub fn map(&mut self, pairs: usize) {
        if self.resp3 { self.line(b'%', pairs) } else { self.array(pairs * 2) }
    }

    /// The head of a set; its items follow.
    pub fn set(&mut self, items: usize) {
        self.line(if self.resp3 { b'~' } else { b'*' }, items);
    }

    /// What was encoded elsewhere for the same client.
    pub fn raw(&mut self, encoded: &[u8]) {
        self.out.extend_from_slice(encoded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encode(resp3: bool, write: impl FnOnce(&mut Writer<'_>)) -> String {
        let mut out = Vec::new();
        write(&mut Writer::new(&mut out, resp3));
        String::from_utf8(out).expect("these replies are text")
    }

    #[test]
    fn replies_in_both_protocols() {
        type Write = fn(&mut Writer<'_>);
        let cases: [(Write, &str, &str); 10] = [
            (|w| w.ok(), "+OK\r\n", "+OK\r\n"),
            (|w| w.error(&"ERR a\r\n-b".into()), "-ERR a  -b\r\n", "-ERR a  -b\r\n"),
            (|w| w.integer(-2), ":-2\r\n", ":-2\r\n"),
            (|w| w.integer(1), ":1\r\n", ":1\r\n"),
            (|w| w.bulk(b"abc"), "$3\r\nabc\r\n", "$3\r\nabc\r\n"),
            (|w| w.bulk(b""), "$0\r\n\r\n", "$0\r\n\r\n"),
            (|w| w.verbatim("hi"), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
            (|w| w.null(), "$-1\r\n", "_\r\n"),
            (|w| w.map(2), "*4\r\n", "%2\r\n"),
            (|w| w.set(2), "*2\r\n", "~2\r\n"),
        ];
        for (index, (write, resp2, resp3)) in cases.into_iter().enumerate() {
            assert_eq!(encode(false, write), resp2, "case {index}");
            assert_eq!(encode(true, write), resp3, "case {index}");
        }
    }
}
