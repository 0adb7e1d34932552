use std::collections::BTreeMap;

use super::*;
use crate::types::{
    Assignment, ClusterId, Epoch, Member, MergePolicy, Namespace, NamespaceId, NodeId, PartitionCount, Zone,
};

fn map() -> ClusterMap {
    let id = |number| NodeId::new(number).expect("above zero");
    let member = |number: u32| Member {
        id: id(number),
        peer_address: format!("127.0.0.1:{}", 9378 + number).parse().expect("an address"),
        zone: Zone(format!("z{number}")),
        weight: 1,
    };
    ClusterMap {
        cluster: ClusterId([7; 16]),
        epoch: Epoch(1),
        partitions: PartitionCount::new(8).expect("a power of two"),
        replication_factor: 3,
        members: (1..=3).map(|number| (id(number), member(number))).collect(),
        next_namespace: 1,
        namespaces: BTreeMap::from([(NamespaceId::DEFAULT, Namespace::default_namespace())]),
        assignment: Assignment(vec![vec![id(1), id(2), id(3)]; 8]),
    }
}

#[test]
fn a_map_reads_back_and_is_replaced_as_a_whole() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("cluster.map");
    write(&path, &map()).expect("it is written");
    assert_eq!(read(&path).expect("it reads back"), map());
    let newer = ClusterMap { epoch: Epoch(2), ..map() };
    write(&path, &newer).expect("it is replaced");
    assert_eq!(read(&path).expect("it reads back"), newer);
    assert_eq!(fs::read_dir(folder.path()).expect("the directory").count(), 1, "no draft is left");
}

/// Bytes on disk that must stay readable: format version 2.
#[test]
fn the_format_of_version_2_is_still_read() {
    let bytes = encode(&map());
    assert_eq!(&bytes[..12], b"DOGSLMAP\x02\0\0\0");
    assert_eq!(crc32c::crc32c(&bytes), FIXTURE_CRC, "the bytes of version 2 have changed: add a version");
}
const FIXTURE_CRC: u32 = 178_238_604;

#[test]
fn every_damaged_byte_and_every_cut_is_found() {
    let bytes = encode(&map());
    let path = Path::new("cluster.map");
    for at in 0..bytes.len() {
        for bit in [0x01, 0x80] {
            let mut damaged = bytes.clone();
            damaged[at] ^= bit;
            assert!(decode(&damaged, path).is_err(), "bit {bit:#x} of byte {at}");
        }
        assert!(decode(&bytes[..at], path).is_err(), "cut at {at}");
    }
    let longer = [bytes.as_slice(), b"x"].concat();
    assert!(decode(&longer, path).is_err());
}

#[test]
fn a_map_that_contradicts_itself_is_neither_written_nor_read() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("cluster.map");
    let mut broken = map();
    broken.assignment.0.pop();
    assert!(matches!(write(&path, &broken), Err(MapFileError::Invalid { .. })));
    assert!(!path.exists());
    fs::write(&path, encode(&broken)).expect("a file");
    assert!(matches!(read(&path), Err(MapFileError::Invalid { .. })));
}

#[test]
fn changes_come_one_after_the_other_and_a_refused_one_changes_nothing() {
    let folder = tempfile::tempdir().expect("a directory");
    let path = folder.path().join("cluster.map");
    write(&path, &map()).expect("it is written");
    let refused = change(&path, |_| Err::<ClusterMap, _>("no"));
    assert!(matches!(refused, Err(ChangeError::Refused("no"))));
    assert_eq!(read(&path).expect("it is there"), map());
    std::thread::scope(|threads| {
        for number in 0..8 {
            let path = &path;
            threads.spawn(move || {
                let made = change(path, |map| map.with_namespace(&format!("n{number}"), MergePolicy::Siblings));
                made.expect("there is room");
            });
        }
    });
    let after = read(&path).expect("it is there");
    assert_eq!((after.epoch, after.namespaces.len()), (Epoch(9), 9), "none was lost");
    assert!(matches!(change(Path::new("no/such/map"), Ok::<_, MapError>), Err(ChangeError::File(_))));
}

#[test]
fn errors_name_the_file_and_the_remedy() {
    let path = Path::new("no/such/cluster.map");
    assert_eq!(
        read(path).expect_err("nothing there").to_string(),
        "no/such/cluster.map: the cluster map cannot be read: No such file or directory (os error 2); \
         check the path and who may read it"
    );
    assert!(write(path, &map()).expect_err("no directory").to_string().contains("cannot be written"));
    let mut newer = encode(&map());
    for other in [1, 3] {
        newer[8] = other;
        let refused = decode(&newer, path).expect_err("another version").to_string();
        assert!(refused.contains(&format!("format version {other}")), "{refused}");
    }
}
