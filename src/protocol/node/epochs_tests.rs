use std::time::Duration;

use super::super::tests::{request, started, step};
use super::*;
use crate::protocol::io::Input;
use crate::protocol::request::fixture::{START, node};

#[test]
fn a_map_that_could_not_be_asked_for_is_asked_for_again() {
    let mut machine = started(3, 3);
    let ahead = request(2, 9, ReplicaRequest::Statistics);
    let actions = step(&mut machine, ahead.clone());
    let Some(Action::Send { envelope, .. }) = actions.first() else { panic!("{actions:?}") };
    step(&mut machine, Input::SendFailed { to: node(2), envelope: envelope.clone() });
    let again = step(&mut machine, ahead);
    let fetches = |action: &Action| {
        matches!(action, Action::Send { envelope, .. }
            if matches!(envelope.message, Message::Request { id: FETCH, .. }))
    };
    assert!(again.iter().any(fetches), "{again:?}");
    // While an answer may still come nobody else is asked; after that, whoever speaks next.
    let ahead = request(3, 9, ReplicaRequest::Statistics);
    let meanwhile = step(&mut machine, ahead.clone());
    assert!(!meanwhile.iter().any(fetches), "{meanwhile:?}");
    let later = Now { moment: START.moment.plus(Duration::from_millis(500)), wall: START.wall };
    let mut actions = Vec::new();
    machine.handle(later, ahead, &mut actions);
    assert!(actions.iter().any(fetches), "{actions:?}");
}
