use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;

use super::*;
use crate::cli::cluster::{Plan, ShapeArgs};
use crate::config;

fn plan(layout: Layout, nodes: u32) -> Plan {
    let shape = ShapeArgs { partitions: 16, ..ShapeArgs::default() };
    Plan::new(layout, nodes, &shape, true).expect("it can be made")
}

/// Every path below a directory.
fn all_below(dir: &Path) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut open = vec![dir.to_owned()];
    while let Some(next) = open.pop() {
        for entry in fs::read_dir(&next).into_iter().flatten().flatten() {
            let path = entry.path();
            found.insert(path.strip_prefix(dir).expect("it is below").display().to_string());
            if path.is_dir() {
                open.push(path);
            }
        }
    }
    found
}

#[test]
fn a_cluster_is_written_whole_and_every_node_accepts_its_files() {
    let folder = tempfile::tempdir().expect("a directory");
    let layout = Layout::of_up(folder.path().join("data/local"), None);
    assert_eq!(layout.certs, folder.path().join("certs/local"));
    create(&plan(layout.clone(), 3)).expect("it is made");

    let nodes = layout.nodes().expect("it can be listed");
    assert_eq!(nodes.len(), 3);
    let mut clusters = BTreeSet::new();
    for node in nodes {
        let config = config::load(&layout.config(node), [], []).expect("its configuration is good");
        assert_eq!(config.node.id, node);
        assert!(config.clients.allow_flush);
        assert_eq!(config.listen.peer.port(), 9378 + u16::try_from(node.number()).expect("small"));
        let map = map_file::read(&config.cluster.map).expect("its map is good");
        assert_eq!((map.epoch, map.members.len(), map.partitions.get()), (Epoch(1), 3, 16));
        assert_eq!(map.members[&node].peer_address, config.listen.peer);
        clusters.insert(map.cluster);
        let files = tls_files(&layout.certs, node);
        crate::transport::certificates::Identity::load(&files, node, ambient::wall()).expect("its certificate is good");
        let mode = fs::metadata(files.key).expect("the key").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    assert_eq!(clusters.len(), 1);
    let mode = fs::metadata(layout.certs.join("ca.key")).expect("the key").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let below = all_below(folder.path());
    assert!(below.iter().all(|path| !path.contains("new") && !path.contains("draft")), "{below:?}");
}

#[test]
fn a_project_can_be_moved_as_a_whole() {
    let folder = tempfile::tempdir().expect("a directory");
    let (before, after) = (folder.path().join("a"), folder.path().join("b"));
    create(&plan(Layout::of_up(before.join("data/local"), None), 1)).expect("it is made");
    fs::rename(&before, &after).expect("it is moved");
    let moved = Layout::of_up(after.join("data/local"), None);
    config::load(&moved.config(NodeId::new(1).expect("a node")), [], []).expect("it finds its certificates");
}

#[test]
fn what_fails_midway_leaves_nothing() {
    let folder = tempfile::tempdir().expect("a directory");
    // The place of the certificates is taken by a file.
    fs::write(folder.path().join("certs"), "").expect("a file");
    let before = all_below(folder.path());
    let layout = Layout::of_up(folder.path().join("data/local"), None);
    let error = create(&plan(layout, 3)).expect_err("it cannot be made");
    assert!(format!("{error:#}").contains("certs/local: cannot be written: "), "{error:#}");
    assert_eq!(all_below(folder.path()), before);

    // The authority is damaged.
    fs::remove_file(folder.path().join("certs")).expect("it was there");
    fs::create_dir_all(folder.path().join("certs/local")).expect("a directory");
    fs::write(folder.path().join("certs/local/ca.pem"), "junk").expect("a file");
    let before = all_below(folder.path());
    let layout = Layout::of_up(folder.path().join("data/local"), None);
    let error = create(&plan(layout, 3)).expect_err("it cannot be made");
    assert!(format!("{error:#}").contains("certs/local/ca."), "{error:#}");
    assert_eq!(all_below(folder.path()), before);
}

#[test]
fn a_directory_in_use_is_left_alone() {
    let folder = tempfile::tempdir().expect("a directory");
    let dir = folder.path().join("mine");
    fs::create_dir(&dir).expect("a directory");
    create(&plan(Layout::of_up(dir.clone(), None), 1)).expect("an empty directory may be used");
    let before = all_below(folder.path());
    let error = create(&plan(Layout::of_up(dir, None), 1)).expect_err("it is in use");
    assert!(error.to_string().contains("is not empty"), "{error}");
    assert_eq!(all_below(folder.path()), before);
}

#[test]
fn certificates_that_are_good_are_kept_when_the_data_is_gone() {
    let folder = tempfile::tempdir().expect("a directory");
    let layout = Layout::of_up(folder.path().join("data/local"), None);
    create(&plan(layout.clone(), 2)).expect("it is made");
    let read = |name: &str| fs::read(layout.certs.join(name)).expect("a file");
    let before: Vec<_> = ["ca.pem", "n1.pem"].map(read).into();
    fs::remove_dir_all(&layout.dir).expect("it was there");
    fs::remove_file(layout.certs.join("n2.key")).expect("it was there");
    create(&plan(layout.clone(), 3)).expect("it is made again");
    assert_eq!(["ca.pem", "n1.pem"].map(read).to_vec(), before);
    for node in layout.nodes().expect("it can be listed") {
        config::load(&layout.config(node), [], []).expect("its configuration is good");
    }
}

#[test]
fn ports_that_meet_or_run_out_are_refused() {
    let folder = tempfile::tempdir().expect("a directory");
    let port = |number: u16| number.try_into().expect("above zero");
    let plan = |resp: u16, http: u16| {
        let shape =
            ShapeArgs { resp_port: port(resp), http_port: port(http), peer_port: port(1), ..ShapeArgs::default() };
        let layout = Layout::of_up(folder.path().join("x"), None);
        Plan::new(layout, 3, &shape, true).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(plan(7000, 7003), Ok(()));
    assert!(plan(7000, 7002).expect_err("they meet").contains("port 7002"));
    assert!(plan(65_534, 8000).expect_err("they run out").contains("--resp-port 65534"));
}

#[test]
fn the_way_from_one_directory_to_another() {
    let cases = [("/a/b/n1", "/a/c", "../../c"), ("/a/n1", "/a", ".."), ("/x/n1", "/y/z", "../../y/z")];
    for (from, to, way) in cases {
        assert_eq!(relative(Path::new(from), Path::new(to)), Path::new(way), "{from} {to}");
    }
}
