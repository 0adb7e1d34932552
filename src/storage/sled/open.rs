//! How a store is made and opened.
//!
//! Invariant: a store that can be found under its name is whole. A new one is made under
//! another name and renamed once everything in it is durable.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex, OnceLock, RwLock};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustix::fs::{FlockOperation, flock};

use crate::ambient;
use crate::types::{NodeId, PeerMemory, Stamp, StoreId, VersionVector, limits};

use super::super::log::Log;
use super::super::{Recovered, StorageError, files, incarnation};
use super::plan::{Planner, Seen};
use super::read::Truncations;
use super::schema::{self, CommitEntry, StoredRecord, Tree, Unfinished};
use super::tally::Tally;
use super::write::{Dirty, Writer};
use super::{Core, DATA_DIRECTORY, SledOptions, SledStorage, engine, guarded, self_test};

const LOCK_FILE: &str = "lock";
const UNFINISHED_DIRECTORY: &str = "sled.new";
/// sled frees pages for half of this at a time, then syncs. So it must not be long
/// enough to reuse a segment while those that replaced it are on their way to the disk.
const SLED_FLUSH_EVERY_MS: u64 = 100;
/// A store that was just closed lets go of its file a little later.
const SLED_LOCK_ATTEMPTS: u32 = 500;
const SLED_LOCK_PAUSE: Duration = Duration::from_millis(10);

impl SledStorage {
    /// Opens the store in a directory, or makes one. It is tested that a sync reaches
    /// the file that sled writes to.
    ///
    /// # Errors
    /// [`StorageError::Locked`] if it is open already, [`StorageError::Incompatible`] if
    /// it was made with other settings, [`StorageError::SelfTest`] if it could not be made
    /// durable, [`StorageError::Corrupt`] or [`StorageError::Engine`] if it is damaged,
    /// [`StorageError::File`] for the rest. What it held is untouched.
    pub fn open(options: &SledOptions) -> Result<SledStorage, StorageError> {
        files::create_directories(&options.directory)?;
        let lock = lock(&options.directory)?;
        let data_directory = options.directory.join(DATA_DIRECTORY);
        if !data_directory.exists() {
            guarded(|| create(options, &data_directory))?;
        }
        guarded(|| open(options, &data_directory, lock))
    }
}

fn lock(directory: &Path) -> Result<File, StorageError> {
    let path = directory.join(LOCK_FILE);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(StorageError::file(&path, "open"))?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(StorageError::Locked(directory.to_owned())),
        Err(error) => Err(StorageError::File { path, action: "lock", source: error.into() }),
    }
}

fn create(options: &SledOptions, data_directory: &Path) -> Result<(), StorageError> {
    let unfinished = options.directory.join(UNFINISHED_DIRECTORY);
    match fs::remove_dir_all(&unfinished) {
        Ok(()) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(StorageError::File { path: unfinished, action: "remove", source }),
    }
    files::create_directories(&unfinished)?;
    incarnation::begin(&options.directory)?;
    let database = open_database(options, &unfinished)?;
    self_test::fill_a_leaf(&database, &unfinished)?;
    let meta = database.open_tree(Tree::Meta.name()).map_err(engine)?;
    let mut value = Vec::new();
    let store = StoreId(u128::from_le_bytes(ambient::seed()));
    schema::encode_format(&mut value, options.partitions, store);
    meta.insert(schema::FORMAT_KEY, value.as_slice()).map_err(engine)?;
    CommitEntry::default().encode(&mut value);
    meta.insert(schema::COMMIT_KEY, value.as_slice()).map_err(engine)?;
    meta.flush().map_err(engine)?;
    drop((meta, database));
    files::sync_tree(&unfinished)?;
    fs::rename(&unfinished, data_directory).map_err(StorageError::file(data_directory, "create"))?;
    files::sync_directory(&options.directory)
}

fn open_database(options: &SledOptions, directory: &Path) -> Result<::sled::Db, StorageError> {
    let config = ::sled::Config::new()
        .path(directory)
        .cache_capacity(options.cache_bytes)
        .segment_size(limits::SLED_SEGMENT_BYTES)
        .flush_every_ms(Some(SLED_FLUSH_EVERY_MS));
    let mut attempts = 0;
    loop {
        match config.open() {
            Ok(database) => return Ok(database),
            Err(::sled::Error::Io(error)) if error.to_string().contains("could not acquire lock") => {
                // We hold the store's own lock, so it is only a thread of sled's that lingers.
                attempts += 1;
                if attempts == SLED_LOCK_ATTEMPTS {
                    return Err(StorageError::Locked(directory.to_owned()));
                }
                thread::sleep(SLED_LOCK_PAUSE);
            }
            Err(error) => return Err(engine(error)),
        }
    }
}

/// sled takes a snapshot that it was writing when it was killed for one that is damaged,
/// and does not open. The one before it is still there.
fn remove_half_written_snapshots(data_directory: &Path) -> Result<(), StorageError> {
    for entry in fs::read_dir(data_directory).map_err(StorageError::file(data_directory, "list"))? {
        let path = entry.map_err(StorageError::file(data_directory, "list"))?.path();
        if path.extension().is_some_and(|extension| extension == "generating") {
            fs::remove_file(&path).map_err(StorageError::file(&path, "remove"))?;
        }
    }
    Ok(())
}

fn open(options: &SledOptions, data_directory: &Path, lock: File) -> Result<SledStorage, StorageError> {
    remove_half_written_snapshots(data_directory)?;
    let database = open_database(options, data_directory)?;
    let tree = |tree: Tree| database.open_tree(tree.name()).map_err(engine);
    let (records, meta) = (tree(Tree::Records)?, tree(Tree::Meta)?);
    let path = data_directory.join("db");
    let file = File::open(&path).map_err(StorageError::file(&path, "open"))?;

    let (store, entry) = read_meta(&meta, options, data_directory)?;
    let truncations = read_truncations(&meta)?;
    let uncounted = if records.is_empty() { None } else { Some(options.partitions.all()) };
    let tally = Tally::new(uncounted.into_iter().flatten(), entry.live_keys);
    let core = Core {
        records,
        chunks: tree(Tree::Chunks)?,
        log_entries: tree(Tree::Log)?,
        expiries: tree(Tree::Expiries)?,
        claims: tree(Tree::Claims)?,
        meta,
        truncations: RwLock::new(truncations.clone()),
        log: RwLock::new(Log::default()),
        dirty: Mutex::new(Dirty::default()),
        discarded: AtomicU64::new(0),
        partitions: options.partitions,
        tally,
        file,
        data_directory: data_directory.to_owned(),
        failed: OnceLock::new(),
    };
    self_test::run(&core)?;
    core.finish_chunks()?;
    let entry = core.cut_incomplete_group(entry)?;
    let checkpointed = core.restore_log(entry.commit)?;
    let peers = read_peers(&core.meta)?;
    core.flush_and_sync()?;
    // sled has written a snapshot of its own, and renamed it without syncing the name.
    files::sync_tree(data_directory)?;

    let seen =
        |(partition, vector, horizon): (_, &VersionVector, _)| (partition, Seen { vector: vector.clone(), horizon });
    let seen = core.log().partitions().map(seen).collect();
    let planner = Planner { seen, truncations };
    let core = Arc::new(core);
    let counting = count_in_background(&core)?;
    Ok(SledStorage {
        core,
        database: Some(database),
        writer: Mutex::new(Writer::new(entry, planner, checkpointed)),
        counting: Some(counting),
        recovered: Recovered { store, commit: entry.commit, clock: entry.clock, peers },
        lock,
    })
}

fn read_meta(meta: &::sled::Tree, options: &SledOptions, path: &Path) -> Result<(StoreId, CommitEntry), StorageError> {
    let get = |key: &[u8]| {
        let stored = meta.get(key).map_err(engine)?;
        stored.ok_or_else(|| Tree::Meta.corrupt(key, "nothing there, although the store was made"))
    };
    let incompatible = |what: String| StorageError::Incompatible { path: path.to_owned(), what };
    let (partitions, store) = schema::decode_format(&get(schema::FORMAT_KEY)?)?.map_err(incompatible)?;
    if partitions != options.partitions {
        let (made, asked) = (partitions.get(), options.partitions.get());
        return Err(incompatible(format!(
            "the store was made for {made} partitions and cannot be used with {asked}: set the number back"
        )));
    }
    Ok((store, CommitEntry::decode(&get(schema::COMMIT_KEY)?)?))
}

fn read_peers(meta: &::sled::Tree) -> Result<BTreeMap<NodeId, PeerMemory>, StorageError> {
    let mut peers = BTreeMap::new();
    for item in meta.scan_prefix(schema::PEER_PREFIX) {
        let (key, stored) = item.map_err(engine)?;
        let (node, memory) = schema::decode_peer(&key, &stored)?;
        peers.insert(node, memory);
    }
    Ok(peers)
}

fn read_truncations(meta: &::sled::Tree) -> Result<Truncations, StorageError> {
    let mut truncations = Truncations::new();
    for item in meta.scan_prefix(schema::TRUNCATION_PREFIX) {
        let (key, stored) = item.map_err(engine)?;
        let (partition, namespace, stamp) = schema::decode_truncation(&key, &stored)?;
        truncations.insert((partition, namespace), stamp);
    }
    Ok(truncations)
}

impl Core {
    /// Removes the pieces of values that no record names, after a crash between the two.
    fn finish_chunks(&self) -> Result<(), StorageError> {
        let Some(stored) = self.meta.get(schema::UNFINISHED_KEY).map_err(engine)? else { return Ok(()) };
        let unfinished = Unfinished::decode(&stored)?;
        let kept: Vec<Stamp> = match self.records.get(&unfinished.record_key).map_err(engine)? {
            None => Vec::new(),
            Some(stored) => {
                let record = StoredRecord::decode(&unfinished.record_key, &stored)?.record;
                let chunked = record.versions().iter().filter(|cell| cell.chunked().is_some());
                chunked.map(|cell| cell.stamp).collect()
            }
        };
        for (stamp, bytes) in unfinished.versions {
            if !kept.contains(&stamp) {
                self.remove_chunks(&unfinished.record_key, &stamp, bytes)?;
            }
        }
        Ok(())
    }
}

fn count_in_background(core: &Arc<Core>) -> Result<JoinHandle<()>, StorageError> {
    let counting = Arc::clone(core);
    let count = move || {
        let result = guarded(|| counting.tally.run(|partition| counting.count(partition)));
        if let Err(error) = result {
            // A store with damaged records must not go on as if it had none; what is
            // read or applied next says so.
            counting.fail(&error);
        }
    };
    let builder = thread::Builder::new().name("tally".to_owned());
    builder.spawn(count).map_err(|error| StorageError::Engine(format!("no thread to count keys: {error}")))
}
