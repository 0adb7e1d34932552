//! When the operations of one thread begin, and when they end.
//!
//! Invariant of the open loop: the k-th operation is due at a moment that depends on k
//! alone. A backlog is therefore one number, however long it grows.

use std::cell::Cell;
use std::time::Duration;

use crate::types::Moment;

/// A phase of the run as one thread sees it.
#[derive(Debug)]
pub(super) struct Schedule {
    /// Operations that begin before this are not measured.
    record_from: Moment,
    /// Nothing begins from here on.
    deadline: Option<Moment>,
    /// How many measured operations may still begin.
    budget: Cell<u64>,
    arrivals: Option<Arrivals>,
}

/// A fixed rate, of which this thread serves every `threads`-th arrival.
#[derive(Debug)]
struct Arrivals {
    from: Moment,
    per_second: u64,
    thread: u64,
    threads: u64,
    next: Cell<u64>,
}

/// What a connection does now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Next {
    /// Begin an operation, whose latency counts from `at`.
    Begin {
        at: Moment,
        /// Whether it is measured.
        recorded: bool,
    },
    /// Nothing is due before this.
    NotBefore(Moment),
    /// The phase is over.
    Over,
}

/// The plan of a phase, the same for all threads.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) from: Moment,
    pub(super) warmup: Duration,
    /// How long to measure; without end if none.
    pub(super) time: Option<Duration>,
    /// How many operations to measure, over all threads; without end if none.
    pub(super) requests: Option<u64>,
    /// Operations a second over all threads; as fast as answers come if none.
    pub(super) rate: Option<u64>,
}

impl Plan {
    pub(super) fn record_from(&self) -> Moment {
        self.from.plus(self.warmup)
    }

    pub(super) fn deadline(&self) -> Option<Moment> {
        self.time.map(|time| self.record_from().plus(time))
    }

    pub(super) fn for_thread(&self, thread: u64, threads: u64) -> Schedule {
        let share = |total: u64| total / threads + u64::from(thread < total % threads);
        Schedule {
            record_from: self.record_from(),
            deadline: self.deadline(),
            budget: Cell::new(self.requests.map_or(u64::MAX, share)),
            arrivals: self.rate.map(|per_second| Arrivals {
                from: self.from,
                per_second,
                thread,
                threads,
                next: Cell::new(0),
            }),
        }
    }
}

impl Schedule {
    /// Takes the next operation if one is due.
    pub(super) fn next(&self, now: Moment) -> Next {
        let next = self.peek(now);
        if let Next::Begin { recorded, .. } = next {
            if let Some(arrivals) = &self.arrivals {
                arrivals.next.set(arrivals.next.get() + 1);
            }
            if recorded {
                self.budget.set(self.budget.get() - 1);
            }
        }
        next
    }

    /// What [`Schedule::next`] would say.
    pub(super) fn peek(&self, now: Moment) -> Next {
        if self.budget.get() == 0 || self.deadline.is_some_and(|deadline| now >= deadline) {
            return Next::Over;
        }
        let at = match &self.arrivals {
            None => now,
            Some(arrivals) => {
                let due = arrivals.due(arrivals.next.get());
                if self.deadline.is_some_and(|deadline| due >= deadline) {
                    return Next::Over;
                }
                if due > now {
                    return Next::NotBefore(due);
                }
                due
            }
        };
        Next::Begin { at, recorded: at >= self.record_from }
    }

    /// In an open loop: how long it is until something more comes due.
    pub(super) fn until_next_due(&self, now: Moment) -> Duration {
        let next = |arrivals: &Arrivals| arrivals.due(arrivals.due_before(Moment(now.0.saturating_add(1)))).since(now);
        self.arrivals.as_ref().map_or(Duration::ZERO, next)
    }

    /// Whether operations come at a fixed rate.
    pub(super) fn is_open(&self) -> bool {
        self.arrivals.is_some()
    }

    /// In an open loop with a deadline: how many operations were due but never began.
    pub(super) fn never_begun(&self) -> u64 {
        let (Some(arrivals), Some(deadline)) = (&self.arrivals, self.deadline) else { return 0 };
        arrivals.due_before(deadline).saturating_sub(arrivals.next.get())
    }
}

impl Arrivals {
    fn due(&self, k: u64) -> Moment {
        let slot = u128::from(k) * u128::from(self.threads) + u128::from(self.thread);
        let micros = slot * 1_000_000 / u128::from(self.per_second);
        Moment(self.from.0.saturating_add(u64::try_from(micros).unwrap_or(u64::MAX)))
    }

    /// How many arrivals of this thread are due before a moment: those whose slot lies
    /// below `end * per_second`, of which this thread has every `threads`-th.
    fn due_before(&self, end: Moment) -> u64 {
        let micros = u128::from(end.0.saturating_sub(self.from.0));
        let slots = (micros * u128::from(self.per_second)).div_ceil(1_000_000);
        let own = slots.saturating_sub(u128::from(self.thread)).div_ceil(u128::from(self.threads));
        u64::try_from(own).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan() -> Plan {
        Plan {
            from: Moment(1_000),
            warmup: Duration::from_millis(10),
            time: Some(Duration::from_millis(100)),
            requests: None,
            rate: None,
        }
    }

    #[test]
    fn a_closed_loop_begins_at_once_until_the_deadline() {
        let schedule = plan().for_thread(0, 1);
        assert_eq!(schedule.next(Moment(1_000)), Next::Begin { at: Moment(1_000), recorded: false });
        assert_eq!(schedule.next(Moment(11_000)), Next::Begin { at: Moment(11_000), recorded: true });
        assert_eq!(schedule.next(Moment(110_999)), Next::Begin { at: Moment(110_999), recorded: true });
        assert_eq!(schedule.next(Moment(111_000)), Next::Over);
        assert_eq!(schedule.never_begun(), 0);
    }

    #[test]
    fn a_budget_counts_measured_operations_only_and_is_shared_out() {
        let plan = Plan { time: None, requests: Some(5), ..plan() };
        let mut begun = 0;
        for thread in 0..3 {
            let schedule = plan.for_thread(thread, 3);
            assert!(matches!(schedule.next(Moment(1_000)), Next::Begin { recorded: false, .. }));
            while matches!(schedule.next(Moment(50_000)), Next::Begin { recorded: true, .. }) {
                begun += 1;
            }
        }
        assert_eq!(begun, 5);
    }

    #[test]
    fn an_open_loop_charges_a_stall_to_all_that_were_due() {
        // 1,000 a second over two threads: this one has the odd milliseconds.
        let schedule = Plan { rate: Some(1_000), ..plan() }.for_thread(1, 2);
        assert_eq!(schedule.next(Moment(1_000)), Next::NotBefore(Moment(2_000)));
        assert_eq!(schedule.next(Moment(2_000)), Next::Begin { at: Moment(2_000), recorded: false });
        // A stall of 60 ms: what was due meanwhile begins now, but counts from when it was due.
        let mut late = Vec::new();
        while let Next::Begin { at, .. } = schedule.next(Moment(62_000)) {
            late.push(at.0);
        }
        assert_eq!(late, (1..=30).map(|k| 2_000 + k * 2_000).collect::<Vec<_>>());
        assert_eq!(schedule.next(Moment(62_000)), Next::NotBefore(Moment(64_000)));
        // Due before the deadline at 111,000: 2,000, 4,000 … 110,000, of which 31 have begun.
        assert_eq!(schedule.never_begun(), 55 - 31);
        assert_eq!(schedule.next(Moment(111_000)), Next::Over);
    }

    #[test]
    fn an_open_loop_is_over_once_all_that_was_due_has_begun() {
        let schedule = Plan { rate: Some(100), ..plan() }.for_thread(0, 1);
        let mut begun = 0;
        while matches!(schedule.next(Moment(110_000)), Next::Begin { .. }) {
            begun += 1;
        }
        assert_eq!(begun, 11);
        assert_eq!(schedule.next(Moment(110_500)), Next::Over);
    }
}
