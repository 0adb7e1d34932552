use super::super::tests::{members, name, seen};
use super::*;
use crate::server::http::json;

fn view(number: u32, seen: Option<Vec<MemberSeen>>) -> View {
    let error = seen.is_none().then(|| "no node answers".to_owned());
    let members = seen.map(|seen| members(number, seen));
    View { node: Some(name(number)), server: format!("http://127.0.0.1:{}", 8378 + number), members, error }
}

#[test]
fn views_that_differ_are_told() {
    let active = Relation::Active;
    let views = Views::of(vec![
        view(1, Some(vec![seen(2, active, Health::Alive), seen(3, Relation::Other, Health::Down)])),
        view(2, Some(vec![seen(1, active, Health::Alive), seen(3, active, Health::Suspect)])),
        view(3, None),
    ]);
    assert!(!views.is_healthy());
    let expected = "\
2 of 3 nodes answered

SEEN BY   n1   n2   n3
n1        -    a*   D
n2        a*   -    s*
n3        ?    ?    ?

a alive, s suspect, D down; * watched by the one who sees; ? not known
n3 is suspect for n2, down for n1
n3: no node answers
";
    assert_eq!(views.text(), expected);
    let json = serde_json::to_value(&views).expect("it is data");
    assert_eq!(json["disputed"][0]["node"], "n3");
    assert_eq!(json["disputed"][0]["down"][0], "n1");
    assert_eq!(json["views"][2]["error"], "no node answers");
}

#[test]
fn views_that_agree_are_healthy_only_if_nobody_is_down() {
    let both = |health| {
        Views::of(vec![
            view(1, Some(vec![seen(2, Relation::Active, health)])),
            view(2, Some(vec![seen(1, Relation::Active, Health::Alive)])),
        ])
    };
    assert!(both(Health::Alive).is_healthy());
    assert!(both(Health::Suspect).is_healthy());
    assert!(!both(Health::Down).is_healthy());
    assert!(both(Health::Down).disputed.is_empty());
}

#[test]
fn the_others_are_looked_for_as_far_from_their_peer_ports_as_the_first() {
    let member = |number: u32, address: &str| json::Member {
        id: name(number),
        peer_address: address.parse().expect("an address"),
        zone: "local".into(),
        weight: 1,
        this_node: number == 1,
        connected: true,
        reachable: true,
        health: Health::Alive,
        incarnation: None,
    };
    let cluster = Cluster {
        cluster: String::new(),
        epoch: 1,
        partitions: 16,
        replication_factor: 3,
        namespaces: Vec::new(),
        node: json::Node {
            id: name(1),
            incarnation: 1,
            version: String::new(),
            ready: true,
            partitions_without_quorum: 0,
            live_keys: 0,
            disk_bytes: 0,
            uptime_s: 0,
        },
        members: vec![
            member(1, "10.0.0.1:9379"),
            member(2, "10.0.0.2:9379"),
            member(3, "[::1]:9381"),
            member(4, "10.0.0.4:300"),
        ],
    };
    let guessed = |server: &str| {
        guess(server, &cluster).map(|targets| targets.into_iter().map(|target| target.server).collect::<Vec<_>>())
    };
    // The fourth has no such port; it has to be named.
    assert_eq!(guessed("http://10.0.0.1:8379").expect("a port"), ["http://10.0.0.2:8379", "http://[::1]:8381"]);
    assert_eq!(guessed("http://10.0.0.1").expect("port 80")[0], "http://10.0.0.2:80");
    assert!(guessed("http://10.0.0.1:http").is_err());
}
