//! The seam between the front ends and a node.

use std::sync::Arc;

use tokio::sync::oneshot;

use crate::node::{MembersStatus, NodeHandle, NodeStatus, Sample};
use crate::types::{ClusterMap, Outcome, Request};

/// What a front end needs of a node. Methods return at once; see [`NodeHandle`] for what each promises.
pub trait Backend: Send + Sync + 'static {
    /// Begins a request. Requests of one caller are begun in the order of these calls; a
    /// receiver that errors means that the node has stopped, which leaves a write in doubt.
    fn submit(&self, request: Request) -> oneshot::Receiver<Outcome>;
    /// What the node says of itself.
    fn status(&self) -> NodeStatus;
    /// Who is alive, as the node sees it.
    fn members(&self) -> MembersStatus;
    /// The map it lives by.
    fn map(&self) -> Arc<ClusterMap>;
    /// The longest value it takes, in bytes.
    fn max_value_bytes(&self) -> usize;
    /// Everything that is measured below the front ends.
    fn samples(&self) -> Vec<Sample>;
}

impl Backend for NodeHandle {
    fn submit(&self, request: Request) -> oneshot::Receiver<Outcome> {
        NodeHandle::submit(self, request)
    }

    fn status(&self) -> NodeStatus {
        NodeHandle::status(self)
    }

    fn members(&self) -> MembersStatus {
        NodeHandle::members(self)
    }

    fn map(&self) -> Arc<ClusterMap> {
        NodeHandle::map(self)
    }

    fn max_value_bytes(&self) -> usize {
        NodeHandle::max_value_bytes(self)
    }

    fn samples(&self) -> Vec<Sample> {
        NodeHandle::samples(self)
    }
}
