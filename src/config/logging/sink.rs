//! From the threads that log to the one thread that writes.

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use tracing::Metadata;
use tracing_subscriber::fmt::MakeWriter;

use super::files::DailyFile;
use super::line::utc;
use super::{LogError, LogSettings};
use crate::ambient::Clock;

/// Lines that wait to be written, at most; past that they are dropped and counted.
const QUEUE_LINES: usize = 4096;
/// Longer lines are cut, in bytes.
const MAX_LINE_BYTES: usize = 8 * 1024;
/// Files of one process, at most; threads past that share one.
const MAX_FILES: usize = 64;
/// How long a fatal line or the end of the process waits for the disk.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(5);
/// The thread name under which the lines of threads without one are kept.
const UNNAMED: &str = "other";

enum Order {
    Line { file: Arc<str>, text: Box<[u8]> },
    Flush { done: SyncSender<()> },
    Stop { done: SyncSender<()> },
}

/// What threads hand their lines to.
#[derive(Clone)]
pub(super) struct Sink {
    orders: SyncSender<Order>,
    dropped: Arc<AtomicU64>,
}

impl Sink {
    fn line(&self, file: Arc<str>, text: &[u8], fatal: bool) {
        let order = Order::Line { file, text: cut(text) };
        // What ends the process is worth waiting for.
        let queued = if fatal { self.send_patiently(order) } else { self.orders.try_send(order).is_ok() };
        if !queued {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
        if fatal {
            self.await_order(|done| Order::Flush { done });
        }
    }

    fn await_order(&self, order: impl FnOnce(SyncSender<()>) -> Order) {
        let (done, is_done) = sync_channel(1);
        if self.send_patiently(order(done)) {
            let _ = is_done.recv_timeout(FLUSH_TIMEOUT);
        }
    }

    /// Waits for room, but no longer than the bound: a disk that hangs must not keep a
    /// process from ending.
    fn send_patiently(&self, mut order: Order) -> bool {
        const STEP: Duration = Duration::from_millis(5);
        for _ in 0..FLUSH_TIMEOUT.as_millis() / STEP.as_millis() {
            match self.orders.try_send(order) {
                Ok(()) => return true,
                Err(TrySendError::Full(back)) => order = back,
                Err(TrySendError::Disconnected(_)) => return false,
            }
            thread::sleep(STEP);
        }
        false
    }
}

/// Keeps the log going; brings the last lines to their files when dropped.
#[must_use = "the last lines are lost if the guard is dropped early"]
pub struct LogGuard {
    sink: Sink,
}

impl Drop for LogGuard {
    fn drop(&mut self) {
        self.sink.await_order(|done| Order::Stop { done });
    }
}

/// Cuts what is too long, between characters, and ends it like a line.
fn cut(text: &[u8]) -> Box<[u8]> {
    if text.len() <= MAX_LINE_BYTES {
        return text.into();
    }
    let mut kept = String::from_utf8_lossy(&text[..MAX_LINE_BYTES]).trim_end_matches('\u{fffd}').to_owned();
    kept.push_str(" … (cut)\n");
    kept.into_bytes().into()
}

/// Begins to write.
pub(super) fn start(settings: &LogSettings, clock: Clock) -> Result<(Sink, LogGuard), LogError> {
    let directory = settings.directory.clone();
    let refused = |source| LogError::Directory { path: directory.clone(), source };
    std::fs::create_dir_all(&directory).map_err(refused)?;
    // Opened here once, so that a directory that cannot be written to is found at the start.
    let first = if settings.per_process {
        file_of_process(&settings.server_id)
    } else {
        file_of_thread(&settings.server_id, thread::current().name())
    };
    let mut files = Files {
        directory: directory.clone(),
        keep_days: settings.keep_days,
        shared: file_of_thread(&settings.server_id, None).into(),
        open: BTreeMap::new(),
        failing: false,
    };
    let opened = DailyFile::open(&directory, &first, settings.keep_days, clock().wall).map_err(refused)?;
    files.open.insert(first.into(), opened);

    let (orders, receiver) = sync_channel(QUEUE_LINES);
    let dropped = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&dropped);
    thread::Builder::new()
        .name("log".into())
        .spawn(move || write_lines(&receiver, files, &counted, clock))
        .map_err(refused)?;
    let sink = Sink { orders, dropped };
    Ok((sink.clone(), LogGuard { sink }))
}

fn write_lines(orders: &Receiver<Order>, mut files: Files, dropped: &AtomicU64, clock: Clock) {
    loop {
        // Files are flushed whenever nothing more is waiting.
        let order = match orders.recv_timeout(Duration::ZERO) {
            Ok(order) => order,
            Err(RecvTimeoutError::Timeout) => {
                files.flush();
                match orders.recv() {
                    Ok(order) => order,
                    Err(_) => return,
                }
            }
            Err(RecvTimeoutError::Disconnected) => return files.flush(),
        };
        match order {
            Order::Line { file, text } => {
                let lost = dropped.swap(0, Ordering::Relaxed);
                if lost > 0 {
                    let now = utc(clock().wall);
                    let line =
                        format!("{now} WARN  log dogsled::config::logging: {lost} lines dropped: the disk is slow\n");
                    files.write(&file, line.as_bytes(), clock);
                }
                files.write(&file, &text, clock);
            }
            Order::Flush { done } => {
                files.flush();
                let _ = done.send(());
            }
            Order::Stop { done } => {
                files.flush();
                let _ = done.send(());
                return;
            }
        }
    }
}

struct Files {
    directory: PathBuf,
    keep_days: u32,
    shared: Arc<str>,
    open: BTreeMap<Arc<str>, DailyFile>,
    failing: bool,
}

impl Files {
    fn write(&mut self, name: &Arc<str>, line: &[u8], clock: Clock) {
        let result = self.try_write(name, line, clock);
        self.report(result);
    }

    fn try_write(&mut self, name: &Arc<str>, line: &[u8], clock: Clock) -> io::Result<()> {
        let now = clock().wall;
        let room = self.open.len() < MAX_FILES;
        let name = if self.open.contains_key(name) || room { name } else { &self.shared };
        if let Some(file) = self.open.get_mut(name) {
            return file.write(line, now);
        }
        let mut file = DailyFile::open(&self.directory, name, self.keep_days, now)?;
        file.write(line, now)?;
        self.open.insert(Arc::clone(name), file);
        Ok(())
    }

    fn flush(&mut self) {
        let result = self.open.values_mut().map(DailyFile::flush).fold(Ok(()), Result::and);
        self.report(result);
    }

    /// A log that cannot be written must not stop the node: it is said once on stderr.
    fn report(&mut self, result: io::Result<()>) {
        match result {
            Ok(()) => self.failing = false,
            Err(error) if !self.failing => {
                self.failing = true;
                let _ = writeln!(io::stderr(), "the log in {} cannot be written: {error}", self.directory.display());
            }
            Err(_) => {}
        }
    }
}

/// The name of the file of a whole process, without its ending.
fn file_of_process(server_id: &str) -> String {
    format!("replica{server_id}")
}

/// The name of a thread's file, without its ending.
pub(super) fn file_of_thread(server_id: &str, thread: Option<&str>) -> String {
    let role: String = thread
        .filter(|name| !name.is_empty())
        .unwrap_or(UNNAMED)
        .chars()
        .take(64)
        .map(|char| if char.is_ascii_alphanumeric() || "-_".contains(char) { char } else { '_' })
        .collect();
    let names_replica = role
        .strip_prefix("replica")
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(id, role)| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit()) && !role.is_empty());
    if names_replica { role } else { format!("replica{server_id}-{role}") }
}

thread_local! {
    static OWN_FILE: OnceCell<(usize, Arc<str>)> = const { OnceCell::new() };
}

/// Tells the logs of one process apart: it has one, but its tests have several.
static LOGS: AtomicUsize = AtomicUsize::new(0);

/// Gives each line to the file of its thread.
pub(super) struct ByThread {
    log: usize,
    sink: Sink,
    server_id: String,
    process_file: Option<Arc<str>>,
}

impl ByThread {
    pub(super) fn new(sink: Sink, settings: &LogSettings) -> ByThread {
        let process_file = settings.per_process.then(|| file_of_process(&settings.server_id).into());
        ByThread {
            log: LOGS.fetch_add(1, Ordering::Relaxed),
            sink,
            server_id: settings.server_id.clone(),
            process_file,
        }
    }

    fn file(&self) -> Arc<str> {
        if let Some(file) = &self.process_file {
            return Arc::clone(file);
        }
        let new = || file_of_thread(&self.server_id, thread::current().name()).into();
        OWN_FILE
            .try_with(|cell| match cell.get_or_init(|| (self.log, new())) {
                (log, file) if *log == self.log => Arc::clone(file),
                _ => new(),
            })
            .unwrap_or_else(|_| new())
    }
}

/// Takes the bytes of one event.
pub(super) struct LineWriter {
    sink: Sink,
    file: Arc<str>,
    fatal: bool,
}

impl Write for LineWriter {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.sink.line(Arc::clone(&self.file), bytes, self.fatal);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for ByThread {
    type Writer = LineWriter;

    fn make_writer(&'a self) -> LineWriter {
        LineWriter { sink: self.sink.clone(), file: self.file(), fatal: false }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> LineWriter {
        LineWriter { fatal: metadata.target() == super::FATAL, ..self.make_writer() }
    }
}
