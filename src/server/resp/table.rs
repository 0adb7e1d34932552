//! The one place that says which commands there are.
//!
//! Name, arity, flags and key positions are Redis's own (`COMMAND INFO` of 7.0), because
//! client libraries route and retry by them.

use super::commands::{
    client, connection, expiry, introspect, keys, refused, scan, server, strings, transaction, values, wait,
};
use super::reply::Writer;
use super::session::{Call, Handled};

/// Changes what is stored.
pub(super) const WRITE: u16 = 1;
/// Only reads what is stored.
pub(super) const READONLY: u16 = 1 << 1;
/// May be refused for lack of space.
pub(super) const DENYOOM: u16 = 1 << 2;
/// For operators.
pub(super) const ADMIN: u16 = 1 << 3;
/// Not for scripts.
pub(super) const NOSCRIPT: u16 = 1 << 4;
/// Allowed while the node joins.
pub(super) const LOADING: u16 = 1 << 5;
/// Allowed without data.
pub(super) const STALE: u16 = 1 << 6;
/// Takes a constant time.
pub(super) const FAST: u16 = 1 << 7;
/// Allowed before the password.
pub(super) const NO_AUTH: u16 = 1 << 8;
/// Own: its answers carry values, which are large.
pub(super) const VALUES: u16 = 1 << 9;
/// Own: runs alone on its connection.
pub(super) const ALONE: u16 = 1 << 10;
/// Own: runs at once even within MULTI.
pub(super) const IMMEDIATE: u16 = 1 << 11;
/// Own: refused within MULTI.
pub(super) const NO_MULTI: u16 = 1 << 12;
/// Own: not listed, because it only explains why it is not there.
pub(super) const HIDDEN: u16 = 1 << 13;
/// Own: may destroy much.
pub(super) const DANGEROUS: u16 = 1 << 14;
/// Own: one write of one key, which an op-id can name.
pub(super) const OP_ID: u16 = 1 << 15;

/// What Redis calls the listed flags, in its order.
pub(super) const FLAG_NAMES: [(u16, &str); 9] = [
    (WRITE, "write"),
    (READONLY, "readonly"),
    (DENYOOM, "denyoom"),
    (ADMIN, "admin"),
    (NOSCRIPT, "noscript"),
    (LOADING, "loading"),
    (STALE, "stale"),
    (FAST, "fast"),
    (NO_AUTH, "no_auth"),
];

/// Where a command's keys are: the places of the first and last one and the stride.
/// A last place below zero counts from the end; a first place of zero means no keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct KeyPlaces {
    pub first: usize,
    pub last: isize,
    pub step: usize,
}

impl KeyPlaces {
    /// The places of the keys in a command of so many arguments.
    pub fn of(self, args: usize) -> impl Iterator<Item = usize> + Clone {
        let end = if self.last < 0 { args.saturating_add_signed(self.last + 1) } else { self.last as usize + 1 };
        let range = if self.first == 0 { 0..0 } else { self.first..end.min(args) };
        range.step_by(self.step.max(1))
    }
}

/// What runs a command.
pub(super) type Handler = fn(&mut Call<'_>, &mut Writer<'_>) -> Handled;

/// One command.
pub(super) struct Spec {
    /// In lower case.
    pub name: &'static str,
    /// Arguments with the name: exactly so many, or at least so many if below zero.
    pub arity: isize,
    pub flags: u16,
    pub keys: KeyPlaces,
    pub group: &'static str,
    pub since: &'static str,
    pub summary: &'static str,
    pub handler: Handler,
}

impl Spec {
    /// Whether it has this flag.
    pub fn is(&self, flag: u16) -> bool {
        self.flags & flag != 0
    }

    /// Whether it may have this many arguments.
    pub fn takes(&self, args: usize) -> bool {
        args >= self.arity.unsigned_abs() && (self.arity < 0 || args == self.arity.unsigned_abs())
    }
}

/// The command of this name, in whatever case, and its place in [`TABLE`].
pub(super) fn find(name: &[u8]) -> Option<(usize, &'static Spec)> {
    let mut lower = [0u8; LONGEST_NAME];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    let index = TABLE.binary_search_by(|spec| spec.name.as_bytes().cmp(lower)).ok()?;
    Some((index, &TABLE[index]))
}

/// The commands that are offered or at least have a name here.
pub(super) fn listed() -> impl Iterator<Item = &'static Spec> + Clone {
    TABLE.iter().filter(|spec| !spec.is(HIDDEN))
}

const LONGEST_NAME: usize = 16;
const NONE: (usize, isize, usize) = (0, 0, 0);
const ONE: (usize, isize, usize) = (1, 1, 1);
const EVERY: (usize, isize, usize) = (1, -1, 1);
const PAIRS: (usize, isize, usize) = (1, -1, 2);
const TWO: (usize, isize, usize) = (1, 2, 1);
const CONN: u16 = NOSCRIPT | LOADING | STALE | FAST | ALONE;
const TALK: u16 = LOADING | STALE | FAST;
const PUT: u16 = WRITE | DENYOOM;
const READ: u16 = READONLY | FAST;

#[expect(clippy::too_many_arguments, reason = "one line of the table is one command")]
const fn row(
    name: &'static str,
    arity: isize,
    flags: u16,
    keys: (usize, isize, usize),
    group: &'static str,
    since: &'static str,
    handler: Handler,
    summary: &'static str,
) -> Spec {
    let keys = KeyPlaces { first: keys.0, last: keys.1, step: keys.2 };
    Spec { name, arity, flags, keys, group, since, summary, handler }
}

const fn hidden(name: &'static str, handler: Handler) -> Spec {
    row(name, -1, HIDDEN, NONE, "generic", "1.0.0", handler, "Not offered.")
}

/// All commands, by name.
#[rustfmt::skip]
pub(super) static TABLE: &[Spec] = &[
    row("acl", -2, TALK, NONE, "server", "6.0.0", server::acl, "Says which user this connection is (WHOAMI)."),
    row("append", 3, PUT | FAST, ONE, "string", "2.0.0", refused::serial, "Appends to a value. Not offered yet."),
    row("auth", -2, CONN | NO_AUTH | NO_MULTI, NONE, "connection", "1.0.0", connection::auth, "Gives the password."),
    row("client", -2, ALONE | NO_MULTI, NONE, "connection", "2.4.0", client::client, "Names, lists and stops connections; CONSISTENCY sets their levels."),
    row("cluster", -2, LOADING | STALE, NONE, "cluster", "3.0.0", server::cluster, "KEYSLOT only: every node serves every key."),
    row("command", -1, LOADING | STALE, NONE, "server", "2.8.13", introspect::command, "Describes the commands."),
    row("config", -2, LOADING | STALE, NONE, "server", "2.0.0", server::config, "Reads what client libraries ask for."),
    row("copy", -3, PUT, TWO, "generic", "6.2.0", refused::serial, "Copies a key. Not offered yet."),
    row("dbsize", 1, READ | ALONE, NONE, "server", "1.0.0", scan::dbsize, "About how many keys the cluster holds."),
    hidden("debug", refused::debug),
    row("decr", 2, PUT | FAST, ONE, "string", "1.0.0", refused::serial, "Subtracts one. Not offered yet."),
    row("decrby", 3, PUT | FAST, ONE, "string", "1.0.0", refused::serial, "Subtracts. Not offered yet."),
    row("del", -2, WRITE, EVERY, "generic", "1.0.0", keys::del, "Deletes keys and counts those that were there."),
    row("discard", 1, CONN | IMMEDIATE, NONE, "transactions", "2.0.0", transaction::discard, "Forgets the queued commands."),
    row("echo", 2, TALK, NONE, "connection", "1.0.0", connection::echo, "Says it back."),
    hidden("eval", refused::scripting),
    hidden("eval_ro", refused::scripting),
    hidden("evalsha", refused::scripting),
    hidden("evalsha_ro", refused::scripting),
    row("exec", 1, NOSCRIPT | LOADING | STALE | ALONE | IMMEDIATE, NONE, "transactions", "1.2.0", transaction::exec, "Runs the queued commands, where the configuration allows it."),
    row("exists", -2, READ, EVERY, "generic", "1.0.0", keys::exists, "Counts which of the keys are there."),
    row("expire", -3, WRITE | FAST | VALUES, ONE, "generic", "1.0.0", expiry::expire, "Lets a value end after so many seconds."),
    row("expireat", -3, WRITE | FAST | VALUES, ONE, "generic", "1.2.0", expiry::expireat, "Lets a value end at a second since 1970."),
    row("expiretime", 2, READ, ONE, "generic", "7.0.0", expiry::expiretime, "The second since 1970 at which a value ends."),
    hidden("fcall", refused::scripting),
    hidden("fcall_ro", refused::scripting),
    row("flushall", -1, WRITE | ALONE | DANGEROUS, NONE, "server", "1.0.0", scan::flush, "Deletes every key, if the configuration allows it."),
    row("flushdb", -1, WRITE | ALONE | DANGEROUS, NONE, "server", "1.0.0", scan::flush, "Deletes every key of the namespace, if the configuration allows it."),
    hidden("function", refused::scripting),
    row("get", 2, READ | VALUES, ONE, "string", "1.0.0", strings::get, "The value of a key."),
    row("getdel", 2, WRITE | FAST, ONE, "string", "6.2.0", refused::serial, "Reads and deletes. Not offered yet."),
    row("getex", -2, WRITE | FAST | VALUES, ONE, "string", "6.2.0", strings::getex, "The value of a key, whose end may be changed."),
    row("getrange", 4, READONLY | VALUES, ONE, "string", "2.4.0", strings::getrange, "A part of a value."),
    row("getset", 3, PUT | FAST, ONE, "string", "1.0.0", refused::serial, "Reads and writes. Not offered yet."),
    row("hello", -1, CONN | NO_AUTH | NO_MULTI, NONE, "connection", "6.0.0", connection::hello, "Chooses RESP2 or RESP3, and may give the password."),
    hidden("host:", connection::foreign),
    row("incr", 2, PUT | FAST, ONE, "string", "1.0.0", refused::serial, "Adds one. Not offered yet."),
    row("incrby", 3, PUT | FAST, ONE, "string", "1.0.0", refused::serial, "Adds. Not offered yet."),
    row("incrbyfloat", 3, PUT | FAST, ONE, "string", "2.6.0", refused::serial, "Adds a fraction. Not offered yet."),
    row("info", -1, LOADING | STALE, NONE, "server", "1.0.0", server::info, "Tells about this node."),
    row("keys", 2, READONLY | ALONE | DANGEROUS, NONE, "generic", "1.0.0", scan::keys, "All keys that match a pattern, if they are not too many."),
    row("kv.del", -2, WRITE | OP_ID, ONE, "generic", "0.1.0", values::del, "Deletes what its context has seen, or what there is."),
    row("kv.get", 2, READ | VALUES, ONE, "string", "0.1.0", values::get, "All concurrent values of a key, and their context."),
    row("kv.namespace", -1, CONN | NO_MULTI, NONE, "connection", "0.1.0", connection::namespace, "Says or chooses the namespace of this connection."),
    row("kv.put", -3, PUT | OP_ID, ONE, "string", "0.1.0", values::put, "Writes a value in place of what its context has seen."),
    row("kv.resolve", 3, WRITE, ONE, "generic", "0.1.0", values::resolve, "Whether the write of an op-id was applied; if not, it never will be."),
    row("kv.with", -2, 0, NONE, "generic", "0.1.0", connection::with, "Runs the command that follows with its own levels and timeout."),
    row("memory", -2, READONLY, NONE, "server", "4.0.0", keys::memory, "The stored bytes of a key (USAGE)."),
    row("mget", -2, READ | VALUES, EVERY, "string", "1.0.0", strings::mget, "The values of several keys."),
    row("module", -2, TALK, NONE, "server", "4.0.0", server::module, "There are none (LIST)."),
    row("mset", -3, PUT, PAIRS, "string", "1.0.1", strings::mset, "Writes several keys, each for itself."),
    row("msetnx", -3, PUT, PAIRS, "string", "1.0.1", refused::not_atomic, "Not offered: it is not atomic across partitions."),
    row("multi", 1, CONN | IMMEDIATE, NONE, "transactions", "1.2.0", transaction::multi, "Begins to queue commands."),
    row("object", -2, READONLY, (2, 2, 1), "generic", "2.2.3", keys::object, "How a value is kept (ENCODING)."),
    row("persist", 2, WRITE | FAST | VALUES, ONE, "generic", "2.2.0", expiry::persist, "Lets a value never end."),
    row("pexpire", -3, WRITE | FAST | VALUES, ONE, "generic", "2.6.0", expiry::pexpire, "Lets a value end after so many milliseconds."),
    row("pexpireat", -3, WRITE | FAST | VALUES, ONE, "generic", "2.6.0", expiry::pexpireat, "Lets a value end at a millisecond since 1970."),
    row("pexpiretime", 2, READ, ONE, "generic", "7.0.0", expiry::pexpiretime, "The millisecond since 1970 at which a value ends."),
    row("ping", -1, FAST, NONE, "connection", "1.0.0", connection::ping, "Answers PONG, or what was said."),
    hidden("post", connection::foreign),
    row("psetex", 4, PUT | OP_ID, ONE, "string", "2.6.0", strings::psetex, "Writes a value that ends after so many milliseconds."),
    hidden("psubscribe", refused::pubsub),
    row("pttl", 2, READ, ONE, "generic", "2.6.0", expiry::pttl, "The milliseconds that a value has left."),
    hidden("publish", refused::pubsub),
    hidden("pubsub", refused::pubsub),
    hidden("punsubscribe", refused::pubsub),
    row("quit", -1, CONN | NO_AUTH | IMMEDIATE, NONE, "connection", "1.0.0", connection::quit, "Ends the connection."),
    row("randomkey", 1, READONLY | ALONE, NONE, "generic", "1.0.0", scan::randomkey, "Some key."),
    row("readonly", 1, TALK | ALONE, NONE, "cluster", "3.0.0", connection::readonly, "This connection reads at level ONE from now on."),
    row("readwrite", 1, TALK | ALONE, NONE, "cluster", "3.0.0", connection::readwrite, "This connection reads at its own level again."),
    row("rename", 3, WRITE, TWO, "generic", "1.0.0", refused::not_atomic, "Not offered: it is not atomic across partitions."),
    row("renamenx", 3, WRITE | FAST, TWO, "generic", "1.0.0", refused::not_atomic, "Not offered: it is not atomic across partitions."),
    row("reset", 1, CONN | NO_AUTH | IMMEDIATE, NONE, "connection", "6.2.0", connection::reset, "Sets the connection back to how it began."),
    row("role", 1, NOSCRIPT | TALK, NONE, "server", "2.8.12", server::role, "Every node is a master."),
    row("scan", -2, READONLY | ALONE, NONE, "generic", "2.8.0", scan::scan, "Walks over the keys, page by page."),
    hidden("script", refused::scripting),
    row("select", 2, TALK | ALONE, NONE, "connection", "1.0.0", connection::select, "There is database 0."),
    row("set", -3, PUT | OP_ID, ONE, "string", "1.0.0", strings::set, "Writes a value."),
    row("setex", 4, PUT | OP_ID, ONE, "string", "2.0.0", strings::setex, "Writes a value that ends after so many seconds."),
    row("setnx", 3, PUT | FAST, ONE, "string", "1.0.0", refused::serial, "Writes where nothing is. Not offered yet."),
    row("setrange", 4, PUT, ONE, "string", "2.2.0", refused::serial, "Writes a part of a value. Not offered yet."),
    hidden("ssubscribe", refused::pubsub),
    row("strlen", 2, READ, ONE, "string", "2.2.0", strings::strlen, "The length of a value."),
    hidden("subscribe", refused::pubsub),
    row("substr", 4, READONLY | VALUES, ONE, "string", "1.0.0", strings::getrange, "A part of a value."),
    row("time", 1, TALK, NONE, "server", "2.6.0", server::time, "The time of day at this node."),
    row("touch", -2, READ, EVERY, "generic", "3.2.1", keys::exists, "Counts which of the keys are there."),
    row("ttl", 2, READ, ONE, "generic", "1.0.0", expiry::ttl, "The seconds that a value has left."),
    row("type", 2, READ, ONE, "generic", "1.0.0", keys::kind, "string or none."),
    row("unlink", -2, WRITE | FAST, EVERY, "generic", "4.0.0", keys::del, "The same as DEL."),
    hidden("unsubscribe", refused::pubsub),
    row("unwatch", 1, CONN, NONE, "transactions", "2.2.0", transaction::unwatch, "Nothing is ever watched."),
    row("wait", 3, NOSCRIPT | ALONE, NONE, "generic", "3.0.0", wait::wait, "How many replicas durably hold this connection's last write."),
    row("watch", -2, CONN | IMMEDIATE, EVERY, "transactions", "2.2.0", transaction::watch, "Not offered yet."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_names_can_be_found() {
        for pair in TABLE.windows(2) {
            assert!(pair[0].name < pair[1].name, "{} stands before {}", pair[0].name, pair[1].name);
        }
        for (index, spec) in TABLE.iter().enumerate() {
            assert!(spec.name.len() <= LONGEST_NAME);
            let found = find(spec.name.to_ascii_uppercase().as_bytes()).expect("in the table");
            assert_eq!((found.0, found.1.name), (index, spec.name));
        }
        for name in ["", "gett", "ge", "a name that is longer than any command has"] {
            assert!(find(name.as_bytes()).is_none(), "{name}");
        }
    }

    #[test]
    fn keys_are_where_redis_says() {
        let places = |name: &str, args: usize| find(name.as_bytes()).expect(name).1.keys.of(args).collect::<Vec<_>>();
        assert_eq!(places("get", 2), [1]);
        assert_eq!(places("mget", 4), [1, 2, 3]);
        assert_eq!(places("mset", 5), [1, 3]);
        assert_eq!(places("rename", 3), [1, 2]);
        assert_eq!(places("ping", 2), [0usize; 0]);
        assert_eq!(places("object", 3), [2]);
        assert_eq!(places("object", 2), [0usize; 0]);
    }
}
