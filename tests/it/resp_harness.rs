//! A RESP server on a thread of its own, and a client that shows every byte.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use dogsled::server::Backend;
use dogsled::server::resp::{RespOptions, serve};
use tokio::sync::watch;

/// What no test waits longer than: far above anything that a healthy run needs.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A running server; stopped when dropped.
pub struct Server {
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(backend: Arc<dyn Backend>, options: RespOptions) -> Server {
        Server::start_at("127.0.0.1:0", backend, options)
    }

    pub fn start_at(address: &str, backend: Arc<dyn Backend>, options: RespOptions) -> Server {
        let listener = std::net::TcpListener::bind(address).expect("the address is free");
        listener.set_nonblocking(true).expect("a listener can be non-blocking");
        let address = listener.local_addr().expect("it is bound");
        let (stop, stopped) = watch::channel(false);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::from_std(listener).expect("it is non-blocking");
                serve(listener, backend, options, stopped).await;
            });
        });
        Server { address, stop, thread: Some(thread) }
    }

    pub fn connect(&self) -> Client {
        Client::connect(self.address)
    }

    /// Tells the server to stop, without waiting for it.
    pub fn begin_stop(&self) {
        self.stop.send_replace(true);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.begin_stop();
        let ended = self.thread.take().expect("it is dropped once").join();
        assert!(ended.is_ok() || std::thread::panicking(), "the server panicked");
    }
}

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    Simple(String),
    Error(String),
    Integer(i64),
    Bulk(Vec<u8>),
    Verbatim(String),
    Null,
    NullArray,
    Array(Vec<Reply>),
    Set(Vec<Reply>),
    Map(Vec<Reply>),
}

impl std::fmt::Display for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let list = |items: &[Reply]| items.iter().map(Reply::to_string).collect::<Vec<_>>().join(" ");
        match self {
            Reply::Simple(text) => write!(f, "+{text}"),
            Reply::Error(text) => write!(f, "-{text}"),
            Reply::Integer(number) => write!(f, ":{number}"),
            Reply::Bulk(bytes) => write!(f, "\"{}\"", bytes.escape_ascii()),
            Reply::Verbatim(text) => write!(f, "=\"{}\"", text.escape_debug()),
            Reply::Null => write!(f, "null"),
            Reply::NullArray => write!(f, "null*"),
            Reply::Array(items) => write!(f, "[{}]", list(items)),
            Reply::Set(items) => write!(f, "~[{}]", list(items)),
            Reply::Map(items) => write!(f, "{{{}}}", list(items)),
        }
    }
}

/// A client that sends bytes and reads replies.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

/// A command as an array of bulk strings.
pub fn encode<A: AsRef<[u8]>>(args: &[A]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", args.len()).into_bytes();
    for arg in args {
        bytes.extend_from_slice(format!("${}\r\n", arg.as_ref().len()).as_bytes());
        bytes.extend_from_slice(arg.as_ref());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}

impl Client {
    pub fn connect(address: SocketAddr) -> Client {
        let stream = TcpStream::connect(address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeouts can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeouts can be set");
        stream.set_nodelay(true).expect("it is TCP");
        Client { stream, buffer: Vec::new() }
    }

    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    /// Sends a command and reads its reply.
    pub fn call<A: AsRef<[u8]>>(&mut self, args: &[A]) -> Reply {
        self.send(&encode(args));
        self.reply()
    }

    /// The same, for words without blanks, as text.
    pub fn run(&mut self, words: &str) -> String {
        self.call(&words.split(' ').collect::<Vec<_>>()).to_string()
    }

    /// Reads more; false at the end.
    fn fill(&mut self) -> bool {
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(bytes) => {
                self.buffer.extend_from_slice(&chunk[..bytes]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no reply: {error}; so far {}", self.buffer.escape_ascii()),
        }
    }

    pub fn reply(&mut self) -> Reply {
        self.try_reply().expect("the server closed the connection")
    }

    /// The next reply, or none if the server closed.
    pub fn try_reply(&mut self) -> Option<Reply> {
        loop {
            let mut at = 0;
            if let Some(reply) = parse(&self.buffer, &mut at) {
                self.buffer.drain(..at);
                return Some(reply);
            }
            if !self.fill() {
                assert!(self.buffer.is_empty(), "half a reply: {}", self.buffer.escape_ascii());
                return None;
            }
        }
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }

    /// Asserts that nothing has been sent, by asking for something else.
    pub fn assert_quiet_until(&mut self, token: &str) {
        self.send(&encode(&["ECHO", token]));
        assert_eq!(self.reply(), Reply::Bulk(token.as_bytes().to_vec()));
    }
}

fn line<'a>(bytes: &'a [u8], at: &mut usize) -> Option<&'a str> {
    let end = bytes[*at..].windows(2).position(|pair| pair == b"\r\n")? + *at;
    let text = std::str::from_utf8(&bytes[*at..end]).expect("lines are text");
    *at = end + 2;
    Some(text)
}

/// A reply at a place, which is moved behind it; none if it is not all there.
pub fn parse(bytes: &[u8], at: &mut usize) -> Option<Reply> {
    let head = line(bytes, at)?;
    let (kind, rest) = head.split_at(1);
    let number = || rest.parse::<i64>().unwrap_or_else(|_| panic!("{head:?} holds no number"));
    let items = |count: i64, at: &mut usize| (0..count).map(|_| parse(bytes, at)).collect::<Option<Vec<_>>>();
    Some(match kind {
        "+" => Reply::Simple(rest.into()),
        "-" => Reply::Error(rest.into()),
        ":" => Reply::Integer(number()),
        "_" => Reply::Null,
        "$" if number() < 0 => Reply::Null,
        "*" if number() < 0 => Reply::NullArray,
        "$" | "=" => {
            let length = number() as usize;
            let content = bytes.get(*at..*at + length)?;
            bytes.get(*at + length..*at + length + 2).map(|end| assert_eq!(end, b"\r\n"))?;
            *at += length + 2;
            match kind {
                "$" => Reply::Bulk(content.to_vec()),
                _ => Reply::Verbatim(String::from_utf8(content.to_vec()).expect("verbatim is text")),
            }
        }
        "*" => Reply::Array(items(number(), at)?),
        "~" => Reply::Set(items(number(), at)?),
        "%" => Reply::Map(items(number() * 2, at)?),
        _ => panic!("{head:?} begins no reply"),
    })
}
