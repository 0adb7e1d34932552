//! Reading a body within bounds of size, time and memory.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, HttpBody};
use axum::http::StatusCode;
use bytes::{Bytes, BytesMut};

use super::problem::Problem;
use crate::ambient;
use crate::types::limits;

/// Memory of all bodies that are being received.
#[derive(Debug, Default)]
pub(super) struct BodyBudget(AtomicUsize);

/// A share of the budget, given back when dropped.
struct Share<'a> {
    budget: &'a BodyBudget,
    bytes: usize,
}

impl Share<'_> {
    fn take(&mut self, bytes: usize) -> Result<(), Problem> {
        self.bytes += bytes;
        let before = self.budget.0.fetch_add(bytes, Ordering::Relaxed);
        if before + bytes > limits::HTTP_BODIES_BYTES { Err(Problem::overloaded()) } else { Ok(()) }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// All of a body, if it is not too long, does not take too long, and there is room for it.
pub(super) async fn read(body: Body, limit: usize, deadline: Duration, budget: &BodyBudget) -> Result<Bytes, Problem> {
    // What announces itself as too long is not even begun.
    if body.size_hint().lower() > limit as u64 {
        return Err(Problem::too_large(limit));
    }
    let began = ambient::moment();
    let mut body = body;
    let mut share = Share { budget, bytes: 0 };
    let mut first: Option<Bytes> = None;
    let mut whole = BytesMut::new();
    loop {
        let arrived = first.as_ref().map_or(0, Bytes::len) + whole.len();
        let earned = Duration::from_secs((arrived / (64 * 1024)) as u64);
        let left = (deadline + earned).saturating_sub(ambient::moment().since(began));
        let frame = tokio::time::timeout(left, poll_fn(|context| Pin::new(&mut body).poll_frame(context))).await;
        let frame = match frame {
            Ok(None) => break,
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(error))) => return Err(Problem::bad_request(format!("the body broke off: {error}"))),
            Err(_) => {
                let detail = "the body did not arrive in time, nothing was applied";
                return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, "too-slow", "The request took too long", detail));
            }
        };
        let Ok(data) = frame.into_data() else { continue };
        if arrived + data.len() > limit {
            return Err(Problem::too_large(limit));
        }
        share.take(data.len())?;
        // One piece, which is what most bodies are, need not be copied.
        match first.take() {
            None if whole.is_empty() => first = Some(data),
            piece => {
                whole.extend_from_slice(&piece.unwrap_or_default());
                whole.extend_from_slice(&data);
            }
        }
    }
    Ok(first.unwrap_or_else(|| whole.freeze()))
}
