//! Takes back what was made, unless it is kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Remembers files and directories that did not exist before. Dropped before
/// [`Undo::keep`], it removes them again, and nothing else.
#[derive(Default)]
pub(super) struct Undo {
    made: Vec<PathBuf>,
}

impl Undo {
    /// Makes a directory and those above it, where they are missing.
    pub(super) fn create_dir_all(&mut self, path: &Path) -> io::Result<()> {
        let missing: Vec<_> =
            path.ancestors().take_while(|ancestor| !ancestor.as_os_str().is_empty() && !ancestor.exists()).collect();
        for directory in missing.into_iter().rev() {
            fs::create_dir(directory)?;
            self.made.push(directory.to_owned());
        }
        // A file in the place of the directory is found by whoever writes below it; say it here.
        if path.is_dir() || path.as_os_str().is_empty() { Ok(()) } else { Err(io::ErrorKind::NotADirectory.into()) }
    }

    /// Notes a file that is about to be made; one that is there already is left alone.
    pub(super) fn note(&mut self, path: &Path) {
        if fs::symlink_metadata(path).is_err() {
            self.made.push(path.to_owned());
        }
    }

    /// Everything was made: it stays.
    pub(super) fn keep(mut self) {
        self.made.clear();
    }
}

impl Drop for Undo {
    fn drop(&mut self) {
        for path in self.made.iter().rev() {
            // What cannot be removed, or is not empty any more, is no longer ours alone.
            let _ = if path.is_dir() { fs::remove_dir(path) } else { fs::remove_file(path) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_made_goes_and_what_was_there_stays() {
        let folder = tempfile::tempdir().expect("a directory");
        let before = folder.path().join("before");
        fs::write(&before, "x").expect("a file");
        let mut undo = Undo::default();
        undo.create_dir_all(&folder.path().join("a/b/c")).expect("it is made");
        for file in [before.clone(), folder.path().join("a/b/file")] {
            undo.note(&file);
            fs::write(file, "y").expect("a file");
        }
        drop(undo);
        assert!(before.exists() && !folder.path().join("a").exists());
        let mut undo = Undo::default();
        undo.create_dir_all(&folder.path().join("a/b")).expect("it is made");
        undo.keep();
        assert!(folder.path().join("a/b").is_dir());
        let refused = Undo::default().create_dir_all(&before.join("below"));
        assert_eq!(refused.expect_err("a file is in the way").kind(), io::ErrorKind::NotADirectory);
    }
}
