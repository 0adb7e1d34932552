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
                prop_assert!(unknown == kind && !(REQUESTS..=RESPONSE).contains(&kind));
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

#[test]
fn lying_lengths_are_errors() {
    // A key, a value and a text, each said to be as long as a length can be.
    let long = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    let header = |kind: u8| [&[kind][..], &[0; HEADER_BYTES - 1]].concat();
    for frame in [
        [header(READ), vec![0], long.to_vec()].concat(),
        [header(RESPONSE), vec![2, 1, 0, 1, 0, 0, 0, 0], long.to_vec()].concat(),
        [header(RESPONSE), vec![4], long.to_vec()].concat(),
        [header(RESPONSE), vec![8, 7], long.to_vec()].concat(),
    ] {
        assert!(matches!(decode(&frame), Err(DecodeError::Malformed { .. })), "{:?}", decode(&frame));
    }
}
