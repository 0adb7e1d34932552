//! About the server: what client libraries ask when they connect, and what people ask.

use std::fmt::Write as _;

use super::super::dispatch::printable;
use super::super::glob;
use super::super::options::Transactions;
use super::super::reply::Writer;
use super::super::session::{Begun, Call, Handled};
use super::connection::REDIS_VERSION;
use super::{slot, takes, unknown_subcommand};
use crate::ambient;

pub fn time(_: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    let milliseconds = ambient::wall().0;
    writer.array(2);
    writer.bulk((milliseconds / 1000).to_string().as_bytes());
    writer.bulk((milliseconds % 1000 * 1000).to_string().as_bytes());
    Ok(Begun::Replied)
}

pub fn role(_: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    writer.array(3);
    writer.bulk(b"master");
    writer.integer(0);
    writer.array(0);
    Ok(Begun::Replied)
}

pub fn module(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    match call.word(1).as_slice() {
        b"list" => {
            takes(call, "list", 2)?;
            writer.array(0);
            Ok(Begun::Replied)
        }
        _ => Err(unknown_subcommand(call)),
    }
}

pub fn acl(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    match call.word(1).as_slice() {
        b"whoami" => {
            takes(call, "whoami", 2)?;
            writer.bulk(b"default");
            Ok(Begun::Replied)
        }
        _ => Err(unknown_subcommand(call)),
    }
}

pub fn cluster(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    match call.word(1).as_slice() {
        b"keyslot" => {
            takes(call, "keyslot", 3)?;
            writer.integer(i64::from(slot::of(call.args.at(2))));
            Ok(Begun::Replied)
        }
        _ => Err("ERR This instance has cluster support disabled".into()),
    }
}

pub fn config(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    match call.word(1).as_slice() {
        b"get" => {
            takes(call, "get", -3)?;
            let wanted: Vec<Vec<u8>> = (2..call.args.len()).map(|place| call.word(place)).collect();
            let mut settings = settings(call);
            settings.retain(|(name, _)| wanted.iter().any(|pattern| glob::matches(pattern, name.as_bytes())));
            writer.map(settings.len());
            for (name, value) in settings {
                writer.bulk(name.as_bytes());
                writer.bulk(value.as_bytes());
            }
            Ok(Begun::Replied)
        }
        b"set" => {
            takes(call, "set", -4)?;
            let name = printable(call.args.at(2));
            Err(format!("ERR Unknown option or number of arguments for CONFIG SET - '{name}'").into())
        }
        b"resetstat" => {
            takes(call, "resetstat", 2)?;
            call.shared.options.metrics.reset_totals();
            writer.ok();
            Ok(Begun::Replied)
        }
        _ => Err(unknown_subcommand(call)),
    }
}

/// What Redis calls the settings that have a counterpart here, and their values.
fn settings(call: &Call<'_>) -> Vec<(&'static str, String)> {
    let options = &call.shared.options;
    let idle = options.idle_timeout.map_or(0, |idle| idle.as_secs());
    vec![
        ("appendfsync", "always".into()),
        ("appendonly", "yes".into()),
        ("cluster-enabled", "no".into()),
        ("databases", "1".into()),
        ("maxclients", options.max_connections.to_string()),
        ("maxmemory", "0".into()),
        ("maxmemory-policy", "noeviction".into()),
        ("proto-max-bulk-len", call.shared.max_value_bytes.to_string()),
        ("save", String::new()),
        ("timeout", idle.to_string()),
    ]
}

/// Writes one section of INFO.
type Section = fn(&Call<'_>, &mut String);

const SECTIONS: [(&str, Section); 9] = [
    ("Server", server_section),
    ("Clients", clients_section),
    ("Memory", memory_section),
    ("Persistence", persistence_section),
    ("Stats", stats_section),
    ("Replication", replication_section),
    ("Cluster", cluster_section),
    ("Keyspace", keyspace_section),
    ("Dogsled", dogsled_section),
];

pub fn info(call: &mut Call<'_>, writer: &mut Writer<'_>) -> Handled {
    let wanted: Vec<Vec<u8>> = (1..call.args.len()).map(|place| call.word(place)).collect();
    let everything = wanted.is_empty()
        || wanted.iter().any(|word| [&b"all"[..], b"default", b"everything"].contains(&word.as_slice()));
    let mut text = String::new();
    for (name, section) in SECTIONS {
        if everything || wanted.iter().any(|word| word.eq_ignore_ascii_case(name.as_bytes())) {
            if !text.is_empty() {
                text.push_str("\r\n");
            }
            line(&mut text, format_args!("# {name}"));
            section(call, &mut text);
        }
    }
    writer.verbatim(&text);
    Ok(Begun::Replied)
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    write!(text, "{content}\r\n").expect("a string takes all");
}

fn server_section(call: &Call<'_>, text: &mut String) {
    let status = call.shared.backend.status();
    line(text, format_args!("redis_version:{REDIS_VERSION}"));
    line(text, format_args!("redis_mode:standalone"));
    line(text, format_args!("dogsled_version:{}", status.version));
    line(text, format_args!("os:{} {}", std::env::consts::OS, std::env::consts::ARCH));
    line(text, format_args!("arch_bits:{}", usize::BITS));
    line(text, format_args!("process_id:{}", std::process::id()));
    // Forty hexadecimal digits, other ones in each life, as clients expect.
    line(text, format_args!("run_id:{}{:08x}", call.shared.backend.map().cluster, status.incarnation.0 & 0xffff_ffff));
    line(text, format_args!("tcp_port:{}", call.session.client.local.port()));
    line(text, format_args!("uptime_in_seconds:{}", status.uptime_s));
    line(text, format_args!("uptime_in_days:{}", status.uptime_s / 86_400));
}

fn clients_section(call: &Call<'_>, text: &mut String) {
    line(text, format_args!("connected_clients:{}", call.shared.clients.count()));
    line(text, format_args!("maxclients:{}", call.shared.options.max_connections));
    line(text, format_args!("blocked_clients:0"));
}

fn memory_section(_: &Call<'_>, text: &mut String) {
    let resident = resident_bytes().unwrap_or(0);
    line(text, format_args!("used_memory:{resident}"));
    line(text, format_args!("used_memory_human:{:.2}M", resident as f64 / (1024.0 * 1024.0)));
    line(text, format_args!("used_memory_rss:{resident}"));
    line(text, format_args!("maxmemory:0"));
    line(text, format_args!("maxmemory_policy:noeviction"));
}

/// What this process holds of memory, where the system tells.
fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kilobytes * 1024)
}

fn persistence_section(_: &Call<'_>, text: &mut String) {
    line(text, format_args!("loading:0"));
    line(text, format_args!("async_loading:0"));
    line(text, format_args!("aof_enabled:1"));
    line(text, format_args!("aof_last_write_status:ok"));
}

fn stats_section(call: &Call<'_>, text: &mut String) {
    let (commands, connections) = call.shared.options.metrics.totals();
    line(text, format_args!("total_connections_received:{connections}"));
    line(text, format_args!("total_commands_processed:{commands}"));
}

fn replication_section(_: &Call<'_>, text: &mut String) {
    line(text, format_args!("role:master"));
    line(text, format_args!("connected_slaves:0"));
}

fn cluster_section(_: &Call<'_>, text: &mut String) {
    line(text, format_args!("cluster_enabled:0"));
}

fn keyspace_section(call: &Call<'_>, text: &mut String) {
    let keys = call.shared.backend.status().live_keys;
    if keys > 0 {
        line(text, format_args!("db0:keys={keys},expires=0,avg_ttl=0"));
    }
}

fn dogsled_section(call: &Call<'_>, text: &mut String) {
    let status = call.shared.backend.status();
    let map = call.shared.backend.map();
    line(text, format_args!("node_id:{}", status.id));
    line(text, format_args!("incarnation:{}", status.incarnation));
    line(text, format_args!("cluster_id:{}", map.cluster));
    line(text, format_args!("epoch:{}", status.epoch));
    line(text, format_args!("members:{}", map.members.len()));
    line(text, format_args!("peers_connected:{}", status.peers.iter().filter(|peer| peer.connected).count()));
    line(text, format_args!("partitions:{}", map.partitions.get()));
    line(text, format_args!("partitions_without_quorum:{}", status.partitions_without_quorum));
    line(text, format_args!("replication_factor:{}", map.replication_factor));
    line(text, format_args!("ready:{}", u8::from(status.ready)));
    line(text, format_args!("disk_bytes:{}", status.disk_bytes));
    let exec = match call.shared.options.transactions {
        Transactions::Refuse => "refuse",
        Transactions::Pipeline => "pipeline",
    };
    line(text, format_args!("transactions:{exec}"));
}
