//! What follows from what observers say, told as cases.

use super::*;
use crate::types::Incarnation;

const SUBJECT: u32 = 99;
const FIRST: Life = Life { incarnation: Incarnation(1), refutation: 0 };

fn node(number: u32) -> NodeId {
    NodeId::new(number).expect("not zero")
}

fn at(ms: u64) -> Moment {
    Moment(1_000_000).plus(Duration::from_millis(ms))
}

/// The case of one member, and what has become of it.
struct Bench {
    verdicts: Verdicts,
    turned: Vec<(u64, Health)>,
}

impl Bench {
    fn new(members: usize) -> Bench {
        Bench { verdicts: Verdicts::new(members), turned: Vec::new() }
    }

    /// Does what is due up to this time.
    fn run(&mut self, ms: u64) {
        while self.verdicts.next_timeout() <= at(ms) {
            let due = self.verdicts.next_timeout();
            for (member, life) in self.verdicts.tick(due) {
                assert_eq!((member, Some(life)), (node(SUBJECT), self.verdicts.life(member)));
                self.turned.push((due.since(at(0)).as_millis() as u64, Health::Down));
            }
            self.verdicts.check_invariants();
            assert!(self.verdicts.next_timeout() > due, "time does not go on");
        }
    }

    fn hear(&mut self, ms: u64, observer: u32, refutation: u32, health: Health) -> Turned {
        self.run(ms);
        let life = Life { refutation, ..FIRST };
        let turned = self.verdicts.hear(at(ms), node(observer), node(SUBJECT), life, health);
        self.verdicts.check_invariants();
        self.turned.extend(turned.map(|health| (ms, health)));
        turned
    }

    fn is_down(&self) -> bool {
        self.verdicts.is_down(node(SUBJECT))
    }
}

/// Plays lines like `400 b down 1` (when, who, what, of which life), up to `until`; what has
/// become of the subject, and when.
fn play(members: usize, until: u64, story: &str) -> Vec<(u64, Health)> {
    let mut bench = Bench::new(members);
    for line in story.split(',') {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [ms, observer, health, rest @ ..] = &words[..] else { panic!("{line}") };
        let refutation = rest.first().map_or(0, |life| life.parse().expect("a number"));
        let health = match *health {
            "alive" => Health::Alive,
            "suspect" => Health::Suspect,
            "down" => Health::Down,
            other => panic!("{other}"),
        };
        let observer = u32::from(observer.as_bytes()[0]);
        bench.hear(ms.parse().expect("a number"), observer, refutation, health);
    }
    bench.run(until);
    bench.turned
}

#[test]
fn a_majority_decides_after_a_while_and_only_a_majority() {
    use Health::{Alive, Down};
    let down = |at| vec![(at, Down)];
    // What, how many members, who says what, and what becomes of the subject when.
    type Case<'a> = (&'a str, usize, &'a str, Vec<(u64, Health)>);
    let cases: Vec<Case<'_>> = vec![
        ("one of many", 10, "0 a down", vec![]),
        ("one of two", 2, "0 a down", down(400)),
        ("two", 3, "0 a down, 100 b down", down(500)),
        ("one that says it twice", 10, "0 a down, 100 a down", vec![]),
        ("two that suspect", 10, "0 a suspect, 0 b suspect, 0 c down", vec![]),
        ("two against one that suspects", 10, "0 a down, 100 b down, 0 c suspect", down(500)),
        ("two against two", 10, "0 a down, 0 b down, 50 c alive, 399 d alive", vec![]),
        ("two against one", 10, "0 a down, 0 b down, 50 c alive", down(400)),
        ("one speaks up in time", 10, "0 a down, 100 b down, 499 b alive", vec![]),
        (
            "one speaks up too late",
            10,
            "0 a down, 100 b down, 501 b alive, 502 a alive",
            vec![(500, Down), (502, Alive)],
        ),
        // The time begins anew when the majority does.
        ("with a pause", 10, "0 a down, 0 b down, 200 c alive, 200 d alive, 300 c down", down(700)),
        ("three against two, later", 10, "0 a down, 0 c alive, 10 d alive, 20 b down, 600 e down", down(1_000)),
        ("acquitted", 10, "0 a down, 0 b down, 500 a alive, 510 c alive", vec![(400, Down), (510, Alive)]),
        ("acquitted and judged again", 10, "0 a down, 0 b down, 500 a alive, 510 b alive, 600 a down, 700 b down", {
            vec![(400, Down), (510, Alive), (1_100, Down)]
        }),
        ("an earlier life", 10, "0 a suspect 2, 0 a down 1, 0 b down 1, 0 c down", vec![]),
        ("a later life", 10, "0 a down, 100 b down 1, 200 c down 1", down(600)),
        ("a later life of one who is down", 10, "0 a down, 0 b down, 500 c suspect 1", vec![(400, Down), (500, Alive)]),
        ("opinions that count no more", 10, "0 a down, 30000 b down", vec![]),
        ("opinions that still count", 10, "0 a down, 29000 b down", down(29_400)),
    ];
    for (what, members, story, expected) in cases {
        let turned = play(members, 29_999.max(expected.last().map_or(0, |(at, _)| *at)), story);
        assert_eq!(turned, expected, "{what}: {story}");
    }
}

#[test]
fn who_holds_the_subject_for_alive_is_only_asked_when_it_matters() {
    let mut bench = Bench::new(10);
    assert_eq!(bench.hear(0, 1, 0, Health::Alive), None);
    assert_eq!((bench.verdicts.entries(), bench.verdicts.next_timeout()), (0, Moment(u64::MAX)));
    bench.hear(0, 2, 0, Health::Suspect);
    bench.hear(0, 1, 0, Health::Alive);
    assert_eq!(bench.verdicts.tally(node(SUBJECT)), [1, 1, 0]);
    assert_eq!(bench.verdicts.health(node(SUBJECT)), Health::Suspect);
    assert_eq!(bench.verdicts.opinion_of(node(2), node(SUBJECT)), Some(Health::Suspect));
    assert_eq!(bench.verdicts.accused().count(), 0, "suspicion is no accusation");
    bench.hear(0, 2, 0, Health::Alive);
    assert_eq!(bench.verdicts.health(node(SUBJECT)), Health::Alive);
}

#[test]
fn who_is_down_stays_known_and_nothing_else_does() {
    let mut bench = Bench::new(10);
    bench.hear(0, 1, 0, Health::Down);
    bench.hear(0, 2, 0, Health::Down);
    bench.run(10 * 60_000);
    assert!(bench.is_down());
    assert_eq!(bench.verdicts.down().collect::<Vec<_>>(), [(node(SUBJECT), FIRST)]);
    assert_eq!((bench.verdicts.entries(), bench.verdicts.next_timeout()), (1, Moment(u64::MAX)));
    assert_eq!((bench.verdicts.health(node(SUBJECT)), bench.verdicts.health(node(1))), (Health::Down, Health::Alive));

    let mut bench = Bench::new(10);
    bench.hear(0, 1, 0, Health::Down);
    bench.run(59_999);
    assert_eq!((bench.verdicts.life(node(SUBJECT)), bench.verdicts.entries()), (Some(FIRST), 1));
    bench.run(60_000);
    assert_eq!((bench.verdicts.entries(), bench.verdicts.next_timeout()), (0, Moment(u64::MAX)));
}

#[test]
fn a_later_life_is_alive_and_the_same_one_is_not() {
    for rumour in [true, false] {
        let mut bench = Bench::new(10);
        bench.hear(0, 1, 1, Health::Down);
        bench.hear(0, 2, 1, Health::Down);
        bench.run(400);
        let mut alive = |refutation| {
            let life = Life { refutation, ..FIRST };
            let turned = bench.verdicts.alive(at(1_000), node(SUBJECT), life, rumour);
            (turned, bench.verdicts.is_down(node(SUBJECT)))
        };
        assert_eq!([alive(0), alive(1)], [(None, true); 2], "rumour: {rumour}");
        assert_eq!([alive(2), alive(2)], [(Some(Health::Alive), false), (None, false)], "rumour: {rumour}");
        assert_eq!(bench.verdicts.tally(node(SUBJECT)), [0; 3], "what was said was said of another life");
    }
    // Without a case only a rumour is remembered: neighbours speak for themselves all the time.
    for (rumour, entries) in [(false, 0), (true, 1)] {
        let mut bench = Bench::new(10);
        assert_eq!(bench.verdicts.alive(at(0), node(SUBJECT), FIRST, rumour), None);
        assert_eq!(bench.verdicts.entries(), entries);
        assert_eq!(bench.verdicts.health(node(SUBJECT)), Health::Alive);
    }
}

#[test]
fn an_older_doubt_is_void_while_the_later_life_is_remembered() {
    // When the doubt comes after the rumour of the later life, and whether it is believed.
    for (ms, believed) in [(0, false), (100, false), (59_000, false), (60_000, true)] {
        let mut bench = Bench::new(10);
        bench.verdicts.alive(at(0), node(SUBJECT), FIRST.refuted(), true);
        bench.run(ms);
        assert_eq!(bench.verdicts.doubt(at(ms), node(SUBJECT), FIRST), believed, "after {ms} ms");
        bench.run(ms + 3_000);
        assert_eq!(bench.is_down(), believed, "after {ms} ms");
    }
    // Nor do opinions of the earlier life count.
    let mut bench = Bench::new(10);
    bench.verdicts.alive(at(0), node(SUBJECT), FIRST.refuted(), true);
    for observer in 1..5 {
        bench.hear(30_000, observer, 0, Health::Down);
    }
    bench.run(59_000);
    assert_eq!((bench.turned, bench.verdicts.tally(node(SUBJECT))), (vec![], [0; 3]));
}

#[test]
fn a_doubt_is_believed_unless_somebody_knows_better() {
    use Health::{Alive, Down, Suspect};
    // What is said meanwhile: when, of which life, and what; and whether it is believed.
    type Said = (u64, u32, Health);
    let cases: [(&str, &[Said], bool); 6] = [
        ("silence", &[], true),
        ("a suspicion", &[(1_000, 1, Suspect)], true),
        ("one says down", &[(1_000, 1, Down)], true),
        ("one says alive", &[(2_999, 1, Alive)], false),
        ("one says alive of an earlier life", &[(1_000, 0, Alive)], true),
        ("a later life", &[(1_000, 2, Suspect)], false),
    ];
    for (what, said, believed) in cases {
        let mut bench = Bench::new(10);
        assert!(bench.verdicts.doubt(at(0), node(SUBJECT), FIRST.refuted()));
        assert!(!bench.verdicts.doubt(at(1), node(SUBJECT), FIRST.refuted()), "it is no news twice");
        for (ms, refutation, health) in said {
            bench.hear(*ms, 1, *refutation, *health);
        }
        bench.run(2_999);
        assert!(!bench.is_down(), "{what}");
        bench.run(3_000);
        assert_eq!(bench.is_down(), believed, "{what}");
        assert_eq!(bench.turned, if believed { vec![(3_000, Down)] } else { vec![] }, "{what}");
        assert!(!believed || !bench.verdicts.doubt(at(4_000), node(SUBJECT), FIRST.refuted()), "that is known");
    }
}

#[test]
fn a_refutation_ends_a_doubt() {
    let mut bench = Bench::new(10);
    assert!(bench.verdicts.doubt(at(0), node(SUBJECT), FIRST));
    assert_eq!(bench.verdicts.alive(at(2_000), node(SUBJECT), FIRST.refuted(), true), None);
    bench.run(10_000);
    assert_eq!((bench.is_down(), bench.turned), (false, vec![]));
}

#[test]
fn members_that_leave_say_nothing_and_nothing_is_said_of_them() {
    let mut verdicts = Verdicts::new(10);
    for (observer, subject) in [(1, 7), (2, 7), (1, 8), (2, 8)] {
        verdicts.hear(at(0), node(observer), node(subject), FIRST, Health::Down);
    }
    verdicts.retain(|member| member != node(2) && member != node(8));
    assert_eq!((verdicts.tally(node(7)), verdicts.tally(node(8)), verdicts.entries()), ([0, 0, 1], [0; 3], 2));
    assert_eq!(verdicts.tick(at(400)), [], "one is no majority");
    // In a cluster of two there is only one to judge.
    verdicts.set_members(2);
    assert_eq!(verdicts.hear(at(500), node(1), node(7), FIRST, Health::Down), None);
    assert_eq!(verdicts.tick(at(900)), [(node(7), FIRST)]);
}

#[test]
fn cases_and_opinions_are_bounded() {
    let mut verdicts = Verdicts::new(10_000);
    for observer in 0..limits::OPINIONS as u32 + 10 {
        verdicts.hear(at(0), node(observer + 1_000), node(SUBJECT), FIRST, Health::Suspect);
    }
    assert_eq!(verdicts.tally(node(SUBJECT)), [0, limits::OPINIONS, 0]);
    // Who has spoken may still change its mind.
    verdicts.hear(at(0), node(1_000), node(SUBJECT), FIRST, Health::Alive);
    assert_eq!(verdicts.tally(node(SUBJECT)), [1, limits::OPINIONS - 1, 0]);
    verdicts.check_invariants();

    let mut verdicts = Verdicts::new(10_000);
    for subject in 0..limits::CASES as u64 + 2 {
        verdicts.doubt(at(subject), node(subject as u32 + 1), FIRST);
    }
    verdicts.check_invariants();
    let known = |subject| verdicts.life(node(subject)).is_some();
    assert_eq!([known(1), known(2), known(3)], [false, false, true], "the oldest are forgotten");
}
