//! Meeting peers: who is admitted, when, and who is told to stop.

use super::super::tests::{
    NEVER, after, client, committed, connect, meet, put, request, response, response_to, settle, step, step_at,
};
use super::*;
use crate::protocol::io::{Input, LocalRead, StorageTicket};
use crate::protocol::request::fixture::{START, key, map, node, settings};
use crate::types::{Failure, Incarnation, Refusal};
use crate::wire::{Envelope, Message};

/// Node 1, which remembers of node 2: its third life, store 2, group 10.
fn remembering() -> Node {
    let mut settings = settings();
    let memory = PeerMemory { incarnation: Incarnation(3), store: StoreId(2), commit: CommitNumber(10) };
    settings.remembered.insert(node(2), memory);
    Node::new(NEVER, map(3, 3), settings)
}

fn up(machine: &mut Node, incarnation: u64) -> Vec<Action> {
    step(machine, Input::PeerUp { peer: node(2), incarnation: Incarnation(incarnation) })
}

fn meet_with(store: u128, commit: u64) -> Input {
    request(2, 1, ReplicaRequest::Meet { store: StoreId(store), commit: CommitNumber(commit) })
}

/// The question that is sent to node 2, if that is all.
fn asked(actions: &[Action]) -> (RequestId, ReplicaRequest) {
    match actions {
        [Action::Send { to, envelope: Envelope { message: Message::Request { id, request }, .. } }] => {
            assert_eq!(to, &[node(2)]);
            (*id, request.clone())
        }
        other => panic!("expected one question, got {other:?}"),
    }
}

/// The answer and the order to remember, if that is all.
fn met_and_remembered(actions: &[Action]) -> (StorageTicket, PeerMemory) {
    match actions {
        [answer, Action::Append { ticket, mutation: Mutation::Remember { node: who, memory } }] => {
            assert_eq!(response_to(std::slice::from_ref(answer)), &ReplicaResponse::Met { wall: START.wall });
            assert_eq!(*who, node(2));
            (*ticket, *memory)
        }
        other => panic!("expected an answer and an order, got {other:?}"),
    }
}

fn is_refused(machine: &mut Node) -> bool {
    let actions = step(machine, request(2, 1, ReplicaRequest::Statistics));
    match &actions[..] {
        [Action::Send { .. }] => {
            assert!(matches!(response_to(&actions), ReplicaResponse::Refused(Refusal::NodeFenced(_))), "{actions:?}");
            true
        }
        [Action::Fetch { read: LocalRead::Statistics, .. }] => false,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_connection_begins_with_our_own_first_words() {
    let mut machine = Node::new(NEVER, map(3, 3), settings());
    let (_, greeting) = asked(&up(&mut machine, 1));
    assert_eq!(greeting, ReplicaRequest::Meet { store: StoreId(1), commit: CommitNumber(10) });
}

#[test]
fn a_peer_that_was_never_met_is_remembered_durably_before_it_is_admitted() {
    let mut machine = Node::new(NEVER, map(3, 3), settings());
    up(&mut machine, 4);
    assert!(is_refused(&mut machine), "it has not said yet who it is");
    let (ticket, memory) = met_and_remembered(&step(&mut machine, meet(2, 7)));
    assert_eq!(memory, PeerMemory { incarnation: Incarnation(4), store: StoreId(2), commit: CommitNumber(7) });
    assert!(is_refused(&mut machine) && !machine.peers().is_connected(node(2)), "that is not durable yet");
    let actions = committed(&mut machine, ticket);
    assert!(matches!(actions[..], [Action::Fetch { read: LocalRead::Coverage { .. }, .. }]), "{actions:?}");
    assert!(machine.peers().is_connected(node(2)) && !is_refused(&mut machine));
}

#[test]
fn who_could_not_be_remembered_is_remembered_with_the_next_round() {
    let mut machine = Node::new(NEVER, map(3, 3), settings());
    up(&mut machine, 1);
    let (ticket, memory) = met_and_remembered(&step(&mut machine, meet(2, 7)));
    assert_eq!(step(&mut machine, Input::StorageRefused { ticket }), []);
    assert!(!machine.peers().is_connected(node(2)));
    let actions = step_at(&mut machine, after(1_000), Input::Tick);
    let again = actions.iter().find_map(|action| match action {
        Action::Append { ticket, mutation: Mutation::Remember { memory, .. } } => Some((*ticket, *memory)),
        _ => None,
    });
    let (ticket, again) = again.expect("it is tried again");
    assert_eq!(again, memory);
    committed(&mut machine, ticket);
    assert!(machine.peers().is_connected(node(2)));
}

#[test]
fn a_life_that_ended_before_it_was_remembered_is_not_admitted() {
    let mut machine = Node::new(NEVER, map(3, 3), settings());
    up(&mut machine, 1);
    let (ticket, _) = met_and_remembered(&step(&mut machine, meet(2, 7)));
    step(&mut machine, Input::PeerDown { peer: node(2), parted: false });
    up(&mut machine, 2);
    assert_eq!(committed(&mut machine, ticket), []);
    assert!(!machine.peers().is_connected(node(2)), "it is another life now");
}

#[test]
fn the_same_life_over_a_new_connection_is_not_admitted_before_it_is_remembered() {
    for refused in [false, true] {
        let mut machine = Node::new(NEVER, map(3, 3), settings());
        up(&mut machine, 1);
        let (mut ticket, _) = met_and_remembered(&step(&mut machine, meet(2, 7)));
        if refused {
            assert_eq!(step(&mut machine, Input::StorageRefused { ticket }), []);
        }
        step(&mut machine, Input::PeerDown { peer: node(2), parted: false });
        up(&mut machine, 1);
        // It names the life and the store that are known already, but not durably.
        let actions = step(&mut machine, meet(2, 8));
        assert_eq!(response_to(&actions), &ReplicaResponse::Met { wall: START.wall });
        assert!(!machine.peers().is_connected(node(2)) && is_refused(&mut machine), "that is not durable yet");
        if refused {
            let actions = step_at(&mut machine, after(1_000), Input::Tick);
            let again = actions.iter().find_map(|action| match action {
                Action::Append { ticket, mutation: Mutation::Remember { memory, .. } } => {
                    Some((*ticket, memory.commit))
                }
                _ => None,
            });
            let (again, commit) = again.expect("it is tried again");
            assert_eq!(commit, CommitNumber(8), "with what is known by now");
            ticket = again;
        }
        committed(&mut machine, ticket);
        assert!(machine.peers().is_connected(node(2)) && !is_refused(&mut machine));
    }
}

#[test]
fn who_has_not_said_over_this_connection_who_it_is_is_not_admitted_for_what_it_said_over_another() {
    let mut machine = Node::new(NEVER, map(3, 3), settings());
    up(&mut machine, 1);
    let (ticket, _) = met_and_remembered(&step(&mut machine, meet(2, 7)));
    step(&mut machine, Input::PeerDown { peer: node(2), parted: false });
    up(&mut machine, 1);
    assert_eq!(committed(&mut machine, ticket), []);
    assert!(!machine.peers().is_connected(node(2)), "a disk that was emptied meanwhile counts its lives anew");
    let (_, told) = asked(&step(&mut machine, meet_with(9, 7)));
    assert!(matches!(told, ReplicaRequest::Fence { .. }), "{told:?}");
    assert!(!machine.peers().is_connected(node(2)) && is_refused(&mut machine));
    // The store that was met is admitted at once.
    step(&mut machine, meet(2, 7));
    assert!(machine.peers().is_connected(node(2)) && !is_refused(&mut machine));
}

#[test]
fn the_same_life_comes_back_without_being_remembered_anew() {
    let mut machine = remembering();
    up(&mut machine, 3);
    let actions = step(&mut machine, meet_with(2, 10));
    let [answer, Action::Fetch { read: LocalRead::Coverage { .. }, .. }] = &actions[..] else { panic!("{actions:?}") };
    assert!(matches!(answer, Action::Send { .. }));
    assert!(machine.peers().is_connected(node(2)));
    // And once more over a new connection.
    step(&mut machine, Input::PeerDown { peer: node(2), parted: false });
    assert!(!machine.peers().is_connected(node(2)));
    up(&mut machine, 3);
    step(&mut machine, meet_with(2, 12));
    assert!(machine.peers().is_connected(node(2)));
}

#[test]
fn a_new_life_of_the_same_store_is_remembered_first() {
    let mut machine = remembering();
    up(&mut machine, 4);
    let (ticket, memory) = met_and_remembered(&step(&mut machine, meet_with(2, 11)));
    assert_eq!(memory, PeerMemory { incarnation: Incarnation(4), store: StoreId(2), commit: CommitNumber(11) });
    assert!(!machine.peers().is_connected(node(2)));
    committed(&mut machine, ticket);
    assert!(machine.peers().is_connected(node(2)));
}

#[test]
fn a_store_that_contradicts_what_is_remembered_is_told_so_and_not_admitted() {
    let cases = [
        ("another store", 3, 9, 10),
        ("another store in a new life", 4, 9, 10),
        ("a store that went back", 3, 2, 9),
        ("a store that went back in a new life", 4, 2, 9),
        ("an earlier life", 2, 2, 10),
    ];
    for (what, incarnation, store, commit) in cases {
        let mut machine = remembering();
        up(&mut machine, incarnation);
        let (_, told) = asked(&step(&mut machine, meet_with(store, commit)));
        let remembered = PeerMemory { incarnation: Incarnation(3), store: StoreId(2), commit: CommitNumber(10) };
        assert_eq!(told, ReplicaRequest::Fence { remembered }, "{what}");
        assert!(!machine.peers().is_connected(node(2)) && is_refused(&mut machine), "{what}");
        assert_eq!(machine.counters().fenced_peers, 1);
        // It does not help to say it again.
        asked(&step(&mut machine, meet_with(store, commit)));
        assert!(!machine.peers().is_connected(node(2)), "{what}");
    }
}

#[test]
fn what_it_has_reported_since_counts_as_remembered() {
    let mut machine = Node::new(NEVER, map(3, 3), settings());
    connect(&mut machine, 2, 1);
    let report = ReplicaRequest::Coverage { commit: CommitNumber(30), changed: Vec::new() };
    step(&mut machine, request(2, 1, report));
    step(&mut machine, Input::PeerDown { peer: node(2), parted: false });
    up(&mut machine, 2);
    let (_, told) = asked(&step(&mut machine, meet_with(2, 29)));
    assert!(matches!(told, ReplicaRequest::Fence { remembered } if remembered.commit == CommitNumber(30)), "{told:?}");
}

#[test]
fn first_words_that_come_again_late_are_harmless() {
    let mut machine = Node::new(NEVER, map(3, 3), settings());
    connect(&mut machine, 2, 1);
    let report = |commit| ReplicaRequest::Coverage { commit: CommitNumber(commit), changed: Vec::new() };
    step(&mut machine, request(2, 1, report(30)));
    let actions = step(&mut machine, meet(2, 10));
    assert_eq!(response_to(&actions), &ReplicaResponse::Met { wall: START.wall });
    assert!(machine.peers().is_connected(node(2)));
    assert_eq!(machine.counters().fenced_peers, 0);
    // Nor do they make anything forgotten.
    assert_eq!(machine.meetings.memory[&node(2)].commit, CommitNumber(30));
}

#[test]
fn a_report_that_overtakes_the_first_words_is_not_forgotten_for_them() {
    let mut machine = Node::new(NEVER, map(3, 3), settings());
    connect(&mut machine, 2, 1);
    // A new connection of the same life, whose end of the old one was not seen.
    up(&mut machine, 1);
    let report = ReplicaRequest::Coverage { commit: CommitNumber(30), changed: Vec::new() };
    step(&mut machine, request(2, 1, report));
    let actions = step(&mut machine, meet(2, 20));
    assert_eq!(response_to(&actions), &ReplicaResponse::Met { wall: START.wall });
    assert_eq!(machine.meetings.memory[&node(2)].commit, CommitNumber(30));
}

#[test]
fn first_words_of_somebody_who_is_not_connected_say_nothing() {
    let mut machine = Node::new(NEVER, map(3, 3), settings());
    assert_eq!(step(&mut machine, meet(2, 7)), []);
    assert!(machine.meetings.memory.is_empty());
}

#[test]
fn own_first_words_that_were_not_heard_are_said_again() {
    let greetings = |actions: &[Action]| {
        let greeting = |action: &&Action| {
            matches!(action, Action::Send { envelope, .. }
                if matches!(envelope.message, Message::Request { request: ReplicaRequest::Meet { .. }, .. }))
        };
        actions.iter().filter(greeting).count()
    };
    for sent in [false, true] {
        let mut machine = Node::new(NEVER, map(3, 3), settings());
        let first = up(&mut machine, 1);
        let [Action::Send { envelope, .. }] = &first[..] else { panic!("{first:?}") };
        if !sent {
            let failed = Input::SendFailed { to: node(2), envelope: envelope.clone() };
            assert_eq!(step(&mut machine, failed), []);
        }
        let actions = step_at(&mut machine, after(1_000), Input::Tick);
        assert_eq!(greetings(&actions), usize::from(!sent), "an answer may still come");
        settle(&mut machine, after(1_000), actions);
        let actions = step_at(&mut machine, after(2_000), Input::Tick);
        assert_eq!(greetings(&actions), usize::from(sent), "now it does not come any more, or it came");
    }
}

#[test]
fn only_what_contradicts_this_life_stops_it() {
    // This is life 1 with store 1, opened at group 10.
    let memory = |incarnation, store, commit| PeerMemory {
        incarnation: Incarnation(incarnation),
        store: StoreId(store),
        commit: CommitNumber(commit),
    };
    for (remembered, stops) in [
        (memory(1, 1, 10), false),
        (memory(0, 1, 3), false),
        (memory(1, 1, 11), true),
        (memory(2, 1, 10), true),
        (memory(1, 9, 10), true),
    ] {
        let mut machine = Node::new(NEVER, map(3, 3), settings());
        connect(&mut machine, 2, 1);
        let fence = request(2, 1, ReplicaRequest::Fence { remembered });
        let actions = step(&mut machine, fence.clone());
        let expected = Action::Fence { by: node(2), remembered };
        assert_eq!(actions, if stops { vec![expected] } else { vec![] }, "{remembered:?}");
        assert_eq!(step(&mut machine, fence), [], "once is enough");
        let actions = step(&mut machine, put("k"));
        let refused = |action: &Action| {
            matches!(action, Action::Reply { outcome: Err(Failure::NotApplied(Refusal::NodeFenced(_))), .. })
        };
        assert_eq!(actions.iter().any(refused), stops, "{actions:?}");
        assert_eq!(is_refused(&mut machine), stops);
    }
}

#[test]
fn who_was_not_admitted_is_not_asked_either() {
    let mut machine = remembering();
    up(&mut machine, 3);
    let read = crate::types::Operation::Get { key: key("k") };
    let actions = step(&mut machine, client(crate::types::Request::new(read, crate::types::ConsistencyLevel::Two)));
    let too_few = Failure::NotApplied(Refusal::TooFewReplicas { alive: 1, needed: 2 });
    assert_eq!(actions, [super::super::tests::failed(too_few)]);
    // Nor is what it answers believed.
    let answer = response(2, RequestId(1 << 8), ReplicaResponse::Stored);
    assert_eq!(step(&mut machine, answer), []);
}
