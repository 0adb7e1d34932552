use bytes::{Buf, BytesMut};
use proptest::prelude::*;

use super::*;

const SMALL: DecodeLimits = DecodeLimits { items: 6, bulk_bytes: 40, command_bytes: 120, unauthenticated: false };

/// What a decoder makes of a stream: its commands and how it ended.
#[derive(Debug, PartialEq)]
struct Found {
    commands: Vec<Vec<Vec<u8>>>,
    error: Option<ProtocolError>,
}

/// Feeds pieces one after the other, as a connection does.
fn feed<'a>(pieces: impl IntoIterator<Item = &'a [u8]>, limits: &DecodeLimits) -> Found {
    let mut decoder = Decoder::default();
    let mut input = BytesMut::new();
    let mut found = Found { commands: Vec::new(), error: None };
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match decoder.decode(&input, limits) {
                Ok(Decoded::Incomplete) => break,
                Ok(Decoded::Skip { bytes }) => {
                    assert!(bytes > 0 && bytes <= input.len());
                    input.advance(bytes);
                }
                Ok(Decoded::Command { bytes }) => {
                    assert!(bytes > 0 && bytes <= input.len());
                    assert!(decoder.is_complete());
                    let args = decoder.args(&input);
                    assert!(!args.is_empty() && args.len() <= limits.items.max(limits::RESP_INLINE_BYTES));
                    found.commands.push(args.iter().map(<[u8]>::to_vec).collect());
                    input.advance(bytes);
                }
                Err(error) => {
                    found.error = Some(error);
                    return found;
                }
            }
            decoder.reset();
        }
        // An argument takes five bytes at least, and its place is taken when it has arrived.
        assert!(decoder.spans.len() * 5 <= input.len());
    }
    found
}

fn encode(command: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", command.len()).into_bytes();
    for arg in command {
        bytes.extend_from_slice(format!("${}\r\n", arg.len()).as_bytes());
        bytes.extend_from_slice(arg);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

/// Bytes that look like commands, more or less.
fn nearly_commands() -> impl Strategy<Value = Vec<u8>> {
    let scrap = prop_oneof![
        4 => Just(&b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"[..]),
        2 => Just(&b"*3\r\n$3\r\nSET\r\n"[..]),
        2 => Just(&b"$1\r\nk\r\n"[..]),
        1 => Just(&b"$40\r\n0123456789012345678901234567890123456789\r\n"[..]),
        1 => Just(&b"*1\r\n"[..]),
        1 => Just(&b"*0\r\n"[..]),
        1 => Just(&b"*-5\r\n"[..]),
        1 => Just(&b"\r\n"[..]),
        1 => Just(&b"\n"[..]),
        1 => Just(&b"*7\r\n"[..]),
        1 => Just(&b"$-5\r\n"[..]),
        1 => Just(&b"$41\r\n"[..]),
        1 => Just(&b"*1000000000\r\n"[..]),
        1 => Just(&b"*"[..]),
        1 => Just(&b"$"[..]),
        2 => Just(&b"get 'a b' \"\\x00\"\r\n"[..]),
        1 => Just(&b"set \"a\r\n"[..]),
        1 => Just(&b"0000000000000000000000"[..]),
    ];
    prop_oneof![
        prop::collection::vec(scrap, 0..12).prop_map(|scraps| scraps.concat()),
        prop::collection::vec(any::<u8>(), 0..200),
        prop::collection::vec(prop::sample::select(&b"*$\r\n-0123 '\"\\xG"[..]), 0..120),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_in_any_pieces_are_the_same_commands(
        bytes in nearly_commands(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..10),
    ) {
        let whole = feed([&bytes[..]], &SMALL);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces = cuts.windows(2).map(|pair| &bytes[pair[0]..pair[1]]);
        prop_assert_eq!(&feed(pieces, &SMALL), &whole);
        prop_assert_eq!(&feed(bytes.chunks(1), &SMALL), &whole);
    }

    #[test]
    fn what_was_encoded_is_decoded(
        commands in prop::collection::vec(
            prop::collection::vec(prop::collection::vec(any::<u8>(), 0..100), 1..8), 0..6),
        piece in 1usize..64,
    ) {
        let bytes: Vec<u8> = commands.iter().flat_map(|command| encode(command)).collect();
        let found = feed(bytes.chunks(piece), &DecodeLimits::AUTHENTICATED);
        prop_assert_eq!(found, Found { commands, error: None });
    }

    #[test]
    fn integers_are_those_that_print_the_same(number in any::<i64>(), text in "[-+0-9 ]{0,22}") {
        prop_assert_eq!(integer(number.to_string().as_bytes()), Some(number));
        let canonical = text.parse::<i64>().ok().filter(|number| number.to_string() == text);
        prop_assert_eq!(integer(text.as_bytes()), canonical);
    }
}

#[test]
fn a_million_announced_arguments_take_no_memory() {
    let mut decoder = Decoder::default();
    let decoded = decoder.decode(b"*1048576\r\n$16842752\r\n", &DecodeLimits::AUTHENTICATED);
    assert_eq!(decoded, Ok(Decoded::Incomplete));
    assert_eq!(decoder.spans.capacity(), 0);
}

#[test]
fn a_large_command_leaves_no_memory_behind() {
    let command = vec![b"x".to_vec(); 10_000];
    let bytes = encode(&command);
    let mut decoder = Decoder::default();
    let decoded = decoder.decode(&bytes, &DecodeLimits::AUTHENTICATED);
    assert_eq!(decoded, Ok(Decoded::Command { bytes: bytes.len() }));
    decoder.reset();
    assert!(decoder.spans.capacity() <= KEPT_SPANS);
}

#[test]
fn arguments_are_kept_with_or_without_copying() {
    let bytes = Bytes::from_static(b"*2\r\n$3\r\nGET\r\n$2\r\nab\r\n");
    let mut decoder = Decoder::default();
    decoder.decode(&bytes, &DecodeLimits::AUTHENTICATED).expect("it is a command");
    let shared = decoder.args_of_owned(&bytes).keep(1);
    assert_eq!((&shared[..], shared.as_ptr()), (&b"ab"[..], bytes[17..].as_ptr()));
    let copied = decoder.args(&bytes).keep(1);
    assert_eq!(&copied[..], b"ab");
    assert_ne!(copied.as_ptr(), shared.as_ptr());
    assert_eq!(decoder.args(&bytes).keep(2), Bytes::new());
    let owned = decoder.args(&bytes).to_owned();
    assert_eq!(owned.args().iter().collect::<Vec<_>>(), [&b"GET"[..], b"ab"]);
}
