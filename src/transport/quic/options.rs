//! What a QUIC transport is told at its start, and the settings of QUIC itself.
//!
//! Source of the numbers: DESIGN section 10 and EVIDENCE, "QUIC".

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use quinn::{AckFrequencyConfig, IdleTimeout, MtuDiscoveryConfig, TransportConfig, VarInt};

use crate::transport::certificates::TlsFiles;
use crate::types::{ClusterId, Incarnation, NodeId};

/// Bytes that a peer may have under way to this node.
const RECEIVE_WINDOW: u32 = 4 * 1024 * 1024;
/// Bytes that this node keeps for a peer until they are acknowledged.
const SEND_WINDOW: u64 = 4 * 1024 * 1024;
/// Bytes of datagrams that wait on either side of a connection.
const DATAGRAM_BUFFER: usize = 64 * 1024;
/// Above about 6,550 bytes ten segments no longer fit into one write of 64 KiB, which
/// fails without an error and costs the whole gain (EVIDENCE, QUIC).
const MAX_MTU: u16 = 6_500;

/// Who this node is, and how it is reached.
#[derive(Clone, Debug)]
pub struct QuicOptions {
    /// The address (UDP) to listen on and to dial from; port 0 takes a free one.
    pub listen: SocketAddr,
    /// The cluster; peers of another are refused.
    pub cluster: ClusterId,
    /// This node; its certificate must say the same.
    pub node: NodeId,
    /// Which of its lives this is.
    pub incarnation: Incarnation,
    /// The epoch of its map, kept up to date by the owner: told to peers when they meet.
    pub epoch: Arc<AtomicU64>,
    /// Its certificate and key, and whom it trusts.
    pub tls: TlsFiles,
    /// The file with the key of its stateless resets; made if it is not there. With it a
    /// restarted node ends the connections of its former life at the first packet.
    pub reset_key: PathBuf,
    /// The rest, with defaults.
    pub settings: QuicSettings,
}

/// Times of the transport.
#[derive(Clone, Debug)]
pub struct QuicSettings {
    /// A connection on which nothing is heard for so long is gone. Raise it where
    /// machines pause; lower it to notice a dead peer earlier. Default: 3 s (DESIGN).
    pub idle_timeout: Duration,
    /// On a quiet connection something is sent so often. Default: a third of the idle timeout.
    pub keep_alive: Duration,
    /// The round trip to expect before one was measured. Default: 10 ms (DESIGN); with
    /// QUIC's own 333 ms a lost first packet costs a second.
    pub initial_rtt: Duration,
    /// How long a peer may hold back an acknowledgement. Default: 2 ms (DESIGN).
    pub max_ack_delay: Duration,
    /// A dialled address that gives no sign of life for so long is tried anew. It must
    /// exceed the longest round trip. Default: 1 s.
    pub answer_timeout: Duration,
    /// A handshake, greetings included, may take so long. Default: 3 s.
    pub handshake_timeout: Duration,
    /// The first wait after a failed attempt to connect; it doubles. Default: 10 ms.
    pub retry_min: Duration,
    /// The longest wait after a failed attempt. Default: 500 ms, so that a node that is
    /// back is noticed within a second.
    pub retry_max: Duration,
    /// How long an old connection may take to deliver what is on it while a new one
    /// waits to take its place. Default: 2 s.
    pub drain_timeout: Duration,
    /// A connection that this node does not keep is closed once neither a frame nor a
    /// datagram has travelled on it for so long (it may take a quarter more). Lower it to
    /// hold fewer connections; raise it where they are wanted again and again. Default: 30 s.
    pub idle_close: Duration,
    /// How often the certificate files are looked at. Default: 3 s.
    pub certificate_check: Duration,
    /// Handshakes under way at once, at most; others are turned away. Default: 256.
    pub max_handshakes: usize,
}

impl Default for QuicSettings {
    fn default() -> QuicSettings {
        QuicSettings {
            idle_timeout: Duration::from_secs(3),
            keep_alive: Duration::from_secs(1),
            initial_rtt: Duration::from_millis(10),
            max_ack_delay: Duration::from_millis(2),
            answer_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(3),
            retry_min: Duration::from_millis(10),
            retry_max: Duration::from_millis(500),
            drain_timeout: Duration::from_secs(2),
            idle_close: Duration::from_secs(30),
            certificate_check: Duration::from_secs(3),
            max_handshakes: 256,
        }
    }
}

impl QuicSettings {
    /// The settings of connections that this node accepts (`streams` 1: the dialler opens
    /// the one stream) or dials (`streams` 0: nobody opens any towards it).
    pub(super) fn transport(&self, streams: u32) -> TransportConfig {
        let mut ack_frequency = AckFrequencyConfig::default();
        ack_frequency.ack_eliciting_threshold(VarInt::from_u32(10)).max_ack_delay(Some(self.max_ack_delay));
        let mut discovery = MtuDiscoveryConfig::default();
        discovery.upper_bound(MAX_MTU);
        let idle_ms = u32::try_from(self.idle_timeout.as_millis()).unwrap_or(u32::MAX);
        let mut config = TransportConfig::default();
        config
            .max_concurrent_bidi_streams(VarInt::from_u32(streams))
            .max_concurrent_uni_streams(VarInt::from_u32(0))
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))))
            .keep_alive_interval(Some(self.keep_alive))
            .initial_rtt(self.initial_rtt)
            .ack_frequency_config(Some(ack_frequency))
            .mtu_discovery_config(Some(discovery))
            .stream_receive_window(VarInt::from_u32(RECEIVE_WINDOW))
            .receive_window(VarInt::from_u32(RECEIVE_WINDOW))
            .send_window(SEND_WINDOW)
            .datagram_receive_buffer_size(Some(DATAGRAM_BUFFER))
            .datagram_send_buffer_size(DATAGRAM_BUFFER)
            .allow_spin(false)
            .enable_segmentation_offload(true);
        config
    }

    /// The largest UDP payload that is received.
    pub(super) fn max_udp_payload(&self) -> u16 {
        MAX_MTU
    }
}
