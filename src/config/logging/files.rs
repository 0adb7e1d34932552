//! The files of the log: today's, and those of earlier days until they are too old.

use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::line::date;
use crate::types::WallTime;

const DAY_MS: u64 = 24 * 3600 * 1000;

/// `<name>.log`, which becomes `<name>.<date>.log` when its day (UTC) is over.
pub(super) struct DailyFile {
    directory: PathBuf,
    name: String,
    keep_days: u32,
    day: u64,
    file: BufWriter<File>,
}

impl DailyFile {
    /// Opens the file of today. One that was last written on an earlier day is put away first.
    pub(super) fn open(directory: &Path, name: &str, keep_days: u32, now: WallTime) -> io::Result<DailyFile> {
        let path = directory.join(format!("{name}.log"));
        let today = now.0 / DAY_MS;
        if let Some(day) = last_written(&path).map(|wall| wall.0 / DAY_MS)
            && day < today
        {
            put_away(directory, name, day)?;
        }
        prune(directory, name, keep_days, today);
        let file = OpenOptions::new().append(true).create(true).open(&path)?;
        Ok(DailyFile {
            directory: directory.to_owned(),
            name: name.to_owned(),
            keep_days,
            day: today,
            file: BufWriter::new(file),
        })
    }

    /// Writes a line into the file of the day.
    pub(super) fn write(&mut self, line: &[u8], now: WallTime) -> io::Result<()> {
        // A clock that goes back stays in the file that is open.
        if now.0 / DAY_MS > self.day {
            self.file.flush()?;
            put_away(&self.directory, &self.name, self.day)?;
            *self = DailyFile::open(&self.directory, &self.name, self.keep_days, now)?;
        }
        self.file.write_all(line)
    }

    /// Hands what was written to the operating system.
    pub(super) fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// When a file that is not empty was last written.
fn last_written(path: &Path) -> Option<WallTime> {
    let metadata = fs::metadata(path).ok().filter(|metadata| metadata.len() > 0)?;
    let since = metadata.modified().ok()?.duration_since(SystemTime::UNIX_EPOCH).ok()?;
    Some(WallTime(u64::try_from(since.as_millis()).ok()?))
}

/// Gives the file of a past day its date. If that name is taken, the lines go on in the
/// same file: nothing of a log is ever written over.
fn put_away(directory: &Path, name: &str, day: u64) -> io::Result<()> {
    let target = directory.join(format!("{name}.{}.log", date(WallTime(day * DAY_MS))));
    if target.exists() {
        return Ok(());
    }
    match fs::rename(directory.join(format!("{name}.log")), target) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Removes the files of days that are no longer kept. One that cannot be removed stays.
fn prune(directory: &Path, name: &str, keep_days: u32, today: u64) {
    let oldest = date(WallTime((today + 1).saturating_sub(u64::from(keep_days)) * DAY_MS));
    let Ok(entries) = fs::read_dir(directory) else { return };
    for entry in entries.flatten() {
        let file_name = entry.file_name();
        let day = file_name
            .to_str()
            .and_then(|text| text.strip_prefix(name)?.strip_prefix('.')?.strip_suffix(".log"))
            .filter(|day| is_date(day));
        if day.is_some_and(|day| day < oldest.as_str()) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// Whether it has the form `2026-01-31`, so that dates compare as texts.
fn is_date(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(at, byte)| match at {
            4 | 7 => byte == b'-',
            _ => byte.is_ascii_digit(),
        })
}
