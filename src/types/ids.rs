//! Who is who: nodes, their lives, the namespaces of keys.

use std::fmt;
use std::num::NonZeroU32;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::Incarnation;

/// A node's name for life: a number above zero that is never given twice in a cluster.
///
/// It is written `n7`, in tables, certificates and logs alike.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NodeId(NonZeroU32);

/// What was given is not a node's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{0}' is not a node id: write n1, n2, … (or the number alone)")]
pub struct InvalidNodeId(pub String);

impl NodeId {
    /// The node with this number, or none for zero.
    pub const fn new(number: u32) -> Option<NodeId> {
        match NonZeroU32::new(number) {
            Some(number) => Some(NodeId(number)),
            None => None,
        }
    }

    /// The number alone, as `SERVER_ID` has it.
    pub const fn number(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "n{}", self.0)
    }
}

impl FromStr for NodeId {
    type Err = InvalidNodeId;

    fn from_str(text: &str) -> Result<NodeId, InvalidNodeId> {
        let digits = text.strip_prefix('n').unwrap_or(text);
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(InvalidNodeId(text.to_owned()));
        }
        digits.parse().ok().and_then(NodeId::new).ok_or_else(|| InvalidNodeId(text.to_owned()))
    }
}

/// One life of a node: the only thing that gives out dots.
///
/// A node that restarts is a new actor, so a counter that a disk has forgotten is
/// never used again (riak_kv issues 679 and 1865 are what happens otherwise).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Actor {
    /// The node.
    pub node: NodeId,
    /// Which of its lives.
    pub incarnation: Incarnation,
}

/// A namespace's number in the cluster map; names are for people, numbers are stored.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct NamespaceId(pub u16);

impl NamespaceId {
    /// The namespace `default`, which is Redis's database 0.
    pub const DEFAULT: NamespaceId = NamespaceId(0);
}

/// A failure domain: a rack, a room, a data centre. Replicas are spread over zones.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
pub struct Zone(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_reads_back_as_it_is_written() {
        let id = NodeId::new(12).expect("not zero");
        assert_eq!(id.to_string(), "n12");
        assert_eq!("n12".parse::<NodeId>(), Ok(id));
        assert_eq!("12".parse::<NodeId>(), Ok(id));
        for bad in ["", "n", "n0", "0", "nn1", "n-1", "+1", "n+1", "x", "n99999999999"] {
            assert!(bad.parse::<NodeId>().is_err(), "{bad:?} was taken for a node id");
        }
    }
}
