//! What is measured, as samples for `/metrics`.

use crate::transport::HandshakeRefusal;
use crate::types::Health;

use super::handle::{NodeStatus, Shared, View};
use super::members::{MembersStatus, Relation};

/// Whether a sample may go down.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SampleKind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One measured value, to be shown under `/metrics`.
#[derive(Clone, PartialEq, Debug)]
pub struct Sample {
    /// Its name, without the prefix `dogsled_` and, for counters, without `_total`.
    pub name: &'static str,
    /// What it means, with its unit.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: SampleKind,
    /// What tells it from others of its name.
    pub labels: Vec<(&'static str, String)>,
    /// The value.
    pub value: f64,
}

struct Samples(Vec<Sample>);

impl Samples {
    fn add(&mut self, kind: SampleKind, name: &'static str, help: &'static str, value: f64) {
        self.0.push(Sample { name, help, kind, labels: Vec::new(), value });
    }

    fn counter(&mut self, name: &'static str, help: &'static str, value: u64) {
        self.add(SampleKind::Counter, name, help, value as f64);
    }

    fn gauge(&mut self, name: &'static str, help: &'static str, value: f64) {
        self.add(SampleKind::Gauge, name, help, value);
    }

    fn labelled(&mut self, name: &'static str, help: &'static str, label: (&'static str, String), value: u64) {
        let kind = SampleKind::Counter;
        self.0.push(Sample { name, help, kind, labels: vec![label], value: value as f64 });
    }

    fn labelled_gauge(&mut self, name: &'static str, help: &'static str, label: (&'static str, &str), value: u64) {
        let labels = vec![(label.0, label.1.to_owned())];
        self.0.push(Sample { name, help, kind: SampleKind::Gauge, labels, value: value as f64 });
    }
}

/// All samples of a node.
pub(super) fn collect(status: &NodeStatus, view: &View, shared: &Shared) -> Vec<Sample> {
    let mut samples = Samples(Vec::with_capacity(112));
    samples.gauge("ready", "1 if a quorum of every partition is reachable", f64::from(u8::from(status.ready)));
    samples.gauge("epoch", "epoch of the cluster map", status.epoch.0 as f64);
    samples.gauge("incarnation", "which life of the node this is", status.incarnation.0 as f64);
    samples.gauge("uptime_seconds", "seconds since this life began", status.uptime_s as f64);
    samples.gauge("live_keys", "about how many live keys this node holds", status.live_keys as f64);
    samples.gauge("disk_bytes", "bytes that the store takes on disk", status.disk_bytes as f64);
    let connected = status.peers.iter().filter(|peer| peer.connected).count();
    samples.gauge("peers_connected", "peers with a connection now", connected as f64);
    samples.gauge(
        "partitions_without_quorum",
        "partitions of which no quorum is reachable",
        f64::from(status.partitions_without_quorum),
    );
    samples.gauge("requests_under_way", "requests that this node works on", view.requests_under_way as f64);
    let node = view.counters;
    samples.counter("requests_coordinated", "requests coordinated here", node.coordinated);
    samples.counter("requests_served", "requests of peers served here", node.served);
    samples.counter("requests_overloaded", "requests refused because too much was under way", node.overloaded);
    samples.counter("late_replicas", "times a further replica was asked because one was late", node.late_replicas);
    samples.counter("clock_skew_refused", "messages whose clock was too far ahead", node.clock_skew);
    samples.counter("wrong_epoch", "requests refused because of their epoch", node.wrong_epoch);
    samples.counter("read_repairs", "replicas that were sent by a read what they lacked", node.read_repairs);
    samples.counter("pulled", "mutations fetched from peers because they were missing here", node.pulled);
    let help = "mutations missing here of which the peers that cover them know nothing any more";
    samples.counter("pulled_lost", help, node.pulled_lost);
    samples.counter("behind", "mutations turned away because they were older than what was collected", node.behind);
    samples.counter("clock_unsure", "writes refused because this node's clock could not be trusted", node.clock_unsure);
    let help = "connections of peers whose stores knew less than is remembered of them";
    samples.counter("fenced_peers", help, node.fenced_peers);
    membership(&mut samples, &view.members());
    storage(&mut samples, shared);
    transport(&mut samples, shared);
    samples.0
}

fn membership(samples: &mut Samples, members: &MembersStatus) {
    for health in [Health::Alive, Health::Suspect, Health::Down] {
        let help = "other members by what is held of them here";
        samples.labelled_gauge("members", help, ("health", health.name()), members.held(health) as u64);
    }
    samples.gauge("membership_k_list", "how many peers this node may know and watch", members.k_list as f64);
    samples.gauge("membership_known", "peers that it knows: both views together", members.known as f64);
    let active = members.related(Relation::Active);
    samples.gauge("membership_active", "peers that it watches: the active view", active as f64);
    let help = "how ill this node thinks it is itself, from 0 (well) to 8";
    samples.gauge("membership_ill_health", help, f64::from(members.ill_health));
    for (name, help, count) in members.counts() {
        samples.counter(name, help, count);
    }
}

fn storage(samples: &mut Samples, shared: &Shared) {
    let store = shared.storage_counters.snapshot();
    let help = "versions that lost against a newer one without ever having been seen";
    samples.counter("discarded_writes", help, shared.storage.discarded());
    samples.gauge("log_mutations", "mutations in the write log", shared.storage.log_length() as f64);
    samples.counter("commit_groups", "groups of mutations made durable, each synced once", store.groups);
    samples.counter("commit_mutations", "mutations in them", store.mutations);
    samples.counter("commit_bytes", "bytes in them", store.bytes);
    samples.counter("commit_apply_microseconds", "time spent in applying them", store.apply_micros);
    samples.counter("commit_sync_microseconds", "time spent in syncing them", store.sync_micros);
    samples.gauge("commit_sync_max_microseconds", "the longest sync", store.sync_micros_max as f64);
    samples.gauge("commit_queue", "mutations that wait to be durable", store.commit_queue as f64);
    samples.counter("commit_refused", "mutations refused because the queue was full", store.commit_refused);
    samples.counter("store_reads", "reads of the store", store.reads);
    samples.counter("store_read_microseconds", "time spent in them", store.read_micros);
    samples.gauge("store_read_queue", "reads that wait", store.read_queue as f64);
    samples.counter("store_reads_refused", "reads refused because the queue was full", store.read_refused);
}

fn transport(samples: &mut Samples, shared: &Shared) {
    let network = shared.transport_counters.snapshot();
    for (event, count) in network.entries() {
        samples.labelled("transport_events", "what happened on the network, by kind", ("event", event.into()), count);
    }
    let help = "connections with peers in use now, by who dialled";
    for (by, count) in [("node", network.standing_dialled), ("peer", network.standing_accepted)] {
        samples.labelled_gauge("transport_connections", help, ("dialled_by", by), count);
    }
    for reason in HandshakeRefusal::ALL {
        let label = ("reason", reason.name().to_owned());
        samples.labelled("handshakes_refused", "peers that were not let in, by reason", label, network.refused(reason));
    }
}
