//! An HTTP server on a thread of its own, and a client that shows every byte.

use std::collections::BTreeMap;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread::JoinHandle;

use dogsled::server::Backend;
use dogsled::server::http::{HttpOptions, serve};
use tokio::sync::watch;

use crate::resp_harness::PATIENCE;

/// A running server; stopped when dropped.
pub struct Server {
    pub address: SocketAddr,
    stop: watch::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    pub fn start(backend: Arc<dyn Backend>, options: HttpOptions) -> Server {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("port 0 is always free");
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
        let stream = TcpStream::connect(self.address).expect("the server listens");
        stream.set_read_timeout(Some(PATIENCE)).expect("timeouts can be set");
        stream.set_write_timeout(Some(PATIENCE)).expect("timeouts can be set");
        stream.set_nodelay(true).expect("it is TCP");
        Client { stream, buffer: Vec::new() }
    }

    /// One request over a connection of its own.
    pub fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.connect().request(method, path, headers, body)
    }

    pub fn get(&self, path: &str) -> Response {
        self.request("GET", path, &[], b"")
    }

    pub fn put(&self, path: &str, body: &[u8]) -> Response {
        self.request("PUT", path, &[], body)
    }

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

pub struct Response {
    pub status: u16,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body.escape_ascii()))
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Asserts that it is a problem of this kind, and returns its detail.
    pub fn problem(&self, status: u16, word: &str) -> String {
        assert_eq!(self.status, status, "{}", self.body.escape_ascii());
        assert_eq!(self.header("content-type"), "application/problem+json");
        let json = self.json();
        assert_eq!(json["type"], format!("urn:dogsled:problem:{word}"));
        assert_eq!(json["status"], status);
        json["detail"].as_str().expect("there is a detail").to_owned()
    }
}

/// One request to a real node at this port.
pub fn request(port: u16, method: &str, path: &str, body: &[u8]) -> Response {
    connect(port).request(method, path, &[], body)
}

fn connect(port: u16) -> Client {
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("the node listens");
    stream.set_read_timeout(Some(PATIENCE)).expect("timeouts can be set");
    Client { stream, buffer: Vec::new() }
}

/// Writes within a session (an empty token begins one), and returns its new token.
pub fn put_in_session(port: u16, path: &str, session: &str, body: &[u8]) -> String {
    let written = connect(port).request("PUT", path, &[("Dogsled-Session", session)], body);
    assert_eq!(written.status, 204, "{}", written.body.escape_ascii());
    written.header("dogsled-session").to_owned()
}

/// What a read within a session finds.
pub fn get_in_session(port: u16, path: &str, session: &str) -> Vec<u8> {
    let read = connect(port).request("GET", path, &[("Dogsled-Session", session)], b"");
    assert_eq!(read.status, 200, "{}", read.body.escape_ascii());
    read.body
}

/// A client on one connection.
pub struct Client {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Client {
    pub fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("the server reads");
    }

    pub fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        let mut head = format!("{method} {path} HTTP/1.1\r\nhost: test\r\n");
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if method == "PUT" || !body.is_empty() {
            head.push_str(&format!("content-length: {}\r\n", body.len()));
        }
        self.send(&[format!("{head}\r\n").as_bytes(), body].concat());
        self.response(method == "HEAD")
    }

    fn fill(&mut self) -> bool {
        let mut chunk = [0; 64 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) => false,
            Ok(bytes) => {
                self.buffer.extend_from_slice(&chunk[..bytes]);
                true
            }
            Err(error) if error.kind() == ErrorKind::ConnectionReset => false,
            Err(error) => panic!("no response: {error}; so far {}", self.buffer.escape_ascii()),
        }
    }

    pub fn response(&mut self, without_body: bool) -> Response {
        let end = loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end + 4;
            }
            assert!(self.fill(), "the server closed the connection: {}", self.buffer.escape_ascii());
        };
        let head = String::from_utf8(self.buffer.drain(..end).collect()).expect("heads are text");
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|code| code.parse().ok());
        let headers: BTreeMap<String, String> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let status = status.expect("there is a status");
        let empty = without_body || status == 204 || status == 304;
        let length = if empty { 0 } else { headers["content-length"].parse().expect("a number") };
        while self.buffer.len() < length {
            assert!(self.fill(), "the body broke off");
        }
        Response { status, headers, body: self.buffer.drain(..length).collect() }
    }

    /// Everything until the server closes.
    pub fn rest(&mut self) -> Vec<u8> {
        while self.fill() {}
        std::mem::take(&mut self.buffer)
    }
}
