//! What must hold between settings, and between a setting and the machine.

use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::sections::NodeConfig;
use crate::types::limits;

/// A problem: key, what is wrong, what to do.
type Finding = (&'static str, String, String);

/// Everything that is wrong with a configuration whose keys are all there.
pub(super) fn validate(config: &NodeConfig) -> Vec<Finding> {
    let mut findings = Vec::new();
    check_ranges(config, &mut findings);
    check_client_ports(config, &mut findings);
    check_files(config, &mut findings);
    findings
}

fn check_ranges(config: &NodeConfig, findings: &mut Vec<Finding>) {
    let mut duration = |key, value: Duration, max_ms: u64| {
        if value.is_zero() || value > Duration::from_millis(max_ms) {
            let what = format!("{} ms is not from 1 to {max_ms} ms", value.as_millis());
            findings.push((key, what, "choose a number in that range".into()));
        }
    };
    duration("requests.timeout_ms", config.requests.timeout, 600_000);
    duration("requests.hedge_after_ms", config.requests.hedge_after, 600_000);
    duration("requests.max_clock_skew_ms", config.requests.max_clock_skew, 60_000);
    duration("requests.op_id_horizon_ms", config.requests.op_id_horizon, 86_400_000);
    duration("sync.interval_ms", config.sync.interval, 60_000);
    duration("sync.collect_interval_ms", config.sync.collect_interval, 3_600_000);
    let mut number = |key, value: u64, min: u64, max: u64| {
        if !(min..=max).contains(&value) {
            findings.push((key, format!("{value} is not from {min} to {max}"), "choose a number in that range".into()));
        }
    };
    number("requests.max_value_bytes", config.requests.max_value_bytes.get(), 1, limits::MAX_VALUE_BYTES as u64);
    if let Some(k_list) = config.gossip.k_list {
        number("gossip.k_list", k_list.get().into(), 1, limits::MAX_K_LIST as u64);
    }
    number("storage.cache_bytes", config.storage.cache_bytes.get(), 1024 * 1024, 1 << 40);
    number("log.keep_days", config.log.keep_days.get().into(), 1, 3650);
    let idle = config.clients.idle_timeout;
    if idle > Duration::from_secs(7 * 24 * 3600) {
        let what = format!("{} ms is longer than a week", idle.as_millis());
        findings.push(("clients.idle_timeout_ms", what, "choose at most 604800000, or 0 for never".into()));
    }
}

fn check_client_ports(config: &NodeConfig, findings: &mut Vec<Finding>) {
    for (key, address) in [("listen.resp", config.listen.resp), ("listen.http", config.listen.http)] {
        if !address.ip().is_loopback() && config.clients.password.is_none() {
            findings.push((
                key,
                format!("{address} is open to other machines, and no password is set"),
                "bind it to 127.0.0.1, or set clients.password (better: DOGSLED_CLIENTS_PASSWORD)".into(),
            ));
        }
    }
    let taken = |a: SocketAddr, b: SocketAddr| {
        a.port() == b.port()
            && a.port() != 0
            && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
    };
    if taken(config.listen.resp, config.listen.http) {
        let what = format!("{} is the address of listen.resp too", config.listen.http);
        findings.push(("listen.http", what, "give each its own port".into()));
    }
}

fn check_files(config: &NodeConfig, findings: &mut Vec<Finding>) {
    let files = [
        ("tls.ca", &config.tls.ca, "make it with `dogsled cluster create`, or name another"),
        ("tls.certificate", &config.tls.certificate, "make it with `dogsled cluster create`, or name another"),
        ("tls.key", &config.tls.key, "make it with `dogsled cluster create`, or name another"),
        ("cluster.map", &config.cluster.map, "copy the one that `dogsled cluster create` made for this node"),
    ];
    for (key, path, remedy) in files {
        if let Err(what) = check_readable(path) {
            findings.push((key, format!("{}: {what}", path.display()), remedy.into()));
        }
    }
    if let Ok(metadata) = std::fs::metadata(&config.tls.key)
        && metadata.permissions().mode() & 0o077 != 0
    {
        let mode = metadata.permissions().mode() & 0o777;
        let what = format!("{}: others may read it (mode {mode:04o})", config.tls.key.display());
        findings.push(("tls.key", what, format!("chmod 600 {}", config.tls.key.display())));
    }
    if config.node.data_dir.exists() && !config.node.data_dir.is_dir() {
        let what = format!("{}: not a directory", config.node.data_dir.display());
        findings.push(("node.data_dir", what, "name a directory, or a name that is free".into()));
    }
}

fn check_readable(path: &Path) -> Result<(), String> {
    let file = std::fs::File::open(path).map_err(|error| error.to_string())?;
    match file.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(()),
        Ok(_) => Err("not a file".into()),
        Err(error) => Err(error.to_string()),
    }
}
