//! Probes on the wire: their bytes as fixtures, and what is no datagram.

use proptest::prelude::*;

use super::super::strategies_tests::datagram;
use super::*;
use crate::types::Incarnation;

fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

/// Each probe, and its bytes behind version and epoch.
fn all() -> Vec<(Probe, &'static str)> {
    let life = |incarnation, refutation| Life { incarnation: Incarnation(incarnation), refutation };
    let (id, subject) = (ProbeId(300), node(8));
    vec![
        (Probe::Ping { id, life: life(3, 2), accused: None, neighbor: true }, "00 ac02 0302 00 01"),
        (Probe::Ping { id, life: life(3, 2), accused: Some(life(4, 1)), neighbor: false }, "00 ac02 0302 010401 00"),
        (Probe::Ack { id, life: life(3, 2), load: Load::Normal, neighbor: true }, "01 ac02 0302 00 01"),
        (Probe::Ack { id, life: life(3, 2), load: Load::Full, neighbor: false }, "01 ac02 0302 02 00"),
        (Probe::PingFor { id, subject, accused: None }, "02 ac02 08 00"),
        (Probe::PingFor { id, subject, accused: Some(life(4, 1)) }, "02 ac02 08 010401"),
        (Probe::AckFor { id, subject, life: life(3, 2) }, "03 ac02 08 0302"),
        (Probe::NackFor { id, subject }, "04 ac02 08"),
    ]
}

fn datagrams() -> impl Iterator<Item = Datagram> {
    all().into_iter().map(|(probe, _)| Datagram { epoch: Epoch(300), probe })
}

#[test]
fn the_bytes_of_probes_stay_what_they_are() {
    for (probe, body) in all() {
        let datagram = Datagram { epoch: Epoch(300), probe };
        let bytes = datagram.encode();
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, format!("01ac02{}", body.replace(' ', "")), "the format of {probe:?} has changed");
        assert_eq!(Datagram::decode(&bytes), Ok(datagram));
    }
}

#[test]
fn a_part_of_a_datagram_is_none_nor_is_one_with_bytes_behind_it() {
    for datagram in datagrams() {
        let bytes = datagram.encode();
        assert_eq!(Datagram::decode(&[]), Err(DatagramError::Version(None)));
        for length in 1..bytes.len() {
            let decoded = Datagram::decode(&bytes[..length]);
            assert!(matches!(decoded, Err(DatagramError::Malformed(_))), "{length} bytes of {datagram:?}: {decoded:?}");
        }
        for more in [0, 1, 0xff] {
            let decoded = Datagram::decode(&[&bytes[..], &[more]].concat());
            assert_eq!(decoded, Err(DatagramError::Malformed("1 trailing bytes".into())), "{datagram:?}");
        }
    }
}

#[test]
fn other_versions_are_not_guessed_at() {
    for datagram in datagrams() {
        for version in (0..=u8::MAX).filter(|version| *version != VERSION) {
            let mut bytes = datagram.encode();
            bytes[0] = version;
            assert_eq!(Datagram::decode(&bytes), Err(DatagramError::Version(Some(version))));
        }
    }
}

#[test]
fn what_is_too_long_is_not_looked_at() {
    let padded = |length: usize| {
        let mut bytes = datagrams().next().expect("there are some").encode();
        bytes.resize(length, 0);
        bytes
    };
    let most = limits::MAX_DATAGRAM_BYTES;
    assert!(matches!(Datagram::decode(&padded(most)), Err(DatagramError::Malformed(_))));
    assert_eq!(Datagram::decode(&padded(most + 1)), Err(DatagramError::TooLong(most + 1)));
    // Not even the version is.
    assert_eq!(Datagram::decode(&vec![9; 70_000]), Err(DatagramError::TooLong(70_000)));
}

#[test]
fn what_nobody_says_is_an_error() {
    let cases: [(&str, &[u8]); 7] = [
        ("a probe of another kind", &[1, 0, 5, 1, 8]),
        ("a subject without a number", &[1, 0, 4, 1, 0]),
        ("half a neighbour", &[1, 0, 0, 1, 3, 2, 0, 2]),
        ("half an accusation", &[1, 0, 2, 1, 8, 2]),
        ("a load that nobody can have", &[1, 0, 1, 1, 3, 2, 3, 1]),
        ("a name that is too long", &[1, 0, 4, 0xff, 0xff, 0xff, 0xff, 0x1f, 8]),
        ("an epoch that is too long", &[1, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 4, 1, 8]),
    ];
    for (what, bytes) in cases {
        let decoded = Datagram::decode(bytes);
        assert!(matches!(decoded, Err(DatagramError::Malformed(_))), "{what}: {decoded:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_was_encoded_is_decoded_and_short_enough(datagram in datagram()) {
        let bytes = datagram.encode();
        prop_assert!(bytes.len() <= 64, "{} bytes", bytes.len());
        prop_assert_eq!(Datagram::decode(&bytes), Ok(datagram));
    }

    #[test]
    fn any_bytes_give_a_datagram_or_an_error(
        version in prop_oneof![3 => Just(VERSION), 1 => any::<u8>()],
        body in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..8], 0..40),
    ) {
        let _ = Datagram::decode(&body);
        match Datagram::decode(&[&[version][..], &body].concat()) {
            Ok(datagram) => prop_assert_eq!(Datagram::decode(&datagram.encode()), Ok(datagram)),
            Err(DatagramError::Version(of)) => prop_assert!(of == Some(version) && version != VERSION),
            Err(DatagramError::Malformed(_)) => prop_assert_eq!(version, VERSION),
            Err(DatagramError::TooLong(_)) => prop_assert!(false, "it is short"),
        }
    }

    #[test]
    fn damaged_datagrams_are_others_or_errors(
        datagram in datagram(),
        at in any::<prop::sample::Index>(),
        with in any::<u8>(),
    ) {
        let mut bytes = datagram.encode();
        let at = at.index(bytes.len());
        bytes[at] = with;
        if let Ok(other) = Datagram::decode(&bytes) {
            prop_assert_eq!(Datagram::decode(&other.encode()), Ok(other));
        }
    }
}
