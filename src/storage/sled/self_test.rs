//! Whether a sync reaches the file that sled writes to, found out at each start.
//!
//! Problem: every acknowledgement rests on `fdatasync` of a handle that is not sled's.
//! If sled wrote elsewhere (another file at the same path, a file of its own for large
//! values, a buffer that `flush` leaves behind), everything would seem to work until the
//! first power cut.
//! What is shown: our handle, the path and a descriptor that sled holds are one inode; a
//! fresh random mark is in that inode's bytes, read through our handle, once `flush` has
//! returned; `fdatasync` on it succeeds; and a leaf full of the longest pieces stays in
//! the log. What cannot be shown from inside a process is that the disk keeps what it
//! says it keeps: `tests/it/power_cut.rs` cuts the power.

use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;

use crate::ambient;
use crate::types::limits;

use super::super::StorageError;
use super::schema;
use super::{Core, engine};

/// sled's segment header: checksum, then the log's position, all bits but the sign turned.
const SEGMENT_HEADER_BYTES: usize = 12;

fn failed(what: impl Into<String>) -> StorageError {
    StorageError::SelfTest(what.into())
}

/// At every start.
pub(super) fn run(core: &Core) -> Result<(), StorageError> {
    let path = core.data_directory.join("db");
    one_file(&core.file, &path)?;
    core.check_for_blobs()?;
    let mark: [u8; 32] = ambient::seed();
    let mut value = Vec::new();
    schema::encode_probe(&mut value, &mark);
    core.meta.insert(schema::PROBE_KEY, value.as_slice()).map_err(engine)?;
    core.flush_and_sync()?;
    let found = is_in(&core.file, &mark).map_err(StorageError::file(&path, "read"))?;
    if !found {
        return Err(failed(format!("what was written and flushed is not in {}", path.display())));
    }
    Ok(())
}

/// Once, when a store is made: a leaf as large as leaves get must not become a blob file.
pub(super) fn fill_a_leaf(database: &::sled::Db, data_directory: &Path) -> Result<(), StorageError> {
    const TREE: &[u8] = b"self-test";
    let tree = database.open_tree(TREE).map_err(engine)?;
    let largest = limits::VALUE_CHUNK_BYTES + 256;
    // Written twice, so that sled joins what it wrote piece by piece.
    for round in 0..2u8 {
        for item in 0..limits::SLED_LEAF_ITEMS as u8 {
            tree.insert([item], vec![round ^ item; largest]).map_err(engine)?;
        }
    }
    tree.flush().map_err(engine)?;
    let blobs = data_directory.join("blobs");
    if fs::read_dir(&blobs).map_err(StorageError::file(&blobs, "list"))?.next().is_some() {
        return Err(failed(format!("sled made a file in {}, which nothing syncs", blobs.display())));
    }
    drop(tree);
    database.drop_tree(TREE).map_err(engine)?;
    Ok(())
}

/// Our handle, the path, and a descriptor that is not ours must lead to one inode.
fn one_file(file: &File, path: &Path) -> Result<(), StorageError> {
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    let ours = identity(file.metadata().map_err(StorageError::file(path, "look at"))?);
    if identity(fs::metadata(path).map_err(StorageError::file(path, "look at"))?) != ours {
        return Err(failed(format!("{} is not the file that was opened", path.display())));
    }
    // Where there is no /proc, the mark alone must do.
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else { return Ok(()) };
    let own_name = file.as_raw_fd().to_string();
    let sled_has_it = descriptors
        .flatten()
        .filter(|entry| entry.file_name().to_str() != Some(&own_name))
        .filter_map(|entry| fs::metadata(entry.path()).ok())
        .any(|metadata| identity(metadata) == ours);
    if sled_has_it { Ok(()) } else { Err(failed(format!("sled does not have {} open", path.display()))) }
}

/// Whether a file of sled's holds these bytes. They are looked for in the newest segment
/// first; the whole file is read only if they are not there.
fn is_in(file: &File, mark: &[u8]) -> io::Result<bool> {
    let length = file.metadata()?.len();
    let mut segments = Vec::new();
    for offset in (0..length).step_by(limits::SLED_SEGMENT_BYTES) {
        let mut header = [0; SEGMENT_HEADER_BYTES];
        if file.read_exact_at(&mut header, offset).is_ok() {
            let position: [u8; 8] = header[4..].try_into().expect("eight bytes follow the checksum");
            let position = i64::from_le_bytes(position) ^ i64::MAX;
            // Others were wiped, or never written.
            let is_position = position >= 0 && position % limits::SLED_SEGMENT_BYTES as i64 == 0;
            segments.push((if is_position { position } else { -1 }, offset));
        }
    }
    segments.sort_unstable();
    let mut bytes = vec![0; limits::SLED_SEGMENT_BYTES];
    for (_, offset) in segments.into_iter().rev() {
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], offset + filled as u64)? {
                0 => break,
                count => filled += count,
            }
        }
        if memchr::memmem::find(&bytes[..filled], mark).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_file_at_the_path_is_noticed() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("db");
        let (ours, sleds) = (File::create(&path), File::open(&path));
        let (ours, sleds) = (ours.expect("it can be created"), sleds.expect("it can be opened"));
        one_file(&ours, &path).expect("all three are one file");
        drop(sleds);
        assert!(matches!(one_file(&ours, &path), Err(StorageError::SelfTest(_))), "nobody else has it open");
        fs::rename(&path, directory.path().join("gone")).expect("it can be renamed");
        let _other = File::create(&path).expect("it can be created");
        assert!(matches!(one_file(&ours, &path), Err(StorageError::SelfTest(_))), "the path leads elsewhere");
    }

    #[test]
    fn a_mark_is_found_only_where_it_is() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let path = directory.path().join("db");
        let mut bytes = vec![0; limits::SLED_SEGMENT_BYTES + 5_000];
        bytes[limits::SLED_SEGMENT_BYTES + 4_000..][..4].copy_from_slice(b"mark");
        fs::write(&path, &bytes).expect("it can be written");
        let file = File::open(&path).expect("it can be opened");
        assert!(is_in(&file, b"mark").expect("it can be read"));
        assert!(!is_in(&file, b"none").expect("it can be read"));
    }
}
