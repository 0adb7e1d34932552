use bytes::Bytes;
use proptest::prelude::*;

use crate::types::{CommitNumber, Content, Key, NamespaceId, Partition, PartitionCount, Version, WallTime, limits};

use super::*;

fn stamps() -> impl Strategy<Value = Stamp> {
    (any::<u64>(), 1..=u32::MAX, any::<u64>(), any::<u64>()).prop_map(|(timestamp, node, incarnation, counter)| {
        let actor = Actor { node: NodeId::new(node).expect("not zero"), incarnation: Incarnation(incarnation) };
        Stamp { timestamp: Timestamp(timestamp), dot: Dot { actor, counter: Counter(counter) } }
    })
}

fn keys() -> impl Strategy<Value = Key> {
    let length = prop_oneof![4 => 1..100usize, 1 => (PLAIN_KEY_BYTES - 2)..(PLAIN_KEY_BYTES + 3)];
    (any::<u16>(), length, any::<u8>()).prop_map(|(namespace, length, byte)| {
        Key::new(NamespaceId(namespace), vec![byte; length]).expect("a valid key")
    })
}

fn versions() -> impl Strategy<Value = Version> {
    let content = prop_oneof![
        Just(Content::Tombstone),
        proptest::collection::vec(any::<u8>(), 0..60).prop_map(|value| Content::Value(value.into())),
        (limits::VALUE_CHUNK_BYTES - 10..limits::VALUE_CHUNK_BYTES + 10)
            .prop_map(|length| Content::Value(vec![7; length].into())),
    ];
    (stamps(), proptest::option::of(any::<u64>()), content).prop_map(|(stamp, expires_at, content)| Version {
        stamp,
        expires_at: expires_at.map(WallTime),
        content,
    })
}

/// Every decoder of stored values, run on the same bytes.
fn decode_all(key: &[u8], stored: &[u8]) -> [bool; 6] {
    [
        Record::decode(key, stored).is_ok(),
        decode_chunk(key, b"owner", stored).is_ok(),
        decode_format(stored).is_ok(),
        CommitEntry::decode(stored).is_ok(),
        decode_truncation(key, stored).is_ok(),
        Unfinished::decode(stored).is_ok(),
    ]
}

/// Whether a decoder refuses every change of one bit, and every cut.
fn assert_every_flip_is_noticed(stored: &[u8], decodes: impl Fn(&[u8]) -> bool) {
    assert!(decodes(stored));
    let mut bad = stored.to_vec();
    let step = (stored.len() / 200).max(1);
    for position in (0..stored.len()).step_by(step).chain(0..stored.len().min(80)) {
        for bit in 0..8 {
            bad[position] ^= 1 << bit;
            assert!(!decodes(&bad), "bit {bit} of byte {position}");
            bad[position] ^= 1 << bit;
        }
    }
    for length in (0..stored.len()).step_by(step) {
        assert!(!decodes(&stored[..length]), "cut at {length}");
    }
    bad.push(0);
    assert!(!decodes(&bad), "a byte too many");
}

proptest! {
    #[test]
    fn a_record_reads_back(partition in any::<u16>(), key in keys(), version in versions()) {
        let (mut record_bytes, mut stored) = (Vec::new(), Vec::new());
        record_key(&mut record_bytes, Partition(partition), &key);
        encode_record(&mut stored, &record_bytes, &key, &version);

        let parts = RecordKeyParts::decode(&record_bytes).expect("it was just made");
        prop_assert_eq!(parts.partition, Partition(partition));
        prop_assert_eq!(parts.token, key.token());
        prop_assert_eq!(parts.namespace, key.namespace());
        prop_assert!(record_bytes.len() <= RECORD_PREFIX_BYTES + PLAIN_KEY_BYTES + DIGEST_BYTES);

        let record = Record::decode(&record_bytes, &stored).expect("it was just made");
        prop_assert_eq!(record.long_key.unwrap_or(parts.rest), key.bytes());
        prop_assert_eq!(record.stamp, version.stamp);
        prop_assert_eq!(record.expires_at, version.expires_at);
        prop_assert_eq!(record.summary(), version.summary());
        match (&version.content, record.body) {
            (Content::Tombstone, Body::Tombstone) => {}
            (Content::Value(value), Body::Inline(found)) => prop_assert_eq!(value, found),
            (Content::Value(value), Body::Chunked(bytes)) => {
                prop_assert_eq!(value.len(), bytes);
                prop_assert!(is_chunked(&key, bytes));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn decoders_take_any_bytes_without_a_panic(
        key in proptest::collection::vec(any::<u8>(), 0..40),
        stored in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let _ = RecordKeyParts::decode(&key);
        prop_assert_eq!(decode_all(&key, &stored), [false; 6], "a checksum cannot be hit by chance");
    }

    /// Behind a right checksum, so that the fields themselves are reached.
    #[test]
    fn decoders_take_any_fields_without_a_panic(
        key in proptest::collection::vec(any::<u8>(), 0..40),
        fields in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        for (tree, key, owner) in [
            (Tree::Records, key.as_slice(), b"".as_slice()),
            (Tree::Chunks, &key, b"owner"),
            (Tree::Meta, FORMAT_KEY, b""),
            (Tree::Meta, COMMIT_KEY, b""),
            (Tree::Meta, UNFINISHED_KEY, b""),
            (Tree::Meta, &key, b""),
        ] {
            let mut stored = Vec::new();
            begin(&mut stored);
            stored.extend_from_slice(&fields);
            seal(tree, key, owner, &mut stored);
            decode_all(key, &stored);
        }
    }

    #[test]
    fn a_flipped_bit_of_a_record_is_noticed(key in keys(), version in versions()) {
        let (mut record_bytes, mut stored) = (Vec::new(), Vec::new());
        record_key(&mut record_bytes, Partition(3), &key);
        encode_record(&mut stored, &record_bytes, &key, &version);
        assert_every_flip_is_noticed(&stored, |stored| Record::decode(&record_bytes, stored).is_ok());
        let mut elsewhere = record_bytes.clone();
        *elsewhere.last_mut().expect("not empty") ^= 1;
        prop_assert!(Record::decode(&elsewhere, &stored).is_err(), "a record at another key");
    }

    #[test]
    fn a_flipped_bit_of_a_chunk_is_noticed(
        stamp in stamps(),
        index in any::<u32>(),
        piece in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let record_key = [7; 20];
        let place = chunk_key(&record_key, &stamp, index);
        let mut stored = Vec::new();
        encode_chunk(&mut stored, &place, &record_key, &piece);
        prop_assert_eq!(decode_chunk(&place, &record_key, &stored).expect("it was just made"), &piece[..]);
        assert_every_flip_is_noticed(&stored, |stored| decode_chunk(&place, &record_key, stored).is_ok());
        let other = chunk_key(&record_key, &stamp, index ^ 1);
        prop_assert!(decode_chunk(&other, &record_key, &stored).is_err(), "a chunk at another key");
        prop_assert!(decode_chunk(&place, &[8; 20], &stored).is_err(), "a chunk of another record");
    }

    #[test]
    fn entries_of_meta_read_back_and_their_flips_are_noticed(
        commit in any::<u64>(), clock in any::<u64>(), live_keys in any::<u64>(),
        partition in any::<u16>(), namespace in any::<u16>(),
        stamps in proptest::collection::vec((stamps(), 0..=limits::MAX_VALUE_BYTES), 0..3),
        stamp in stamps(), key in keys(), exponent in 0..=16u32,
    ) {
        let mut stored = Vec::new();
        let entry = CommitEntry { commit: CommitNumber(commit), clock: Timestamp(clock), live_keys };
        entry.encode(&mut stored);
        prop_assert_eq!(CommitEntry::decode(&stored).expect("it was just made"), entry);
        assert_every_flip_is_noticed(&stored, |stored| CommitEntry::decode(stored).is_ok());

        let place = truncation_key(Partition(partition), NamespaceId(namespace));
        encode_truncation(&mut stored, &place, &stamp);
        let expected = (Partition(partition), NamespaceId(namespace), stamp);
        prop_assert_eq!(decode_truncation(&place, &stored).expect("it was just made"), expected);
        assert_every_flip_is_noticed(&stored, |stored| decode_truncation(&place, stored).is_ok());

        let mut record_bytes = Vec::new();
        record_key(&mut record_bytes, Partition(partition), &key);
        let unfinished = Unfinished { record_key: record_bytes, versions: stamps };
        unfinished.encode(&mut stored);
        prop_assert_eq!(Unfinished::decode(&stored).expect("it was just made"), unfinished);
        assert_every_flip_is_noticed(&stored, |stored| Unfinished::decode(stored).is_ok());

        let partitions = PartitionCount::new(1 << exponent).expect("a power of two");
        encode_format(&mut stored, partitions);
        prop_assert_eq!(decode_format(&stored).expect("it was just made"), Ok(partitions));
        assert_every_flip_is_noticed(&stored, |stored| decode_format(stored).is_ok());
    }
}

#[test]
fn long_keys_that_begin_alike_lie_apart_and_never_where_plain_keys_do() {
    let stored_key = |bytes: Vec<u8>| {
        let key = Key::new(NamespaceId(0), bytes).expect("a valid key");
        let mut stored = Vec::new();
        record_key(&mut stored, Partition(0), &key);
        stored
    };
    let long = |last: u8| [vec![b'x'; 10_000], vec![last]].concat();
    let lengths = |bytes: usize| stored_key(vec![b'x'; bytes]).len() - RECORD_PREFIX_BYTES;
    assert_ne!(stored_key(long(1)), stored_key(long(2)));
    assert_eq!(lengths(PLAIN_KEY_BYTES), PLAIN_KEY_BYTES);
    assert_eq!(lengths(PLAIN_KEY_BYTES + 1), PLAIN_KEY_BYTES + DIGEST_BYTES);
    assert_eq!(lengths(limits::MAX_KEY_BYTES), PLAIN_KEY_BYTES + DIGEST_BYTES);
}

#[test]
fn no_stored_value_is_longer_than_a_chunk_and_a_little() {
    let stamp = Stamp {
        timestamp: Timestamp(u64::MAX),
        dot: Dot {
            actor: Actor { node: NodeId::new(u32::MAX).expect("not zero"), incarnation: Incarnation(u64::MAX) },
            counter: Counter(u64::MAX),
        },
    };
    for key_bytes in [1, PLAIN_KEY_BYTES, PLAIN_KEY_BYTES + 1, limits::MAX_KEY_BYTES] {
        for value_bytes in
            [0, limits::VALUE_CHUNK_BYTES - key_bytes, limits::VALUE_CHUNK_BYTES, limits::MAX_VALUE_BYTES]
        {
            let key = Key::new(NamespaceId(0), vec![b'k'; key_bytes]).expect("a valid key");
            let content = Content::Value(Bytes::from(vec![0; value_bytes]));
            let version = Version { stamp, expires_at: Some(WallTime(u64::MAX)), content };
            let (mut record_bytes, mut stored) = (Vec::new(), Vec::new());
            record_key(&mut record_bytes, Partition(0), &key);
            encode_record(&mut stored, &record_bytes, &key, &version);
            assert!(stored.len() <= limits::VALUE_CHUNK_BYTES + 256, "{}", stored.len());
        }
    }
}

/// The bytes on disk may only change together with the format's number.
#[test]
fn stored_bytes_are_as_they_always_were() {
    let stamp = Stamp {
        timestamp: Timestamp(0x0123_4567_89ab_cdef),
        dot: Dot {
            actor: Actor { node: NodeId::new(300).expect("not zero"), incarnation: Incarnation(2) },
            counter: Counter(129),
        },
    };
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let key = Key::new(NamespaceId(5), "key").expect("a valid key");
    let version =
        Version { stamp, expires_at: Some(WallTime(1_000)), content: Content::Value(Bytes::from_static(b"value")) };
    let (mut record_bytes, mut stored) = (Vec::new(), Vec::new());
    record_key(&mut record_bytes, Partition(0x102), &key);
    encode_record(&mut stored, &record_bytes, &key, &version);
    let mut commit = Vec::new();
    CommitEntry { commit: CommitNumber(7), clock: Timestamp(8), live_keys: 9 }.encode(&mut commit);
    let chunk = chunk_key(&record_bytes, &stamp, 3);
    assert_eq!(
        [hex(&record_bytes), hex(&stored), hex(&chunk), hex(&commit)],
        [
            "0102bce05d3b152ca3cd00056b6579",
            // Checksum, format, flags (expires, inline), timestamp, node, incarnation, counter, expiry, value.
            "2850bf4101050123456789abcdefac02028101e80776616c7565",
            "0102bce05d3b152ca3cd0123456789abcdef0000012c0000000000000002000000000000008100000003",
            "313e407201000000000000000700000000000000080000000000000009",
        ]
    );
}
