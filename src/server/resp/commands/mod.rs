//! The commands, by what they are about. `table` says which there are.

pub(super) mod connection;
pub(super) mod client;
pub(super) mod strings;
pub(super) mod keys;
pub(super) mod values;
pub(super) mod expiry;
pub(super) mod scan;
pub(super) mod wait;
pub(super) mod transaction;
pub(super) mod server;
pub(super) mod introspect;
pub(super) mod refused;
mod slot;

use super::dispatch::{printable, wrong_arity};
use super::reply::ErrorReply;
use super::session::Call;

/// The text for a subcommand that there is not.
fn unknown_subcommand(call: &Call<'_>) -> ErrorReply {
    let name = call.spec.name.to_ascii_uppercase();
    format!("ERR unknown subcommand '{}'. Try {name} HELP.", printable(call.args.at(1))).into()
}

/// Checks the arity of a subcommand: exactly so many arguments, or at least so many if below zero.
fn takes(call: &Call<'_>, subcommand: &str, arity: isize) -> Result<(), ErrorReply> {
    let args = call.args.len();
    if args >= arity.unsigned_abs() && (arity < 0 || args == arity.unsigned_abs()) {
        return Ok(());
    }
    Err(wrong_arity(&format!("{}|{subcommand}", call.spec.name)))
}
