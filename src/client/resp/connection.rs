//! One connection: commands out, replies in, in the same order.
//!
//! Reading and writing go on together, so that a long pipeline cannot come to a halt
//! with both sides waiting for the other to read. After an error other than the server's
//! own the connection is of no further use: replies would no longer match commands.

use std::io::ErrorKind;
use std::time::Duration;

use bytes::Buf;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::runtime::Runtime;
use tokio::time::timeout;

use super::{ClientError, Pipeline, Reply, ReplyLimits, ReplyParser, Target};

/// How much is read from the socket at once.
const READ_BYTES: usize = 16 * 1024;

/// A connection for code that runs on tokio.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    parser: ReplyParser,
    timeout: Duration,
}

impl Connection {
    /// Connects, authenticates and selects the database. `timeout` bounds this, and later
    /// the wait for the next reply of every call.
    ///
    /// # Errors
    /// No command of the caller has been sent.
    pub async fn connect(target: &Target, limit: Duration) -> Result<Connection, ClientError> {
        let failed = |source| ClientError::Connect { address: target.address(), source };
        let dial = TcpStream::connect((target.host.as_str(), target.port));
        let stream = match timeout(limit, dial).await {
            Ok(stream) => stream.map_err(failed)?,
            Err(_) => return Err(failed(ErrorKind::TimedOut.into())),
        };
        stream.set_nodelay(true).map_err(failed)?;
        let mut connection = Connection { stream, parser: ReplyParser::new(ReplyLimits::default()), timeout: limit };
        let mut hello = Pipeline::new();
        if let Some(credentials) = &target.credentials {
            match &credentials.user {
                Some(user) => hello.push(&["AUTH", user, &credentials.password]),
                None => hello.push(&["AUTH", &credentials.password]),
            };
        }
        if target.database != 0 {
            hello.push(&["SELECT", &target.database.to_string()]);
        }
        for reply in connection.pipeline(&hello).await? {
            if let Reply::Error(source) = reply {
                return Err(ClientError::Refused { address: target.address(), source });
            }
        }
        Ok(connection)
    }

    /// The socket and the parser with what it has buffered, for callers with a loop of their own.
    pub fn into_parts(self) -> (TcpStream, ReplyParser) {
        (self.stream, self.parser)
    }

    /// Sends one command and waits for its reply; an error of the server is an error.
    ///
    /// # Errors
    /// [`ClientError::fate`] says whether the command may have been applied.
    pub async fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Reply, ClientError> {
        let mut pipeline = Pipeline::new();
        pipeline.push(arguments);
        let reply = self.pipeline(&pipeline).await?.pop().expect("one command has one reply");
        Ok(reply.into_result()?)
    }

    /// Sends all commands and waits for all replies; errors of the server stand among them.
    ///
    /// # Errors
    /// The connection broke: each command of the pipeline is in doubt.
    pub async fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Vec<Reply>, ClientError> {
        let mut replies = Vec::with_capacity(pipeline.len());
        self.exchange(pipeline, |reply| replies.push(reply)).await?;
        Ok(replies)
    }

    /// Sends all commands and hands over each reply as it comes, so that the caller knows
    /// what was answered even if the connection breaks.
    ///
    /// # Errors
    /// The connection broke: the commands whose replies were not handed over are in doubt.
    pub async fn exchange(&mut self, pipeline: &Pipeline, mut answered: impl FnMut(Reply)) -> Result<(), ClientError> {
        let mut unsent = &pipeline.bytes[..];
        let mut missing = pipeline.len();
        while missing > 0 {
            match self.parser.next_reply()? {
                Some(Reply::Push(_)) => continue,
                Some(reply) => {
                    answered(reply);
                    missing -= 1;
                    continue;
                }
                None => {}
            }
            self.transfer(&mut unsent).await?;
        }
        Ok(())
    }

    /// Writes and reads what can be written and read now; waits if neither can be done.
    async fn transfer(&mut self, unsent: &mut &[u8]) -> Result<(), ClientError> {
        let interest = if unsent.is_empty() { Interest::READABLE } else { Interest::READABLE | Interest::WRITABLE };
        let ready = timeout(self.timeout, self.stream.ready(interest))
            .await
            .map_err(|_| ClientError::TimedOut(self.timeout))??;
        if ready.is_writable() && !unsent.is_empty() {
            match self.stream.try_write(unsent) {
                Ok(written) => unsent.advance(written),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        if ready.is_readable() {
            match self.stream.try_read_buf(self.parser.space(READ_BYTES)) {
                Ok(0) => return Err(ClientError::Closed),
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

/// A connection for code that blocks: the same, with a small runtime of its own.
#[derive(Debug)]
pub struct BlockingConnection {
    runtime: Runtime,
    connection: Connection,
}

impl BlockingConnection {
    /// As [`Connection::connect`].
    ///
    /// # Errors
    /// No command of the caller has been sent.
    pub fn connect(target: &Target, limit: Duration) -> Result<BlockingConnection, ClientError> {
        let failed = |source| ClientError::Connect { address: target.address(), source };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let connection = runtime.block_on(Connection::connect(target, limit))?;
        Ok(BlockingConnection { runtime, connection })
    }

    /// As [`Connection::call`].
    ///
    /// # Errors
    /// [`ClientError::fate`] says whether the command may have been applied.
    pub fn call<A: AsRef<[u8]>>(&mut self, arguments: &[A]) -> Result<Reply, ClientError> {
        self.runtime.block_on(self.connection.call(arguments))
    }

    /// As [`Connection::pipeline`].
    ///
    /// # Errors
    /// The connection broke: each command of the pipeline is in doubt.
    pub fn pipeline(&mut self, pipeline: &Pipeline) -> Result<Vec<Reply>, ClientError> {
        self.runtime.block_on(self.connection.pipeline(pipeline))
    }

    /// As [`Connection::exchange`].
    ///
    /// # Errors
    /// The connection broke: the commands whose replies were not handed over are in doubt.
    pub fn exchange(&mut self, pipeline: &Pipeline, answered: impl FnMut(Reply)) -> Result<(), ClientError> {
        self.runtime.block_on(self.connection.exchange(pipeline, answered))
    }
}

#[cfg(test)]
#[path = "connection_tests.rs"]
mod tests;
