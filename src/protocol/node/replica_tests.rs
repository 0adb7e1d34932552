//! Messages that come once more after they were refused.

use super::super::tests::{appended, apply, from_peer, response_to, started, step};
use super::*;
use crate::protocol::io::Input;
use crate::protocol::request::fixture::value;

#[test]
fn a_copy_of_a_write_that_was_behind_is_refused_again_and_not_carried_out() {
    let mut machine = started(3, 3);
    let message = |id: u64| from_peer(2, 1, Message::Request { id: RequestId(id), request: apply(value(0, "v")) });
    let (ticket, _) = appended(&step(&mut machine, message(1)));
    let horizon = Timestamp(u64::MAX);
    let actions = step(&mut machine, Input::Committed { ticket, applied: Applied::Behind { horizon } });
    assert_eq!(response_to(&actions), &ReplicaResponse::Refused(Refusal::Behind { horizon }));
    assert_eq!(machine.counters().behind, 1);
    // Its sender has told the client that nothing was done. By now there may be a record
    // beside which the store would take it.
    let refused = ReplicaResponse::Refused(Refusal::Overloaded);
    assert_eq!(response_to(&step(&mut machine, message(1))), &refused);
    // Nor does it help to come after very many others, which are taken.
    for id in 2..3 * RECENT_MESSAGES as u64 {
        let (ticket, _) = appended(&step(&mut machine, message(id)));
        let actions = step(&mut machine, Input::Committed { ticket, applied: Applied::Stored });
        assert_eq!(response_to(&actions), &ReplicaResponse::Stored);
    }
    assert_eq!(response_to(&step(&mut machine, message(1))), &refused);
    assert_eq!(machine.counters().behind, 1, "the store was not asked");
    // One of another peer is another one.
    let other = from_peer(3, 1, Message::Request { id: RequestId(1), request: apply(value(0, "v")) });
    appended(&step(&mut machine, other));
}
