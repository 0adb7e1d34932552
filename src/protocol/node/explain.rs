//! Writing down the way that a request takes, if its client wants to know.

use crate::types::{
    ConsistencyLevel, Moment, NodeId, Now, Partition, PathEvent, PathStep, Request, RequestPath, Response, Stamp,
    limits,
};
use crate::wire::{ReplicaRequest, ReplicaResponse};

use super::Node;

/// The way of one request so far.
#[derive(Debug)]
pub(super) struct Path {
    began: Moment,
    path: RequestPath,
}

impl Path {
    pub(super) fn new(now: Now, request: &Request, node: &Node) -> Path {
        let partition = request.operation.key().map_or(Partition(0), |key| node.map.partition_of(key));
        let replicas = node.map.assignment.replicas(partition).to_vec();
        let level: ConsistencyLevel = request.consistency;
        let needed = u8::try_from(level.required(replicas.len())).unwrap_or(u8::MAX);
        let (coordinator, epoch) = (node.settings.actor.node, node.map.epoch);
        let path = RequestPath { coordinator, epoch, partition, replicas, needed, steps: Vec::new() };
        Path { began: now.moment, path }
    }

    fn note(&mut self, now: Now, node: NodeId, event: PathEvent) {
        if self.path.steps.len() < limits::PATH_STEPS {
            let after_us = u64::try_from(now.moment.since(self.began).as_micros()).unwrap_or(u64::MAX);
            self.path.steps.push(PathStep { after_us, node, event });
        }
    }

    pub(super) fn explain(self, response: Response) -> Response {
        Response::Explained(Box::new(response), self.path)
    }
}

impl Node {
    fn note(&mut self, now: Now, number: u64, node: NodeId, event: impl FnOnce() -> PathEvent) {
        if let Some(path) = self.active.get_mut(&number).and_then(|active| active.path.as_mut()) {
            path.note(now, node, event());
        }
    }

    pub(super) fn note_asked(&mut self, now: Now, number: u64, to: &[NodeId], request: &ReplicaRequest) {
        for node in to {
            self.note(now, number, *node, || match request {
                ReplicaRequest::Read { .. } => PathEvent::AskedValue,
                ReplicaRequest::Digest { .. } => PathEvent::AskedVersions,
                ReplicaRequest::Apply { .. } | ReplicaRequest::Truncate { .. } => PathEvent::SentWrite,
                ReplicaRequest::Claim { .. } => PathEvent::AskedClaim,
                _ => PathEvent::Asked,
            });
        }
    }

    pub(super) fn note_answer(&mut self, now: Now, number: u64, from: NodeId, response: &ReplicaResponse) {
        self.note(now, number, from, || match response {
            ReplicaResponse::Record { record, .. } => {
                PathEvent::Answered(record.as_ref().and_then(crate::types::Record::newest_stamp))
            }
            ReplicaResponse::Digest { digest, .. } => {
                PathEvent::Answered(digest.as_ref().and_then(crate::types::Record::newest_stamp))
            }
            ReplicaResponse::Stored => PathEvent::Durable,
            ReplicaResponse::Superseded { by } => PathEvent::Superseded(*by),
            ReplicaResponse::Refused(refusal) => PathEvent::Failed(refusal.to_string()),
            _ => PathEvent::Answered(None::<Stamp>),
        });
    }

    pub(super) fn note_lost(&mut self, now: Now, number: u64, from: NodeId) {
        self.note(now, number, from, || PathEvent::Failed("it cannot answer any more".into()));
    }

    pub(super) fn note_late(&mut self, now: Now, number: u64, node: NodeId) {
        self.note(now, number, node, || PathEvent::Late);
    }
}
