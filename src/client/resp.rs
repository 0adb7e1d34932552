//! A small client of the Redis protocol, RESP2 and RESP3.
//!
//! It speaks to Dogsled and to any Redis, so that both can be driven by the same
//! workload. What a server sends is not trusted: a reply is bounded in bytes, items and
//! depth before memory is taken for it, and a length that a server names reserves
//! nothing. Errors keep the server's prefix and say whether the command may have been
//! applied ([`Fate`]), because a caller that cannot tell must not retry blindly.
//!
//! Left out: TLS, publish and subscribe, and streamed RESP3 aggregates (no server sends
//! them).

mod reply;
mod parser;
mod encode;
mod url;
mod error;
mod connection;

pub use connection::{BlockingConnection, Connection};
pub use encode::{Pipeline, encode_command};
pub use error::{ClientError, Fate};
pub use parser::{ProtocolError, RawReply, ReplyLimits, ReplyParser};
pub use reply::{Reply, ServerError};
pub use url::{Credentials, Target, TargetError};
