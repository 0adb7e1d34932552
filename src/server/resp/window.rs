//! The commands of one connection that are under way.
//!
//! Problem: a client that sends commands without waiting for replies must get them as
//! fast as the store can group them, yet as if each had waited for the one before.
//! Invariants: replies leave in the order of their commands; two commands that share a
//! key, one of which writes, are never under way together, and neither is a command that
//! runs alone with any other; the weights of all together stay within [`WIDTH`] unless
//! there is only one. So what waits here, and what it may bring in, is bounded.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, BuildHasherDefault, Hasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use super::ask::{Access, Answer, AskError, Levels, error_reply};
use super::decode::Args;
use super::finish::Finish;
use super::reply::Writer;
use super::session::{Completed, LastWrite, Work};
use super::table::{ALONE, Spec, VALUES, WRITE};
use crate::types::{Moment, WallTime, limits};

/// What commands under way may weigh together.
pub(super) const WIDTH: usize = limits::RESP_PIPELINE;
/// Commands with more keys than this run alone.
const MOST_KEYS: usize = WIDTH;

/// Which keys a command touches, as hashes: a collision only makes it wait.
#[derive(Debug)]
pub(super) enum Keys {
    None,
    One(u64),
    Many(Box<[u64]>),
}

impl Keys {
    fn as_slice(&self) -> &[u64] {
        match self {
            Keys::None => &[],
            Keys::One(key) => std::slice::from_ref(key),
            Keys::Many(keys) => keys,
        }
    }
}

/// What decides whether a command may begin.
#[derive(Debug)]
pub(super) struct Claim {
    keys: Keys,
    writes: bool,
    alone: bool,
    weight: usize,
    /// Bytes of values that it may bring in, at the worst.
    brings: usize,
}

/// How what is under way becomes a reply.
pub(super) enum Progress {
    /// It is the reply already.
    Reply(Vec<u8>),
    Asked {
        answer: Answer,
        finish: Finish,
        access: Access,
    },
    Working(Work),
    Completed(Completed),
}

/// One command under way.
pub(super) struct Pending {
    pub progress: Progress,
    pub claim: Claim,
    /// The place of its command in the table.
    pub command: usize,
    pub begun: Moment,
    pub levels: Levels,
    pub resp3: bool,
    /// The client does not want this reply.
    pub silent: bool,
}

/// What a reply was made from, for the metrics.
pub(super) struct Finished {
    pub command: usize,
    pub begun: Moment,
    /// Where the reply begins in the output; it may be dropped from there.
    pub from: usize,
    pub silent: bool,
}

/// A command or reply of this many bytes weighs as much as that many of the usual size.
fn weight_of(bytes: usize) -> usize {
    1 + bytes / (64 * 1024)
}

#[derive(Default)]
struct Holders {
    readers: u32,
    writers: u32,
}

/// The hashes are hashes already.
#[derive(Default)]
struct AsIs(u64);

impl Hasher for AsIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// All commands of a connection that are under way, oldest first.
pub(super) struct Window {
    pending: VecDeque<Pending>,
    held: HashMap<u64, Holders, BuildHasherDefault<AsIs>>,
    hash: RandomState,
    weight: usize,
    alone: bool,
    /// How many are futures that must be polled wherever they stand.
    working: usize,
    /// What a command weighs that may bring in a value.
    value_weight: usize,
    max_value_bytes: usize,
    /// What the commands under way of all connections may bring in, at the worst.
    all_brings: Arc<AtomicUsize>,
}

impl Window {
    /// A window that shares the memory for values, which `all_brings` counts, with others.
    pub fn new(max_value_bytes: usize, all_brings: Arc<AtomicUsize>) -> Window {
        // Sixteen reads are always allowed: one at a time would be no pipeline at all.
        let reads = (limits::RESP_READ_BYTES / max_value_bytes.max(1)).clamp(16, WIDTH);
        Window {
            pending: VecDeque::new(),
            held: HashMap::default(),
            hash: RandomState::new(),
            weight: 0,
            alone: false,
            working: 0,
            value_weight: WIDTH / reads,
            max_value_bytes,
            all_brings,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// What a command needs in order to begin.
    pub fn claim(&self, spec: &Spec, args: Args<'_>, bytes: usize) -> Claim {
        let places = spec.keys.of(args.len());
        let count = places.clone().count();
        let alone = spec.is(ALONE) || count > MOST_KEYS;
        let keys = match count {
            _ if alone => Keys::None,
            0 => Keys::None,
            1 => Keys::One(self.hash.hash_one(args.at(spec.keys.first))),
            _ => Keys::Many(places.map(|place| self.hash.hash_one(args.at(place))).collect()),
        };
        let (each, brings) = if spec.is(VALUES) {
            (self.value_weight, self.max_value_bytes.saturating_mul(count.max(1)))
        } else {
            (1, 0)
        };
        let weight = (each * count.max(1)).max(weight_of(bytes)).min(WIDTH);
        Claim { keys, writes: spec.is(WRITE), alone, weight, brings }
    }

    /// A reply of so many bytes that needs no work only claims its room.
    pub fn claim_room(bytes: usize) -> Claim {
        Claim { keys: Keys::None, writes: false, alone: false, weight: weight_of(bytes).min(WIDTH), brings: 0 }
    }

    /// Whether a command may begin now.
    pub fn admits(&self, claim: &Claim) -> bool {
        if self.pending.is_empty() {
            return true;
        }
        if self.alone || claim.alone || self.weight + claim.weight > WIDTH {
            return false;
        }
        // One that is empty always begins, above; so nobody waits for other connections.
        let all = self.all_brings.load(Ordering::Relaxed).saturating_add(claim.brings);
        if claim.brings > 0 && all > limits::RESP_ALL_READ_BYTES {
            return false;
        }
        claim.keys.as_slice().iter().all(|key| match self.held.get(key) {
            None => true,
            Some(holders) => !claim.writes && holders.writers == 0,
        })
    }

    /// Enters a command that has begun.
    pub fn push(&mut self, pending: Pending) {
        for key in pending.claim.keys.as_slice() {
            let holders = self.held.entry(*key).or_default();
            if pending.claim.writes { holders.writers += 1 } else { holders.readers += 1 }
        }
        self.weight += pending.claim.weight;
        self.all_brings.fetch_add(pending.claim.brings, Ordering::Relaxed);
        self.alone |= pending.claim.alone;
        self.working += usize::from(matches!(pending.progress, Progress::Working(_)));
        self.pending.push_back(pending);
    }

    /// Moves on every command that has several steps.
    pub fn poll_steps(&mut self, context: &mut Context<'_>) {
        if self.working == 0 {
            return;
        }
        for pending in &mut self.pending {
            if let Progress::Working(work) = &mut pending.progress
                && let Poll::Ready(completed) = work.as_mut().poll(context)
            {
                pending.progress = Progress::Completed(completed);
                self.working -= 1;
            }
        }
    }

    /// Appends the reply of the oldest command, if it is there.
    pub fn poll_reply(
        &mut self,
        context: &mut Context<'_>,
        wall: WallTime,
        replicas: &dyn Fn() -> usize,
        output: &mut Vec<u8>,
        last_write: &mut LastWrite,
    ) -> Poll<Option<Finished>> {
        let Some(front) = self.pending.front_mut() else { return Poll::Ready(None) };
        let response = match &mut front.progress {
            Progress::Reply(_) | Progress::Completed(_) => None,
            Progress::Working(_) => return Poll::Pending,
            Progress::Asked { answer, .. } => match answer.poll_settled(context) {
                Poll::Ready(answer) => Some(answer),
                Poll::Pending => return Poll::Pending,
            },
        };
        let pending = self.pop();
        let from = output.len();
        let mut writer = Writer::new(output, pending.resp3);
        match (pending.progress, response) {
            (Progress::Reply(reply), _) => writer.raw(&reply),
            (Progress::Completed(completed), _) => {
                writer.raw(&completed.reply);
                if let Some(wrote) = completed.wrote {
                    *last_write = wrote;
                }
            }
            (Progress::Asked { finish, .. }, Some(Ok(response))) => {
                let level = pending.levels.write;
                if let Err(error) = finish.write(response, wall, level, replicas, &mut writer, last_write) {
                    writer.error(&error);
                }
            }
            (Progress::Asked { access, .. }, Some(Err(error))) => {
                if let (Access::Write, AskError::Failed(crate::types::Failure::InDoubt { acknowledged, .. })) =
                    (access, &error)
                {
                    *last_write = LastWrite::AtLeast(*acknowledged);
                }
                writer.error(&error_reply(access, pending.levels, &error));
            }
            (Progress::Asked { .. }, None) | (Progress::Working(_), _) => unreachable!("these were left above"),
        }
        Poll::Ready(Some(Finished { command: pending.command, begun: pending.begun, from, silent: pending.silent }))
    }

    fn pop(&mut self) -> Pending {
        let pending = self.pending.pop_front().expect("the front was just looked at");
        for key in pending.claim.keys.as_slice() {
            let holders = self.held.get_mut(key).expect("held since it was pushed");
            if pending.claim.writes {
                holders.writers -= 1
            } else {
                holders.readers -= 1
            }
            if holders.writers == 0 && holders.readers == 0 {
                self.held.remove(key);
            }
        }
        self.weight -= pending.claim.weight;
        self.all_brings.fetch_sub(pending.claim.brings, Ordering::Relaxed);
        self.alone &= !pending.claim.alone;
        pending
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        let brings = self.pending.iter().map(|pending| pending.claim.brings).sum();
        self.all_brings.fetch_sub(brings, Ordering::Relaxed);
    }
}

#[cfg(test)]
#[path = "window_tests.rs"]
mod tests;
