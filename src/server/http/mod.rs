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
//! | `GET`, `HEAD` the same | 200 with the bytes, or [`json::Value`]; 404; 304 for `If-None-Match`; 300 and [`json::Value`] for several values |
//! | `DELETE` the same | as `PUT`, whether or not there was a value |
//! | `POST` the same with `/resolve` behind it | [`json::Resolved`] for the op-id in `Idempotency-Key` |
//! | `GET /v1/ns/{namespace}/keys` `?prefix=&limit=&cursor=` | [`json::Page`] |
//! | `GET /v1/where/{namespace}/{key}` | [`json::Where`] |
//! | `GET /v1/history/{namespace}/{key}` | [`json::History`] |
//! | `GET /v1/namespaces`; `PUT`, `DELETE /v1/namespaces/{name}` | [`json::Namespaces`]; 202 and [`json::NamespaceChange`] |
//! | `GET /v1/cluster`, `/v1/members`, `/v1/ring` | [`json::Cluster`], [`json::Members`], [`json::Ring`] |
//! | `GET /healthz`, `/readyz`, `/metrics` | is it alive; is there a quorum for all keys; OpenMetrics |
//!
//! For keys there are `?consistency=one|two|three|quorum|all` (and `any` for writes),
//! `?timeout=`, `?format=json` and `?explain=true` (200 and [`json::Explained`]). The header
//! `Dogsled-Context` says what a write has seen, where siblings are kept: the `ETag` of a read;
//! `Idempotency-Key` is the op-id of a write; `Dogsled-Session`, empty at first, is handed out
//! anew with every answer and lets reads at any level see what its holder wrote and read. Times are seconds (`2`, `0.5`, `2s`) or milliseconds (`250ms`).
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
mod terms;
mod inspect;
mod namespaces;
mod serve;
mod stall;

pub use options::HttpOptions;
pub use serve::serve;
