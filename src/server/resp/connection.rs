//! One client's connection, as one future.
//!
//! Invariants: the socket is read only while the window has room, no complete command
//! waits, and the output is not full; so a client that sends without reading stops
//! itself. Input memory grows with what has arrived, never with what was announced, and
//! what exceeds a small share is taken from a budget of all connections. A half-sent
//! command and unread replies have deadlines. Everything that can be done is done before
//! the replies are written, so a batch of commands costs one read and one write.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::Sleep;

use super::Shared;
use super::clients::{Client, Stop};
use super::decode::{DecodeLimits, Decoded, Decoder};
use super::executor::{Ending, Executor, Step};
use super::reply::ErrorReply;
use crate::ambient;
use crate::types::{Moment, Now, limits};

/// What an idle connection keeps for input.
const SMALL_READ: usize = 4 * 1024;
/// What a busy one reads at once.
const LARGE_READ: usize = 64 * 1024;
/// Commands above this are not copied out of the input, but keep it alive.
const LARGE_COMMAND: usize = 16 * 1024;
/// Replies gathered before they are written although more could be gathered.
const BATCH_BYTES: usize = 64 * 1024;
/// Reads in one go, after which other connections have their turn.
const READS_A_TURN: usize = 4;
/// How much is read, and for how long, from a client that is being sent away, so that
/// the reason reaches it (closing with unread input resets the connection).
const LINGER_BYTES: usize = 4 * 1024 * 1024;
const LINGER: Duration = Duration::from_secs(1);
/// One client's connection.
pub(super) struct Connection {
    stream: TcpStream,
    /// None once it has spoken.
    stop: Option<oneshot::Receiver<Stop>>,
    input: BytesMut,
    decoder: Decoder,
    /// A large command whose bytes were taken out of the input.
    large: Option<Bytes>,
    /// What is charged for the input above its free share.
    charged: usize,
    read_size: usize,
    executor: Executor,
    timer: Option<(Moment, Pin<Box<Sleep>>)>,
    /// Since when a command is being received.
    receiving_since: Option<Moment>,
    last_read: Moment,
    last_write: Moment,
}

impl Connection {
    pub fn new(
        shared: Arc<Shared>,
        stream: TcpStream,
        client: Arc<Client>,
        stop: oneshot::Receiver<Stop>,
    ) -> Connection {
        let now = client.since;
        Connection {
            stream,
            stop: Some(stop),
            input: BytesMut::new(),
            decoder: Decoder::default(),
            large: None,
            charged: 0,
            read_size: SMALL_READ,
            executor: Executor::new(shared, client),
            timer: None,
            receiving_since: None,
            last_read: now,
            last_write: now,
        }
    }

    /// Serves the client until it or the server has had enough.
    pub async fn run(mut self) {
        poll_fn(|context| self.poll(context)).await;
        let Connection { stream, executor, charged, .. } = &mut self;
        let freed = executor.shared.recharge(charged, 0);
        debug_assert!(freed, "giving back is always possible");
        if executor.ending == Some(Ending::Answered) {
            linger(stream).await;
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<()> {
        let now = ambient::now();
        if let Some(stop) = &mut self.stop
            && let Poll::Ready(stop) = Pin::new(stop).poll(context)
        {
            self.stop = None;
            match stop {
                Ok(Stop::ShuttingDown) if self.executor.ending.is_none() => self.end(Ending::Answered),
                Ok(Stop::ShuttingDown) => {}
                Ok(Stop::Killed) | Err(_) => return self.abort(),
            }
        }
        let mut reads = 0;
        loop {
            let mut progress = self.executor.collect(context, now);
            progress |= self.begin_commands(now);
            if progress && self.executor.output.len() < BATCH_BYTES {
                continue;
            }
            match self.poll_write(context, now.moment) {
                Ok(wrote) => progress |= wrote,
                Err(_) => return self.abort(),
            }
            if self.executor.ending.is_some() && self.executor.is_idle() {
                return Poll::Ready(());
            }
            if reads == READS_A_TURN {
                context.waker().wake_by_ref();
                break;
            }
            if self.wants_input() {
                match self.poll_read(context, now.moment) {
                    Poll::Ready(Ok(0)) => {
                        self.end(Ending::Answered);
                        progress = true;
                    }
                    Poll::Ready(Ok(_)) => {
                        reads += 1;
                        progress = true;
                    }
                    Poll::Ready(Err(_)) => return self.abort(),
                    Poll::Pending => {}
                }
            }
            if !progress {
                break;
            }
        }
        self.rest(now.moment);
        self.poll_deadline(context, now.moment)
    }

    fn abort(&mut self) -> Poll<()> {
        self.executor.ending = Some(Ending::Aborted);
        Poll::Ready(())
    }

    /// No further command is read; those under way are answered.
    fn end(&mut self, ending: Ending) {
        self.executor.ending = Some(ending);
        self.input = BytesMut::new();
        self.large = None;
        self.decoder.reset();
    }

    fn wants_input(&self) -> bool {
        self.executor.ending.is_none()
            && self.large.is_none()
            && self.executor.session.replay.is_empty()
            && self.executor.output.len() < limits::RESP_OUTPUT_BYTES
            && !self.decoder.is_complete()
    }

    /// Begins as many commands as may begin.
    fn begin_commands(&mut self, now: Now) -> bool {
        let mut progress = false;
        while self.executor.output.len() < limits::RESP_OUTPUT_BYTES {
            if let Some(owned) = self.executor.session.replay.pop_front() {
                if self.executor.begin(owned.args(), owned.weight(), now) == Step::Waits {
                    self.executor.session.replay.push_front(owned);
                    break;
                }
                progress = true;
                continue;
            }
            if self.executor.ending.is_some() {
                break;
            }
            let limits = match self.executor.session.authenticated {
                true => &DecodeLimits::AUTHENTICATED,
                false => &DecodeLimits::UNAUTHENTICATED,
            };
            match self.decoder.decode(&self.input, limits) {
                Ok(Decoded::Incomplete) => break,
                Ok(Decoded::Skip { bytes }) => {
                    self.input.advance(bytes);
                    self.decoder.reset();
                }
                Ok(Decoded::Command { bytes }) => {
                    if self.begin_input(bytes, now) == Step::Waits {
                        break;
                    }
                }
                Err(error) => {
                    self.executor.shared.options.metrics.resp_protocol_error();
                    self.executor.say(now, |writer| writer.error(&ErrorReply::from(format!("ERR {error}"))));
                    self.end(Ending::Answered);
                }
            }
            progress = true;
        }
        if self.executor.ending.is_some() && !self.input.is_empty() {
            self.end(self.executor.ending.unwrap_or(Ending::Answered));
        }
        progress
    }

    /// Begins the command that stands complete at the head of the input.
    fn begin_input(&mut self, bytes: usize, now: Now) -> Step {
        if bytes > LARGE_COMMAND && self.large.is_none() {
            self.large = Some(self.input.split_to(bytes).freeze());
        }
        let args = match &self.large {
            Some(owned) => self.decoder.args_of_owned(owned),
            None => self.decoder.args(&self.input),
        };
        if self.executor.begin(args, bytes, now) == Step::Waits {
            return Step::Waits;
        }
        if self.large.take().is_none() {
            self.input.advance(bytes);
        }
        self.decoder.reset();
        self.receiving_since = None;
        Step::Began
    }

    fn poll_read(&mut self, context: &mut Context<'_>, now: Moment) -> Poll<std::io::Result<usize>> {
        if self.input.capacity() - self.input.len() < SMALL_READ / 2 {
            self.input.reserve(self.read_size);
        }
        let wanted = self.input.capacity().saturating_sub(limits::RESP_FREE_INPUT_BYTES * 2);
        if wanted != self.charged && !self.executor.shared.recharge(&mut self.charged, wanted) {
            let now = Now { moment: now, wall: ambient::wall() };
            let text = "TRYAGAIN too many half-sent commands are held in memory, not executed";
            self.executor.say(now, |writer| writer.error(&text.into()));
            return Poll::Ready(Ok(0));
        }
        let room = self.input.capacity() - self.input.len();
        let read = std::pin::pin!(self.stream.read_buf(&mut self.input)).poll(context);
        if let Poll::Ready(Ok(bytes)) = read {
            if bytes == room {
                self.read_size = (self.read_size * 2).min(LARGE_READ);
            }
            self.last_read = now;
            self.executor.session.client.last_active.store(now.0, Ordering::Relaxed);
        }
        read
    }

    fn poll_write(&mut self, context: &mut Context<'_>, now: Moment) -> std::io::Result<bool> {
        let output = &mut self.executor.output;
        let mut wrote = false;
        while output.len() > 0 {
            match Pin::new(&mut self.stream).poll_write(context, &output.buffer[output.sent..])? {
                Poll::Ready(0) => return Err(std::io::ErrorKind::WriteZero.into()),
                Poll::Ready(bytes) => {
                    output.sent += bytes;
                    wrote = true;
                }
                Poll::Pending => break,
            }
        }
        if output.len() == 0 {
            output.sent = 0;
            if output.buffer.capacity() > BATCH_BYTES * 2 {
                output.buffer = Vec::new();
            } else {
                output.buffer.clear();
            }
        }
        if wrote || output.len() == 0 {
            self.last_write = now;
        }
        Ok(wrote)
    }

    /// Gives back what an idle connection does not need.
    fn rest(&mut self, now: Moment) {
        if self.input.is_empty() || !self.wants_input() {
            self.receiving_since = None;
        } else {
            self.receiving_since.get_or_insert(now);
        }
        if self.input.is_empty() {
            if self.input.capacity() > SMALL_READ && self.executor.is_idle() {
                self.input = BytesMut::new();
                self.read_size = SMALL_READ;
                let freed = self.executor.shared.recharge(&mut self.charged, 0);
                debug_assert!(freed, "giving back is always possible");
            }
            if self.executor.output.buffer.is_empty() && self.executor.output.buffer.capacity() > SMALL_READ {
                self.executor.output.buffer = Vec::new();
            }
        }
    }

    /// The moment at which the client must have done what it owes, if it owes anything.
    fn deadline(&self) -> Option<Moment> {
        let options = &self.executor.shared.options;
        if self.executor.output.len() > 0 {
            return Some(self.last_write.plus(options.write_deadline));
        }
        if let Some(since) = self.receiving_since.filter(|_| self.wants_input()) {
            let earned = Duration::from_secs((self.input.len() / (64 * 1024)) as u64);
            return Some(since.plus(options.command_deadline).plus(earned));
        }
        if self.executor.window.is_empty() && self.wants_input() {
            let idle = match self.executor.session.authenticated {
                true => options.idle_timeout,
                // Nobody may keep a place without having shown that it is theirs.
                false => Some(options.command_deadline),
            };
            return idle.map(|idle| self.last_read.plus(idle));
        }
        None
    }

    fn poll_deadline(&mut self, context: &mut Context<'_>, now: Moment) -> Poll<()> {
        loop {
            let Some(deadline) = self.deadline() else {
                self.timer = None;
                return Poll::Pending;
            };
            if deadline <= now {
                self.executor.shared.options.metrics.resp_deadline_missed();
                return self.abort();
            }
            // A timer that rings too early is set anew then; that is cheaper than each time.
            let set = match &self.timer {
                Some((rings, _)) => *rings > deadline,
                None => true,
            };
            if set {
                let sleep = tokio::time::sleep(deadline.since(now) + Duration::from_millis(1));
                self.timer = Some((deadline, Box::pin(sleep)));
            }
            let Some((_, sleep)) = &mut self.timer else { return Poll::Pending };
            if sleep.as_mut().poll(context).is_pending() {
                return Poll::Pending;
            }
            self.timer = None;
            let now = ambient::moment();
            if self.deadline().is_some_and(|deadline| deadline <= now) {
                self.executor.shared.options.metrics.resp_deadline_missed();
                return self.abort();
            }
        }
    }
}

/// Closes in a way that lets the last replies arrive.
async fn linger(stream: &mut TcpStream) {
    let drain = async {
        stream.shutdown().await?;
        let mut taken = 0;
        let mut scratch = vec![0; SMALL_READ];
        while taken < LINGER_BYTES {
            match stream.read(&mut scratch).await? {
                0 => break,
                bytes => taken += bytes,
            }
        }
        std::io::Result::Ok(())
    };
    // The client is gone or stubborn: both are its own affair now.
    let _ = tokio::time::timeout(LINGER, drain).await;
}
