use bytes::{BufMut, Bytes, BytesMut};
use proptest::prelude::*;

use super::*;

/// The other direction, for the tests: a reply as a server writes it.
fn encode(reply: &Reply, out: &mut BytesMut) {
    let header = |out: &mut BytesMut, kind: char, count: usize| out.put_slice(format!("{kind}{count}\r\n").as_bytes());
    match reply {
        Reply::Simple(text) => out.put_slice(&[b"+", &text[..], b"\r\n"].concat()),
        Reply::Error(error) => out.put_slice(format!("-{}\r\n", error.message()).as_bytes()),
        Reply::Integer(number) => out.put_slice(format!(":{number}\r\n").as_bytes()),
        Reply::Double(number) => out.put_slice(format!(",{number}\r\n").as_bytes()),
        Reply::Boolean(truth) => out.put_slice(if *truth { b"#t\r\n" } else { b"#f\r\n" }),
        Reply::BigNumber(digits) => out.put_slice(&[b"(", &digits[..], b"\r\n"].concat()),
        Reply::Bulk(bytes) => {
            header(out, '$', bytes.len());
            out.put_slice(&[&bytes[..], b"\r\n"].concat());
        }
        Reply::Verbatim { format, text } => {
            header(out, '=', text.len() + 4);
            out.put_slice(&[&format[..], b":", &text[..], b"\r\n"].concat());
        }
        Reply::Null => out.put_slice(b"_\r\n"),
        Reply::Array(items) | Reply::Set(items) | Reply::Push(items) => {
            let kind = match reply {
                Reply::Array(_) => '*',
                Reply::Set(_) => '~',
                _ => '>',
            };
            header(out, kind, items.len());
            items.iter().for_each(|item| encode(item, out));
        }
        Reply::Map(pairs) => {
            header(out, '%', pairs.len());
            for (key, value) in pairs {
                encode(key, out);
                encode(value, out);
            }
        }
    }
}

fn any_reply() -> impl Strategy<Value = Reply> {
    let text = "[ -~]{0,40}".prop_map(Bytes::from);
    let bytes = prop::collection::vec(any::<u8>(), 0..80).prop_map(Bytes::from);
    let leaf = prop_oneof![
        text.clone().prop_map(Reply::Simple),
        "[A-Z]{1,12} [ -~]{0,40}".prop_map(|line| Reply::Error(ServerError::new(line))),
        any::<i64>().prop_map(Reply::Integer),
        (-1e300..1e300).prop_map(Reply::Double),
        any::<bool>().prop_map(Reply::Boolean),
        "-?[0-9]{1,60}".prop_map(|digits| Reply::BigNumber(digits.into())),
        bytes.clone().prop_map(Reply::Bulk),
        bytes.prop_map(|text| Reply::Verbatim { format: *b"txt", text }),
        Just(Reply::Null),
    ];
    leaf.prop_recursive(5, 60, 6, |inner| {
        let items = prop::collection::vec(inner.clone(), 0..6);
        prop_oneof![
            items.clone().prop_map(Reply::Array),
            items.clone().prop_map(Reply::Set),
            items.prop_map(Reply::Push),
            prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Reply::Map),
        ]
    })
}

fn small() -> ReplyLimits {
    ReplyLimits { bytes: 4_096, line_bytes: 256, items: 100, depth: 4 }
}

proptest! {
    #[test]
    fn replies_come_out_as_they_went_in_however_they_are_cut(
        replies in prop::collection::vec(any_reply(), 1..6),
        cuts in prop::collection::vec(1_usize..60, 1..50),
    ) {
        let mut stream = BytesMut::new();
        replies.iter().for_each(|reply| encode(reply, &mut stream));
        let mut parser = ReplyParser::new(ReplyLimits::default());
        let mut seen = Vec::new();
        let mut rest = &stream[..];
        for cut in cuts.iter().cycle() {
            let (piece, after) = rest.split_at((*cut).min(rest.len()));
            parser.feed(piece);
            while let Some(reply) = parser.next_reply().unwrap() {
                seen.push(reply);
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
        }
        prop_assert_eq!(seen, replies);
        prop_assert_eq!(parser.buffered(), 0);
    }

    #[test]
    fn raw_replies_end_where_decoded_ones_do(replies in prop::collection::vec(any_reply(), 1..6)) {
        let mut stream = BytesMut::new();
        replies.iter().for_each(|reply| encode(reply, &mut stream));
        let mut parser = ReplyParser::new(ReplyLimits::default());
        parser.feed(&stream);
        for reply in &replies {
            let (error, null, integer, prefix) = parser
                .next_raw(|raw| (raw.is_error(), raw.is_null(), raw.as_integer(), raw.error_prefix().to_owned()))
                .unwrap()
                .unwrap();
            prop_assert_eq!(error, matches!(reply, Reply::Error(_)));
            prop_assert_eq!(null, matches!(reply, Reply::Null));
            prop_assert_eq!(integer, reply.as_integer());
            if let Reply::Error(expected) = reply {
                prop_assert_eq!(prefix, expected.prefix());
            }
        }
        prop_assert_eq!(parser.buffered(), 0);
    }

    #[test]
    fn noise_is_refused_or_waited_for_and_never_panics(
        noise in prop::collection::vec(prop::sample::select(b"+-:_,#($!=*~>%|0123456789tf\r\n\r\n\x00a".to_vec()), 0..300),
    ) {
        let mut parser = ReplyParser::new(small());
        parser.feed(&noise);
        while let Ok(Some(_)) = parser.next_reply() {}
    }

    #[test]
    fn a_truncated_reply_is_waited_for(reply in any_reply(), part in 0.0..1.0_f64) {
        let mut stream = BytesMut::new();
        encode(&reply, &mut stream);
        let cut = (stream.len() as f64 * part) as usize;
        let mut parser = ReplyParser::new(ReplyLimits::default());
        parser.feed(&stream[..cut]);
        prop_assert_eq!(parser.next_reply(), Ok(None));
    }
}

fn parse(limits: ReplyLimits, bytes: &[u8]) -> Result<Option<Reply>, ProtocolError> {
    let mut parser = ReplyParser::new(limits);
    parser.feed(bytes);
    parser.next_reply()
}

#[test]
fn a_reply_above_a_bound_is_refused_at_its_header() {
    let too_large = |what, limit| Err(ProtocolError::TooLarge { what, limit });
    assert_eq!(parse(small(), b"$4096\r\n"), too_large("bytes", 4_096));
    assert_eq!(parse(small(), b"$9223372036854775807\r\n"), too_large("bytes", 4_096));
    assert_eq!(parse(small(), b"*101\r\n"), too_large("items", 100));
    assert_eq!(parse(small(), b"%51\r\n"), too_large("items", 100));
    assert_eq!(parse(small(), b"*9223372036854775807\r\n"), too_large("items", 100));
    assert_eq!(parse(small(), b"*2\r\n*60\r\n:1\r\n"), Ok(None));
    assert_eq!(parse(small(), b"*60\r\n*60\r\n"), too_large("items", 100));
    assert_eq!(parse(small(), b"*1\r\n*1\r\n*1\r\n*1\r\n*1\r\n"), too_large("levels", 4));
    assert_eq!(parse(small(), &[b"+".as_slice(), &[b'x'; 300]].concat()), too_large("bytes in a line", 256));
}

#[test]
fn a_length_reserves_nothing() {
    let mut parser = ReplyParser::new(ReplyLimits::default());
    parser.feed(b"*1000000\r\n$16000000\r\nxx");
    assert_eq!(parser.next_reply(), Ok(None));
    assert!(parser.buffer.capacity() < 1_024 && parser.open.capacity() < 64);
}

#[test]
fn malformed_replies_are_refused() {
    let cases: [(&[u8], ProtocolError); 12] = [
        (b"H", ProtocolError::UnknownType(b'H')),
        (b"\r\n", ProtocolError::UnknownType(b'\r')),
        (b"+\n", ProtocolError::Malformed("line end")),
        (b"+OK\n", ProtocolError::Malformed("line end")),
        (b"$-2\r\n", ProtocolError::Malformed("length")),
        (b"$x\r\n", ProtocolError::Malformed("length")),
        (b"%-1\r\n", ProtocolError::Malformed("length")),
        (b"$1\r\nabc", ProtocolError::Malformed("end of a bulk string")),
        (b":1.5\r\n", ProtocolError::Malformed("integer")),
        (b",one\r\n", ProtocolError::Malformed("double")),
        (b"#x\r\n", ProtocolError::Malformed("boolean")),
        (b"=3\r\ntxt\r\n", ProtocolError::Malformed("verbatim string")),
    ];
    for (bytes, expected) in cases {
        assert_eq!(parse(ReplyLimits::default(), bytes), Err(expected), "{:?}", String::from_utf8_lossy(bytes));
    }
}

#[test]
fn the_spellings_of_null_and_attributes_are_understood() {
    for null in [b"$-1\r\n".as_slice(), b"*-1\r\n", b"_\r\n"] {
        assert_eq!(parse(small(), null), Ok(Some(Reply::Null)));
    }
    assert_eq!(parse(small(), b"*0\r\n"), Ok(Some(Reply::Array(vec![]))));
    let described = b"*2\r\n|1\r\n+ttl\r\n:3\r\n$1\r\na\r\n:7\r\n";
    let expected = Reply::Array(vec![Reply::Bulk(Bytes::from_static(b"a")), Reply::Integer(7)]);
    assert_eq!(parse(small(), described), Ok(Some(expected)));
    let long_error = b"!10\r\nINDOUBT no\r\n";
    let mut parser = ReplyParser::new(small());
    parser.feed(long_error);
    assert_eq!(parser.next_raw(|raw| raw.error_prefix().to_owned()), Ok(Some("INDOUBT".to_owned())));
    assert_eq!(parse(small(), long_error), Ok(Some(Reply::Error(ServerError::new("INDOUBT no")))));
}
