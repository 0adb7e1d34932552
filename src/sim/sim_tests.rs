//! The simulator itself: it repeats itself, and its parts behave as they should.

use super::*;

#[test]
fn the_same_seed_is_the_same_run() {
    let options = SimOptions { time: Duration::from_secs(3), ..SimOptions::new(7) };
    let first = run(options).expect("every promise is kept");
    let second = run(options).expect("every promise is kept");
    assert_eq!(first, second);
    let other = run(SimOptions { seed: 8, ..options }).expect("every promise is kept");
    assert_ne!(first.trace, other.trace);
}

#[test]
fn the_command_names_what_was_given() {
    let options = SimOptions { nodes: Some(5), ..SimOptions::new(42) };
    assert_eq!(options.command(), "dogsled sim --seed 42 --nodes 5 --time 10");
    assert_eq!(SimOptions::new(1).command(), "dogsled sim --seed 1 --time 10");
}
