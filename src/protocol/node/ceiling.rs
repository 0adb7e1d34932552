//! Timestamps that never go back, whatever the time of day does between two lives.
//!
//! Problem: a timestamp may have been given and sent out just before a crash, and the time
//! of day may be put back before the restart.
//! Invariant: no timestamp is given above the ceiling, and the ceiling is durable; a new
//! life begins above it. While writes come, each group commit raises the ceiling; the
//! first write after a pause waits for a commit that does. The lead is half of the allowed
//! skew, and up to three quarters where commits are slow; so a restarted node is never too
//! far ahead for its peers.
//! Source: Google Spanner's and CockroachDB's forward leases of the clock.

use std::time::Duration;

use crate::protocol::io::Action;
use crate::types::{Failure, Moment, Mutation, Now, Refusal, Request, Timestamp};

use super::replica::Served;
use super::{Node, Origin};

/// Writes that wait for a higher ceiling.
#[derive(Debug, Default)]
pub(super) struct Held {
    requests: Vec<(Origin, Request, Moment)>,
    /// When the first of them has waited long enough.
    first_deadline: Option<Moment>,
    /// The latest time of day at which one had to wait.
    pub(super) latest: Timestamp,
    /// Whether a commit that raises the ceiling is under way.
    raising: bool,
    /// What the lead has to be because commits take long.
    lead: Duration,
}

impl Held {
    pub(super) fn len(&self) -> usize {
        self.requests.len()
    }

    /// When the first of them has waited long enough.
    pub(super) fn first_deadline(&self) -> Moment {
        self.first_deadline.unwrap_or(Moment(u64::MAX))
    }

    /// These wait now, and no others.
    fn replace(&mut self, requests: Vec<(Origin, Request, Moment)>) -> Vec<(Origin, Request, Moment)> {
        self.first_deadline = requests.iter().map(|(_, _, deadline)| *deadline).min();
        std::mem::replace(&mut self.requests, requests)
    }
}

impl Node {
    /// How far above the last timestamp the ceiling is set.
    pub(super) fn ceiling_lead(&self) -> Duration {
        (self.settings.max_clock_skew / 2).max(self.held.lead)
    }

    /// Whether a write would get a timestamp that is not covered by the ceiling.
    pub(super) fn must_hold(&self, now: Now) -> bool {
        // With room for what peers say before it is given.
        let room = self.settings.max_clock_skew / 16;
        let next = Timestamp::at(now.wall).max(self.clock.last().next()).plus(room);
        // A clock that cannot be trusted must not raise the ceiling; the write is refused anyway.
        next > self.ceiling && self.watch.check(now, self.map.members.len() == 1).is_ok()
    }

    /// Keeps a write until the ceiling is higher.
    pub(super) fn hold(
        &mut self,
        now: Now,
        origin: Origin,
        request: Request,
        deadline: Moment,
        actions: &mut Vec<Action>,
    ) {
        self.held.requests.push((origin, request, deadline));
        self.held.first_deadline = Some(self.held.first_deadline().min(deadline));
        self.held.latest = self.held.latest.max(Timestamp::at(now.wall));
        self.raise_ceiling(actions);
    }

    /// A commit has raised the ceiling. If time has overtaken it meanwhile, the next one
    /// must be higher, or no write would ever be stamped on a slow disk.
    pub(super) fn ceiling_raised(&mut self, now: Now, ceiling: Timestamp) {
        self.ceiling = self.ceiling.max(ceiling);
        let present = self.clock.last().max(Timestamp::at(now.wall));
        if self.held.raising && present.plus(self.settings.max_clock_skew / 8) > self.ceiling {
            // Not so high that a restarted node would be too far ahead for its peers.
            self.held.lead = (self.ceiling_lead() * 2).min(self.settings.max_clock_skew * 3 / 4);
        } else if present.plus(self.held.lead / 2) < self.ceiling {
            self.held.lead -= self.held.lead / 8;
        }
    }

    /// A request that is under way needs a higher ceiling soon.
    pub(super) fn raise_ceiling(&mut self, actions: &mut Vec<Action>) {
        if !self.held.raising {
            self.held.raising = true;
            self.order_append(Served::held(), Mutation::Barrier, actions);
        }
    }

    /// The ceiling is higher, or the store had no room.
    pub(super) fn release_held(&mut self, now: Now, raised: bool, actions: &mut Vec<Action>) {
        self.held.raising = false;
        for (origin, request, deadline) in self.held.replace(Vec::new()) {
            if raised && deadline > now.moment {
                self.begin_at_once(now, origin, request, deadline, actions);
            } else {
                self.deliver(origin, Err(Failure::NotApplied(Refusal::Overloaded)), actions);
            }
        }
    }

    /// Lets go of those that have waited for too long.
    pub(super) fn expire_held(&mut self, now: Now, actions: &mut Vec<Action>) {
        if self.held.first_deadline() > now.moment {
            return;
        }
        let all = self.held.replace(Vec::new()).into_iter();
        let (late, waiting): (Vec<_>, Vec<_>) = all.partition(|(_, _, deadline)| *deadline <= now.moment);
        self.held.replace(waiting);
        for (origin, ..) in late {
            self.deliver(origin, Err(Failure::NotApplied(Refusal::Overloaded)), actions);
        }
    }
}

#[cfg(test)]
#[path = "ceiling_tests.rs"]
mod tests;
