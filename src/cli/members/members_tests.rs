use std::collections::BTreeMap;

use super::*;
use crate::node::Relation;
use crate::server::http::json::{MemberSeen, Members, NodeName, Observers};
use crate::types::{Incarnation, Load, NodeId};

pub(super) fn name(number: u32) -> NodeName {
    NodeName(NodeId::new(number).expect("above zero"))
}

pub(super) fn seen(number: u32, relation: Relation, health: Health) -> MemberSeen {
    MemberSeen {
        id: name(number),
        zone: "local".into(),
        relation,
        health,
        own: None,
        observers: Observers::default(),
        life: None,
        connected: false,
        load: Load::Normal,
        round_trip_us: None,
        strikes: 0,
        p95_us: None,
        missed_of_1000: 0,
        slow: false,
    }
}

pub(super) fn members(number: u32, members: Vec<MemberSeen>) -> Members {
    Members {
        cluster: "00".repeat(16),
        epoch: 1,
        node: name(number),
        life: Life { incarnation: Incarnation(3), refutation: 1 },
        ill_health: 2,
        k_list: 2,
        known: 2,
        active_most: 1,
        active: members.iter().filter(|member| member.relation == Relation::Active).count(),
        members,
        counters: BTreeMap::from([("probes_sent".into(), 17)]),
    }
}

fn shown() -> Members {
    let mut watched = seen(2, Relation::Active, Health::Alive);
    watched.own = Some(Health::Alive);
    watched.life = Some(Life { incarnation: Incarnation(1), refutation: 0 });
    watched.connected = true;
    watched.round_trip_us = Some(1_250);
    watched.p95_us = Some(980);
    watched.missed_of_1000 = 15;
    let mut down = seen(3, Relation::Other, Health::Down);
    down.observers = Observers { alive: 0, suspect: 1, down: 2 };
    down.load = Load::Full;
    down.strikes = 4;
    down.slow = true;
    members(1, vec![watched, down])
}

#[test]
fn the_text_has_a_row_for_each_member() {
    let expected = "\
n1 (life 3.1) knows 2 of at most 2 peers, watches 1 of at most 1; ill health 2 of 8
1 alive, 0 suspect, 1 down

NODE   ZONE    RELATION   HEALTH   OWN     A/S/D   LIFE   LINK   LOAD     RTT MS   STRIKES   P95 MS   MISSED   SLOW
n2     local   active     alive    alive   0/0/0   1.0    yes    normal   1.2      0         0.9      1.5 %    no
n3     local   other      down     -       0/1/2   -      no     full     -        4         -        0.0 %    slow
";
    assert_eq!(shown().text(), expected);
}

#[test]
fn json_has_what_programs_need_and_reads_back() {
    let json = serde_json::to_value(shown()).expect("it is data");
    assert_eq!(json["node"], "n1");
    assert_eq!(json["life"]["incarnation"], 3);
    assert_eq!(json["members"][1]["health"], "down");
    assert_eq!(json["members"][1]["relation"], "other");
    assert_eq!(json["members"][1]["observers"]["down"], 2);
    assert_eq!(json["members"][0]["own"], "alive");
    assert_eq!(json["counters"]["probes_sent"], 17);
    assert_eq!(serde_json::from_value::<Members>(json).expect("the shape"), shown());
}
