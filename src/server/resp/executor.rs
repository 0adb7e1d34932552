//! The part of a connection that knows no socket: commands go in, replies come out.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use super::Shared;
use super::clients::Client;
use super::decode::Args;
use super::dispatch::{Verdict, begin, judge};
use super::reply::Writer;
use super::session::{Begun, Session};
use super::window::{Pending, Progress, Window};
use crate::ambient;
use crate::types::{Now, limits};

/// The place in the metrics of what is in no table.
const UNKNOWN: usize = usize::MAX;

/// How a connection ends once what was begun is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The client has nothing more to say, or is sent away.
    Answered,
    /// Nobody listens any more.
    Aborted,
}

/// What became of a command at the head of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Waits,
    Began,
}

/// What commands work on, apart from the input that they are read from.
pub(super) struct Executor {
    pub shared: Arc<Shared>,
    pub session: Session,
    pub window: Window,
    pub output: Output,
    pub ending: Option<Ending>,
}

/// Replies on their way out.
#[derive(Default)]
pub(super) struct Output {
    pub buffer: Vec<u8>,
    /// How much of it has been written.
    pub sent: usize,
}

impl Output {
    pub fn len(&self) -> usize {
        self.buffer.len() - self.sent
    }
}

impl Executor {
    pub fn new(shared: Arc<Shared>, client: Arc<Client>) -> Executor {
        let session = Session::new(client, shared.options.password.is_none());
        let window = Window::new(shared.max_value_bytes, Arc::clone(&shared.read_bytes));
        Executor { shared, session, window, output: Output::default(), ending: None }
    }

    /// Whether nothing is under way and nothing is left to send.
    pub fn is_idle(&self) -> bool {
        self.window.is_empty() && self.output.len() == 0 && self.session.replay.is_empty()
    }

    /// Moves on what is under way and gathers the replies that are there.
    pub fn collect(&mut self, context: &mut Context<'_>, now: Now) -> bool {
        if self.window.is_empty() {
            return false;
        }
        self.window.poll_steps(context);
        let replicas = || usize::from(self.shared.backend.map().replication_factor);
        let mut progress = false;
        let mut ended = None;
        while self.output.len() < limits::RESP_OUTPUT_BYTES {
            let buffer = &mut self.output.buffer;
            let last_write = &mut self.session.last_write;
            let reply = self.window.poll_reply(context, now.wall, &replicas, buffer, last_write);
            let Poll::Ready(Some(finished)) = reply else { break };
            let end = *ended.get_or_insert_with(ambient::moment);
            let took = end.since(finished.begun);
            self.shared.options.metrics.resp_command(finished.command, &buffer[finished.from..], took);
            if finished.silent {
                buffer.truncate(finished.from);
            }
            progress = true;
        }
        progress
    }

    /// Begins one command, unless it has to wait for those before it.
    pub fn begin(&mut self, args: Args<'_>, bytes: usize, now: Now) -> Step {
        if !self.window.admits(&Window::claim_room(0)) {
            return Step::Waits;
        }
        let resolved = match judge(args, &mut self.session, &self.shared.options) {
            Verdict::Run(resolved) => resolved,
            Verdict::Queued => {
                self.say(now, |writer| writer.simple("QUEUED"));
                return Step::Began;
            }
            Verdict::Refused(error) => {
                self.say(now, |writer| writer.error(&error));
                return Step::Began;
            }
        };
        let claim = self.window.claim(resolved.spec, resolved.args, bytes);
        if !self.window.admits(&claim) {
            return Step::Waits;
        }
        self.session.client.last_command.store(resolved.index as u64, Ordering::Relaxed);
        let before = self.session.replies;
        let resp3 = self.session.resp3;
        // With nothing before it, a reply that is there at once needs no place to wait in.
        let direct = self.window.is_empty();
        let mut scratch = Vec::new();
        let reply = if direct { &mut self.output.buffer } else { &mut scratch };
        let from = reply.len();
        let begun = begin(&resolved, &mut self.session, &self.shared, now.wall, reply);
        let silent = self.session.silence(before);
        let progress = match begun {
            Ok(Begun::Asked { answer, finish, access }) => Progress::Asked { answer, finish, access },
            Ok(Begun::Working(work)) => Progress::Working(work),
            done => {
                match done {
                    Ok(Begun::Close) => self.ending = Some(Ending::Answered),
                    Ok(Begun::Abort) => self.ending = Some(Ending::Aborted),
                    Err(error) => Writer::new(reply, resp3).error(&error),
                    _ => {}
                }
                self.replied(resolved.index, now, silent, direct.then_some(from), scratch);
                return Step::Began;
            }
        };
        let levels = resolved.levels;
        let command = resolved.index;
        self.window.push(Pending { progress, claim, command, begun: now.moment, levels, resp3, silent });
        Step::Began
    }

    /// Replies with something that needs no work.
    pub fn say(&mut self, now: Now, write: impl FnOnce(&mut Writer<'_>)) {
        let silent = self.session.silence(self.session.replies);
        let direct = self.window.is_empty();
        let mut scratch = Vec::new();
        let reply = if direct { &mut self.output.buffer } else { &mut scratch };
        let from = reply.len();
        write(&mut Writer::new(reply, self.session.resp3));
        self.replied(UNKNOWN, now, silent, direct.then_some(from), scratch);
    }

    /// Sends a reply that is there on its way: it is in the output from a place on
    /// already, or it waits its turn.
    fn replied(&mut self, command: usize, now: Now, silent: bool, direct: Option<usize>, reply: Vec<u8>) {
        let Some(from) = direct else {
            let claim = Window::claim_room(reply.len());
            let levels = self.session.levels(self.shared.options.request_timeout);
            let (begun, resp3) = (now.moment, self.session.resp3);
            let progress = Progress::Reply(reply);
            self.window.push(Pending { progress, claim, command, begun, levels, resp3, silent });
            return;
        };
        self.shared.options.metrics.resp_command(command, &self.output.buffer[from..], Duration::ZERO);
        if silent {
            self.output.buffer.truncate(from);
        }
    }
}
