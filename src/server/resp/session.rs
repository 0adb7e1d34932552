//! What a connection remembers between commands, and what a command is given to run.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;

use super::Shared;
use super::ask::{Access, Answer, Asker, Levels, Tracker, look};
use super::clients::Client;
use super::decode::{Args, OwnedArgs};
use super::finish::Finish;
use super::reply::{ErrorReply, Writer};
use super::table::Spec;
use crate::server::seen::Place;
use crate::types::{ConsistencyLevel, Expiry, Key, MergePolicy, NamespaceId, Operation, Stamp, WallTime};

/// Which replies a client wants (CLIENT REPLY).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Replies {
    On,
    Off,
    /// Not the one to the next command.
    SkipNext,
}

/// Commands put aside by MULTI.
#[derive(Debug, Default)]
pub(super) struct Transaction {
    /// A command could not even be queued: EXEC must refuse.
    pub broken: bool,
    pub queued: usize,
    pub bytes: usize,
    /// Empty if EXEC will refuse anyway.
    pub commands: VecDeque<OwnedArgs>,
}

/// One write that was acknowledged.
#[derive(Clone, Debug)]
pub(super) struct Written {
    pub key: Key,
    pub stamp: Stamp,
    pub acknowledged: u8,
}

/// What WAIT has to go by.
#[derive(Clone, Debug, Default)]
pub(super) enum LastWrite {
    /// This connection has written nothing.
    #[default]
    None,
    /// One key.
    One(Written),
    /// Several keys with one command.
    Many(Vec<Written>),
    /// A write whose version is not known, but that so many replicas hold it is.
    AtLeast(u8),
}

/// What a connection remembers.
pub(super) struct Session {
    pub client: Arc<Client>,
    pub authenticated: bool,
    pub resp3: bool,
    pub read: Option<ConsistencyLevel>,
    pub write: Option<ConsistencyLevel>,
    pub readonly: bool,
    pub replies: Replies,
    pub transaction: Option<Transaction>,
    /// Commands of an EXEC that are still to be run.
    pub replay: VecDeque<OwnedArgs>,
    pub last_write: LastWrite,
    /// Where its keys are.
    pub namespace: NamespaceId,
    /// What it has seen, once it has asked for less than quorums.
    pub tracker: Option<Tracker>,
}

impl Session {
    pub fn new(client: Arc<Client>, authenticated: bool) -> Session {
        Session {
            client,
            authenticated,
            resp3: false,
            read: None,
            write: None,
            readonly: false,
            replies: Replies::On,
            transaction: None,
            replay: VecDeque::new(),
            last_write: LastWrite::None,
            namespace: NamespaceId::DEFAULT,
            tracker: None,
        }
    }

    /// Back to how it began, as RESET has it.
    pub fn reset(&mut self, authenticated: bool) {
        *self.client.names() = Default::default();
        self.client.track(None);
        *self = Session::new(Arc::clone(&self.client), authenticated);
        self.show();
    }

    /// The levels of this connection.
    pub fn levels(&self, timeout: Duration) -> Levels {
        let read = if self.readonly { Some(ConsistencyLevel::One) } else { self.read };
        Levels { read: read.unwrap_or_default(), write: self.write.unwrap_or_default(), timeout, op_id: None }
    }

    /// Begins to note what it sees, if a command asks for less than quorums.
    pub fn track(&mut self, levels: &Levels, shared: &Shared) {
        if self.tracker.is_some() || !levels.are_weak() {
            return;
        }
        let tracker = Tracker::default();
        let map = shared.backend.map();
        // What it has written just before must not vanish because it now asks for less.
        let written = match &self.last_write {
            LastWrite::One(written) => std::slice::from_ref(written),
            LastWrite::Many(written) => written.as_slice(),
            LastWrite::None | LastWrite::AtLeast(_) => &[],
        };
        for written in written {
            let place = Place::of_key(&map, &written.key, levels.write);
            look(&tracker).note_write(place, written.stamp.dot, written.acknowledged);
        }
        self.client.track(Some(Arc::clone(&tracker)));
        self.tracker = Some(tracker);
    }

    /// Whether the reply to the present command is not wanted, given what was wanted before it.
    pub fn silence(&mut self, before: Replies) -> bool {
        match before {
            Replies::On => false,
            Replies::Off => self.replies == Replies::Off,
            Replies::SkipNext => {
                if self.replies == Replies::SkipNext {
                    self.replies = Replies::On;
                }
                true
            }
        }
    }

    /// Lets others see what of it is public.
    pub fn show(&self) {
        let queued = self.transaction.as_ref().map_or(-1, |transaction| transaction.queued as i64);
        self.client.queued.store(queued, Ordering::Relaxed);
        self.client.resp3.store(self.resp3, Ordering::Relaxed);
    }
}

/// What a finished future leaves behind.
pub(super) struct Completed {
    /// The encoded reply.
    pub reply: Vec<u8>,
    /// What WAIT has to know, if the command wrote.
    pub wrote: Option<LastWrite>,
}

/// A command of more than one step.
pub(super) type Work = Pin<Box<dyn Future<Output = Completed> + Send>>;

/// What a command has come to at its beginning.
pub(super) enum Begun {
    /// The reply is written.
    Replied,
    /// The reply will be made of this answer.
    Asked {
        /// The answer to come.
        answer: Answer,
        /// How it becomes a reply.
        finish: Finish,
        /// For the text of a failure.
        access: Access,
    },
    /// The reply is on its way.
    Working(Work),
    /// The reply is written, and is the last one.
    Close,
    /// Not even a reply: the connection is closed.
    Abort,
}

/// What every handler returns.
pub(super) type Handled = Result<Begun, ErrorReply>;

/// One command about to begin.
pub(super) struct Call<'a> {
    pub spec: &'static Spec,
    pub args: Args<'a>,
    pub session: &'a mut Session,
    pub shared: &'a Shared,
    pub levels: Levels,
    pub wall: WallTime,
}

impl Call<'_> {
    /// The key at this place.
    pub fn key(&self, index: usize) -> Result<Key, ErrorReply> {
        key(self.session.namespace, self.args.keep(index))
    }

    /// The keys from this place on, with a stride.
    pub fn keys(&self, from: usize, step: usize) -> Result<Vec<Key>, ErrorReply> {
        (from..self.args.len()).step_by(step).map(|index| self.key(index)).collect()
    }

    /// The value at this place, if it is not too long.
    pub fn value(&self, index: usize) -> Result<Bytes, ErrorReply> {
        if self.args.at(index).len() > self.shared.max_value_bytes {
            return Err(super::reply::TOO_LONG.into());
        }
        Ok(self.args.keep(index))
    }

    /// A whole number.
    pub fn integer(&self, index: usize) -> Result<i64, ErrorReply> {
        super::decode::integer(self.args.at(index)).ok_or_else(|| super::reply::NOT_AN_INTEGER.into())
    }

    /// An argument in lower case, for comparing with words.
    pub fn word(&self, index: usize) -> Vec<u8> {
        self.args.at(index).to_ascii_lowercase()
    }

    /// Begins a request whose answer becomes the reply.
    pub fn ask(&self, access: Access, operation: Operation, finish: Finish) -> Handled {
        let tracker = self.session.tracker.as_ref();
        let answer = Answer::to(&*self.shared.backend, &self.levels, tracker, access, operation);
        Ok(Begun::Asked { answer, finish, access })
    }

    /// For what needs several requests.
    pub fn asker(&self) -> Asker {
        Asker {
            backend: Arc::clone(&self.shared.backend),
            levels: self.levels,
            tracker: self.session.tracker.clone(),
            namespace: self.session.namespace,
        }
    }

    /// Whether the connection's namespace keeps concurrent values.
    pub fn keeps_siblings(&self) -> bool {
        self.shared.backend.map().policy(self.session.namespace) == MergePolicy::Siblings
    }

    /// Runs a command of several steps: `steps` writes the reply or returns an error.
    pub fn work<F>(&self, steps: impl FnOnce(Steps) -> F) -> Handled
    where
        F: Future<Output = Result<Steps, ErrorReply>> + Send + 'static,
    {
        let resp3 = self.session.resp3;
        let future = steps(Steps { asker: self.asker(), resp3, reply: Vec::new(), wrote: None });
        Ok(Begun::Working(Box::pin(async move {
            match future.await {
                Ok(steps) => Completed { reply: steps.reply, wrote: steps.wrote },
                Err(error) => {
                    let mut reply = Vec::new();
                    Writer::new(&mut reply, resp3).error(&error);
                    // Of a write in doubt nothing is certain, and WAIT must not answer for an earlier one.
                    let wrote = error.0.starts_with("INDOUBT").then_some(LastWrite::AtLeast(0));
                    Completed { reply, wrote }
                }
            }
        })))
    }

    /// The time this far from now, if that can be written down.
    pub fn expiry_in(&self, milliseconds: i64) -> Option<Expiry> {
        let now = i64::try_from(self.wall.0).ok()?;
        Some(at(now.checked_add(milliseconds)?))
    }
}

/// A time of day in milliseconds since 1970; what lies before that has passed just the same.
pub(super) fn at(milliseconds: i64) -> Expiry {
    Expiry::At(WallTime(u64::try_from(milliseconds).unwrap_or(0)))
}

/// What the future of a command has at hand.
pub(super) struct Steps {
    pub asker: Asker,
    pub resp3: bool,
    pub reply: Vec<u8>,
    pub wrote: Option<LastWrite>,
}

impl Steps {
    /// Where the reply goes.
    pub fn writer(&mut self) -> Writer<'_> {
        Writer::new(&mut self.reply, self.resp3)
    }
}

/// A key of a namespace.
pub(super) fn key(namespace: NamespaceId, bytes: Bytes) -> Result<Key, ErrorReply> {
    Key::new(namespace, bytes).map_err(|error| ErrorReply(Cow::Owned(format!("ERR {error}"))))
}
