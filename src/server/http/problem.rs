//! Errors as HTTP answers them.

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::json;
use crate::types::{Failure, KeyError, Refusal};

/// An answer that is an error.
#[derive(Clone, Debug)]
pub(super) struct Problem(Box<json::Problem>);

/// Whether a request can have changed anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    Read,
    Write,
}

impl Problem {
    pub fn new(status: StatusCode, word: &str, title: &str, detail: impl Into<String>) -> Problem {
        Problem(Box::new(json::Problem {
            kind: format!("urn:dogsled:problem:{word}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail: detail.into(),
            ..json::Problem::default()
        }))
    }

    pub fn bad_request(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::BAD_REQUEST, "bad-request", "The request cannot be understood", detail)
    }

    pub fn not_offered(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_IMPLEMENTED, "not-offered", "Not offered yet", detail)
    }

    /// It cannot be done as things are, and trying again changes nothing.
    pub fn conflict(word: &str, detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::CONFLICT, word, "Certainly not applied; as things are it cannot be", detail)
    }

    pub fn internal(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", "Internal error", detail)
    }

    pub fn not_found(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::NOT_FOUND, "not-found", "Not found", detail)
    }

    pub fn too_large(limit: usize) -> Problem {
        let detail = format!("a value is at most {limit} bytes long");
        Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "value-too-long", "The value is too long", detail)
    }

    pub fn overloaded() -> Problem {
        Problem::not_applied("overloaded, not executed")
    }

    fn not_applied(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not-applied", "Certainly not applied; safe to try again", detail)
    }

    /// A request whose node stopped before it answered.
    pub fn stopped(access: Access) -> Problem {
        match access {
            Access::Read => Problem::not_applied("the node stopped"),
            Access::Write => Problem::in_doubt("the node stopped; the write may still take effect"),
        }
    }

    fn in_doubt(detail: impl Into<String>) -> Problem {
        Problem::new(StatusCode::GATEWAY_TIMEOUT, "in-doubt", "The outcome of the write is not known", detail)
    }

    /// What became of a request that failed.
    pub fn of(failure: &Failure, max_value_bytes: usize) -> Problem {
        let refusal = match failure {
            Failure::NotApplied(refusal) => refusal,
            Failure::InDoubt { acknowledged, needed } => {
                let mut problem = Problem::in_doubt(failure.to_string());
                (problem.0.acknowledged, problem.0.needed) = (Some(*acknowledged), Some(*needed));
                return problem;
            }
            Failure::TimedOut { answered, needed } => {
                let detail = failure.to_string();
                let title = "The read was not answered in time; safe to try again";
                let mut problem = Problem::new(StatusCode::SERVICE_UNAVAILABLE, "timed-out", title, detail);
                (problem.0.answered, problem.0.needed) = (Some(*answered), Some(*needed));
                return problem;
            }
        };
        match refusal {
            Refusal::ValueTooLong { limit, .. } => {
                Problem::too_large(usize::try_from(*limit).unwrap_or(max_value_bytes))
            }
            Refusal::UnknownNamespace => Problem::not_found("there is no such namespace"),
            Refusal::Invalid(text) => Problem::bad_request(text),
            Refusal::TooFewReplicas { alive, needed } => {
                let mut problem = Problem::not_applied(refusal.to_string());
                (problem.0.alive, problem.0.needed) = (Some(*alive), Some(*needed));
                problem
            }
            Refusal::TooManySiblings { .. } => Problem::conflict("too-many-siblings", refusal.to_string()),
            Refusal::Fenced => Problem::conflict("op-id-fenced", refusal.to_string()),
            Refusal::OpIdReused => Problem::conflict("op-id-reused", refusal.to_string()),
            Refusal::Overloaded
            | Refusal::ShuttingDown
            | Refusal::ClockSkew { .. }
            | Refusal::ClockUnsure { .. }
            | Refusal::Behind { .. }
            | Refusal::NodeFenced(_)
            | Refusal::WrongEpoch { .. } => Problem::not_applied(refusal.to_string()),
        }
    }
}

impl From<KeyError> for Problem {
    fn from(error: KeyError) -> Problem {
        Problem::bad_request(error.to_string())
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, axum::Json(&*self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Basic realm=\"dogsled\""));
        }
        response
    }
}
