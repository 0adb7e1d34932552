use proptest::prelude::*;

use super::super::strategies_tests::envelope;
use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn what_was_encoded_is_decoded(envelope in envelope()) {
        prop_assert_eq!(decode(&encode(&envelope)), Ok(envelope));
    }

    #[test]
    fn trailing_and_missing_bytes_are_errors(
        envelope in envelope(),
        cut in any::<prop::sample::Index>(),
        more in any::<u8>(),
    ) {
        let bytes = encode(&envelope);
        prop_assert!(decode(&bytes[..cut.index(bytes.len())]).is_err());
        prop_assert!(decode(&[&bytes[..], &[more]].concat()).is_err());
    }

    #[test]
    fn any_bytes_give_a_message_or_an_error(kind in any::<u8>(), body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&body);
        let frame = [&[kind][..], &[0; HEADER_BYTES - 1], &body].concat();
        match decode(&frame) {
            Ok(_) => {}
            Err(DecodeError::UnknownRequest { kind: unknown, .. }) => {
                prop_assert!(unknown == kind && (REQUESTS..RESPONSE).contains(&kind));
            }
            Err(DecodeError::UnknownKind(unknown)) => {
                prop_assert!(unknown == kind && !(GOSSIP..=RESPONSE).contains(&kind));
            }
            Err(DecodeError::UnknownGossip(unknown)) => {
                prop_assert!(unknown == kind && (GOSSIP..REQUESTS).contains(&kind));
            }
            Err(DecodeError::Malformed { kind: of, .. }) => prop_assert_eq!(of, kind),
            Err(DecodeError::Short(_)) => prop_assert!(false, "the header is there"),
        }
    }

    #[test]
    fn damaged_messages_are_others_or_errors(
        envelope in envelope(),
        damages in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = encode(&envelope).to_vec();
        for (at, with) in damages {
            let at = at.index(bytes.len());
            bytes[at] = with;
        }
        // Whatever still is a message can be answered in kind.
        if let Ok(other) = decode(&bytes) {
            prop_assert_eq!(decode(&encode(&other)), Ok(other));
        }
    }
}

#[test]
fn a_request_from_the_future_can_be_answered() {
    let mut frame = vec![RESPONSE - 1];
    frame.extend_from_slice(&77u64.to_le_bytes());
    frame.extend_from_slice(&[0; 16]);
    frame.extend_from_slice(b"a body of another time");
    assert_eq!(decode(&frame), Err(DecodeError::UnknownRequest { kind: 127, id: RequestId(77) }));
}

#[test]
fn what_is_too_short_says_so() {
    assert_eq!(decode(&[]), Err(DecodeError::Short(0)));
    assert_eq!(decode(&[RESPONSE; HEADER_BYTES - 1]), Err(DecodeError::Short(HEADER_BYTES - 1)));
}

fn header(kind: u8) -> Vec<u8> {
    [&[kind][..], &[0; HEADER_BYTES - 1]].concat()
}

fn assert_malformed(what: &str, kind: u8, body: &[u8]) {
    let decoded = decode(&[&header(kind), body].concat());
    assert!(matches!(decoded, Err(DecodeError::Malformed { .. })), "{what}: {decoded:?}");
}

#[test]
fn lying_lengths_are_errors() {
    // A key, a value, a page and a text, each said to be as long as a length can be.
    let long = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let bodies: [(&str, u8, &[u8]); 4] = [
        ("a key", READ, &[0]),
        ("a value", RESPONSE, &[2, 1, 0, 1, 1, 1, 1, 0, 0]),
        ("a page", RESPONSE, &[4]),
        ("a text", RESPONSE, &[12, 13]),
    ];
    for (what, kind, body) in bodies {
        assert_malformed(what, kind, &[body, &long].concat());
    }
}

const KEY: [u8; 3] = [0, 1, b'k'];
/// The highest counter that a dot may have is one below the first of these.
const TOO_HIGH: [[u8; 10]; 2] = [
    [0xfe, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
    [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1],
];

#[test]
fn vectors_that_contradict_themselves_are_errors() {
    let read = |vector: &[u8]| [&KEY[..], vector].concat();
    let one_actor = |ranges: &[u8]| read(&[&[1, 1, 0][..], ranges].concat());
    assert!(decode(&[header(READ), one_actor(&[2, 1, 2, 4, 4])].concat()).is_ok());
    let cases: [(&str, &[u8]); 8] = [
        ("nothing was seen of an actor", &[0]),
        ("a range from zero", &[1, 0, 3]),
        ("a range that ends before it begins", &[1, 3, 2]),
        ("two ranges that overlap", &[2, 1, 4, 3, 6]),
        ("two ranges that touch", &[2, 1, 2, 3, 4]),
        ("two ranges out of order", &[2, 5, 6, 1, 2]),
        ("a range twice", &[2, 1, 1, 1, 1]),
        ("fewer ranges than were said", &[2, 1, 1]),
    ];
    for (what, ranges) in cases {
        assert_malformed(what, READ, &one_actor(ranges));
        assert_malformed(what, PULL, &[&[0, 1, 1, 0][..], ranges].concat());
        assert_malformed(what, COVERAGE, &[&[0, 1, 0, 1, 1, 0][..], ranges, &[0]].concat());
        assert_malformed(what, RESPONSE, &[&[7, 0, 1, 1, 0][..], ranges].concat());
    }
    for end in TOO_HIGH {
        assert_malformed("a range up to the end of all numbers", READ, &one_actor(&[&[1, 1][..], &end].concat()));
    }
    assert_malformed("a node without a number", READ, &read(&[1, 0, 0, 1, 1, 1]));
}

#[test]
fn dots_that_nobody_gave_are_errors() {
    let confirm = |counter: &[u8]| [&KEY[..], &[0, 1, 0], counter].concat();
    assert!(decode(&[header(CONFIRM), confirm(&[1])].concat()).is_ok());
    for counter in [&[0][..], &TOO_HIGH[0], &TOO_HIGH[1]] {
        assert_malformed("a dot", CONFIRM, &confirm(counter));
        assert_malformed("a context", APPLY, &[&KEY[..], &[1, 0, 1, 1, 0], counter, &[0]].concat());
    }
}

#[test]
fn siblings_that_contradict_their_context_are_errors() {
    // Two tombstones of the nodes 1 and 2, and a context that knows both.
    let (one, two, context): (&[u8], &[u8], &[u8]) =
        (&[0, 1, 0, 1, 0, 1], &[0, 2, 0, 1, 0, 1], &[2, 1, 0, 1, 2, 0, 1, 0]);
    let apply = |parts: &[&[u8]]| [&KEY[..], &[1], &parts.concat()].concat();
    assert!(decode(&[header(APPLY), apply(&[&[2], one, two, context])].concat()).is_ok());
    let higher: &[u8] = &[0, 1, 0, 2, 0, 1];
    let cases: [(&str, &[&[u8]]); 5] = [
        ("out of order", &[&[2], two, one, context]),
        ("one twice", &[&[2], one, one, context]),
        ("one of an unknown actor", &[&[2], one, two, &[1, 1, 0, 1, 0]]),
        ("one above what is known of its actor", &[&[1], higher, context]),
        ("no context", &[&[1], one, &[0, 0]]),
    ];
    for (what, parts) in cases {
        assert_malformed(what, APPLY, &apply(parts));
        assert_malformed(what, RESPONSE, &[&[2, 1, 1][..], &parts.concat(), &[0]].concat());
    }
}

#[test]
fn bounds_hold_to_the_last_item() {
    use crate::types::limits;
    // Postcard's number, for those below 2^14.
    let number =
        |value: usize| if value < 128 { vec![value as u8] } else { vec![value as u8 | 0x80, (value >> 7) as u8] };
    let list = |head: &[u8], most: usize, item: &[u8], tail: &[u8]| {
        let of = |length: usize| [head, &number(length), &item.repeat(length), tail].concat();
        (of(most), of(most + 1))
    };
    let stamp = [0, 1, 0, 1];
    let truncation = [&[1, 0][..], &stamp].concat();
    let position = [&[0][..], &stamp].concat();
    let sibling = [&[0][..], &stamp, &[0]].concat();
    let empty_item = [&[0, 0][..], &KEY, &[0]].concat();
    let cases = [
        ("items of a pull", list(&[7], limits::PULL_DOTS, &truncation, &[0])),
        ("items without dots", list(&[7], limits::PULL_DOTS, &empty_item, &[0])),
        ("dots of an item", list(&[7, 1, 0], limits::PULL_DOTS, &stamp, &[&KEY[..], &[0, 0]].concat())),
        ("positions", list(&[9, 0], limits::HISTORY_POSITIONS, &position, &[0, 0, 0, 0, 0])),
        ("siblings of a read", list(&[10, 0, 0, 1, 0, 0, 1, 0, 1, 0], limits::RECORD_VERSIONS, &sibling, &[0, 0])),
        ("replicas of a history", list(&[10, 0, 6, 0, 0, 0], 7, &[1, 0], &[])),
        ("replicas of a way", list(&[10, 0, 7, 5, 0, 1, 0, 0], 7, &[1], &[0, 0])),
        ("steps of a way", list(&[10, 0, 7, 5, 0, 1, 0, 0, 0, 1], limits::PATH_STEPS, &[0, 1, 0], &[])),
    ];
    for (what, (most, above)) in cases {
        let decoded = decode(&[header(RESPONSE), most].concat());
        assert!(decoded.is_ok(), "{what}: {decoded:?}");
        assert_malformed(what, RESPONSE, &above);
    }
    // Two items that are short each and too long together.
    let half =
        [vec![0], number(limits::PULL_DOTS / 2 + 1), stamp.repeat(limits::PULL_DOTS / 2 + 1), KEY.to_vec(), vec![0]];
    assert_malformed("dots of two items", RESPONSE, &[vec![7, 2], half.concat().repeat(2), vec![0]].concat());
}
