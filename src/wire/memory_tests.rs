//! Decoding takes no more memory than the input is worth, whatever the input claims.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use proptest::prelude::*;

use super::*;

/// Counts what each thread has taken and given back.
struct Counting;

thread_local! {
    static TAKEN: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

fn count(change: isize) {
    // Memory is also taken while a thread ends and its counters are gone.
    let _ = TAKEN.try_with(|taken| {
        taken.set(taken.get() + change);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(taken.get())));
    });
}

// SAFETY: every call goes to the system's allocator as it came; counting touches no memory of its.
#[expect(unsafe_code, reason = "an allocator cannot be counted in any other way")]
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        unsafe { System.dealloc(pointer, layout) }
    }

    // A grown block counts with its old one, as if copied: what can happen in the worst case.
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize);
        let grown = unsafe { System.realloc(pointer, layout, size) };
        count(-(layout.size() as isize));
        grown
    }
}

/// The most memory that decoding takes at one time, on top of what was there.
fn peak_of(frame: &[u8]) -> usize {
    let before = TAKEN.get();
    PEAK.set(before);
    let decoded = decode(frame);
    let peak = (PEAK.get() - before) as usize;
    drop(decoded);
    peak
}

/// A list is given room for at most 1 MiB on the word of its length, and a list of lists
/// that twice; anything more has arrived.
fn allowed(input: usize) -> usize {
    64 * input + (2 << 20) + 4_096
}

fn response(body: &[u8]) -> Vec<u8> {
    request(128, body)
}

fn request(kind: u8, body: &[u8]) -> Vec<u8> {
    [&[kind][..], &[0; 24], body].concat()
}

/// A postcard number.
fn number(mut value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
    out
}

/// A cluster map up to the number of its members.
fn map_head() -> Vec<u8> {
    [&[11][..], &[0; 16], &[1], &[0x80, 0x02], &[3]].concat()
}

const MANY: u64 = 500_000;

/// Inputs made to grow in memory: the smallest encodings of the largest values.
fn greedy() -> Vec<(&'static str, Vec<u8>)> {
    let many = MANY as usize;
    let member = |id: u64| [number(id), number(id), vec![0, 127, 0, 0, 1, 1, 0, 1]].concat();
    let members: Vec<u8> = (1..=MANY / 8).flat_map(member).collect();
    let namespaces: Vec<u8> = (0..65_536).flat_map(|id| [number(id), number(id), vec![0, 0]].concat()).collect();
    let actors = |number_of: u64, rest: &[u8]| -> Vec<u8> {
        let each = (0..number_of).flat_map(|life| [&[1][..], &number(life), rest].concat());
        [number(number_of), each.collect()].concat()
    };
    let (endless, stamp, key) = (number(u64::MAX), [0, 1, 0, 1], [0, 1, b'k']);
    let version = |actor: u64| [number(0), number(1 + actor), vec![0, 1, 0, 1]].concat();
    let versions: Vec<u8> = (0..MANY).flat_map(version).collect();
    let page = |entry: &[u8]| response(&[vec![4], number(MANY), entry.repeat(many), vec![0]].concat());
    let coverage = |index: u64| [number(index % 65_536), vec![1, 1, 0, 1, 1, 1, 0]].concat();
    let coverages =
        |number_of: u64| [number(0), number(number_of), (0..number_of).flat_map(coverage).collect()].concat();
    let item = [&[0, 0][..], &key, &[0]].concat();
    let items = |number_of: usize| [&[7][..], &number(number_of as u64), &item.repeat(number_of), &[0]].concat();
    let after = |vector: Vec<u8>| request(18, &[&key[..], &vector].concat());
    let siblings = |rest: Vec<u8>| response(&[vec![2, 1, 1], rest].concat());
    let outcome = |rest: Vec<u8>| response(&[vec![10, 0], rest].concat());
    let reply = [&[0, 1, 0][..], &stamp, &[0]].concat();
    let path_head = [7, 5, 0, 1, 0, 0];
    vec![
        ("a page that claims to be endless", response(&[&[4][..], &endless].concat())),
        ("a page of the smallest entries", page(&[&[0, 0][..], &stamp, &[0, 0]].concat())),
        ("a page of empty siblings", page(&[0, 1, 0, 0, 0])),
        ("a page of siblings with a context", page(&[0, 1, 0, 1, 1, 0, 1, 0])),
        ("a map that claims endless members", response(&[&map_head()[..], &endless].concat())),
        ("a map of many members", response(&[map_head(), number(MANY / 8), members].concat())),
        ("a map of many namespaces", response(&[map_head(), vec![0, 0], number(65_536), namespaces].concat())),
        ("a map that claims endless partitions", response(&[&map_head()[..], &[0, 0, 0], &endless].concat())),
        ("a map of empty partitions", response(&[map_head(), vec![0; 3], number(MANY), vec![0; many]].concat())),
        (
            "a map with a partition of endless replicas",
            response(&[map_head(), vec![0, 0, 0, 1], number(MANY), vec![1; many]].concat()),
        ),
        (
            "a map of partitions that all claim endless replicas",
            response(&[map_head(), vec![0; 3], number(65_536), endless.repeat(65_536)].concat()),
        ),
        ("an endless text", response(&[&[12, 13][..], &endless].concat())),
        ("a vector of many actors", after(actors(65_536, &[1, 1, 1]))),
        ("a vector of too many actors", after(actors(65_537, &[1, 1, 1]))),
        ("a vector of actors of whom nothing was seen", after(actors(MANY, &[0]))),
        ("an actor with endless ranges", after([&[1, 1, 0][..], &endless].concat())),
        (
            "actors that all claim endless ranges",
            after([number(MANY), [&[1, 1][..], &endless].concat().repeat(many)].concat()),
        ),
        ("a record of endless siblings", siblings(endless.clone())),
        ("a record of many siblings", siblings([number(MANY), versions].concat())),
        ("a context of endless actors", siblings([&[0][..], &endless].concat())),
        ("a context of many actors", siblings([vec![0], actors(MANY, &[1])].concat())),
        ("coverage of endless partitions", request(27, &[number(0), endless.clone()].concat())),
        ("coverage of all partitions", request(27, &coverages(65_536))),
        ("coverage of too many partitions", request(27, &coverages(MANY))),
        ("a pull that brings endless items", response(&[&[7][..], &endless].concat())),
        ("a pull that brings as many items as there may be", response(&items(4_096))),
        ("a pull that brings too many items", response(&items(many))),
        ("a pull of one item with endless dots", response(&[&[7, 1, 0][..], &endless].concat())),
        (
            "a pull of one item with many dots",
            response(&[vec![7, 1, 0], number(4 * MANY), stamp.repeat(4 * many)].concat()),
        ),
        ("a history with an endless log", response(&[&[9, 0][..], &endless].concat())),
        ("a history with a long log", response(&[vec![9, 0], number(MANY), [0, 0, 1, 0, 1].repeat(many)].concat())),
        ("a read with endless siblings", outcome([&reply[..], &endless].concat())),
        ("a read with many siblings", outcome([reply, number(MANY), [0, 0, 1, 0, 1, 0].repeat(many)].concat())),
        ("a page for a client that claims to be endless", outcome([&[3][..], &endless].concat())),
        ("histories of endless replicas", outcome([&[6, 0, 0, 0][..], &endless].concat())),
        ("histories of many replicas", outcome([vec![6, 0, 0, 0], number(MANY), [1, 0].repeat(many)].concat())),
        ("a way with endless replicas", outcome([&path_head[..], &endless].concat())),
        ("a way with endless steps", outcome([&path_head[..], &[0, 1], &endless].concat())),
        ("a way with many steps", outcome([&path_head[..], &[0, 1], &number(MANY), &[0, 1, 0].repeat(many)].concat())),
        ("a walk that has come through endless nodes", request(6, &[&[5][..], &endless].concat())),
        ("a walk that brings endless nodes", request(6, &[&[5, 1, 1][..], &endless].concat())),
        ("a walk that brings many nodes", request(6, &[vec![5, 1, 1], number(MANY), vec![1; many]].concat())),
        ("an answer to a walk that claims an endless way", request(7, &endless)),
        ("endless announcements", request(9, &endless)),
        ("many announcements", request(9, &[number(MANY), [1, 0, 0].repeat(many)].concat())),
        ("a standing with endless members", request(12, &[&[0, 0, 0][..], &endless].concat())),
        ("a standing with endless lives", request(12, &[&[0, 0, 0, 0][..], &endless].concat())),
        ("a standing with many", request(12, &[vec![0, 0, 0], number(MANY), [1, 0, 0].repeat(many)].concat())),
    ]
}

#[test]
fn greedy_messages_take_no_more_memory_than_they_are_worth() {
    for (what, frame) in greedy() {
        let peak = peak_of(&frame);
        assert!(peak <= allowed(frame.len()), "{what}: {} bytes took {peak}", frame.len());
    }
}

#[test]
fn only_pages_grow_with_the_frame() {
    for (what, frame) in greedy().into_iter().filter(|(what, _)| !what.starts_with("a page")) {
        let (peak, most) = (peak_of(&frame), if what.starts_with("a map") { 16 << 20 } else { 48 << 20 });
        assert!(peak <= most, "{what}: {peak} bytes");
    }
}

/// Read one within another they would take a step of the stack for every byte.
#[test]
fn an_answer_is_explained_once() {
    for depth in [2, 1 << 20] {
        let frame = response(&[vec![10, 0], vec![7; depth]].concat());
        assert!(decode(&frame).is_err());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_take_no_more_memory_than_they_are_worth(
        kind in prop_oneof![Just(128u8), 16u8..31, 1u8..16],
        body in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff), 0u8..10], 0..200),
    ) {
        let frame = [&[kind][..], &[0; 24], &body].concat();
        let peak = peak_of(&frame);
        prop_assert!(peak <= allowed(frame.len()), "{} bytes took {}", frame.len(), peak);
    }
}
