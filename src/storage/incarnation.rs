//! The number of this life of the node, in a synced file of its own.
//!
//! Problem: a dot names an actor and a counter, and the store may forget counters (a
//! lost disk, a restored backup). If the node then counted on as the same actor, it
//! would issue dots that other replicas have seen for other mutations.
//! Invariant: no two starts of a node see the same incarnation, as long as the file
//! lives; if the file is damaged or gone while there is a store, the node does not start.
//! Source: riak_kv issues 679 and 1865; DESIGN section 4.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use crate::types::Incarnation;

use super::{StorageError, files};

const FILE: &str = "incarnation";
const REMEDY: &str = "write it anew only if you know the last number for certain; otherwise remove this node \
     from the cluster and let the machine join empty under a new id";

/// Counts this start of the node, durably, and says the how-manieth it is (from 1).
///
/// `directory` is the one that the store is opened in. Only the process that holds the
/// store's lock may call this, so call it after [`super::sled::SledStorage::open`].
///
/// # Errors
/// [`StorageError::Corrupt`] if the file is damaged, or missing although there is a store;
/// [`StorageError::File`] if it cannot be read or written. The number was not used up.
pub fn advance(directory: &Path) -> Result<Incarnation, StorageError> {
    files::create_directories(directory)?;
    let path = directory.join(FILE);
    let last = match read(&path)? {
        Some(last) => last,
        None if directory.join(super::sled::DATA_DIRECTORY).exists() => {
            return Err(corrupt(&path, "is missing, although there is a store"));
        }
        None => Incarnation(0),
    };
    if last.0 == u64::MAX {
        return Err(corrupt(&path, "is at the end of all numbers"));
    }
    let this = last.next();
    files::replace_file(&path, encode(this).as_bytes())?;
    Ok(this)
}

/// Begins to count at 1 when a store is made, unless the count has begun already.
pub(super) fn begin(directory: &Path) -> Result<(), StorageError> {
    let path = directory.join(FILE);
    match read(&path)? {
        Some(_) => Ok(()),
        None => files::replace_file(&path, encode(Incarnation(0)).as_bytes()),
    }
}

fn read(path: &Path) -> Result<Option<Incarnation>, StorageError> {
    match fs::read(path) {
        Ok(bytes) => decode(&bytes).map(Some).ok_or_else(|| corrupt(path, "is damaged")),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(source) => Err(StorageError::File { path: path.to_owned(), action: "read", source }),
    }
}

fn corrupt(path: &Path, what: &str) -> StorageError {
    StorageError::Corrupt { tree: "incarnation", what: format!("{} {what}: {REMEDY}", path.display()) }
}

fn encode(incarnation: Incarnation) -> String {
    let body = format!("incarnation {incarnation}");
    format!("{body} crc32c {:08x}\n", crc32c::crc32c(body.as_bytes()))
}

fn decode(bytes: &[u8]) -> Option<Incarnation> {
    let text = std::str::from_utf8(bytes).ok()?;
    let number = text.strip_prefix("incarnation ")?.split(' ').next()?;
    let incarnation = Incarnation(number.parse().ok()?);
    // Comparing with what would be written also refuses signs, zeros in front and a cut end.
    (text == encode(incarnation)).then_some(incarnation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_start_gets_a_higher_number() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let below = directory.path().join("a/b");
        for expected in 1..5 {
            assert_eq!(advance(&below).expect("the file can be written"), Incarnation(expected));
        }
    }

    #[test]
    fn a_damaged_file_stops_the_node_and_names_the_remedy() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join(FILE);
        advance(directory.path()).expect("the file can be written");
        let good = fs::read(&path).expect("the file is there");
        for position in 0..good.len() {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[position] ^= 1 << bit;
                fs::write(&path, &bad).expect("the file can be written");
                let error = advance(directory.path()).expect_err("one bit is wrong");
                assert!(error.to_string().contains("remove this node"), "{error}");
                assert_eq!(fs::read(&path).expect("the file is there"), bad, "it was left alone");
            }
        }
        for length in 0..good.len() {
            fs::write(&path, &good[..length]).expect("the file can be written");
            assert!(matches!(advance(directory.path()), Err(StorageError::Corrupt { .. })), "cut at {length}");
        }
    }

    #[test]
    fn a_missing_file_beside_a_store_stops_the_node() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        fs::create_dir(directory.path().join(crate::storage::sled::DATA_DIRECTORY)).expect("it can be created");
        assert!(matches!(advance(directory.path()), Err(StorageError::Corrupt { .. })));
        begin(directory.path()).expect("the file can be written");
        assert_eq!(advance(directory.path()).expect("the file is there"), Incarnation(1));
    }
}
