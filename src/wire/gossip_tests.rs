//! Gossip on the wire: its bytes as fixtures, its bounds, and what it must not be.

use proptest::prelude::*;

use super::super::strategies_tests::gossip;
use super::super::{DecodeError, Envelope, Message, decode, encode};
use super::*;
use crate::types::Timestamp;

fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

fn life() -> Life {
    Life { incarnation: Incarnation(3), refutation: 2 }
}

fn id() -> RumourId {
    RumourId { origin: node(7), incarnation: Incarnation(3), number: 300 }
}

fn said(rumour: Rumour) -> Gossip {
    Gossip::Rumour { id: id(), hops: 2, rumour }
}

/// Each kind of gossip, the kind of its frame, and its body.
fn all() -> Vec<(Gossip, u8, &'static str)> {
    let later = Life { incarnation: Incarnation(4), refutation: 1 };
    let opinion = |health| said(Rumour::Opinion { subject: node(8), life: life(), health });
    vec![
        (Gossip::Join, 1, ""),
        (Gossip::ForwardJoin { joiner: node(300), hops: 6 }, 2, "ac0206"),
        (Gossip::Neighbor { urgent: true }, 3, "01"),
        (Gossip::Neighbor { urgent: false }, 3, "00"),
        (Gossip::NeighborReply { accepted: true }, 4, "01"),
        (Gossip::NeighborReply { accepted: false }, 4, "00"),
        (Gossip::Disconnect, 5, ""),
        (Gossip::Shuffle { hops: 255, path: vec![node(7), node(8)], nodes: vec![node(300)] }, 6, "ff02070801ac02"),
        (Gossip::ShuffleReply { path: vec![node(7)], nodes: vec![node(300), node(9)] }, 7, "010702ac0209"),
        (said(Rumour::Epoch(Epoch(300))), 8, "0703ac020200ac02"),
        (opinion(Health::Alive), 8, "0703ac02020108030200"),
        (opinion(Health::Suspect), 8, "0703ac02020108030201"),
        (opinion(Health::Down), 8, "0703ac02020108030202"),
        (said(Rumour::Doubt { subject: node(8), life: life() }), 8, "0703ac020202080302"),
        (said(Rumour::Alive(life())), 8, "0703ac0202030302"),
        (said(Rumour::Load(Load::Normal)), 8, "0703ac02020400"),
        (said(Rumour::Load(Load::High)), 8, "0703ac02020401"),
        (said(Rumour::Load(Load::Full)), 8, "0703ac02020402"),
        (Gossip::Have { ids: vec![id(), id()] }, 9, "020703ac020703ac02"),
        (Gossip::Graft { id: id() }, 10, "0703ac02"),
        (Gossip::Prune, 11, ""),
        (
            Gossip::Standing {
                life: life(),
                load: Load::High,
                down: vec![(node(8), life()), (node(9), life())],
                alive: vec![(node(300), later)],
            },
            12,
            "0302 01 02 080302 090302 01 ac020401",
        ),
    ]
}

fn frame(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &[0; 24], body].concat()
}

fn is_malformed(kind: u8, body: &[u8]) -> bool {
    matches!(decode(&frame(kind, body)), Err(DecodeError::Malformed { kind: of, .. }) if of == kind)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn body_of(gossip: &Gossip) -> Vec<u8> {
    gossip.put(Vec::new())
}

#[test]
fn the_bytes_of_gossip_stay_what_they_are() {
    // Gossip is not answered, so where requests have a name it has zeros.
    let header = "000000000000000004000000000000000807060504030201";
    for (gossip, kind, body) in all() {
        let message = Message::Gossip(gossip);
        let envelope = Envelope { epoch: Epoch(4), clock: Timestamp(0x0102_0304_0506_0708), message };
        let bytes = encode(&envelope);
        let expected = format!("{kind:02x}{header}{}", body.replace(' ', ""));
        assert_eq!(hex(&bytes), expected, "the format of {envelope:?} has changed");
        assert_eq!(decode(&bytes), Ok(envelope));
    }
    let kinds: std::collections::BTreeSet<u8> = all().iter().map(|(_, kind, _)| *kind).collect();
    assert_eq!(kinds, (1..=12).collect(), "a kind has no fixture");
}

#[test]
fn bytes_behind_and_bytes_missing_are_errors() {
    for (gossip, kind, _) in all() {
        let body = body_of(&gossip);
        assert!(is_malformed(kind, &[&body[..], &[0]].concat()), "{gossip:?} with a byte behind it");
        for length in 0..body.len() {
            assert!(is_malformed(kind, &body[..length]), "{length} bytes of {gossip:?}");
        }
    }
}

#[test]
fn gossip_from_the_future_can_be_ignored() {
    for kind in 13..=15 {
        assert_eq!(decode(&frame(kind, b"a body of another time")), Err(DecodeError::UnknownGossip(kind)));
    }
    assert_eq!(decode(&frame(0, &[])), Err(DecodeError::UnknownKind(0)));
}

#[test]
fn bounds_hold_to_the_last_item() {
    let list = |head: &[u8], length: usize, item: &[u8], tail: &[u8]| {
        // Postcard's number, for those below 2^14.
        let number = if length < 128 { vec![length as u8] } else { vec![length as u8 | 0x80, (length >> 7) as u8] };
        [head, &number, &item.repeat(length), tail].concat()
    };
    let most_hops = usize::from(limits::WALK_HOPS) + 1;
    // What, its kind, what stands before the list, its longest length, an item, and what stands behind.
    type Case<'a> = (&'a str, u8, &'a [u8], usize, &'a [u8], &'a [u8]);
    let cases: [Case<'_>; 7] = [
        ("the way of a walk", 6, &[5], most_hops, &[1], &[0]),
        ("the nodes of a walk", 6, &[5, 0], limits::SHUFFLED_NODES, &[1], &[]),
        ("the way back of a walk", 7, &[], most_hops, &[1], &[0]),
        ("the nodes that come back", 7, &[0], limits::SHUFFLED_NODES, &[1], &[]),
        ("announced rumours", 9, &[], limits::RUMOURS_ANNOUNCED, &[1, 0, 0], &[]),
        ("members held for down", 12, &[0, 0, 0], limits::STANDING_DOWN, &[1, 0, 0], &[0]),
        ("members that live", 12, &[0, 0, 0, 0], limits::STANDING_DOWN, &[1, 0, 0], &[]),
    ];
    let endless = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for (what, kind, head, most, item, tail) in cases {
        let decoded = decode(&frame(kind, &list(head, most, item, tail)));
        assert!(decoded.is_ok(), "{what}: {decoded:?}");
        assert!(is_malformed(kind, &list(head, most + 1, item, tail)), "{what}: one too many");
        assert!(is_malformed(kind, &[head, &endless].concat()), "{what}: endless");
        assert!(is_malformed(kind, &[head, &endless, &item.repeat(300)].concat()), "{what}: endless, and some come");
    }
}

#[test]
fn what_nobody_says_is_an_error() {
    let rumour = |rest: &[u8]| [&[7, 3, 1, 0][..], rest].concat();
    let cases: [(&str, u8, Vec<u8>); 12] = [
        ("a joiner without a number", 2, vec![0, 6]),
        ("a joiner whose number is too high", 2, vec![0xff, 0xff, 0xff, 0xff, 0x1f, 6]),
        ("half a wish", 3, vec![2]),
        ("half an answer", 4, vec![2]),
        ("a walk through nobody", 6, vec![5, 1, 0, 0]),
        ("a rumour of nobody", 8, vec![0, 3, 1, 0, 0, 1]),
        ("a rumour of another kind", 8, rumour(&[5, 1])),
        ("an opinion that nobody can have", 8, rumour(&[1, 8, 3, 2, 3])),
        ("a load that nobody can have", 8, rumour(&[4, 3])),
        ("a life that nobody can have", 8, rumour(&[3, 3, 0xff, 0xff, 0xff, 0xff, 0x1f])),
        ("a standing with a load that nobody can have", 12, vec![3, 2, 3, 0, 0]),
        ("a standing without the living", 12, vec![3, 2, 0, 0]),
    ];
    for (what, kind, body) in cases {
        assert!(is_malformed(kind, &body), "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn what_was_encoded_is_decoded(gossip in gossip()) {
        prop_assert_eq!(Gossip::take(gossip.kind(), &body_of(&gossip)), Some(Ok(gossip)));
    }

    #[test]
    fn any_bytes_give_gossip_within_its_bounds_or_an_error(
        kind in 1u8..16,
        body in prop::collection::vec(prop_oneof![any::<u8>(), 0u8..20], 0..400),
    ) {
        match Gossip::take(kind, &body) {
            None => prop_assert!((13..16).contains(&kind)),
            Some(Err(_)) => {}
            Some(Ok(gossip)) => {
                prop_assert_eq!(gossip.kind(), kind);
                prop_assert_eq!(Gossip::take(kind, &body_of(&gossip)), Some(Ok(gossip)));
            }
        }
    }
}
