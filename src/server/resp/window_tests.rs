use std::task::Waker;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use super::super::decode::{DecodeLimits, Decoded, Decoder};
use super::super::table::find;
use super::*;
use crate::types::{ConsistencyLevel, Outcome, ReadReply, Response, limits};

const LEVELS: Levels = Levels {
    read: ConsistencyLevel::Quorum,
    write: ConsistencyLevel::Quorum,
    timeout: Duration::from_millis(500),
    op_id: None,
};

fn claim(window: &Window, command: &str) -> Claim {
    let line = format!("{command}\r\n").into_bytes();
    let mut decoder = Decoder::default();
    let Ok(Decoded::Command { bytes }) = decoder.decode(&line, &DecodeLimits::AUTHENTICATED) else {
        panic!("{command} is no command")
    };
    let args = decoder.args(&line);
    window.claim(find(args.at(0)).expect("it is in the table").1, args, bytes)
}

fn push(window: &mut Window, command: &str, progress: Progress) {
    let claim = claim(window, command);
    assert!(window.admits(&claim), "{command}");
    let begun = Moment::default();
    window.push(Pending { progress, claim, command: 0, begun, levels: LEVELS, resp3: false, silent: false });
}

fn asked() -> (Progress, oneshot::Sender<Outcome>) {
    let (sender, answer) = oneshot::channel();
    (Progress::Asked { answer: answer.into(), finish: Finish::Value, access: Access::Read }, sender)
}

fn poll(window: &mut Window) -> Option<String> {
    let mut context = Context::from_waker(Waker::noop());
    let mut output = Vec::new();
    window.poll_steps(&mut context);
    let reply = window.poll_reply(&mut context, WallTime(0), &|| 3, &mut output, &mut LastWrite::default());
    match reply {
        Poll::Ready(Some(_)) => Some(String::from_utf8(output).expect("text")),
        Poll::Ready(None) | Poll::Pending => None,
    }
}

#[test]
fn who_has_to_wait_for_whom() {
    // What is under way, what wants to begin, whether it may.
    let cases = [
        ("GET a", "GET a", true),
        ("GET a", "SET a 1", false),
        ("SET a 1", "GET a", false),
        ("SET a 1", "SET a 2", false),
        ("SET a 1", "SET b 2", true),
        ("SET a 1", "PING", true),
        ("SET a 1", "TIME", true),
        ("SET a 1", "MGET b a", false),
        ("MGET b a", "MGET a b", true),
        ("MGET b a", "DEL c a", false),
        ("MSET a 1 b 2", "GET 1", true),
        ("MSET a 1 b 2", "GET b", false),
        ("EXISTS a", "EXPIRE a 1", false),
        ("EXPIRE a 1", "TTL a", false),
        ("PING", "SCAN 0", false),
        ("SCAN 0", "PING", false),
        ("GET a", "FLUSHALL", false),
        ("GET a", "CLIENT ID", false),
        ("GET a", "WAIT 1 1", false),
    ];
    for (first, second, may) in cases {
        let mut window = Window::new(limits::DEFAULT_MAX_VALUE_BYTES, Arc::default());
        push(&mut window, first, asked().0);
        let claim = claim(&window, second);
        assert_eq!(window.admits(&claim), may, "{first}, then {second}");
    }
}

#[test]
fn places_are_free_again_once_the_reply_is_written() {
    let mut window = Window::new(limits::DEFAULT_MAX_VALUE_BYTES, Arc::default());
    let (first, first_answer) = asked();
    let (second, second_answer) = asked();
    push(&mut window, "GET a", first);
    push(&mut window, "GET a", second);
    let write = claim(&window, "SET a 1");
    assert!(!window.admits(&write));
    second_answer.send(Ok(Response::Read(None))).expect("it is awaited");
    assert_eq!(poll(&mut window), None, "the first is still under way");
    let stamp = super::super::finish::test_stamp();
    let reply = ReadReply {
        value: Bytes::from_static(b"v"),
        stamp,
        expires_at: None,
        siblings: Vec::new(),
        context: Default::default(),
    };
    first_answer.send(Ok(Response::Read(Some(reply)))).expect("it is awaited");
    assert_eq!(poll(&mut window).as_deref(), Some("$1\r\nv\r\n"));
    assert!(!window.admits(&write), "the second reader has not been answered");
    assert_eq!(poll(&mut window).as_deref(), Some("$-1\r\n"));
    assert!(window.is_empty() && window.admits(&write));
    assert!(window.held.is_empty() && window.weight == 0 && window.working == 0);
}

#[test]
fn weights_bound_what_is_under_way() {
    let mut window = Window::new(limits::DEFAULT_MAX_VALUE_BYTES, Arc::default());
    let mut begun = 0;
    while window.admits(&claim(&window, &format!("SET k{begun} v"))) {
        push(&mut window, &format!("SET k{begun} v"), asked().0);
        begun += 1;
    }
    assert_eq!(begun, WIDTH);

    let mut window = Window::new(limits::MAX_VALUE_BYTES, Arc::default());
    let mut begun = 0;
    while window.admits(&claim(&window, &format!("GET k{begun}"))) {
        push(&mut window, &format!("GET k{begun}"), asked().0);
        begun += 1;
    }
    assert_eq!(begun, 16, "reads of the largest values, of which one connection may hold few");

    // Alone, anything may begin; together with others only what fits.
    let mut window = Window::new(limits::DEFAULT_MAX_VALUE_BYTES, Arc::default());
    let many = format!("MGET {}", (0..200).map(|key| format!("k{key}")).collect::<Vec<_>>().join(" "));
    push(&mut window, &many, asked().0);
    assert!(!window.admits(&claim(&window, "GET other")));
    assert!(!window.admits(&Window::claim_room(0)));
}

#[test]
fn all_connections_share_the_memory_for_values_and_each_may_always_read_one() {
    let all = Arc::new(AtomicUsize::new(0));
    let fill = |window: &mut Window| {
        let mut begun = 0;
        while window.admits(&claim(window, &format!("GET k{begun}"))) {
            push(window, &format!("GET k{begun}"), asked().0);
            begun += 1;
        }
        begun
    };
    let windows = || (0..40).map(|_| Window::new(limits::MAX_VALUE_BYTES, Arc::clone(&all)));
    let mut windows: Vec<Window> = windows().collect();
    let begun: Vec<usize> = windows.iter_mut().map(fill).collect();
    assert_eq!(begun.iter().sum::<usize>(), 16 + 39, "{begun:?}");
    assert!(begun.iter().all(|begun| *begun >= 1), "{begun:?}");
    // Who goes gives back what it held.
    windows.clear();
    assert_eq!(all.load(Ordering::Relaxed), 0);
}

#[test]
fn a_command_of_several_steps_moves_on_wherever_it_stands() {
    let mut window = Window::new(limits::DEFAULT_MAX_VALUE_BYTES, Arc::default());
    let (first, answer) = asked();
    push(&mut window, "GET a", first);
    let (step, mut stepped) = oneshot::channel::<()>();
    let work: Work = Box::pin(async move {
        step.send(()).expect("the test looks");
        Completed { reply: b":1\r\n".to_vec(), wrote: None }
    });
    push(&mut window, "DEL b", Progress::Working(work));
    assert_eq!(poll(&mut window), None);
    assert!(stepped.try_recv().is_ok(), "it has not waited for the one before");
    answer.send(Ok(Response::Read(None))).expect("it is awaited");
    assert_eq!(poll(&mut window).as_deref(), Some("$-1\r\n"));
    assert_eq!(poll(&mut window).as_deref(), Some(":1\r\n"));
}

#[test]
fn an_answer_that_never_comes_is_not_a_lost_place() {
    let mut window = Window::new(limits::DEFAULT_MAX_VALUE_BYTES, Arc::default());
    let (first, answer) = asked();
    push(&mut window, "GET a", first);
    drop(answer);
    assert_eq!(poll(&mut window).as_deref(), Some("-TRYAGAIN the node stopped, not executed\r\n"));
    assert!(window.is_empty());
}
