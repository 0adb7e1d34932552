//! The settings themselves: each with its type, its default and its documentation, in
//! one place. The struct, the reader, the list of known keys and `docs/configuration.md`
//! all come from this table.

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroU64};
use std::path::PathBuf;
use std::time::Duration;

use super::load::Reader;
use super::setting::{Secret, Setting, Transactions};
use crate::types::{NodeId, limits};

/// One section, for the documentation.
#[derive(Clone, Debug)]
pub struct SectionReference {
    /// The name between brackets.
    pub name: &'static str,
    /// What it is about.
    pub doc: String,
    /// Its keys.
    pub fields: Vec<FieldReference>,
}

/// One key, for the documentation.
#[derive(Clone, Debug)]
pub struct FieldReference {
    /// The key within its section.
    pub key: &'static str,
    /// What is expected.
    pub expected: &'static str,
    /// Whether it must be given.
    pub required: bool,
    /// The default as TOML text, if there is one.
    pub default: Option<String>,
    /// What it is, when to raise or lower it, where the default comes from.
    pub doc: String,
}

macro_rules! default_of {
    ($type:ty) => {
        None::<$type>
    };
    ($type:ty, $default:expr) => {
        Some::<$type>($default)
    };
}

macro_rules! sections {
    ($(
        $(#[doc = $section_doc:literal])+
        $section:ident: $Section:ident {
            $( $(#[doc = $doc:literal])+ $field:ident $key:literal: $type:ty $(= $default:expr)?; )+
        }
    )+) => {
        $(
            $(#[doc = $section_doc])+
            #[derive(Clone, PartialEq, Debug)]
            pub struct $Section {
                $( $(#[doc = $doc])+ pub $field: $type, )+
            }
        )+

        /// Everything that a node is told.
        #[derive(Clone, PartialEq, Debug)]
        pub struct NodeConfig {
            $( $(#[doc = $section_doc])+ pub $section: $Section, )+
        }

        impl NodeConfig {
            /// Takes every key from the reader, which remembers what was wrong or missing.
            pub(super) fn read(reader: &mut Reader<'_>) -> Option<NodeConfig> {
                struct Read { $( $section: Option<$Section>, )+ }
                let read = Read {
                    $( $section: {
                        $( let $field = reader.take::<$type>(stringify!($section), $key, default_of!($type $(, $default)?)); )+
                        (|| Some($Section { $( $field: $field?, )+ }))()
                    }, )+
                };
                Some(NodeConfig { $( $section: read.$section?, )+ })
            }
        }

        /// Every section with every key, in the order of the documentation.
        pub fn reference() -> Vec<SectionReference> {
            vec![ $( SectionReference {
                name: stringify!($section),
                doc: join_doc(&[$( $section_doc ),+]),
                fields: vec![ $( FieldReference {
                    key: $key,
                    expected: <$type as Setting>::EXPECTED,
                    required: default_of!($type $(, $default)?).is_none(),
                    default: default_of!($type $(, $default)?).and_then(|default| default.to_value()).map(|value| value.to_string()),
                    doc: join_doc(&[$( $doc ),+]),
                }, )+ ],
            }, )+ ]
        }

        /// The TOML value that a text stands for at this key; none if there is no such key.
        pub(super) fn value_of_text(section: &str, key: &str, text: &str) -> Option<toml::Value> {
            match (section, key) {
                $( $( (stringify!($section), $key) => Some(<$type as Setting>::value_of_text(text)), )+ )+
                _ => None,
            }
        }
    };
}

fn join_doc(lines: &[&str]) -> String {
    lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
}

sections! {
    /// Which node this is and where it keeps its data.
    node: NodeSection {
        /// The name of this node in the cluster map and in its certificate. Never give one name
        /// to two nodes, nor the name of a removed node to a new one.
        id "id": NodeId;
        /// The directory of the store. It must be on a disk that keeps what `fdatasync` has
        /// confirmed; one node per directory.
        data_dir "data_dir": PathBuf;
    }

    /// Where the node listens. The n-th node on one machine takes ports n higher.
    listen: ListenSection {
        /// Clients that speak RESP (Redis). Any other address than the loopback needs
        /// `clients.password`. The default port is the project's own, so that a Redis on 6379
        /// can run beside it.
        resp "resp": SocketAddr = SocketAddr::from(([127, 0, 0, 1], 7379));
        /// Clients that speak HTTP. Any other address than the loopback needs `clients.password`.
        http "http": SocketAddr = SocketAddr::from(([127, 0, 0, 1], 8379));
        /// The other nodes (QUIC, UDP). Mutual TLS guards it. The address that the other nodes
        /// dial stands in the cluster map; this is the one that is bound.
        peer "peer": SocketAddr = SocketAddr::from(([127, 0, 0, 1], 9379));
    }

    /// Who this node is to its peers. Changed files are taken up without a restart.
    tls: TlsSection {
        /// The certificate of the cluster's authority (PEM): only peers that it has signed are
        /// spoken to.
        ca "ca": PathBuf;
        /// This node's certificate (PEM), made for the name in `node.id`.
        certificate "certificate": PathBuf;
        /// The private key of that certificate (PEM). Nobody but the owner may read it: mode 0600.
        key "key": PathBuf;
    }

    /// Which cluster the node belongs to.
    cluster: ClusterSection {
        /// The file with the cluster map to begin with, made by `dogsled cluster create`. Newer
        /// maps are kept in `node.data_dir` and preferred.
        map "map": PathBuf;
    }

    /// How requests are carried out.
    requests: RequestsSection {
        /// How long a request may take unless it says otherwise. Raise it for slow disks or far
        /// nodes; keep it well below the timeouts of the clients, so that they hear the outcome
        /// (redis-py gives up after 5000). From 1 to 600000. The default is
        /// about ten times a slow sync.
        timeout "timeout_ms": Duration = Duration::from_millis(500);
        /// After what time a read asks one more replica, until enough is known about how fast a
        /// peer answers. Lower it to cut the tail of read latency at the price of more reads;
        /// raise it if replicas are far apart. From 1 to 600000. The default is a few times
        /// a local read, and far below `timeout_ms`.
        hedge_after "hedge_after_ms": Duration = Duration::from_millis(20);
        /// How far ahead of this node's clock the timestamp of another may be; what is further
        /// is refused. Raise it only where clocks cannot be kept; lower it where they are good,
        /// since a clock that is ahead wins over later writes for that long. From 1 to 60000.
        /// The default is far above what NTP leaves.
        max_clock_skew "max_clock_skew_ms": Duration = Duration::from_millis(500);
        /// For how long a write with an op-id is recognised when it is sent again. Raise it for
        /// clients that try again for longer; lower it if very many writes carry op-ids, since
        /// each of them is kept twice for that long. From 1 to 86400000. The default, 15 minutes,
        /// is far above what any client library tries for. Give all nodes the same.
        op_id_horizon "op_id_horizon_ms": Duration = Duration::from_secs(900);
        /// The longest value that is taken. Raise it for large values: each takes that much memory
        /// several times on its way. From 1 to 16777216. Give all nodes the same.
        max_value_bytes "max_value_bytes": NonZeroU64 = NonZeroU64::new(limits::DEFAULT_MAX_VALUE_BYTES as u64).expect("the default is above zero");
    }

    /// How replicas keep each other up to date, and when what all of them have is let go of.
    sync: SyncSection {
        /// How often replicas tell each other what they have and fetch what they lack; their
        /// clocks are compared as often. Lower it so that a replica that missed writes has them
        /// sooner; raise it where there are very many partitions or the network is dear. From 1
        /// to 60000. The default is short against the time between two failures.
        interval "interval_ms": Duration = Duration::from_secs(1);
        /// How often tombstones, expired values and log entries that every replica durably has
        /// are let go of. Lower it to free their space sooner; raise it where requests are on
        /// their way for long, because a write that was under way for longer than this may be
        /// refused, for the client to send it again. From 1 to 3600000. The default is twenty
        /// times `requests.timeout_ms`.
        collect_interval "collect_interval_ms": Duration = Duration::from_secs(10);
    }

    /// How nodes learn who is alive.
    gossip: GossipSection {
        /// K: how many peers this node knows at most, the ones that it watches and the spare
        /// ones together; about a third is watched. It must be less than the number of
        /// members. Raise it where many nodes may die at once; lower it to have fewer
        /// connections. From 1 to 256. Unless given it is 24 (8 and 16), or one less than there
        /// are members.
        k_list "k_list": Option<NonZeroU32> = None;
    }

    /// How the store works.
    storage: StorageSection {
        /// sled's cache. Raise it until what is read often fits; the process takes two to three
        /// times as much, so stay at a quarter of the memory that the node may have. At least
        /// 1048576. The default suits three nodes on a laptop.
        cache_bytes "cache_bytes": NonZeroU64 = NonZeroU64::new(64 * 1024 * 1024).expect("the default is above zero");
    }

    /// What clients may do.
    clients: ClientsSection {
        /// The password of the user `default`: RESP clients give it with `AUTH`, HTTP clients as
        /// the password of basic authentication. Without one, the client ports must be on the
        /// loopback. Better given as `DOGSLED_CLIENTS_PASSWORD` than written into a file.
        password "password": Option<Secret> = None;
        /// Whether `FLUSHDB` and `FLUSHALL` are carried out; otherwise they are refused. Off by
        /// default, because one command would delete everything; `dogsled up` sets it for its
        /// local cluster.
        allow_flush "allow_flush": bool = false;
        /// What `EXEC` does with a transaction that cannot be carried out as one: `refuse` it, so
        /// that nothing has run, or run it as a `pipeline` of single commands for clients that
        /// use `MULTI` only to save round trips.
        transactions "transactions": Transactions = Transactions::Refuse;
        /// After what time without a command a client's connection is closed; 0 for never. Lower
        /// it where clients vanish without a word. Never is what Redis does by default, and what
        /// connection pools expect.
        idle_timeout "idle_timeout_ms": Duration = Duration::ZERO;
    }

    /// What is kept of the log. Its level and its place come from the environment: see the
    /// page on logging.
    log: LogSection {
        /// How many days of log files are kept, today's included. From 1 to 3650. Two weeks cover
        /// a holiday.
        keep_days "keep_days": NonZeroU32 = NonZeroU32::new(14).expect("the default is above zero");
    }
}
