use bytes::Bytes;
use proptest::prelude::*;

use crate::types::{
    CausalContext, Claim, CommitNumber, Content, Key, NamespaceId, OpId, Partition, PartitionCount, PeerMemory, Record,
    Siblings, Stamped, StoreId, Version, VersionVector, WallTime, limits,
};

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

/// What a record is made of when it is stored.
fn encoded(record_key: &[u8], key: &Key, record: &Record) -> Vec<u8> {
    let mut stored = Vec::new();
    let limit = inline_limit(key.bytes(), record);
    let cells = map_record(record.clone(), |version| {
        let cell = Cell::of(&version).into_owned();
        match &cell.body {
            Body::Inline(value) if value.len() > limit => Cell { body: Body::Chunked(value.len()), ..cell },
            _ => cell,
        }
    });
    encode_record(&mut stored, record_key, long_key(key.bytes()), &cells);
    stored
}

fn records() -> impl Strategy<Value = Record> {
    let siblings = (proptest::collection::vec(versions(), 0..6), proptest::collection::vec(stamps(), 0..4));
    let siblings = siblings.prop_map(|(versions, known)| {
        let context: CausalContext = known.into_iter().map(|stamp| stamp.dot).collect();
        Record::Siblings(Siblings::new(versions, context))
    });
    prop_oneof![versions().prop_map(Record::Last), siblings]
}

fn dots() -> impl Strategy<Value = Dot> {
    (stamps(), 1..u64::MAX - 1).prop_map(|(stamp, counter)| Dot { counter: Counter(counter), ..stamp.dot })
}

fn log_items() -> impl Strategy<Value = LogItem> {
    let target = (keys(), proptest::option::of(0..3u8)).prop_map(|(key, few)| match few {
        // So that some are alike.
        Some(few) => Key::new(NamespaceId(1), vec![few]).expect("a valid key"),
        None => key,
    });
    (0..3u16, target, stamps(), dots(), any::<bool>(), 0..10u8).prop_map(
        |(partition, key, stamp, dot, tombstone, namespace)| {
            let target = if namespace == 0 {
                Target::Namespace(key.namespace())
            } else {
                let mut bytes = Vec::new();
                record_key(&mut bytes, Partition(partition), &key);
                Target::Record(bytes.into())
            };
            LogItem { partition: Partition(partition), stamp: Stamp { dot, ..stamp }, tombstone, target }
        },
    )
}

fn log_items_of(key: &[u8], stored: &[u8]) -> Result<Vec<LogItem>, StorageError> {
    LogReader::new(key, stored)?.map(|item| item.map(LogItemRef::to_item)).collect()
}

/// Every decoder of stored values, run on the same bytes.
fn decode_all(key: &[u8], stored: &[u8]) -> [bool; 13] {
    [
        StoredRecord::decode(key, stored).is_ok(),
        log_items_of(key, stored).is_ok(),
        decode_claim_piece(key, stored).is_ok(),
        decode_until(key, stored).is_ok(),
        decode_expiry(key, stored).is_ok(),
        decode_counters(key, stored).is_ok(),
        decode_horizon(key, stored).is_ok(),
        decode_peer(key, stored).is_ok(),
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
    fn a_record_reads_back(partition in any::<u16>(), key in keys(), record in records()) {
        let mut record_bytes = Vec::new();
        record_key(&mut record_bytes, Partition(partition), &key);
        let stored = encoded(&record_bytes, &key, &record);

        let parts = RecordKeyParts::decode(&record_bytes).expect("it was just made");
        prop_assert_eq!(parts.partition, Partition(partition));
        prop_assert_eq!(parts.token, key.token());
        prop_assert_eq!(parts.namespace, key.namespace());
        prop_assert!(record_bytes.len() <= RECORD_PREFIX_BYTES + PLAIN_KEY_BYTES + DIGEST_BYTES);

        let found = StoredRecord::decode(&record_bytes, &stored).expect("it was just made");
        prop_assert_eq!(found.long_key.unwrap_or(parts.rest), key.bytes());
        prop_assert_eq!(matches!(found.record, Record::Last(_)), matches!(record, Record::Last(_)));
        if let (Record::Siblings(found), Record::Siblings(expected)) = (&found.record, &record) {
            prop_assert_eq!(found.context(), expected.context());
        }
        prop_assert_eq!(found.record.versions().len(), record.versions().len());
        for (cell, version) in found.record.versions().iter().zip(record.versions()) {
            prop_assert_eq!(cell.stamp(), version.stamp);
            prop_assert_eq!(cell.expires_at, version.expires_at);
            prop_assert_eq!(cell.summary(), version.summary());
            match (&version.content, &cell.body) {
                (Content::Tombstone, Body::Tombstone) => {}
                (Content::Value(value), Body::Inline(found)) => prop_assert_eq!(&value[..], &found[..]),
                (Content::Value(value), Body::Chunked(bytes)) => {
                    prop_assert_eq!(value.len(), *bytes);
                    prop_assert!(*bytes > inline_limit(key.bytes(), &record));
                }
                other => prop_assert!(false, "{:?}", other),
            }
        }
    }

    #[test]
    fn a_log_entry_reads_back(commit in any::<u64>(), items in proptest::collection::vec(log_items(), 0..60)) {
        let pieces = encode_log_entry(CommitNumber(commit), &items);
        let mut found = Vec::new();
        for (index, (key, stored)) in pieces.iter().enumerate() {
            prop_assert_eq!(*key, log_key(CommitNumber(commit), index as u16));
            prop_assert_eq!(decode_log_key(key).expect("it was just made"), CommitNumber(commit));
            found.extend(log_items_of(key, stored).expect("it was just made"));
            prop_assert!(stored.len() < limits::COMMIT_GROUP_LOG_BYTES + 4_096);
        }
        prop_assert_eq!(found, items);
        if let Some((key, stored)) = pieces.first() {
            assert_every_flip_is_noticed(stored, |stored| log_items_of(key, stored).is_ok());
        }
    }

    #[test]
    fn claims_checkpoints_and_peers_read_back_and_their_flips_are_noticed(
        partition in any::<u16>(), op in any::<[u8; 16]>(), until in any::<u64>(), fenced in any::<bool>(),
        key in keys(), version in versions(), index in 0..9u16,
        dots in proptest::collection::vec((0..4u64, 1..50u64), 0..60),
        node in 1..=u32::MAX, memory in (any::<u64>(), any::<u128>(), any::<u64>()), horizon in any::<u64>(),
    ) {
        let (partition, op, until) = (Partition(partition), OpId(op), WallTime(until));
        let claim = if fenced { Claim::Fenced } else { Claim::Write { key, version } };
        let place = claim_key(partition, op, index);
        let bytes = claim_bytes(&claim, until);
        let found = claim_from_bytes(&place, &bytes).expect("it was just made");
        prop_assert_eq!(found, (claim, until));
        let mut stored = Vec::new();
        encode_claim_piece(&mut stored, &place, 7, b"piece");
        prop_assert_eq!(decode_claim_piece(&place, &stored).expect("it was just made"), (7, &b"piece"[..]));
        assert_every_flip_is_noticed(&stored, |stored| decode_claim_piece(&place, stored).is_ok());
        let place = until_key(partition, until, op);
        encode_mark(&mut stored, Tree::Claims, &place);
        prop_assert_eq!(decode_until(&place, &stored).expect("it was just made"), (until, op));
        let place = expiry_key(partition, until, b"record");
        encode_mark(&mut stored, Tree::Expiries, &place);
        prop_assert_eq!(decode_expiry(&place, &stored).expect("it was just made"), (until, &b"record"[..]));

        let actor = |number| Actor { node: NodeId::new(node).expect("not zero"), incarnation: Incarnation(number) };
        let dots = dots.into_iter().map(|(number, counter)| Dot { actor: actor(number), counter: Counter(counter) });
        let vector: VersionVector = dots.collect();
        let mut found = VersionVector::empty();
        for (actor, counters) in vector.actors() {
            let place = counters_key(partition, actor);
            encode_counters(&mut stored, &place, counters);
            let (its_partition, its_actor, ranges) = decode_counters(&place, &stored).expect("it was just made");
            prop_assert_eq!((its_partition, its_actor), (partition, actor));
            ranges.into_iter().for_each(|(from, to)| found.insert_range(actor, from, to));
            assert_every_flip_is_noticed(&stored, |stored| decode_counters(&place, stored).is_ok());
        }
        prop_assert_eq!(found, vector);
        let place = horizon_key(partition);
        encode_horizon(&mut stored, &place, Timestamp(horizon));
        prop_assert_eq!(decode_horizon(&place, &stored).expect("it was just made"), (partition, Timestamp(horizon)));
        assert_every_flip_is_noticed(&stored, |stored| decode_horizon(&place, stored).is_ok());
        let (incarnation, store, commit) = memory;
        let memory =
            PeerMemory { incarnation: Incarnation(incarnation), store: StoreId(store), commit: CommitNumber(commit) };
        let place = peer_key(actor(1).node);
        encode_peer(&mut stored, &place, &memory);
        prop_assert_eq!(decode_peer(&place, &stored).expect("it was just made"), (actor(1).node, memory));
        assert_every_flip_is_noticed(&stored, |stored| decode_peer(&place, stored).is_ok());
    }

    #[test]
    fn decoders_take_any_bytes_without_a_panic(
        key in proptest::collection::vec(any::<u8>(), 0..40),
        stored in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        let _ = RecordKeyParts::decode(&key);
        prop_assert_eq!(decode_all(&key, &stored), [false; 13], "a checksum cannot be hit by chance");
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
            (Tree::Log, &key, b""),
            (Tree::Claims, &key, b""),
            (Tree::Expiries, &key, b""),
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
            let _ = claim_from_bytes(key, &fields);
        }
    }

    #[test]
    fn a_flipped_bit_of_a_record_is_noticed(key in keys(), record in records()) {
        let mut record_bytes = Vec::new();
        record_key(&mut record_bytes, Partition(3), &key);
        let stored = encoded(&record_bytes, &key, &record);
        assert_every_flip_is_noticed(&stored, |stored| StoredRecord::decode(&record_bytes, stored).is_ok());
        let mut elsewhere = record_bytes.clone();
        *elsewhere.last_mut().expect("not empty") ^= 1;
        prop_assert!(StoredRecord::decode(&elsewhere, &stored).is_err(), "a record at another key");
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
        encode_format(&mut stored, partitions, StoreId(7));
        prop_assert_eq!(decode_format(&stored).expect("it was just made"), Ok((partitions, StoreId(7))));
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
            let mut record_bytes = Vec::new();
            record_key(&mut record_bytes, Partition(0), &key);
            let stored = encoded(&record_bytes, &key, &Record::Last(version));
            assert!(stored.len() <= limits::VALUE_CHUNK_BYTES + 256, "{}", stored.len());
        }
    }
}

#[test]
fn a_store_of_another_schema_is_told_from_a_damaged_one() {
    let mut stored = Vec::new();
    begin(&mut stored);
    stored[4] = 1;
    // As the first schema had it.
    stored.extend_from_slice(&1u32.to_be_bytes());
    stored.extend_from_slice(&8u32.to_be_bytes());
    seal(Tree::Meta, FORMAT_KEY, &[], &mut stored);
    let refusal = decode_format(&stored).expect("it is not damaged").expect_err("it is of another schema");
    assert!(refusal.contains("format 1"), "{refusal}");
    *stored.last_mut().expect("not empty") ^= 1;
    assert!(decode_format(&stored).is_err());
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
    let mut record_bytes = Vec::new();
    record_key(&mut record_bytes, Partition(0x102), &key);
    let stored = encoded(&record_bytes, &key, &Record::Last(version.clone()));
    let context = [stamp.dot].into_iter().collect();
    let siblings = encoded(&record_bytes, &key, &Record::Siblings(Siblings::new(vec![version], context)));
    let item = LogItem {
        partition: Partition(0x102),
        stamp,
        tombstone: true,
        target: Target::Record(record_bytes.clone().into()),
    };
    let entry = encode_log_entry(CommitNumber(7), &[item.clone(), item]);
    let mut commit = Vec::new();
    CommitEntry { commit: CommitNumber(7), clock: Timestamp(8), live_keys: 9 }.encode(&mut commit);
    let chunk = chunk_key(&record_bytes, &stamp, 3);
    assert_eq!(
        [hex(&record_bytes), hex(&stored), hex(&chunk), hex(&commit), hex(&siblings), hex(&entry[0].1)],
        [
            "0102bce05d3b152ca3cd00056b6579",
            // Checksum, format, flags (expires, inline), timestamp, node, incarnation, counter, expiry, value.
            "f46381a502050123456789abcdefac02028101e80776616c7565",
            "0102bce05d3b152ca3cd0123456789abcdef0000012c0000000000000002000000000000008100000003",
            "96621d0002000000000000000700000000000000080000000000000009",
            // Checksum, format, flags, the context's newest timestamp and its one dot; flags, stamp, expiry, length and value of one version.
            "e60e47fc02100123456789abcdef01ac02028101050123456789abcdefac02028101e8070576616c7565",
            // One actor; flags, partition, actor, counter, timestamp, namespace, key; the same again.
            "8c624ff60201ac0202018202008101deb7de9af1d9a2a30205036b65791900810100",
        ]
    );
}
