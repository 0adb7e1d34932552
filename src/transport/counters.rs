//! What a transport counts: written where it happens, read by the metrics page.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Why somebody was not let in, or was not believed.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum HandshakeRefusal {
    /// Its certificate was signed by an authority that is not trusted here.
    WrongAuthority,
    /// It showed no certificate.
    NoCertificate,
    /// Its certificate has expired, or is not valid yet.
    Expired,
    /// Its certificate is for another name, or for another role than a node's.
    WrongName,
    /// It is a node, but not one that this node's map lists.
    NotMember,
    /// It belongs to another cluster.
    WrongCluster,
    /// It speaks another version of the protocol, or another protocol.
    WrongVersion,
    /// Its greeting makes no sense.
    MalformedHello,
    /// It is in a life that has been surpassed.
    StaleIncarnation,
    /// Another node of the same name, in the same life, is connected from another address.
    DuplicateNode,
    /// It took too long.
    Timeout,
    /// Too many were knocking at once.
    Overloaded,
    /// TLS or QUIC failed in some other way.
    Protocol,
}

impl HandshakeRefusal {
    /// All of them.
    pub const ALL: [HandshakeRefusal; 13] = [
        HandshakeRefusal::WrongAuthority,
        HandshakeRefusal::NoCertificate,
        HandshakeRefusal::Expired,
        HandshakeRefusal::WrongName,
        HandshakeRefusal::NotMember,
        HandshakeRefusal::WrongCluster,
        HandshakeRefusal::WrongVersion,
        HandshakeRefusal::MalformedHello,
        HandshakeRefusal::StaleIncarnation,
        HandshakeRefusal::DuplicateNode,
        HandshakeRefusal::Timeout,
        HandshakeRefusal::Overloaded,
        HandshakeRefusal::Protocol,
    ];

    /// As metrics and logs have it.
    pub fn name(self) -> &'static str {
        match self {
            HandshakeRefusal::WrongAuthority => "wrong_authority",
            HandshakeRefusal::NoCertificate => "no_certificate",
            HandshakeRefusal::Expired => "expired",
            HandshakeRefusal::WrongName => "wrong_name",
            HandshakeRefusal::NotMember => "not_member",
            HandshakeRefusal::WrongCluster => "wrong_cluster",
            HandshakeRefusal::WrongVersion => "wrong_version",
            HandshakeRefusal::MalformedHello => "malformed_hello",
            HandshakeRefusal::StaleIncarnation => "stale_incarnation",
            HandshakeRefusal::DuplicateNode => "duplicate_node",
            HandshakeRefusal::Timeout => "timeout",
            HandshakeRefusal::Overloaded => "overloaded",
            HandshakeRefusal::Protocol => "protocol",
        }
    }
}

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// Counts since the transport was started.
        #[derive(Debug, Default)]
        pub struct Counters {
            $(pub(crate) $name: AtomicU64,)*
            /// By who dialled: this node, the peer.
            standing: [AtomicU64; 2],
            refused: [AtomicU64; HandshakeRefusal::ALL.len()],
        }

        /// The counts at one time.
        #[derive(Clone, PartialEq, Eq, Debug, Default)]
        pub struct CountersSnapshot {
            $($(#[$doc])* pub $name: u64,)*
            /// Connections in use now that this node dialled.
            pub standing_dialled: u64,
            /// Connections in use now that the peer dialled.
            pub standing_accepted: u64,
            refused: [u64; HandshakeRefusal::ALL.len()],
        }

        impl Counters {
            /// The counts now.
            pub fn snapshot(&self) -> CountersSnapshot {
                CountersSnapshot {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    standing_dialled: self.standing[0].load(Ordering::Relaxed),
                    standing_accepted: self.standing[1].load(Ordering::Relaxed),
                    refused: std::array::from_fn(|index| self.refused[index].load(Ordering::Relaxed)),
                }
            }
        }

        impl CountersSnapshot {
            /// Each count with its name; left out are refusals, and what stands now, which
            /// is no count of events.
            pub fn entries(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

counters! {
    /// Connections that came to stand, dialled or accepted.
    connections_opened,
    /// Connections that were lost: neither end has ended them in good order, and none has
    /// taken their place.
    connections_lost,
    /// Connections that ended in good order: idle, or not wanted any more by one end.
    connections_parted,
    /// Connections that another took the place of, with nothing lost.
    connections_renewed,
    /// Attempts to connect that came to nothing; the next one follows by itself.
    dials_failed,
    /// Attempts to connect that were given up because the peer's own came first.
    dials_crossed,
    /// Times that a peer did not let this node in.
    refused_by_peer,
    /// Frames handed to the network.
    frames_sent,
    /// Frames that arrived.
    frames_received,
    /// Bytes of frames handed to the network, their lengths included.
    bytes_sent,
    /// Bytes of frames that arrived, their lengths included.
    bytes_received,
    /// Datagrams handed to the network.
    datagrams_sent,
    /// Datagrams that arrived.
    datagrams_received,
    /// Datagrams that could not be sent.
    datagrams_refused,
    /// Datagrams that arrived when too many events were waiting.
    datagrams_dropped,
    /// Datagrams that arrived and were too long.
    datagrams_oversize,
    /// Frames that were refused because too much was waiting.
    queue_full,
    /// Connections ended because the peer broke the protocol.
    violations,
    /// Times that new certificates came into use.
    certificate_reloads,
    /// Times that new certificates were found and could not be used.
    certificate_reload_failures,
}

/// A connection in use: counted until it is dropped.
#[derive(Debug)]
pub(crate) struct InUse {
    counters: Arc<Counters>,
    accepted: bool,
}

impl Drop for InUse {
    fn drop(&mut self) {
        self.counters.standing[usize::from(self.accepted)].fetch_sub(1, Ordering::Relaxed);
    }
}

impl Counters {
    /// Counts a connection as long as it is in use.
    pub(crate) fn in_use(self: &Arc<Self>, accepted: bool) -> InUse {
        self.standing[usize::from(accepted)].fetch_add(1, Ordering::Relaxed);
        InUse { counters: self.clone(), accepted }
    }

    pub(crate) fn add(counter: &AtomicU64, count: u64) {
        counter.fetch_add(count, Ordering::Relaxed);
    }

    pub(crate) fn refuse(&self, reason: HandshakeRefusal) {
        Counters::add(&self.refused[reason as usize], 1);
    }
}

impl CountersSnapshot {
    /// How many handshakes were refused for this reason.
    pub fn refused(&self, reason: HandshakeRefusal) -> u64 {
        self.refused[reason as usize]
    }

    /// How many handshakes were refused for any reason.
    pub fn refused_total(&self) -> u64 {
        self.refused.iter().sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_is_counted_while_it_stands() {
        let counters = Arc::new(Counters::default());
        let dialled = counters.in_use(false);
        let accepted = [counters.in_use(true), counters.in_use(true)];
        let standing = |counters: &Counters| {
            let snapshot = counters.snapshot();
            (snapshot.standing_dialled, snapshot.standing_accepted)
        };
        assert_eq!(standing(&counters), (1, 2));
        drop(dialled);
        assert_eq!(standing(&counters), (0, 2));
        drop(accepted);
        assert_eq!(standing(&counters), (0, 0));
    }

    #[test]
    fn each_refusal_is_counted_by_itself() {
        let counters = Counters::default();
        for (index, reason) in HandshakeRefusal::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, index, "{} stands out of order", reason.name());
            (0..=index).for_each(|_| counters.refuse(reason));
        }
        let snapshot = counters.snapshot();
        for (index, reason) in HandshakeRefusal::ALL.into_iter().enumerate() {
            assert_eq!(snapshot.refused(reason), index as u64 + 1);
        }
        assert_eq!(snapshot.refused_total(), (1..=13).sum::<u64>());
    }
}
