//! The token space and its slices.

use serde::{Deserialize, Serialize};

use super::limits;

/// A place on the ring: the upper 64 bits of `murmur3_x64_128`.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Token(pub u64);

impl Token {
    /// The token of these bytes as they are.
    pub fn of_bytes(bytes: &[u8]) -> Token {
        let hash = murmur3::murmur3_x64_128(&mut std::io::Cursor::new(bytes), 0).expect("memory can be read");
        Token((hash >> 64) as u64)
    }

    /// The token of a key: of its `{tag}` if it has one, as Redis Cluster has it.
    pub fn of_key(key: &[u8]) -> Token {
        Token::of_bytes(hashed_part(key))
    }

    /// The token after this one, or none at the end of the ring.
    pub fn next(self) -> Option<Token> {
        self.0.checked_add(1).map(Token)
    }
}

/// What is between the first `{` and the next `}`, if that is not empty; else all.
pub fn hashed_part(key: &[u8]) -> &[u8] {
    let Some(open) = memchr::memchr(b'{', key) else { return key };
    let rest = &key[open + 1..];
    match memchr::memchr(b'}', rest) {
        Some(length) if length > 0 => &rest[..length],
        _ => key,
    }
}

/// One of the equal slices of the token space: the unit of ownership, log and repair.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Partition(pub u16);

/// Q, the number of partitions: a power of two, fixed when a cluster is created.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(try_from = "u32", into = "u32")]
pub struct PartitionCount(u32);

impl PartitionCount {
    /// Q, if it is a power of two within the limit.
    pub const fn new(count: u32) -> Option<PartitionCount> {
        if count.is_power_of_two() && count <= limits::MAX_PARTITIONS { Some(PartitionCount(count)) } else { None }
    }

    /// How many there are.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// The partition that a token lies in.
    pub fn partition_of(self, token: Token) -> Partition {
        let index = (u128::from(token.0) * u128::from(self.0)) >> 64;
        Partition(u16::try_from(index).expect("the index is below 65,536"))
    }

    /// The first token of a partition.
    pub fn first_token(self, partition: Partition) -> Token {
        let width = (1u128 << 64) / u128::from(self.0);
        Token((u128::from(partition.0) * width) as u64)
    }

    /// The last token of a partition.
    pub fn last_token(self, partition: Partition) -> Token {
        let width = (1u128 << 64) / u128::from(self.0);
        Token(((u128::from(partition.0) + 1) * width - 1) as u64)
    }

    /// All partitions, in ring order.
    pub fn all(self) -> impl ExactSizeIterator<Item = Partition> {
        (0..self.0 as usize).map(|index| Partition(index as u16))
    }
}

impl TryFrom<u32> for PartitionCount {
    type Error = &'static str;

    fn try_from(count: u32) -> Result<PartitionCount, &'static str> {
        PartitionCount::new(count).ok_or("the number of partitions must be a power of two, at most 65536")
    }
}

impl From<PartitionCount> for u32 {
    fn from(count: PartitionCount) -> u32 {
        count.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_hashed_as_redis_cluster_does() {
        let cases: [(&[u8], &[u8]); 7] = [
            (b"plain", b"plain"),
            (b"{user}.name", b"user"),
            (b"a{user}b", b"user"),
            (b"{}empty", b"{}empty"),
            (b"{open", b"{open"),
            (b"{a}{b}", b"a"),
            (b"{{a}}", b"{a"),
        ];
        for (key, part) in cases {
            assert_eq!(hashed_part(key), part, "{}", String::from_utf8_lossy(key));
        }
    }

    #[test]
    fn partitions_tile_the_ring() {
        for count in [1u32, 2, 256, 65_536] {
            let count = PartitionCount::new(count).expect("a power of two");
            let mut expected = Token(0);
            for partition in count.all() {
                assert_eq!(count.first_token(partition), expected);
                assert_eq!(count.partition_of(expected), partition);
                let last = count.last_token(partition);
                assert_eq!(count.partition_of(last), partition);
                expected = last.next().unwrap_or(Token(0));
            }
            assert_eq!(expected, Token(0), "the last partition ends where the ring does");
        }
        assert_eq!(PartitionCount::new(100), None);
        assert_eq!(PartitionCount::new(131_072), None);
    }
}
