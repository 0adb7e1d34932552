//! The cluster map on disk.
//!
//! `magic (8 bytes) ‖ format version: u32 LE ‖ CRC32C of the rest: u32 LE ‖ map (postcard)`.
//!
//! Invariant: under its name there is always a whole map, the old one or the new one,
//! whatever moment the power fails at; what [`read`] returns has passed
//! [`ClusterMap::validate`].

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use crate::types::{ClusterMap, MapError};

const MAGIC: [u8; 8] = *b"DOGSLMAP";
/// The version of the format that is written; no other is read. Version 2 has the policies of
/// namespaces.
const FORMAT_VERSION: u32 = 2;
const HEADER_BYTES: usize = 16;
/// The longest file that is read, in bytes: the largest map that can be is a third of it.
const MAX_FILE_BYTES: usize = 16 * 1024 * 1024;

/// The file of a cluster map cannot be used. After a failed [`write()`] the old map, if there
/// was one, is under its name, or the new one is; after a failed [`read`] nothing has changed.
#[derive(Debug, thiserror::Error)]
pub enum MapFileError {
    /// It cannot be read.
    #[error("{path}: the cluster map cannot be read: {source}; check the path and who may read it")]
    Read {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("{path}: the cluster map cannot be written: {source}; check that its directory may be written to")]
    Write {
        /// Which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not what was once written.
    #[error("{path}: this is no cluster map: {what}; restore it, or copy that of another node of the cluster")]
    Corrupt {
        /// Which file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A program of another version wrote it.
    #[error("{path}: the cluster map has format version {found}; this program reads version {FORMAT_VERSION}")]
    Version {
        /// Which file.
        path: PathBuf,
        /// The version found.
        found: u32,
    },
    /// It contradicts itself.
    #[error("{path}: {source}")]
    Invalid {
        /// Which file.
        path: PathBuf,
        /// How.
        source: MapError,
    },
}

/// Reads and checks a map.
///
/// # Errors
/// [`MapFileError`], which names the file and the remedy.
pub fn read(path: &Path) -> Result<ClusterMap, MapFileError> {
    let refused = |source| MapFileError::Read { path: path.to_owned(), source };
    let mut bytes = Vec::new();
    File::open(path).and_then(|file| file.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)).map_err(refused)?;
    decode(&bytes, path)
}

fn decode(bytes: &[u8], path: &Path) -> Result<ClusterMap, MapFileError> {
    let corrupt = |what: &str| MapFileError::Corrupt { path: path.to_owned(), what: what.to_owned() };
    if bytes.len() > MAX_FILE_BYTES {
        return Err(corrupt("it is too long"));
    }
    let (header, body) = bytes.split_at_checked(HEADER_BYTES).ok_or_else(|| corrupt("it is too short"))?;
    if header[..8] != MAGIC {
        return Err(corrupt("it does not begin like one"));
    }
    let number = |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("four bytes are four bytes"));
    if number(8) != FORMAT_VERSION {
        return Err(MapFileError::Version { path: path.to_owned(), found: number(8) });
    }
    if number(12) != crc32c::crc32c(body) {
        return Err(corrupt("its checksum is wrong"));
    }
    let (map, rest) = postcard::take_from_bytes::<ClusterMap>(body).map_err(|error| corrupt(&error.to_string()))?;
    if !rest.is_empty() {
        return Err(corrupt("something follows it"));
    }
    map.validate().map_err(|source| MapFileError::Invalid { path: path.to_owned(), source })?;
    Ok(map)
}

fn encode(map: &ClusterMap) -> Vec<u8> {
    let body = postcard::to_stdvec(map).expect("a map of plain values can be written");
    let mut bytes = Vec::with_capacity(HEADER_BYTES + body.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
    bytes.extend_from_slice(&crc32c::crc32c(&body).to_le_bytes());
    bytes.extend_from_slice(&body);
    bytes
}

/// Writes a map in place of the one that is there. When this returns, it is durable.
///
/// # Errors
/// [`MapFileError::Invalid`] before anything is touched, or [`MapFileError::Write`].
pub fn write(path: &Path, map: &ClusterMap) -> Result<(), MapFileError> {
    map.validate().map_err(|source| MapFileError::Invalid { path: path.to_owned(), source })?;
    replace(path, &encode(map)).map_err(|source| MapFileError::Write { path: path.to_owned(), source })
}

/// A map that was not changed.
#[derive(Debug)]
pub enum ChangeError<E> {
    /// Whoever changes it did not want to, for this reason. The file is as it was.
    Refused(E),
    /// The file; see [`MapFileError`] for what is under its name now.
    File(MapFileError),
}

/// Changes a map in its file, one change after the other: what `how` makes of the map that
/// is there is written in its place, unless it is the same. Blocks while another process or
/// thread is changing it, and until the change is durable. The lock is a file beside the map.
///
/// # Errors
/// [`ChangeError`].
pub fn change<E>(
    path: &Path,
    how: impl FnOnce(ClusterMap) -> Result<ClusterMap, E>,
) -> Result<ClusterMap, ChangeError<E>> {
    let refused = |source| ChangeError::File(MapFileError::Write { path: path.to_owned(), source });
    let mut name = path.file_name().ok_or_else(|| refused(io::ErrorKind::InvalidInput.into()))?.to_owned();
    name.push(".lock");
    let lock = File::options().create(true).truncate(false).write(true).open(path.with_file_name(name));
    let lock = lock.map_err(refused)?;
    lock.lock().map_err(refused)?;
    let before = read(path).map_err(ChangeError::File)?;
    let after = how(before.clone()).map_err(ChangeError::Refused)?;
    if after != before {
        write(path, &after).map_err(ChangeError::File)?;
    }
    // Closing the file lets go of the lock.
    drop(lock);
    Ok(after)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut name = path.file_name().ok_or(io::ErrorKind::InvalidInput)?.to_owned();
    name.push(".new");
    let draft = path.with_file_name(name);
    let written = File::create(&draft).and_then(|mut file| {
        file.write_all(bytes)?;
        file.sync_all()
    });
    written.and_then(|()| fs::rename(&draft, path)).inspect_err(|_| {
        // A draft that cannot be removed is written over the next time.
        let _ = fs::remove_file(&draft);
    })?;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory)?.sync_all()
}

#[cfg(test)]
#[path = "map_file_tests.rs"]
mod tests;
