//! Where the nodes stand on the ring.

use crate::types::{NodeId, Partition, PartitionCount, Token, limits};

use super::Problem;

/// The tokens of every node, each list in order.
pub(super) struct Tokens {
    by_node: Vec<Vec<Token>>,
    partitions: PartitionCount,
}

/// The place of a node's `index`-th token: the hash of its id and the index, each as 32 bits
/// little-endian. The bytes are part of the contract: other ones would move every partition.
fn server_token(node: NodeId, index: u32) -> Token {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&node.number().to_le_bytes());
    bytes[4..].copy_from_slice(&index.to_le_bytes());
    Token::of_bytes(&bytes)
}

impl Tokens {
    pub(super) fn new(problem: &Problem) -> Tokens {
        let tokens_of = |(node, weight): (&NodeId, &u32)| {
            let count = limits::TOKENS_PER_WEIGHT * (*weight).min(limits::MAX_WEIGHT);
            let mut tokens: Vec<Token> = (0..count).map(|index| server_token(*node, index)).collect();
            tokens.sort_unstable();
            tokens
        };
        let by_node = problem.nodes.iter().zip(&problem.weights).map(tokens_of).collect();
        Tokens { by_node, partitions: problem.partitions }
    }

    /// How far clockwise from the first token of a partition the node's next token lies.
    pub(super) fn distance(&self, partition: usize, node: usize) -> u64 {
        let from = self.partitions.first_token(Partition(partition as u16));
        let tokens = &self.by_node[node];
        let next = tokens.partition_point(|token| *token < from) % tokens.len();
        tokens[next].0.wrapping_sub(from.0)
    }

    /// All nodes in the order in which they are met clockwise from a partition.
    pub(super) fn clockwise(&self, partition: usize) -> Vec<usize> {
        let mut nodes: Vec<(u64, usize)> =
            (0..self.by_node.len()).map(|node| (self.distance(partition, node), node)).collect();
        nodes.sort_unstable();
        nodes.into_iter().map(|(_, node)| node).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tokens_of_servers_stay_where_they_are() {
        let node = |number| NodeId::new(number).expect("not zero");
        assert_eq!(server_token(node(1), 0), Token::of_bytes(&[1, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(server_token(node(258), 3), Token::of_bytes(&[2, 1, 0, 0, 3, 0, 0, 0]));
    }
}
