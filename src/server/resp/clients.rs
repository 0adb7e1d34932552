//! Who is connected: for CLIENT LIST and KILL, and for stopping all at once.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::ask::{Tracker, look};
use crate::types::Moment;

/// Why a connection is told to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// Another client asked for it: at once.
    Killed,
    /// The server stops: what was begun is finished first.
    ShuttingDown,
}

/// What a client says of itself.
#[derive(Clone, Debug, Default)]
pub(super) struct Names {
    pub name: String,
    pub library: String,
    pub library_version: String,
    /// The namespace; none for `default`.
    pub namespace: Option<String>,
}

/// One connection, as others see it.
pub(super) struct Client {
    pub id: u64,
    pub address: SocketAddr,
    pub local: SocketAddr,
    pub since: Moment,
    /// In microseconds, as [`Moment`] counts them.
    pub last_active: AtomicU64,
    /// The index of the last command in the table.
    pub last_command: AtomicU64,
    pub resp3: AtomicBool,
    /// Commands queued by MULTI; below zero outside of one.
    pub queued: AtomicI64,
    names: Mutex<Names>,
    tracker: Mutex<Option<Tracker>>,
    stop: Mutex<Option<oneshot::Sender<Stop>>>,
}

impl Client {
    /// What it says of itself.
    pub fn names(&self) -> MutexGuard<'_, Names> {
        self.names.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets others see what is noted of what it has seen.
    pub fn track(&self, tracker: Option<Tracker>) {
        *self.tracker.lock().unwrap_or_else(PoisonError::into_inner) = tracker;
    }

    /// What its reads at lower levels see of its own: `none` if there are none, `kept` if what
    /// they must see is kept, or the level to which they are raised because that was too much.
    fn session(&self) -> String {
        let tracker = self.tracker.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match tracker.map(|tracker| look(&tracker).raised()) {
            None => "none".to_owned(),
            Some(None) => "kept".to_owned(),
            Some(Some(level)) => level.to_string(),
        }
    }

    /// Tells it to end.
    pub fn stop(&self, why: Stop) {
        if let Some(sender) = self.stop.lock().unwrap_or_else(PoisonError::into_inner).take() {
            // A receiver that is gone belongs to a connection that has ended already.
            let _ = sender.send(why);
        }
    }

    /// Its line in CLIENT LIST, without the line end.
    pub fn describe(&self, now: Moment, command: &str) -> String {
        let names = self.names();
        let mut line = String::new();
        let last_active = Moment(self.last_active.load(Ordering::Relaxed));
        write!(
            line,
            "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={} db=0 sub=0 psub=0 ssub=0 multi={} \
             cmd={command} user=default redir=-1 resp={} lib-name={} lib-ver={} namespace={} session={}",
            self.id,
            self.address,
            self.local,
            names.name,
            now.since(self.since).as_secs(),
            now.since(last_active).as_secs(),
            if self.queued.load(Ordering::Relaxed) >= 0 { "x" } else { "N" },
            self.queued.load(Ordering::Relaxed),
            if self.resp3.load(Ordering::Relaxed) { 3 } else { 2 },
            names.library,
            names.library_version,
            names.namespace.as_deref().unwrap_or("default"),
            self.session(),
        )
        .expect("a string takes all");
        line
    }
}

/// All connections of one server.
#[derive(Default)]
pub(super) struct Clients {
    next_id: AtomicU64,
    by_id: Mutex<BTreeMap<u64, Arc<Client>>>,
}

impl Clients {
    /// Enters a connection; what it must listen to comes with it.
    pub fn enter(&self, address: SocketAddr, local: SocketAddr, now: Moment) -> (Arc<Client>, oneshot::Receiver<Stop>) {
        let (sender, receiver) = oneshot::channel();
        let client = Arc::new(Client {
            id: self.next_id.fetch_add(1, Ordering::Relaxed) + 1,
            address,
            local,
            since: now,
            last_active: AtomicU64::new(now.0),
            last_command: AtomicU64::new(u64::MAX),
            resp3: AtomicBool::new(false),
            queued: AtomicI64::new(-1),
            names: Mutex::default(),
            tracker: Mutex::default(),
            stop: Mutex::new(Some(sender)),
        });
        self.lock().insert(client.id, Arc::clone(&client));
        (client, receiver)
    }

    /// Strikes a connection off.
    pub fn leave(&self, id: u64) {
        self.lock().remove(&id);
    }

    /// All of them, oldest first.
    pub fn all(&self) -> Vec<Arc<Client>> {
        self.lock().values().cloned().collect()
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.lock().len()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<u64, Arc<Client>>> {
        self.by_id.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
