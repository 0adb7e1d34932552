//! Files and directories whose existence itself must survive a power cut.
//!
//! A new or renamed file is durable only once its directory was synced too; these
//! helpers are the only places that make names.

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use super::StorageError;

/// Syncs the names in a directory.
pub(super) fn sync_directory(path: &Path) -> Result<(), StorageError> {
    let directory = File::open(path).map_err(StorageError::file(path, "open the directory"))?;
    directory.sync_all().map_err(StorageError::file(path, "sync the directory"))
}

/// Creates a directory and those above it that are missing, durably.
pub(super) fn create_directories(path: &Path) -> Result<(), StorageError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => return Ok(()),
        Ok(_) => {
            let source = std::io::Error::from(ErrorKind::NotADirectory);
            return Err(StorageError::File { path: path.to_owned(), action: "use as a directory", source });
        }
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(StorageError::File { path: path.to_owned(), action: "look at", source }),
    }
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    create_directories(parent)?;
    match fs::create_dir(path) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        Err(source) => return Err(StorageError::File { path: path.to_owned(), action: "create", source }),
    }
    sync_directory(parent)
}

/// Replaces a file as a whole: afterwards, and after a power cut at any moment, it
/// holds either the old bytes or the new ones.
pub(super) fn replace_file(path: &Path, bytes: &[u8]) -> Result<(), StorageError> {
    let directory = path.parent().expect("the file is named below its directory");
    let mut name = path.file_name().expect("the path ends in a file name").to_owned();
    name.push(".new");
    let temporary = directory.join(name);
    let mut file = File::create(&temporary).map_err(StorageError::file(&temporary, "create"))?;
    file.write_all(bytes).map_err(StorageError::file(&temporary, "write"))?;
    file.sync_all().map_err(StorageError::file(&temporary, "sync"))?;
    drop(file);
    fs::rename(&temporary, path).map_err(StorageError::file(path, "replace"))?;
    sync_directory(directory)
}

/// Syncs every file of a directory, those in directories below it, and all their names.
pub(super) fn sync_tree(path: &Path) -> Result<(), StorageError> {
    for entry in fs::read_dir(path).map_err(StorageError::file(path, "list"))? {
        let entry = entry.map_err(StorageError::file(path, "list"))?;
        let below = entry.path();
        let kind = entry.file_type().map_err(StorageError::file(&below, "look at"))?;
        if kind.is_dir() {
            sync_tree(&below)?;
        } else if kind.is_file() {
            let file = File::open(&below).map_err(StorageError::file(&below, "open"))?;
            file.sync_all().map_err(StorageError::file(&below, "sync"))?;
        }
    }
    sync_directory(path)
}
