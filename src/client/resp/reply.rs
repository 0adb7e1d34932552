//! A reply as a value.

use bytes::Bytes;

use super::Fate;

/// One reply of a server.
#[derive(Clone, PartialEq, Debug)]
pub enum Reply {
    /// A status such as `OK`.
    Simple(Bytes),
    /// The command failed.
    Error(ServerError),
    /// A whole number.
    Integer(i64),
    /// A floating-point number (RESP3).
    Double(f64),
    /// True or false (RESP3).
    Boolean(bool),
    /// A number of any length, as its digits (RESP3).
    BigNumber(Bytes),
    /// Bytes.
    Bulk(Bytes),
    /// Text for a person, with its three-letter format (RESP3).
    Verbatim {
        /// `txt` or `mkd`.
        format: [u8; 3],
        /// The text.
        text: Bytes,
    },
    /// Nothing: a null of any of the three spellings.
    Null,
    /// A list.
    Array(Vec<Reply>),
    /// Pairs (RESP3).
    Map(Vec<(Reply, Reply)>),
    /// A list without an order (RESP3).
    Set(Vec<Reply>),
    /// News that answers no command (RESP3).
    Push(Vec<Reply>),
}

impl Reply {
    /// The bytes of a string of any kind.
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Reply::Simple(bytes) | Reply::Bulk(bytes) | Reply::BigNumber(bytes) => Some(bytes),
            Reply::Verbatim { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The number.
    pub fn as_integer(&self) -> Option<i64> {
        match self {
            Reply::Integer(number) => Some(*number),
            _ => None,
        }
    }

    /// The items of a list of any kind.
    pub fn as_items(&self) -> Option<&[Reply]> {
        match self {
            Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => Some(items),
            _ => None,
        }
    }

    /// Whether this is the status `OK`.
    pub fn is_ok(&self) -> bool {
        matches!(self, Reply::Simple(text) if text.as_ref() == b"OK")
    }

    /// The reply, or the server's error as one.
    pub fn into_result(self) -> Result<Reply, ServerError> {
        match self {
            Reply::Error(error) => Err(error),
            reply => Ok(reply),
        }
    }
}

/// An error that the server answered with, word for word.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{message}")]
pub struct ServerError {
    message: String,
}

impl ServerError {
    /// From the server's line, without the leading `-`.
    pub fn new(message: impl Into<String>) -> ServerError {
        ServerError { message: message.into() }
    }

    /// The whole line.
    pub fn message(&self) -> &str {
        &self.message
    }

    /// The first word if it is written as a code is (`INDOUBT`, `NOREPLICAS`), else `ERR`.
    pub fn prefix(&self) -> &str {
        error_prefix(self.message.as_bytes()).map_or("ERR", |length| &self.message[..length])
    }

    /// Whether the command may have been applied, by the contract of the prefixes.
    pub fn fate(&self) -> Fate {
        match self.prefix() {
            // Clients retry some of these by themselves, so servers use them only for what
            // was refused before it ran; the others are refusals by their nature.
            "NOREPLICAS" | "CLUSTERDOWN" | "TRYAGAIN" | "LOADING" | "READONLY" | "MASTERDOWN" | "OOM" | "MISCONF"
            | "NOAUTH" | "WRONGPASS" | "NOPERM" | "NOPROTO" | "EXECABORT" | "WRONGTYPE" | "MOVED" | "ASK" => {
                Fate::NotApplied
            }
            _ => Fate::InDoubt,
        }
    }
}

/// The length of the code that an error line begins with, if it begins with one.
pub(super) fn error_prefix(line: &[u8]) -> Option<usize> {
    let length = line.iter().position(|byte| *byte == b' ').unwrap_or(line.len());
    let code = &line[..length];
    let spelled =
        !code.is_empty() && code.iter().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || *byte == b'_');
    spelled.then_some(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prefix_of_an_error_is_its_code_word() {
        let cases = [
            ("INDOUBT 1 of 2 acknowledgements within 500ms", "INDOUBT", Fate::InDoubt),
            ("NOREPLICAS Not enough good replicas to write.", "NOREPLICAS", Fate::NotApplied),
            ("TRYAGAIN overloaded, not executed", "TRYAGAIN", Fate::NotApplied),
            ("ERR syntax error", "ERR", Fate::InDoubt),
            ("something went wrong", "ERR", Fate::InDoubt),
            ("", "ERR", Fate::InDoubt),
            ("BUSY", "BUSY", Fate::InDoubt),
        ];
        for (line, prefix, fate) in cases {
            let error = ServerError::new(line);
            assert_eq!((error.prefix(), error.fate(), error.message()), (prefix, fate, line));
        }
    }
}
