//! One connection of the generator: operations out, replies in.
//!
//! Invariant: replies come in the order of the commands, so the operations under way are
//! a queue. Whatever ends a connection turns each of them into one counted failure.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::measure::Measurements;
use super::operation::{Kind, Operations};
use super::schedule::{Next, Schedule};
use crate::ambient::moment;
use crate::client::resp::{ClientError, Connection, RawReply, ReplyParser, Target};
use crate::types::Moment;

const READ_BYTES: usize = 16 * 1024;
/// How long a broken connection waits before it is made again.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);

/// What the connections of one thread share in one phase.
#[derive(Debug)]
pub(super) struct Phase {
    pub(super) schedule: Schedule,
    pub(super) measurements: RefCell<Measurements>,
    /// Rings when an operation of an open loop is due, and at the end.
    pub(super) due: Notify,
    /// Operations answered, over all threads, for the progress bar.
    pub(super) progress: Arc<AtomicU64>,
    pub(super) pipeline: usize,
    /// While keys are loaded: the next one to be written, over all threads, and their count.
    pub(super) loading: Option<(Arc<AtomicU64>, u64)>,
}

impl Phase {
    /// An operation to begin, if there is one now.
    fn begin(&self, operations: &mut Operations, now: Moment) -> Result<Option<Begun>, Over> {
        if let Some((next, count)) = &self.loading {
            let key = next.fetch_add(1, Ordering::Relaxed);
            let begun = Begun { kind: Kind::Put, key, at: now, recorded: true };
            return if key < *count { Ok(Some(begun)) } else { Err(Over) };
        }
        match self.schedule.next(now) {
            Next::Begin { at, recorded } => {
                if self.schedule.is_open() {
                    // Wakes the next free connection, which finds out whether more is due.
                    self.due.notify_one();
                }
                let (kind, key) = operations.choose();
                Ok(Some(Begun { kind, key, at, recorded }))
            }
            Next::NotBefore(_) => Ok(None),
            Next::Over => Err(Over),
        }
    }
}

/// Nothing more begins in this phase.
#[derive(Debug)]
struct Over;

#[derive(Clone, Copy, Debug)]
struct Begun {
    kind: Kind,
    key: u64,
    at: Moment,
    recorded: bool,
}

#[derive(Debug)]
struct UnderWay {
    begun: Begun,
    /// Replies that have not come.
    missing: u8,
    /// Whether the read of a read-modify-write is still to be answered.
    reading: bool,
    failure: Option<String>,
    found: bool,
    replicas: Option<i64>,
}

/// Why a connection is of no further use.
#[derive(Debug)]
enum Broken {
    Silent,
    Closed,
    NotResp,
}

/// A connection with the operations it makes.
#[derive(Debug)]
pub(super) struct Driver {
    target: Target,
    timeout: Duration,
    wait: Option<u8>,
    operations: Operations,
    stream: TcpStream,
    parser: ReplyParser,
    out: BytesMut,
    under_way: VecDeque<UnderWay>,
}

impl Driver {
    pub(super) async fn connect(
        target: Target,
        timeout: Duration,
        wait: Option<u8>,
        operations: Operations,
    ) -> Result<Driver, ClientError> {
        let (stream, parser) = Connection::connect(&target, timeout).await?.into_parts();
        let (out, under_way) = (BytesMut::new(), VecDeque::new());
        Ok(Driver { target, timeout, wait, operations, stream, parser, out, under_way })
    }

    /// Runs a phase to its end; a broken connection is made again.
    pub(super) async fn run(&mut self, phase: Rc<Phase>) {
        while let Err(broken) = self.exchange(&phase).await {
            let code = match broken {
                Broken::Silent => "TIMEOUT",
                Broken::Closed => "DISCONNECTED",
                Broken::NotResp => "PROTOCOL",
            };
            {
                let mut measurements = phase.measurements.borrow_mut();
                for _ in self.under_way.drain(..).filter(|operation| operation.begun.recorded) {
                    measurements.failed(code, moment());
                }
            }
            self.out.clear();
            if !self.reconnect(&phase).await {
                phase.measurements.borrow_mut().lost_connections += 1;
                return;
            }
        }
    }

    async fn reconnect(&mut self, phase: &Phase) -> bool {
        let give_up = moment().plus(self.timeout);
        while moment() < give_up {
            tokio::time::sleep(RECONNECT_PAUSE).await;
            if phase.loading.is_none() && matches!(phase.schedule.peek(moment()), Next::Over) {
                // Nothing is left to do; the next phase finds out whether the server is back.
                return true;
            }
            if let Ok(connection) = Connection::connect(&self.target, self.timeout).await {
                (self.stream, self.parser) = connection.into_parts();
                phase.measurements.borrow_mut().reconnects += 1;
                return true;
            }
        }
        false
    }

    async fn exchange(&mut self, phase: &Phase) -> Result<(), Broken> {
        loop {
            // Registered before the look at the schedule, so that no ring is missed.
            let due = phase.due.notified();
            let over = self.fill(phase);
            if self.under_way.is_empty() {
                if over {
                    return Ok(());
                }
                due.await;
                continue;
            }
            self.write()?;
            if !self.out.is_empty() {
                let interest = Interest::READABLE | Interest::WRITABLE;
                let ready = timeout(self.timeout, self.stream.ready(interest)).await.map_err(|_| Broken::Silent)?;
                if !ready.map_err(|_| Broken::Closed)?.is_readable() {
                    continue;
                }
            }
            let room = !over && phase.schedule.is_open() && self.under_way.len() < phase.pipeline;
            let read = timeout(self.timeout, self.stream.read_buf(self.parser.space(READ_BYTES)));
            let read = if room {
                tokio::select! {
                    biased;
                    read = read => read,
                    () = due => continue,
                }
            } else {
                read.await
            };
            match read {
                Err(_elapsed) => return Err(Broken::Silent),
                Ok(Err(_) | Ok(0)) => return Err(Broken::Closed),
                Ok(Ok(_)) => self.take_replies(phase)?,
            }
        }
    }

    /// Begins what may begin now. True if nothing more begins in this phase.
    fn fill(&mut self, phase: &Phase) -> bool {
        if self.under_way.len() >= phase.pipeline {
            return false;
        }
        let now = moment();
        while self.under_way.len() < phase.pipeline {
            match phase.begin(&mut self.operations, now) {
                Ok(Some(begun)) => {
                    let missing = self.operations.write(begun.kind, begun.key, &mut self.out);
                    let reading = begun.kind == Kind::ReadModifyWrite;
                    self.under_way.push_back(UnderWay {
                        begun,
                        missing,
                        reading,
                        failure: None,
                        found: true,
                        replicas: None,
                    });
                }
                Ok(None) => return false,
                Err(Over) => {
                    // Others may be asleep until something is due, and nothing will be.
                    phase.due.notify_waiters();
                    return true;
                }
            }
        }
        false
    }

    fn write(&mut self) -> Result<(), Broken> {
        while !self.out.is_empty() {
            match self.stream.try_write(&self.out) {
                Ok(written) => self.out.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(_) => return Err(Broken::Closed),
            }
        }
        Ok(())
    }

    fn take_replies(&mut self, phase: &Phase) -> Result<(), Broken> {
        let now = moment();
        let wait = self.wait;
        loop {
            let Some(operation) = self.under_way.front_mut() else {
                // A reply to nothing: the stream has lost its order.
                return if self.parser.buffered() == 0 { Ok(()) } else { Err(Broken::NotResp) };
            };
            let seen = self.parser.next_raw(|reply| reply.kind() != b'>' && operation.take(reply));
            match seen.map_err(|_| Broken::NotResp)? {
                None => return Ok(()),
                Some(false) => continue,
                Some(true) => {}
            }
            if operation.missing > 0 {
                continue;
            }
            let mut operation = self.under_way.pop_front().expect("it was looked at above");
            if operation.reading && operation.failure.is_none() {
                operation.reading = false;
                operation.missing = self.operations.write_value(operation.begun.key, &mut self.out);
                self.under_way.push_back(operation);
                continue;
            }
            phase.progress.fetch_add(1, Ordering::Relaxed);
            if operation.begun.recorded {
                operation.record(&mut phase.measurements.borrow_mut(), wait, now);
            }
        }
    }
}

impl UnderWay {
    /// Takes one reply; true, because it was one of this operation's.
    fn take(&mut self, reply: RawReply<'_>) -> bool {
        self.missing -= 1;
        if reply.is_error() {
            self.failure.get_or_insert_with(|| reply.error_prefix().to_owned());
        } else if reply.is_null() {
            self.found = false;
        } else if self.missing == 0 && self.begun.kind != Kind::Get {
            self.replicas = reply.as_integer();
        }
        true
    }

    fn record(self, measurements: &mut Measurements, wait: Option<u8>, now: Moment) {
        if let Some(code) = &self.failure {
            return measurements.failed(code, now);
        }
        measurements.succeeded(self.begun.kind, self.begun.at, now);
        measurements.misses += u64::from(!self.found);
        if let Some(wanted) = wait
            && self.begun.kind != Kind::Get
            && self.replicas.is_none_or(|replicas| replicas < i64::from(wanted))
        {
            measurements.under_replicated += 1;
        }
    }
}

/// Rings for each operation of an open loop as it comes due, until the phase is over.
pub(super) async fn ring_when_due(phase: &Phase, alarm: &super::alarm::Alarm) -> io::Result<()> {
    loop {
        match phase.schedule.peek(moment()) {
            Next::Over => {
                phase.due.notify_waiters();
                return Ok(());
            }
            Next::NotBefore(due) => alarm.sleep(due.since(moment())).await?,
            Next::Begin { .. } => {
                // Wakes a connection that is free, which wakes another one if more is due. If
                // none is free, those that are busy find what is due when they are done.
                phase.due.notify_one();
                alarm.sleep(phase.schedule.until_next_due(moment())).await?;
            }
        }
    }
}
