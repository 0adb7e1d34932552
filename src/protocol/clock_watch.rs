//! Whether this node's time of day can be trusted to stamp writes.
//!
//! Problem: a machine whose clock is an hour ahead would write values that nobody can
//! replace for an hour; one whose clock is behind would write values that nobody sees.
//! Invariant: no write is stamped while this clock is off by more than is allowed against
//! most of the peers it was compared with, or was compared with none (in a cluster of more
//! than one node).
//! How: each round trip gives a peer's time of day at a moment of our clock that never
//! goes back. So if our time of day jumps, that shows at once, without another message.
//! Source: Cristian, "Probabilistic clock synchronization", 1989.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::types::{Moment, NodeId, Now, Refusal, WallTime};

/// The comparisons with peers.
#[derive(Clone, Debug)]
pub struct ClockWatch {
    max_skew: Duration,
    /// By how many milliseconds a peer's time of day is above our moments, and how far that
    /// may be wrong.
    peers: BTreeMap<NodeId, (i64, i64)>,
}

fn millis(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX / 4).min(i64::MAX / 4)
}

impl ClockWatch {
    /// No comparison yet.
    pub fn new(max_skew: Duration) -> ClockWatch {
        ClockWatch { max_skew, peers: BTreeMap::new() }
    }

    /// A peer's time of day was `theirs` at some moment since `asked`. Slow answers say little
    /// and are passed over.
    pub fn compared(&mut self, peer: NodeId, asked: Moment, now: Moment, theirs: WallTime) {
        let took = now.since(asked);
        if took > self.max_skew {
            return;
        }
        let half = i64::try_from(took.as_millis() / 2).unwrap_or(0);
        let offset = millis(theirs.0) - (millis(now.0 / 1_000) - half);
        self.peers.insert(peer, (offset, half + 1));
    }

    /// The earliest time of day that this node or any peer it was compared with may have.
    pub fn earliest(&self, now: Now) -> WallTime {
        let moment = millis(now.moment.0 / 1_000);
        let theirs = self.peers.values().map(|(offset, error)| offset + moment - error);
        let earliest = theirs.min().map_or(millis(now.wall.0), |theirs| theirs.min(millis(now.wall.0)));
        WallTime(u64::try_from(earliest).unwrap_or(0))
    }

    /// The node is no member any more.
    pub fn retain(&mut self, member: impl Fn(NodeId) -> bool) {
        self.peers.retain(|peer, _| member(*peer));
    }

    /// Whether writes may be stamped now; `alone` if there is nobody to compare with.
    ///
    /// # Errors
    /// [`Refusal::ClockUnsure`].
    pub fn check(&self, now: Now, alone: bool) -> Result<(), Refusal> {
        if alone {
            return Ok(());
        }
        let ours = millis(now.wall.0) - millis(now.moment.0 / 1_000);
        let allowed = i64::try_from(self.max_skew.as_millis()).unwrap_or(i64::MAX / 4);
        let mut ahead: Vec<i64> = self.peers.values().map(|(theirs, _)| ours - theirs).collect();
        let off = self.peers.values().filter(|(theirs, error)| (ours - theirs).abs() > allowed + error).count();
        if ahead.is_empty() {
            return Err(Refusal::ClockUnsure { offset_ms: None });
        }
        if off * 2 <= ahead.len() {
            return Ok(());
        }
        ahead.sort_unstable();
        Err(Refusal::ClockUnsure { offset_ms: Some(ahead[ahead.len() / 2]) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SKEW: Duration = Duration::from_millis(500);

    fn node(number: u32) -> NodeId {
        NodeId::new(number).expect("not zero")
    }

    fn at(ms: u64, wall: u64) -> Now {
        Now { moment: Moment(ms * 1_000), wall: WallTime(wall) }
    }

    #[test]
    fn a_jump_of_the_own_clock_shows_at_once() {
        let mut watch = ClockWatch::new(SKEW);
        assert_eq!(watch.check(at(0, 1_000_000), true), Ok(()));
        assert_eq!(watch.check(at(0, 1_000_000), false), Err(Refusal::ClockUnsure { offset_ms: None }));
        watch.compared(node(2), Moment(0), Moment(10_000), WallTime(1_000_005));
        watch.compared(node(3), Moment(0), Moment(10_000), WallTime(1_000_205));
        assert_eq!(watch.check(at(20, 1_000_020), false), Ok(()));
        assert_eq!(watch.check(at(60_020, 1_060_020), false), Ok(()));
        let hour = 3_600_000;
        let jumped = watch.check(at(21, 1_000_021 + hour), false);
        assert!(matches!(jumped, Err(Refusal::ClockUnsure { offset_ms: Some(ms) }) if ms > 3_599_000), "{jumped:?}");
        let back = watch.check(at(hour + 21, hour + 21), false);
        assert!(matches!(back, Err(Refusal::ClockUnsure { offset_ms: Some(ms) }) if ms < -990_000), "{back:?}");
    }

    #[test]
    fn one_peer_of_two_that_is_off_is_that_peers_trouble() {
        let mut watch = ClockWatch::new(SKEW);
        watch.compared(node(2), Moment(0), Moment(1_000), WallTime(500_000));
        assert!(watch.check(at(1, 1), false).is_err());
        watch.compared(node(3), Moment(0), Moment(1_000), WallTime(1));
        assert_eq!(watch.check(at(1, 1), false), Ok(()));
        // An answer that took longer than the skew says nothing.
        watch.compared(node(3), Moment(0), Moment(600_000), WallTime(900_000));
        assert_eq!(watch.check(at(1, 1), false), Ok(()));
    }
}
