//! Talks HTTP to a node.
//!
//! Invariant: an error says what it leaves behind: [`ClientError::InDoubt`] whenever a
//! write may have taken effect, the others only when it certainly has not. Nothing is
//! ever sent twice. Replies are bounded before memory is taken for them.

use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;
use ureq::http::{Response, StatusCode};
use ureq::{Agent, Body};

/// How long a connection may take to stand.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long one exchange may take: far above any request timeout of a node.
const EXCHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest JSON reply that is read, in bytes: the ring of the most partitions is below it.
const MAX_JSON_BYTES: u64 = 64 * 1024 * 1024;
/// The longest description of an error that is read, in bytes.
const MAX_PROBLEM_BYTES: u64 = 64 * 1024;

/// A request that did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The address cannot be one of a node. Nothing was sent.
    #[error("'{0}' is not the address of a node: write http://HOST:PORT")]
    Address(String),
    /// No connection. Nothing was sent.
    #[error("no node answers at {server}: {reason}")]
    Unreachable {
        /// Which address.
        server: String,
        /// Why.
        reason: String,
    },
    /// The node refused: certainly not applied.
    #[error("{0}")]
    Refused(String),
    /// The write may show now, later or never.
    #[error("{0}")]
    InDoubt(String),
    /// A read that did not come back. Reading changes nothing.
    #[error("{0}")]
    Failed(String),
}

/// What a node says about an error (RFC 9457).
#[derive(Deserialize, Default)]
#[serde(default)]
struct ProblemReply {
    title: String,
    detail: String,
}

/// A node to talk to.
pub struct HttpClient {
    agent: Agent,
    server: String,
    authorization: Option<String>,
}

/// What a key holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyReply {
    /// One value.
    Value(Vec<u8>),
    /// Several that were written at the same time, described in JSON.
    Several(Vec<u8>),
}

/// Header fields: names and values.
pub type Headers<'a> = &'a [(&'a str, &'a str)];

/// What a request may change, which decides what its failure means.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Reads,
    Writes,
}

impl HttpClient {
    /// A client of the node at this address, as `http://127.0.0.1:8379`.
    ///
    /// # Errors
    /// [`ClientError::Address`] if it has another form.
    pub fn new(server: &str, password: Option<&str>) -> Result<HttpClient, ClientError> {
        HttpClient::with_timeout(server, password, EXCHANGE_TIMEOUT)
    }

    /// The same, with less patience: one exchange may take so long.
    ///
    /// # Errors
    /// As [`HttpClient::new`].
    pub fn with_timeout(server: &str, password: Option<&str>, timeout: Duration) -> Result<HttpClient, ClientError> {
        let server = server.trim_end_matches('/');
        let host = server.strip_prefix("http://").filter(|host| !host.is_empty() && !host.contains(['/', '?', '#']));
        if host.is_none() {
            return Err(ClientError::Address(server.to_owned()));
        }
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .timeout_connect(Some(CONNECT_TIMEOUT))
            .timeout_global(Some(timeout))
            .max_redirects(0)
            .proxy(None)
            .build()
            .new_agent();
        let authorization =
            password.map(|password| format!("Basic {}", base64(format!("default:{password}").as_bytes())));
        Ok(HttpClient { agent, server: server.to_owned(), authorization })
    }

    /// The address it talks to.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Reads a JSON reply.
    ///
    /// # Errors
    /// [`ClientError`]: nothing was changed.
    pub fn read_json<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.parse(&self.read(path, MAX_JSON_BYTES)?.1).map_err(ClientError::Failed)
    }

    /// Reads a value as it is, or what describes several.
    ///
    /// # Errors
    /// [`ClientError`]: nothing was changed; [`ClientError::Refused`] if there is no such key.
    pub fn read_key(&self, path: &str) -> Result<KeyReply, ClientError> {
        Ok(match self.read(path, MAX_JSON_BYTES)? {
            (StatusCode::MULTIPLE_CHOICES, several) => KeyReply::Several(several),
            (_, value) => KeyReply::Value(value),
        })
    }

    /// What JSON from this node says.
    ///
    /// # Errors
    /// [`ClientError::Failed`] if it is something else.
    pub fn understand<T: DeserializeOwned>(&self, json: &[u8]) -> Result<T, ClientError> {
        self.parse(json).map_err(ClientError::Failed)
    }

    /// Writes a value.
    ///
    /// # Errors
    /// [`ClientError`], which says what may have happened.
    pub fn put<T: DeserializeOwned>(&self, path: &str, headers: Headers<'_>, value: &[u8]) -> Result<T, ClientError> {
        let mut request = self.agent.put(self.url(path)).header("content-type", "application/octet-stream");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        self.written(request.send(value))
    }

    /// Deletes.
    ///
    /// # Errors
    /// As [`HttpClient::put`].
    pub fn delete<T: DeserializeOwned>(&self, path: &str, headers: Headers<'_>) -> Result<T, ClientError> {
        let mut request = self.agent.delete(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        self.written(request.call())
    }

    /// Asks for something to be done that its path and headers name.
    ///
    /// # Errors
    /// As [`HttpClient::put`].
    pub fn post<T: DeserializeOwned>(&self, path: &str, headers: Headers<'_>) -> Result<T, ClientError> {
        let mut request = self.agent.post(self.url(path));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        self.written(request.send_empty())
    }

    /// Whether the node says that it is ready for requests.
    ///
    /// # Errors
    /// [`ClientError::Unreachable`] and others if it says nothing at all.
    pub fn is_ready(&self) -> Result<bool, ClientError> {
        let response = self.agent.get(self.url("/readyz")).call();
        let response = response.map_err(|error| self.failure(&error, Effect::Reads))?;
        Ok(response.status() == StatusCode::OK)
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    fn read(&self, path: &str, limit: u64) -> Result<(StatusCode, Vec<u8>), ClientError> {
        let mut request = self.agent.get(self.url(path));
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        let mut response = request.call().map_err(|error| self.failure(&error, Effect::Reads))?;
        let status = response.status();
        if ![StatusCode::OK, StatusCode::MULTIPLE_CHOICES].contains(&status) {
            return Err(self.refusal(response, Effect::Reads));
        }
        let read = response.body_mut().with_config().limit(limit).read_to_vec();
        Ok((status, read.map_err(|error| self.failure(&error, Effect::Reads))?))
    }

    fn written<T: DeserializeOwned>(&self, result: Result<Response<Body>, ureq::Error>) -> Result<T, ClientError> {
        let mut response = result.map_err(|error| self.failure(&error, Effect::Writes))?;
        if !response.status().is_success() {
            return Err(self.refusal(response, Effect::Writes));
        }
        let bytes = response.body_mut().with_config().limit(MAX_JSON_BYTES).read_to_vec();
        let bytes = bytes.map_err(|error| self.failure(&error, Effect::Writes))?;
        self.parse(&bytes).map_err(ClientError::InDoubt)
    }

    fn parse<T: DeserializeOwned>(&self, bytes: &[u8]) -> Result<T, String> {
        serde_json::from_slice(bytes)
            .map_err(|error| format!("{} answers what this program does not understand: {error}", self.server))
    }

    /// An answer that is an error.
    fn refusal(&self, mut response: Response<Body>, effect: Effect) -> ClientError {
        let status = response.status();
        let said = response.body_mut().with_config().limit(MAX_PROBLEM_BYTES).read_to_vec().unwrap_or_default();
        let problem: ProblemReply = serde_json::from_slice(&said).unwrap_or_default();
        let text = [problem.detail, problem.title]
            .into_iter()
            .find(|text| !text.is_empty())
            .unwrap_or_else(|| format!("{} answers {status}", self.server));
        // 503 is the node's word that nothing was done; other 5xx leave it open.
        let open = status.is_server_error()
            && ![StatusCode::SERVICE_UNAVAILABLE, StatusCode::NOT_IMPLEMENTED].contains(&status);
        match effect {
            Effect::Writes if open => ClientError::InDoubt(text),
            _ => ClientError::Refused(text),
        }
    }

    /// An exchange that broke.
    fn failure(&self, error: &ureq::Error, effect: Effect) -> ClientError {
        let server = self.server.clone();
        if was_never_sent(error) {
            return ClientError::Unreachable { server, reason: error.to_string() };
        }
        match effect {
            Effect::Reads => ClientError::Failed(format!("{server} did not finish its answer: {error}")),
            Effect::Writes => ClientError::InDoubt(format!(
                "in doubt: {server} did not finish its answer ({error}); the write may still take effect"
            )),
        }
    }
}

/// Whether the exchange ended before a connection stood.
fn was_never_sent(error: &ureq::Error) -> bool {
    use std::io::ErrorKind;
    match error {
        ureq::Error::BadUri(_)
        | ureq::Error::Http(_)
        | ureq::Error::HostNotFound
        | ureq::Error::ConnectionFailed
        | ureq::Error::Timeout(ureq::Timeout::Connect | ureq::Timeout::Resolve) => true,
        ureq::Error::Io(error) => matches!(
            error.kind(),
            ErrorKind::ConnectionRefused
                | ErrorKind::AddrNotAvailable
                | ErrorKind::HostUnreachable
                | ErrorKind::NetworkUnreachable
                | ErrorKind::NetworkDown
        ),
        _ => false,
    }
}

/// A part of a path: everything but letters, digits, `-`, `_`, `.` and `~` as `%XX`.
pub fn encode_segment(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || b"-_~".contains(&byte) || (byte == b'.' && bytes.len() > 2) {
            text.push(char::from(byte));
        } else {
            // A key of one or two dots would mean a directory if it were left as it is.
            text.push_str(&format!("%{byte:02X}"));
        }
    }
    text
}

/// RFC 4648, section 4.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let group = chunk.iter().fold(0u32, |group, byte| (group << 8) | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..4 {
            let digit = DIGITS[(group >> (18 - 6 * place)) as usize & 63];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

#[cfg(test)]
#[path = "http_tests.rs"]
mod tests;
