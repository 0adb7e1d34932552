//! Commands as bytes.

use bytes::{BufMut, BytesMut};

/// Appends one command: an array of bulk strings.
pub fn encode_command<A: AsRef<[u8]>>(out: &mut BytesMut, arguments: &[A]) {
    header(out, b'*', arguments.len());
    for argument in arguments {
        let argument = argument.as_ref();
        header(out, b'$', argument.len());
        out.put_slice(argument);
        out.put_slice(b"\r\n");
    }
}

fn header(out: &mut BytesMut, kind: u8, length: usize) {
    // Twenty digits are enough for any length of 64 bits.
    let mut digits = [0_u8; 20];
    let mut at = digits.len();
    let mut rest = length;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.put_u8(kind);
    out.put_slice(&digits[at..]);
    out.put_slice(b"\r\n");
}

/// Commands that are sent together and answered in order.
#[derive(Clone, Default, Debug)]
pub struct Pipeline {
    pub(super) bytes: BytesMut,
    pub(super) commands: usize,
}

impl Pipeline {
    /// An empty one.
    pub fn new() -> Pipeline {
        Pipeline::default()
    }

    /// Appends a command.
    pub fn push<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> &mut Pipeline {
        encode_command(&mut self.bytes, arguments);
        self.commands += 1;
        self
    }

    /// How many commands it holds.
    pub fn len(&self) -> usize {
        self.commands
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.commands == 0
    }

    /// Forgets the commands and keeps the memory.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.commands = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_arrays_of_bulk_strings() {
        let mut pipeline = Pipeline::new();
        pipeline.push(&["SET", "key", ""]).push(&[vec![b'x'; 12]]);
        assert_eq!(&pipeline.bytes[..], b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$0\r\n\r\n*1\r\n$12\r\nxxxxxxxxxxxx\r\n");
        assert_eq!(pipeline.len(), 2);
        pipeline.clear();
        assert!(pipeline.is_empty() && pipeline.bytes.is_empty());
    }
}
