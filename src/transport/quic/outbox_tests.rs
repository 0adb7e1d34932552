use proptest::prelude::*;

use super::*;
use crate::wire::FrameReader;

const FIRST: u64 = 1;
const SECOND: u64 = 2;

fn open() -> Outbox {
    let outbox = Outbox::new();
    outbox.assign(FIRST);
    outbox
}

/// Everything that waits, as the frames that a reader makes of it.
fn drain(outbox: &Outbox, connection: u64) -> Vec<Bytes> {
    let mut pieces = Vec::new();
    let mut reader = FrameReader::new(usize::MAX);
    while let Take::Write(amount) = outbox.take(connection, &mut pieces) {
        assert_eq!(pieces.iter().map(Bytes::len).sum::<usize>(), amount.bytes);
        pieces.iter().for_each(|piece| reader.feed(piece));
    }
    let frames = std::iter::from_fn(|| reader.next_frame().expect("whole frames")).collect();
    assert!(reader.is_empty());
    frames
}

proptest! {
    #[test]
    fn frames_leave_as_they_came(lengths in prop::collection::vec(prop_oneof![0usize..200, 16_000usize..34_000], 0..40)) {
        let outbox = open();
        let frames: Vec<Bytes> =
            lengths.iter().enumerate().map(|(at, &length)| Bytes::from(vec![at as u8; length])).collect();
        frames.iter().for_each(|frame| outbox.push(frame.clone()).expect("room"));
        prop_assert_eq!(drain(&outbox, FIRST), frames);
    }
}

#[test]
fn short_frames_leave_in_one_piece() {
    let outbox = open();
    (0..100).for_each(|_| outbox.push(Bytes::from_static(b"short")).expect("room"));
    let mut pieces = Vec::new();
    assert_eq!(outbox.take(FIRST, &mut pieces), Take::Write(Amount { frames: 100, bytes: 900 }));
    assert_eq!(pieces.len(), 1);
    assert_eq!(outbox.take(FIRST, &mut pieces), Take::Wait);
}

#[test]
fn what_is_being_written_counts_until_it_is_written() {
    let outbox = open();
    let frame = Bytes::from(vec![0; limits::MAX_FRAME_BYTES]);
    let fit = limits::PEER_QUEUE_BYTES / (limits::MAX_FRAME_BYTES + PREFIX_BYTES);
    (0..fit).for_each(|_| outbox.push(frame.clone()).expect("room"));
    assert_eq!(outbox.push(frame.clone()), Err(SendError::QueueFull));
    let mut pieces = Vec::new();
    assert!(matches!(outbox.take(FIRST, &mut pieces), Take::Write(_)));
    assert_eq!(outbox.push(frame.clone()), Err(SendError::QueueFull), "it is being written");
    assert_eq!(outbox.take(FIRST, &mut pieces), Take::Wait);
    assert_eq!(outbox.push(frame), Ok(()));
}

#[test]
fn what_is_being_written_is_not_nothing() {
    let outbox = open();
    assert!(outbox.is_empty());
    outbox.push(Bytes::from_static(b"x")).expect("room");
    assert!(!outbox.is_empty());
    let mut pieces = Vec::new();
    outbox.take(FIRST, &mut pieces);
    assert!(!outbox.is_empty());
    outbox.take(FIRST, &mut pieces);
    assert!(outbox.is_empty());
}

#[test]
fn the_number_of_frames_is_bounded() {
    let outbox = open();
    (0..limits::PEER_QUEUE_FRAMES).for_each(|_| outbox.push(Bytes::from_static(b"x")).expect("room"));
    assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(SendError::QueueFull));
}

#[test]
fn what_waits_goes_over_to_the_next_connection() {
    let outbox = open();
    outbox.push(Bytes::from_static(b"waits")).expect("room");
    outbox.assign(SECOND);
    assert_eq!(outbox.take(FIRST, &mut Vec::new()), Take::Finish);
    assert_eq!(drain(&outbox, SECOND), ["waits"]);
}

#[test]
fn nothing_survives_a_lost_connection() {
    let outbox = open();
    outbox.push(Bytes::from_static(b"lost")).expect("room");
    outbox.clear();
    assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(SendError::NotConnected));
    assert_eq!(outbox.take(FIRST, &mut Vec::new()), Take::Finish);
    outbox.assign(SECOND);
    assert_eq!(drain(&outbox, SECOND), Vec::<Bytes>::new());
}

#[test]
fn a_closing_outbox_lets_out_what_waits_and_takes_no_more() {
    let outbox = open();
    outbox.push(Bytes::from_static(b"last")).expect("room");
    outbox.close();
    assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(SendError::NotConnected));
    assert_eq!(drain(&outbox, FIRST), ["last"]);
    assert_eq!(outbox.take(FIRST, &mut Vec::new()), Take::Leave);
    outbox.clear();
    assert_eq!(outbox.push(Bytes::from_static(b"x")), Err(SendError::NotConnected));
    outbox.assign(SECOND);
    outbox.push(Bytes::from_static(b"anew")).expect("room");
    assert_eq!(drain(&outbox, SECOND), ["anew"]);
    assert_eq!(outbox.take(SECOND, &mut Vec::new()), Take::Wait);
}

#[tokio::test]
async fn a_sleeping_writer_is_woken() {
    let outbox = open();
    assert_eq!(outbox.take(FIRST, &mut Vec::new()), Take::Wait);
    outbox.push(Bytes::from_static(b"x")).expect("room");
    outbox.ready().await;
    outbox.take(FIRST, &mut Vec::new());
    assert_eq!(outbox.take(FIRST, &mut Vec::new()), Take::Wait);
    outbox.assign(SECOND);
    outbox.ready().await;
}
