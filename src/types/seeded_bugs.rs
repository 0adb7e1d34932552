//! Bugs that can be planted, to see that the simulator catches them.
//!
//! Problem: a checker that has never been seen to fail proves nothing.
//! Invariant: without the build feature `seeded-bugs` nothing is ever planted, and asking
//! costs nothing. With it, a bug is planted for one thread only, by name.

use std::fmt;
use std::str::FromStr;

macro_rules! bugs {
    ($($(#[doc = $doc:literal])+ $name:ident $text:literal,)+) => {
        /// A bug.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum SeededBug { $($(#[doc = $doc])+ $name,)+ }

        impl SeededBug {
            /// All of them.
            pub const ALL: &[SeededBug] = &[$(SeededBug::$name,)+];

            /// What it is called.
            pub fn name(self) -> &'static str {
                match self { $(SeededBug::$name => $text,)+ }
            }

            /// What it does.
            pub fn description(self) -> String {
                let lines: &[&str] = match self { $(SeededBug::$name => &[$($doc),+],)+ };
                lines.iter().map(|line| line.trim()).collect::<Vec<_>>().join(" ")
            }
        }
    };
}

bugs! {
    /// A replica acknowledges a write when it has handed it to its store, before it is synced.
    AcknowledgeBeforeSync "acknowledge-before-sync",
    /// A quorum is one replica smaller than a majority.
    QuorumTooSmall "quorum-too-small",
    /// A repair is merged although its dots were seen before, and however old it is.
    RepairIgnoresCoverage "repair-ignores-coverage",
    /// Tombstones are let go of once this replica has them, whoever else lacks them.
    TombstoneCollectedEarly "tombstone-collected-early",
    /// A restarted node goes on as the same actor and counts from one again.
    DotReused "dot-reused",
    /// A quorum read answers before what it has repaired is durable.
    RepairNotAwaited "repair-not-awaited",
    /// A read answers with the first reply.
    FirstReplyAnswers "first-reply-answers",
    /// A replica that has nothing does not count as one that has replied.
    NotFoundIgnored "not-found-ignored",
    /// Timestamps are the time of day, whatever was seen before.
    WallClockOnly "wall-clock-only",
    /// Log entries are let go of once this replica has them durably, whoever else lacks them.
    LogTruncatedEarly "log-truncated-early",
    /// A read returns what is not durable yet.
    DirtyRead "dirty-read",
    /// A peer whose store went back in time is admitted as if nothing had happened.
    WentBackAdmitted "went-back-admitted",
    /// A write to a key with siblings does not wait for another one of the same node.
    SiblingsNotSerialised "siblings-not-serialised",
    /// An op-id is decided by the first replica that answers.
    OpIdDecidedByOne "op-id-decided-by-one",
    /// A read ignores what its session has seen.
    SessionIgnored "session-ignored",
    /// What a node says in its own defence is not believed.
    RefutationIgnored "refutation-ignored",
    /// A node that is not well itself accuses others as fast as ever.
    LocalHealthOff "local-health-off",
    /// What shuffles bring is thrown away.
    PassiveNotRefilled "passive-not-refilled",
    /// A suspicion lasts as long as it may, whoever confirms it.
    SuspicionNotConfirmed "suspicion-not-confirmed",
    /// A full view takes newcomers without dropping anybody.
    ViewPastK "view-past-k",
}

impl fmt::Display for SeededBug {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for SeededBug {
    type Err = String;

    fn from_str(text: &str) -> Result<SeededBug, String> {
        SeededBug::ALL
            .iter()
            .copied()
            .find(|bug| bug.name() == text)
            .ok_or_else(|| format!("no bug is called '{text}'"))
    }
}

#[cfg(feature = "seeded-bugs")]
mod planted {
    use std::cell::Cell;

    use super::SeededBug;

    thread_local! {
        static PLANTED: Cell<Option<SeededBug>> = const { Cell::new(None) };
    }

    impl SeededBug {
        /// Whether it is planted on this thread.
        pub fn is_planted(self) -> bool {
            PLANTED.with(Cell::get) == Some(self)
        }

        /// Plants a bug on this thread, or takes it out.
        pub fn plant(bug: Option<SeededBug>) {
            PLANTED.with(|planted| planted.set(bug));
        }
    }
}

#[cfg(not(feature = "seeded-bugs"))]
impl SeededBug {
    /// Whether it is planted: never, in this build.
    #[inline(always)]
    pub const fn is_planted(self) -> bool {
        false
    }
}
