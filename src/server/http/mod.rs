//! HTTP and JSON, for programs without a Redis library, for operators and for metrics.
//!
//! Problem: the outcomes of a quorum must survive the translation into status codes.
//! Invariant: 2xx and 304 and 404 are certain; 503 means that certainly nothing was
//! applied (and `Retry-After` that trying again is safe); 504 is kept for writes in doubt;
//! every error is an `application/problem+json`. What is not offered yet is refused and
//! never ignored. Heads, bodies, connections and times are bounded.
//!
//! | request | answer |
//! | --- | --- |
//! | `PUT /v1/ns/{namespace}/keys/{key}` `?ttl=` | 204 with `ETag`, or 200 and [`json::Written`] |
//! | `GET`, `HEAD` the same | 200 with the bytes, or [`json::Value`]; 404; 304 for `If-None-Match` |
//! | `DELETE` the same | as `PUT`, whether or not there was a value |
//! | `GET /v1/ns/{namespace}/keys` `?prefix=&limit=&cursor=` | [`json::Page`] |
//! | `GET /v1/where/{namespace}/{key}` | [`json::Where`] |
//! | `GET /v1/cluster`, `/v1/ring` | [`json::Cluster`], [`json::Ring`] |
//! | `GET /healthz`, `/readyz`, `/metrics` | is it alive; is there a quorum for all keys; OpenMetrics |
//!
//! For keys there are `?consistency=one|two|three|quorum|all`, `?timeout=` and
//! `?format=json`. Times are seconds (`2`, `0.5`, `2s`) or milliseconds (`250ms`).
//! Keys are percent-encoded and may be any bytes; `/` in a key may stand as it is. A
//! request target is at most 65,534 bytes long (414), so the longest keys need RESP.

mod body;
mod cluster;
mod encoding;
pub mod json;
mod keys;
mod listing;
mod options;
mod params;
mod problem;
mod routes;
mod serve;
mod stall;

pub use options::HttpOptions;
pub use serve::serve;
