//! What an API server asks before it accepts an object: the two webhooks, over TLS.
//!
//! ```text
//! POST /mutate     pods with terrace.io/mount: volume, mounts and affinity are added   (mutate.rs)
//! POST /validate   Dataset resources: refused with the reason                          (validate.rs)
//! GET  /healthz    it lives       GET /readyz   it has seen the cluster
//! ```
//!
//! Both are asked with `failurePolicy: Ignore`: a controller that is away stops nobody's pods. While it is
//! there, a pod whose annotation cannot be understood or resolved is refused with one line, because a job
//! that starts without its data fails later and says less. Answers depend on the object and on what is
//! kept in the cluster alone, so any replica gives the same one, however often it is asked. Source:
//! `admission.k8s.io/v1`, JSON Patch (RFC 6902).

mod affinity;
mod mutate;
mod resolve;
mod review;
mod validate;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};

pub(crate) use affinity::Placement;
pub(crate) use mutate::Mutator;
pub(crate) use resolve::Resolver;
use review::{Answer, Review};
pub(crate) use validate::Validator;

use crate::metrics::ControllerNumbers;

/// Most bytes of a request: two objects of the size that etcd takes, and what is around them.
const BODY_MAX: usize = 8 << 20;

/// What the webhooks answer with.
#[derive(Debug)]
pub(crate) struct Admission {
    pub(crate) mutator: Mutator,
    pub(crate) validator: Validator,
    pub(crate) caches: super::api::CacheSet,
    pub(crate) numbers: ControllerNumbers,
}

/// The routes.
pub(crate) fn router(admission: Admission) -> Router {
    Router::new()
        .route("/mutate", post(mutate))
        .route("/validate", post(validate))
        .route("/healthz", get(async || "ok\n"))
        .route("/readyz", get(ready))
        .with_state(Arc::new(admission))
}

async fn mutate(State(admission): State<Arc<Admission>>, request: Request) -> Response {
    match review(request).await {
        Ok(review) => {
            let answer = admission.mutator.answer(&review).await;
            admission.numbers.reviewed("mutate", answer.is_allowed());
            respond(&review, answer)
        }
        Err(refused) => refused,
    }
}

async fn validate(State(admission): State<Arc<Admission>>, request: Request) -> Response {
    match review(request).await {
        Ok(review) => {
            let answer = admission.validator.answer(&review);
            admission.numbers.reviewed("validate", answer.is_allowed());
            respond(&review, answer)
        }
        Err(refused) => refused,
    }
}

async fn ready(State(admission): State<Arc<Admission>>) -> Response {
    match admission.caches.namespaces.all() {
        Some(_) => "ok\n".into_response(),
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the cluster was not listed yet\n",
        )
            .into_response(),
    }
}

async fn review(request: Request) -> Result<Review, Response> {
    let refused = |why: String| (StatusCode::BAD_REQUEST, format!("{why}\n")).into_response();
    let bytes = axum::body::to_bytes(request.into_body(), BODY_MAX).await;
    let bytes = bytes.map_err(|error| refused(format!("read the review: {error}")))?;
    Review::read(&bytes).map_err(refused)
}

fn respond(review: &Review, answer: Answer) -> Response {
    let kind = [(header::CONTENT_TYPE, "application/json")];
    (kind, review.answered(answer).to_string()).into_response()
}
