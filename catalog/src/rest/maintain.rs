//! Collecting garbage and scrubbing over HTTP: each as long as its request, told line by line.
//!
//! ```text
//! POST /api/v1/gc?dry_run=true    {"item":{..}} .. {"done":{..}}    or, as the last line, {"error":{..}}
//! POST /api/v1/scrub              {"finding":{..}} .. {"done":{..}}
//! ```
//!
//! The answer is one JSON object a line; `{"alive":true}` now and then means nothing else. A caller that goes away ends the run between two steps, which
//! harms nothing: the next one begins anew. An answer without `done` was cut.

use std::convert::Infallible;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderValue, header};
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt};
use serde::Serialize;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Api;
use super::error::ApiError;
use super::extract::Query;
use super::metrics::Totals;
use super::wire::{ErrorBody, GcQuery, ScrubQuery};
use crate::collect::{CollectError, Collection, LEAST_GRACE, USUAL_GRACE};
use crate::scrub::{ScrubError, ScrubRequest};

/// Lines that wait for a slow caller; then the run waits.
const WAITING: usize = 256;

/// Time between two signs of life.
const ALIVE: Duration = Duration::from_secs(15);

/// Bytes a second that a scrub reads when nobody says another pace: a tenth of a gigabit line.
const USUAL_PACE: u64 = 100 << 20;

/// Takes away what no version names and what is older than the grace period, or says what that would
/// be. Runs as long as the request, beside everything else.
#[utoipa::path(post, path = "/api/v1/gc", tag = "server", operation_id = "collect_garbage",
    params(GcQuery),
    responses((status = 200, content_type = "application/x-ndjson", body = String,
        description = "One JSON object a line: item, then done or error"),
        (status = "default", body = ErrorBody)))]
pub(super) async fn collect(
    State(api): State<Api>,
    Query(query): Query<GcQuery>,
) -> Result<Response, ApiError> {
    let absent = || ApiError::not_found("this catalog collects no garbage");
    let collector = api.parts.collector.clone().ok_or_else(absent)?;
    let grace = query.grace_seconds.map_or(USUAL_GRACE, Duration::from_secs);
    if grace < LEAST_GRACE {
        let least = LEAST_GRACE.as_secs();
        let text = format!("grace_seconds is at least {least}: commits under way need that long");
        return Err(ApiError::invalid(text));
    }
    let wanted = Collection {
        grace,
        dry_run: query.dry_run,
    };
    let (sender, items) = mpsc::channel(WAITING);
    let run = async move {
        let done = collector.run(wanted, &sender).await;
        match done {
            Ok(done) => json!({ "done": done }),
            Err(error) => failed(&error.to_string(), matches!(error, CollectError::Busy)),
        }
    };
    Ok(lines("item", items, run.boxed()))
}

/// Reads every saved version, and every manifest, back and compares digests; damaged versions are
/// marked. Runs as long as the request, at a bounded pace.
#[utoipa::path(post, path = "/api/v1/scrub", tag = "server", operation_id = "scrub",
    params(ScrubQuery),
    responses((status = 200, content_type = "application/x-ndjson", body = String,
        description = "One JSON object a line: finding, then done or error"),
        (status = "default", body = ErrorBody)))]
pub(super) async fn scrub(
    State(api): State<Api>,
    Query(query): Query<ScrubQuery>,
) -> Result<Response, ApiError> {
    let absent = || ApiError::not_found("this catalog scrubs nothing");
    let scrubber = api.parts.scrubber.clone().ok_or_else(absent)?;
    let dataset = query.dataset.as_deref().map(str::parse).transpose()?;
    let request = ScrubRequest {
        dataset,
        bytes_per_second: query.bytes_per_second.unwrap_or(USUAL_PACE),
    };
    let (sender, findings) = mpsc::channel(WAITING);
    let run = async move {
        match scrubber.run(&request, &sender).await {
            Ok(done) => json!({ "done": done }),
            Err(error) => failed(&error.to_string(), matches!(error, ScrubError::Busy)),
        }
    };
    Ok(lines("finding", findings, run.boxed()))
}

fn failed(message: &str, busy: bool) -> serde_json::Value {
    let (code, hint) = match busy {
        true => ("busy", "wait for the one under way"),
        false => ("failed", "look at the message; then run it again"),
    };
    json!({"error": {"code": code, "message": message, "hint": hint}})
}

type Ending = futures::future::BoxFuture<'static, serde_json::Value>;

/// What a run says and, as the last line, what came of it. The run goes on while lines are taken.
fn lines<T>(name: &'static str, items: mpsc::Receiver<T>, run: Ending) -> Response
where
    T: Serialize + Send + 'static,
{
    let said = crate::stream::received(items).map(move |item| Some(json!({ name: item })));
    let last = Arc::new(Mutex::new(None));
    let kept = Arc::clone(&last);
    let ended = CancellationToken::new();
    let end = ended.clone().drop_guard();
    let run = run.map(move |line| {
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(line);
        drop(end);
        None
    });
    // Marking takes minutes without a word; both sides see that the other one is there.
    let alive = stream::repeat_with(|| tokio::time::sleep(ALIVE))
        .then(|pause| pause.map(|()| Some(json!({"alive": true}))))
        .take_until(ended.cancelled_owned());
    // Both are polled: the run sends what the other one takes. Its own line comes behind all others.
    let all: BoxStream<'static, Option<serde_json::Value>> =
        stream::select_all([said.boxed(), stream::once(run).boxed(), alive.boxed()]).boxed();
    let last_line =
        stream::once(async move { last.lock().unwrap_or_else(PoisonError::into_inner).take() });
    let all = all.chain(last_line).filter_map(std::future::ready);
    let text = all.map(|line| Ok::<_, Infallible>(Bytes::from(format!("{line}\n"))));
    let mut response = Response::new(Body::from_stream(text));
    let kind = HeaderValue::from_static("application/x-ndjson");
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

/// What collecting and scrubbing have done, for the counters.
pub(super) fn totals(api: &Api) -> Totals {
    let mut totals = Totals::default();
    if let Some(collector) = &api.parts.collector {
        let stats = collector.stats();
        totals.gc_runs = stats.runs.load(Relaxed);
        totals.gc_taken = stats.taken.load(Relaxed);
        totals.gc_taken_bytes = stats.taken_bytes.load(Relaxed);
    }
    if let Some(scrubber) = &api.parts.scrubber {
        let stats = scrubber.stats();
        totals.scrubbed_bytes = stats.bytes.load(Relaxed);
        totals.scrub_damaged = stats.damaged.load(Relaxed);
    }
    totals
}
