//! What members tell each other unasked: the upkeep of the views, and rumours.
//!
//! These travel in frames, in order and without loss while a connection lives; probes
//! travel as datagrams ([`super::Probe`]).

use serde::{Deserialize, Serialize};

use crate::types::{Epoch, Health, Incarnation, Life, Load, NodeId, bounded_list, limits};

/// One message of gossip.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Gossip {
    /// The sender wants into the overlay.
    Join,
    /// A random walk: whoever it ends at makes room for the joiner.
    ForwardJoin {
        /// Who joins.
        joiner: NodeId,
        /// How many more steps the walk has.
        hops: u8,
    },
    /// The sender wants the receiver in its active view.
    Neighbor {
        /// Make room if there is none: the sender is short of neighbours.
        urgent: bool,
    },
    /// To [`Gossip::Neighbor`].
    NeighborReply {
        /// Whether the sender of this has the receiver in its active view now.
        accepted: bool,
    },
    /// The sender has the receiver in its active view no more.
    Disconnect,
    /// A random walk that brings some of its origin's peers and takes some back.
    Shuffle {
        /// How many more steps the walk has.
        hops: u8,
        /// The nodes it has come through, its origin first: the way back.
        path: Vec<NodeId>,
        /// Peers of the origin.
        nodes: Vec<NodeId>,
    },
    /// What comes back from a shuffle.
    ShuffleReply {
        /// The nodes it has still to go through, the origin first.
        path: Vec<NodeId>,
        /// Peers of the node at which the walk ended.
        nodes: Vec<NodeId>,
    },
    /// A rumour, pushed eagerly.
    Rumour {
        /// Which.
        id: RumourId,
        /// How many nodes it has come through.
        hops: u8,
        /// What it says.
        rumour: Rumour,
    },
    /// Rumours that the sender has, pushed lazily.
    Have {
        /// Which.
        ids: Vec<RumourId>,
    },
    /// Send me this rumour, and push eagerly from here on.
    Graft {
        /// Which.
        id: RumourId,
    },
    /// Push lazily from here on.
    Prune,
    /// How things stand with the sender: the first words over a new link, and whenever the
    /// receiver seems not to know.
    Standing {
        /// The sender's life.
        life: Life,
        /// How busy it is.
        load: Load,
        /// Members that it holds for down, and in which life; not all of them if there are many.
        down: Vec<(NodeId, Life)>,
        /// Members that the receiver holds for down in an earlier life than this.
        alive: Vec<(NodeId, Life)>,
    },
}

/// The name of a rumour.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct RumourId {
    /// Who began it.
    pub origin: NodeId,
    /// In which of its starts.
    pub incarnation: Incarnation,
    /// The how-many-eth of that start.
    pub number: u64,
}

/// Something that everybody should know.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum Rumour {
    /// There is a map of this epoch.
    Epoch(Epoch),
    /// What the origin, which watches the subject, thinks of it.
    Opinion {
        /// Of whom.
        subject: NodeId,
        /// In which of its lives.
        life: Life,
        /// What.
        health: Health,
    },
    /// Somebody holds the subject for down. Who watches it, speak up; the subject, refute.
    Doubt {
        /// Whom.
        subject: NodeId,
        /// In which of its lives.
        life: Life,
    },
    /// The origin is alive.
    Alive(Life),
    /// How busy the origin is.
    Load(Load),
}

const JOIN: u8 = 1;
const FORWARD_JOIN: u8 = 2;
const NEIGHBOR: u8 = 3;
const NEIGHBOR_REPLY: u8 = 4;
const DISCONNECT: u8 = 5;
const SHUFFLE: u8 = 6;
const SHUFFLE_REPLY: u8 = 7;
const RUMOUR: u8 = 8;
const HAVE: u8 = 9;
const GRAFT: u8 = 10;
const PRUNE: u8 = 11;
const STANDING: u8 = 12;

impl Gossip {
    /// The kind of frame that it travels as: 1 to 15.
    pub(super) fn kind(&self) -> u8 {
        match self {
            Gossip::Join => JOIN,
            Gossip::ForwardJoin { .. } => FORWARD_JOIN,
            Gossip::Neighbor { .. } => NEIGHBOR,
            Gossip::NeighborReply { .. } => NEIGHBOR_REPLY,
            Gossip::Disconnect => DISCONNECT,
            Gossip::Shuffle { .. } => SHUFFLE,
            Gossip::ShuffleReply { .. } => SHUFFLE_REPLY,
            Gossip::Rumour { .. } => RUMOUR,
            Gossip::Have { .. } => HAVE,
            Gossip::Graft { .. } => GRAFT,
            Gossip::Prune => PRUNE,
            Gossip::Standing { .. } => STANDING,
        }
    }

    pub(super) fn put(&self, out: Vec<u8>) -> Vec<u8> {
        fn put<T: Serialize>(out: Vec<u8>, value: &T) -> Vec<u8> {
            postcard::to_extend(value, out).expect("our own types serialize into memory")
        }
        match self {
            Gossip::Join | Gossip::Disconnect | Gossip::Prune => out,
            Gossip::ForwardJoin { joiner, hops } => put(out, &(joiner, hops)),
            Gossip::Neighbor { urgent } => put(out, urgent),
            Gossip::NeighborReply { accepted } => put(out, accepted),
            Gossip::Shuffle { hops, path, nodes } => put(out, &(hops, path, nodes)),
            Gossip::ShuffleReply { path, nodes } => put(out, &(path, nodes)),
            Gossip::Rumour { id, hops, rumour } => put(out, &(id, hops, rumour)),
            Gossip::Have { ids } => put(out, ids),
            Gossip::Graft { id } => put(out, id),
            Gossip::Standing { life, load, down, alive } => put(out, &(life, load, down, alive)),
        }
    }

    /// The message in a frame's body; none if the kind is from the future.
    pub(super) fn take(kind: u8, body: &[u8]) -> Option<Result<Gossip, String>> {
        Some(match kind {
            JOIN => take(body).map(|()| Gossip::Join),
            FORWARD_JOIN => take(body).map(|(joiner, hops)| Gossip::ForwardJoin { joiner, hops }),
            NEIGHBOR => take(body).map(|urgent| Gossip::Neighbor { urgent }),
            NEIGHBOR_REPLY => take(body).map(|accepted| Gossip::NeighborReply { accepted }),
            DISCONNECT => take(body).map(|()| Gossip::Disconnect),
            SHUFFLE => {
                let taken = take::<(u8, Few<NodeId, WALK>, Few<NodeId, SHUFFLED>)>(body);
                taken.map(|(hops, path, nodes)| Gossip::Shuffle { hops, path: path.0, nodes: nodes.0 })
            }
            SHUFFLE_REPLY => {
                let taken = take::<(Few<NodeId, WALK>, Few<NodeId, SHUFFLED>)>(body);
                taken.map(|(path, nodes)| Gossip::ShuffleReply { path: path.0, nodes: nodes.0 })
            }
            RUMOUR => take(body).map(|(id, hops, rumour)| Gossip::Rumour { id, hops, rumour }),
            HAVE => take::<Few<RumourId, { limits::RUMOURS_ANNOUNCED }>>(body).map(|ids| Gossip::Have { ids: ids.0 }),
            GRAFT => take(body).map(|id| Gossip::Graft { id }),
            PRUNE => take(body).map(|()| Gossip::Prune),
            STANDING => {
                let taken = take::<(Life, Load, Lives, Lives)>(body);
                taken.map(|(life, load, down, alive)| Gossip::Standing { life, load, down: down.0, alive: alive.0 })
            }
            _ => return None,
        })
    }
}

const WALK: usize = limits::WALK_HOPS as usize + 1;
const SHUFFLED: usize = limits::SHUFFLED_NODES;
type Lives = Few<(NodeId, Life), { limits::STANDING_DOWN }>;

/// A list that is bounded when it is read.
struct Few<T, const MOST: usize>(Vec<T>);

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for Few<T, MOST> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Few<T, MOST>, D::Error> {
        bounded_list::<_, _, MOST>(deserializer).map(Few)
    }
}

fn take<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    // Nothing takes no bytes, but is no gossip with something behind it either.
    match postcard::take_from_bytes(body) {
        Ok((value, [])) => Ok(value),
        Ok((_, rest)) => Err(format!("{} trailing bytes", rest.len())),
        Err(error) => Err(error.to_string()),
    }
}

#[cfg(test)]
#[path = "gossip_tests.rs"]
mod tests;
