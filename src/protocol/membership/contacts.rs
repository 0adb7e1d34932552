//! Connections to peers outside the active view, for as long as something is to be said.
//!
//! Invariant: few contacts, few messages waiting for each, and each has an end.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::types::{Moment, NodeId, limits};

use super::io::MembershipAction;

/// How long a connection is waited for, and kept for the answer.
const CONTACT_LASTS: Duration = Duration::from_secs(3);

#[derive(Clone, Debug)]
struct Contact {
    until: Moment,
    waiting: Vec<MembershipAction>,
}

/// Which connections stand, and for which something waits.
#[derive(Default, Debug)]
pub(super) struct Contacts {
    linked: BTreeSet<NodeId>,
    contacts: BTreeMap<NodeId, Contact>,
    /// Whether there are others than when this was last asked.
    changed: bool,
}

impl Contacts {
    pub(super) fn is_linked(&self, peer: NodeId) -> bool {
        self.linked.contains(&peer)
    }

    pub(super) fn peers(&self) -> impl Iterator<Item = NodeId> + '_ {
        self.contacts.keys().copied()
    }

    /// Whether there are others than when this was last asked.
    pub(super) fn have_changed(&mut self) -> bool {
        std::mem::take(&mut self.changed)
    }

    pub(super) fn entries(&self) -> usize {
        self.contacts.len()
    }

    /// Sends now, or once there is a connection.
    pub(super) fn send(
        &mut self,
        now: Moment,
        to: NodeId,
        message: MembershipAction,
        actions: &mut Vec<MembershipAction>,
    ) {
        let until = now.plus(CONTACT_LASTS);
        if self.linked.contains(&to) {
            if let Some(contact) = self.contacts.get_mut(&to) {
                contact.until = until;
            }
            actions.push(message);
            return;
        }
        if self.contacts.len() >= limits::CONTACTS && !self.contacts.contains_key(&to) {
            return;
        }
        let changed = &mut self.changed;
        let contact = self.contacts.entry(to).or_insert_with(|| {
            *changed = true;
            Contact { until, waiting: Vec::new() }
        });
        contact.until = until;
        if contact.waiting.len() < limits::CONTACT_MESSAGES {
            contact.waiting.push(message);
        }
    }

    /// Has a connection made, for something that is only said once it stands.
    pub(super) fn call(&mut self, now: Moment, peer: NodeId) {
        if self.contacts.len() < limits::CONTACTS || self.contacts.contains_key(&peer) {
            let until = now.plus(CONTACT_LASTS);
            let changed = &mut self.changed;
            let contact = self.contacts.entry(peer).or_insert_with(|| {
                *changed = true;
                Contact { until, waiting: Vec::new() }
            });
            contact.until = until;
        }
    }

    pub(super) fn contains(&self, peer: NodeId) -> bool {
        self.contacts.contains_key(&peer)
    }

    /// A connection stands: what has waited for it goes.
    pub(super) fn up(&mut self, peer: NodeId, actions: &mut Vec<MembershipAction>) {
        self.linked.insert(peer);
        if let Some(contact) = self.contacts.get_mut(&peer) {
            actions.append(&mut contact.waiting);
        }
    }

    pub(super) fn down(&mut self, peer: NodeId) {
        self.linked.remove(&peer);
    }

    /// It is of no use to wait any longer.
    pub(super) fn give_up(&mut self, peer: NodeId) {
        self.changed |= self.contacts.remove(&peer).is_some();
    }

    pub(super) fn next_timeout(&self) -> Moment {
        self.contacts.values().map(|contact| contact.until).min().unwrap_or(Moment(u64::MAX))
    }

    pub(super) fn tick(&mut self, now: Moment) {
        let before = self.contacts.len();
        self.contacts.retain(|_, contact| now < contact.until);
        self.changed |= self.contacts.len() < before;
    }

    pub(super) fn retain(&mut self, is_member: impl Fn(NodeId) -> bool) {
        self.contacts.retain(|peer, _| is_member(*peer));
        self.changed = true;
    }

    pub(super) fn check_invariants(&self) {
        assert!(self.contacts.len() <= limits::CONTACTS);
        assert!(self.contacts.values().all(|contact| contact.waiting.len() <= limits::CONTACT_MESSAGES));
    }
}
