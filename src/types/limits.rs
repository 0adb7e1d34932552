//! Every bound, in one place.
//!
//! What comes from outside is measured against these before memory is taken for it;
//! what queues is bounded by these. The assertions below keep them consistent.

/// The longest key, in bytes (DESIGN section 9).
pub const MAX_KEY_BYTES: usize = 64 * 1024;
/// The longest value that any configuration may allow, in bytes.
pub const MAX_VALUE_BYTES: usize = 16 * 1024 * 1024;
/// The longest value unless configured otherwise, in bytes.
pub const DEFAULT_MAX_VALUE_BYTES: usize = 1024 * 1024;
/// Values above this are stored in pieces of this size: sled syncs no blob files,
/// and makes blobs of what exceeds a quarter of a segment (EVIDENCE, sled).
pub const VALUE_CHUNK_BYTES: usize = 64 * 1024;
/// sled's segment size, in bytes.
pub const SLED_SEGMENT_BYTES: usize = 16 * 1024 * 1024;
/// How many items one sled leaf holds at most; all of them are written as one record.
pub const SLED_LEAF_ITEMS: usize = 16;

/// The most partitions a cluster may have.
pub const MAX_PARTITIONS: u32 = 65_536;
/// The number of partitions unless chosen otherwise.
pub const DEFAULT_PARTITIONS: u32 = 256;
/// The most members a cluster map may have.
pub const MAX_MEMBERS: usize = 1_024;
/// The highest replication factor.
pub const MAX_REPLICATION_FACTOR: u8 = 7;
/// The replication factor unless chosen otherwise.
pub const DEFAULT_REPLICATION_FACTOR: u8 = 3;
/// The most namespaces of a cluster.
pub const MAX_NAMESPACES: usize = 256;
/// The longest name of a namespace, in bytes.
pub const MAX_NAMESPACE_NAME_BYTES: usize = 64;

/// Actors of one version vector, at most: a node that starts is a new one.
pub const VECTOR_ACTORS: usize = 64 * 1024;
/// Ranges of one actor in a version vector, at most.
pub const VECTOR_RANGES: usize = 64 * 1024;
/// Actors that have written to one key, at most, as far as its context remembers.
pub const CONTEXT_ACTORS: usize = 4 * 1024;
/// Concurrent values of a key that a coordinator lets come into being (DESIGN section 4).
pub const SIBLINGS: usize = 32;
/// Versions of one record, at most: every replica may have let that many come into being.
pub const RECORD_VERSIONS: usize = SIBLINGS * MAX_REPLICATION_FACTOR as usize;
/// The longest value of a write that carries an op-id, in bytes: it is kept twice for a while.
pub const OP_VALUE_BYTES: usize = 64 * 1024;
/// Dots that one session token may hold, as ranges; past that it is widened.
pub const SESSION_RANGES: usize = 1_024;
/// The longest token (a context or a session) that clients may hand back, in bytes: above
/// the longest that is given out, which takes 25 bytes an actor and a third for its Base64.
pub const TOKEN_BYTES: usize = 144 * 1024;

/// Places on the ring per unit of weight (DESIGN section 3).
pub const TOKENS_PER_WEIGHT: u32 = 64;
/// The highest weight of a node.
pub const MAX_WEIGHT: u32 = 64;

/// The longest frame between peers, in bytes: a value, a key and what frames them.
pub const MAX_FRAME_BYTES: usize = MAX_VALUE_BYTES + MAX_KEY_BYTES + 4 * 1024;
/// The longest datagram, in bytes: fits the smallest QUIC packet.
pub const MAX_DATAGRAM_BYTES: usize = 1_150;
/// Frames that wait for one peer, at most; past that a send is refused.
pub const PEER_QUEUE_FRAMES: usize = 16 * 1024;
/// Bytes that wait for one peer, at most.
pub const PEER_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Events from the network that wait for the node, at most.
pub const TRANSPORT_EVENTS: usize = 1_024;

/// Peers that a node knows and watches at most unless configured otherwise (DESIGN section 6).
pub const DEFAULT_K_LIST: usize = 24;
/// The highest K that may be configured.
pub const MAX_K_LIST: usize = 256;
/// Steps of a random walk through the overlay (HyParView's ARWL).
pub const WALK_HOPS: u8 = 6;
/// Nodes that one shuffle brings, at most.
pub const SHUFFLED_NODES: usize = 16;
/// Rumours that one message announces, at most.
pub const RUMOURS_ANNOUNCED: usize = 128;
/// Rumours that are kept to pass them on and to know them again, at most.
pub const RUMOURS_KEPT: usize = 8 * 1024;
/// Members held for down that one message names, at most.
pub const STANDING_DOWN: usize = 16;
/// Members about whose health there is something to know, at most; past that the ones that
/// were heard of longest ago are forgotten.
pub const CASES: usize = 8 * 1024;
/// Observers whose opinions of one member are kept, at most.
pub const OPINIONS: usize = 64;
/// Peers outside the active view with whom a connection is being made for gossip, at most.
pub const CONTACTS: usize = 16;
/// Messages that wait for one such connection, at most.
pub const CONTACT_MESSAGES: usize = 8;

/// Mutations that wait for the committer, at most (the application buffer).
pub const COMMIT_QUEUE_MUTATIONS: usize = 16 * 1024;
/// Bytes that wait for the committer, at most.
pub const COMMIT_QUEUE_BYTES: usize = 64 * 1024 * 1024;
/// Mutations in one group commit, at most.
pub const COMMIT_GROUP_MUTATIONS: usize = 1_024;
/// Bytes of keys and values in one group commit; the group closes once it exceeds this.
pub const COMMIT_GROUP_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of one log entry; the group closes once it exceeds this. Sixteen of them lie in
/// one sled leaf.
pub const COMMIT_GROUP_LOG_BYTES: usize = 64 * 1024;
/// Gaps and ranges of one actor that a checkpoint has room for. While there are more, nothing
/// that it wrote in the partition is collected; they close as replicas fill each other's gaps.
pub const CHECKPOINT_RANGES: usize = 4 * 1024;
/// Dots that one pull asks for or one answer brings, at most.
pub const PULL_DOTS: usize = 4 * 1024;
/// Bytes of the answer to one pull, unless one record takes more: that comes alone.
pub const PULL_BYTES: usize = 1024 * 1024;
/// Dots that one collection lets go of in a partition, at most.
pub const RELEASED_DOTS: usize = 4 * 1024;
/// Log positions of one key that its history shows, at most.
pub const HISTORY_POSITIONS: usize = 256;
/// Steps of the way of one request that are written down, at most.
pub const PATH_STEPS: usize = 256;
/// Reads that wait for the store, at most.
pub const READ_QUEUE: usize = 16 * 1024;
/// Entries in one page of a scan of one replica, at most.
pub const SCAN_PAGE_ENTRIES: u32 = 10_000;
/// Entries of one page that are taken from a peer, at most: keys that share a token come
/// together, whatever the limit.
pub const SCAN_PAGE_MOST_ENTRIES: usize = 1024 * 1024;
/// Bytes of keys in one page of a scan of one replica; the page closes once it exceeds this.
pub const SCAN_PAGE_BYTES: usize = 4 * 1024 * 1024;

/// Requests that wait for the node's event loop, at most.
pub const MAILBOX_REQUESTS: usize = 16 * 1024;
/// Requests that a node works on at once, at most; past that they are refused.
pub const REQUESTS_IN_FLIGHT: usize = 32 * 1024;

/// Client connections, at most, per front end.
pub const CLIENT_CONNECTIONS: usize = 10_000;
/// Items of one RESP array, at most (CLIENTS, errors).
pub const RESP_ARRAY_ITEMS: usize = 1024 * 1024;
/// Arguments of a RESP command before AUTH, at most.
pub const RESP_UNAUTHENTICATED_ITEMS: usize = 10;
/// Bytes of an argument before AUTH, at most.
pub const RESP_UNAUTHENTICATED_BYTES: usize = 16 * 1024;
/// The longest inline RESP command, in bytes.
pub const RESP_INLINE_BYTES: usize = 64 * 1024;
/// Commands of one connection that are worked on at once, at most.
pub const RESP_PIPELINE: usize = 256;
/// The longest argument of a RESP command that is read at all, in bytes. Values above the
/// configured limit are read and refused by name, so that the connection stays usable.
pub const RESP_BULK_BYTES: usize = MAX_VALUE_BYTES + MAX_KEY_BYTES;
/// The longest RESP command, in bytes, all its arguments together.
pub const RESP_COMMAND_BYTES: usize = 64 * 1024 * 1024;
/// Bytes that the half-sent RESP commands of all connections may hold together, above
/// [`RESP_FREE_INPUT_BYTES`] each.
pub const RESP_INPUT_BYTES: usize = 512 * 1024 * 1024;
/// Bytes of input that every RESP connection may hold without asking.
pub const RESP_FREE_INPUT_BYTES: usize = 64 * 1024;
/// The longest reply to one RESP command, in bytes.
pub const RESP_REPLY_BYTES: usize = 64 * 1024 * 1024;
/// Unsent bytes at which a RESP connection stops to work on further commands.
pub const RESP_OUTPUT_BYTES: usize = 1024 * 1024;
/// Bytes of commands that one MULTI may queue.
pub const RESP_TRANSACTION_BYTES: usize = 16 * 1024 * 1024;
/// Commands that one MULTI may queue.
pub const RESP_TRANSACTION_COMMANDS: usize = 64 * 1024;
/// Bytes of values that the reads of all RESP connections may bring in at once, at the
/// worst, above one read for each connection, which is always let in.
pub const RESP_ALL_READ_BYTES: usize = 256 * 1024 * 1024;
/// Bytes of values that the reads of one RESP connection may bring in at once, at the worst.
pub const RESP_READ_BYTES: usize = 64 * 1024 * 1024;
/// Bytes of the head of an HTTP request, at most. Its target may take half of them: the
/// `http` crate refuses longer ones with 414, so the longest keys need RESP.
pub const HTTP_HEAD_BYTES: usize = 128 * 1024;
/// Header fields of an HTTP request, at most.
pub const HTTP_HEADERS: usize = 64;
/// Bytes that all HTTP bodies that are being received may hold together.
pub const HTTP_BODIES_BYTES: usize = 512 * 1024 * 1024;
/// Keys in one page of a scan over HTTP, at most.
pub const HTTP_PAGE_KEYS: usize = 1_000;
/// Keys that `KEYS` returns, at most.
pub const KEYS_COMMAND_LIMIT: usize = 100_000;

const _: () = {
    // A leaf of full chunks stays in the log, far from sled's blob threshold.
    assert!(SLED_LEAF_ITEMS * (VALUE_CHUNK_BYTES + 256) < SLED_SEGMENT_BYTES / 4);
    assert!(DEFAULT_MAX_VALUE_BYTES <= MAX_VALUE_BYTES);
    assert!(MAX_FRAME_BYTES < u32::MAX as usize);
    assert!(MAX_FRAME_BYTES <= PEER_QUEUE_BYTES && MAX_VALUE_BYTES <= COMMIT_QUEUE_BYTES);
    assert!(DEFAULT_PARTITIONS.is_power_of_two() && DEFAULT_PARTITIONS <= MAX_PARTITIONS);
    assert!(SCAN_PAGE_BYTES + MAX_KEY_BYTES < MAX_FRAME_BYTES);
    assert!(RESP_BULK_BYTES < RESP_COMMAND_BYTES && RESP_COMMAND_BYTES < u32::MAX as usize);
    assert!(RESP_COMMAND_BYTES + RESP_FREE_INPUT_BYTES <= RESP_INPUT_BYTES);
    assert!(MAX_VALUE_BYTES < RESP_REPLY_BYTES && MAX_VALUE_BYTES <= RESP_READ_BYTES);
};
