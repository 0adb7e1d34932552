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
    32 * input + (2 << 20) + 4_096
}

fn response(body: &[u8]) -> Vec<u8> {
    [&[128][..], &[0; 24], body].concat()
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
    [&[7][..], &[0; 16], &[1], &[0x80, 0x02], &[3]].concat()
}

const MANY: u64 = 500_000;

/// Inputs made to grow in memory: the smallest encodings of the largest values.
fn greedy() -> Vec<(&'static str, Vec<u8>)> {
    let member = |id: u64| [number(id), number(id), vec![0, 127, 0, 0, 1, 1, 0, 1]].concat();
    let members: Vec<u8> = (1..=MANY / 8).flat_map(member).collect();
    let namespaces: Vec<u8> = (0..65_536).flat_map(|id| [number(id), number(id), vec![0]].concat()).collect();
    let entry = [0, 0, 1, 0, 0, 0, 0];
    vec![
        ("a page that claims to be endless", [vec![4], number(u64::MAX)].concat()),
        ("a page of the smallest entries", [vec![4], number(MANY), entry.repeat(MANY as usize), vec![0]].concat()),
        ("a map that claims endless members", [map_head(), number(u64::MAX)].concat()),
        ("a map of many members", [map_head(), number(MANY / 8), members].concat()),
        ("a map of many namespaces", [map_head(), vec![0], number(65_536), namespaces].concat()),
        ("a map that claims endless partitions", [map_head(), vec![0, 0], number(u64::MAX)].concat()),
        ("a map of empty partitions", [map_head(), vec![0, 0], number(MANY), vec![0; MANY as usize]].concat()),
        ("a partition of endless replicas", [map_head(), vec![0, 0, 1], number(MANY), vec![1; MANY as usize]].concat()),
        (
            "partitions that all claim endless replicas",
            [map_head(), vec![0, 0], number(65_536), number(u64::MAX).repeat(65_536)].concat(),
        ),
        ("an endless text", [vec![8, 7], number(u64::MAX)].concat()),
    ]
}

#[test]
fn greedy_messages_take_no_more_memory_than_they_are_worth() {
    for (what, body) in greedy() {
        let frame = response(&body);
        let peak = peak_of(&frame);
        assert!(peak <= allowed(frame.len()), "{what}: {} bytes took {peak}", frame.len());
    }
}

#[test]
fn a_map_takes_no_more_memory_than_the_largest_cluster_needs() {
    for (what, body) in greedy().into_iter().filter(|(what, _)| what.contains("map") || what.contains("partition")) {
        let peak = peak_of(&response(&body));
        assert!(peak <= 16 << 20, "{what}: {peak} bytes");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn any_bytes_take_no_more_memory_than_they_are_worth(
        kind in prop_oneof![Just(128u8), 16u8..24],
        body in prop::collection::vec(prop_oneof![any::<u8>(), Just(0xff), 0u8..10], 0..200),
    ) {
        let frame = [&[kind][..], &[0; 24], &body].concat();
        let peak = peak_of(&frame);
        prop_assert!(peak <= allowed(frame.len()), "{} bytes took {}", frame.len(), peak);
    }
}
