use proptest::prelude::*;

use super::*;

fn any_hello() -> impl Strategy<Value = Hello> {
    (any::<[u8; 16]>(), 1..=u32::MAX, any::<u64>(), any::<u64>()).prop_map(|(cluster, node, incarnation, epoch)| {
        Hello {
            cluster: ClusterId(cluster),
            node: NodeId::new(node).expect("not zero"),
            incarnation: Incarnation(incarnation),
            epoch: Epoch(epoch),
        }
    })
}

proptest! {
    #[test]
    fn what_was_encoded_is_decoded(hello in any_hello()) {
        let bytes = hello.encode();
        prop_assert!(bytes.len() <= Hello::MAX_BYTES);
        prop_assert_eq!(Hello::decode(&bytes), Ok(hello));
    }

    #[test]
    fn any_bytes_give_a_greeting_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = Hello::decode(&bytes);
        let _ = Hello::decode(&[&MAGIC[..], &[PROTOCOL_VERSION], &bytes].concat());
    }

    #[test]
    fn trailing_and_missing_bytes_are_errors(hello in any_hello(), cut in any::<prop::sample::Index>(), more in any::<u8>()) {
        let mut bytes = hello.encode();
        prop_assert!(Hello::decode(&bytes[..cut.index(bytes.len())]).is_err());
        bytes.push(more);
        prop_assert_eq!(Hello::decode(&bytes), Err(HelloError::Malformed("1 trailing bytes".into())));
    }
}

#[test]
fn its_bytes_stay_what_they_are() {
    let hello = Hello {
        cluster: ClusterId(std::array::from_fn(|index| index as u8)),
        node: NodeId::new(7).expect("not zero"),
        incarnation: Incarnation(300),
        epoch: Epoch(1),
    };
    let bytes = b"DSLD\x03\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x07\xac\x02\x01";
    assert_eq!(hello.encode(), bytes);
    assert_eq!(Hello::decode(bytes), Ok(hello));
}

#[test]
fn other_versions_and_protocols_are_told_apart() {
    assert_eq!(Hello::decode(b""), Err(HelloError::NotDogsled));
    assert_eq!(Hello::decode(b"DSLD"), Err(HelloError::NotDogsled));
    assert_eq!(Hello::decode(b"GET / HTTP/1.1"), Err(HelloError::NotDogsled));
    assert_eq!(Hello::decode(b"DSLD\x02whatever comes"), Err(HelloError::Version(2)));
    assert!(matches!(Hello::decode(b"DSLD\x03"), Err(HelloError::Malformed(_))));
    // A node's number is never zero.
    let zero = b"DSLD\x03\x00\x01\x02\x03\x04\x05\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f\x00\xac\x02\x01";
    assert!(matches!(Hello::decode(zero), Err(HelloError::Malformed(_))));
}
