//! What happened, as a stream of server-sent events that is resumed by sequence number.
//!
//! ```text
//! id: 6                    first, and without data: where the stream begins
//!
//! id: 7                    the sequence number: what `after` or Last-Event-ID takes
//! event: version           the kind
//! data: {...}              an `EventItem`
//! : alive                  a comment, so that both sides see a dead connection
//! ```
//!
//! The log of events is the truth and a wake-up is a hint: after every wake-up, and every [`LOOK`]
//! without one, the log is read behind the last event that was sent. A client that resumes behind the
//! last id it has seen misses none: the first one comes before any event, so that this holds also for a
//! client that was cut off before it saw one. Without data it is no event to those who read the format
//! (browsers keep the id and dispatch nothing). Events of namespaces that the caller may not list are
//! left out.

use std::convert::Infallible;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::extract::{FromRequestParts, State};
use axum::http::request::Parts;
use axum::response::sse::{Event as Message, KeepAlive, Sse};
use futures::stream::{self, Stream, StreamExt};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::error::ApiError;
use super::extract::Query;
use super::metrics::Counted;
use super::policy::Caller;
use super::wire::{ErrorBody, EventItem, EventMessage, EventQuery};
use super::{Api, extract, now_ms};
use crate::access::{Principal, Scope};
use crate::kv::Watch;
use crate::ledger::{Event, EventKind, Ledger, LedgerError};

/// Most streams at once.
const MAX_STREAMS: i64 = 512;

/// A stream ends after so long, and with it what a revoked token can see; clients resume.
const LIFE: Duration = Duration::from_secs(600);

/// Without a wake-up the log is read so often: a hint may get lost.
const LOOK: Duration = Duration::from_secs(5);

/// Time between two signs of life.
const ALIVE: Duration = Duration::from_secs(15);

/// Events that are read at a time.
const PAGE: usize = 256;

/// The number of the last event that a browser has seen.
#[derive(Debug)]
pub(super) struct LastEventId(Option<u64>);

impl<S: Send + Sync> FromRequestParts<S> for LastEventId {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let Some(value) = parts.headers.get("last-event-id") else {
            return Ok(Self(None));
        };
        let number = value.to_str().ok().and_then(|text| text.parse().ok());
        let refused = || ApiError::invalid("Last-Event-ID is not a sequence number");
        number.map(|number| Self(Some(number))).ok_or_else(refused)
    }
}

/// Follows what happens, from a sequence number or from now on. The first message has an id and no
/// data: the stream is of what happens behind it. The stream ends after some minutes: go on behind the
/// last id.
#[utoipa::path(get, path = "/api/v1/events", tag = "events", params(EventQuery),
    responses((status = 200, content_type = "text/event-stream", body = EventMessage,
        description = "Messages whose data is an EventItem each"),
        (status = "default", body = ErrorBody)))]
pub(super) async fn follow(
    State(api): State<Api>,
    caller: Caller,
    last: LastEventId,
    Query(query): Query<EventQuery>,
) -> Result<Sse<impl Stream<Item = Result<Message, Infallible>>>, ApiError> {
    if api.metrics.streams() >= MAX_STREAMS {
        return Err(ApiError::busy());
    }
    let ledger = api.ledger().clone();
    // Before the first look, so that nothing falls between the two.
    let watch = ledger.watch_events().await?;
    let after = match last.0.or(query.after) {
        Some(after) => after,
        None => api.newest_event().await?,
    };
    // Read before the answer begins: who asks for events that are gone is told so.
    let ready = ledger.events(after, PAGE).await?.into_iter();
    let follower = Follower {
        ledger,
        watch,
        after,
        follow: query.follow.unwrap_or(true),
        ready,
        ends: Instant::now() + life(&caller.0),
        caller: caller.0,
        shutdown: api.parts.shutdown.clone(),
        _counted: api.metrics.stream(),
    };
    let messages = stream::unfold(follower, |mut follower| async move {
        let event = follower.next().await?;
        Some((Ok(message(&event)), follower))
    });
    let begin = Message::default().id(after.to_string());
    let messages = stream::iter([Ok(begin)]).chain(messages);
    let alive = KeepAlive::new().interval(ALIVE).text("alive");
    Ok(Sse::new(messages).keep_alive(alive))
}

/// How long a stream may last: no longer than what its caller is believed by.
fn life(caller: &Principal) -> Duration {
    let left = caller
        .expires_ms()
        .map_or(i64::MAX, |end| end.saturating_sub(now_ms()));
    LIFE.min(Duration::from_millis(left.max(0).cast_unsigned()))
}

/// One client's place in the log.
struct Follower {
    ledger: Ledger,
    watch: Watch,
    after: u64,
    /// Waits for more behind the last event.
    follow: bool,
    ready: std::vec::IntoIter<Event>,
    caller: Principal,
    ends: Instant,
    shutdown: CancellationToken,
    _counted: Counted,
}

impl Follower {
    /// The next event the caller may see; none when the stream is over.
    async fn next(&mut self) -> Option<Event> {
        loop {
            for event in self.ready.by_ref() {
                self.after = event.sequence;
                if self.caller.may(Scope::List, event.dataset.namespace()) {
                    return Some(event);
                }
            }
            match self.ledger.events(self.after, PAGE).await {
                Ok(found) if found.is_empty() && !self.follow => return None,
                Ok(found) if found.is_empty() => {}
                Ok(found) => {
                    self.ready = found.into_iter();
                    continue;
                }
                Err(error) => {
                    // The client resumes where it was, and is told what is wrong then.
                    tracing::warn!(%error, "a stream of events ends");
                    return None;
                }
            }
            tokio::select! {
                changed = self.watch.changed() => changed.ok()?,
                () = tokio::time::sleep(LOOK) => {}
                () = tokio::time::sleep_until(self.ends) => return None,
                () = self.shutdown.cancelled() => return None,
            }
        }
    }
}

impl Api {
    /// The sequence of the newest event. The log has no end to jump to, so it is read from where the
    /// last reader got to.
    async fn newest_event(&self) -> Result<u64, LedgerError> {
        loop {
            let seen = self.newest_event.load(Ordering::Relaxed);
            let found = match self.ledger().events(seen, PAGE).await {
                Err(LedgerError::Trimmed(first)) => {
                    self.newest_event.fetch_max(first, Ordering::Relaxed);
                    continue;
                }
                found => found?,
            };
            let Some(last) = found.last() else {
                return Ok(seen);
            };
            self.newest_event
                .fetch_max(last.sequence, Ordering::Relaxed);
        }
    }
}

fn item(event: &Event) -> EventItem {
    let (kind, version, tag) = match &event.what {
        EventKind::DatasetCreated { .. } => ("dataset_created", None, None),
        EventKind::DatasetUpdated { .. } => ("dataset_updated", None, None),
        EventKind::DatasetRemoving { .. } => ("dataset_removing", None, None),
        EventKind::DatasetKept => ("dataset_kept", None, None),
        EventKind::DatasetRemoved => ("dataset_removed", None, None),
        EventKind::VersionCommitted { version, .. } => ("version_committed", Some(*version), None),
        EventKind::VersionDegraded { version, .. } => ("version_degraded", Some(*version), None),
        EventKind::VersionRemoving { version, .. } => ("version_removing", Some(*version), None),
        EventKind::VersionKept { version } => ("version_kept", Some(*version), None),
        EventKind::VersionRemoved { version } => ("version_removed", Some(*version), None),
        EventKind::Tagged { tag, version } => ("tagged", Some(*version), Some(tag)),
        EventKind::Untagged { tag } => ("untagged", None, Some(tag)),
    };
    EventItem {
        seq: event.sequence,
        at_ms: event.at_ms,
        kind: kind.to_owned(),
        dataset: event.dataset.to_string(),
        version,
        tag: tag.map(ToString::to_string),
    }
}

fn message(event: &Event) -> Message {
    let item = item(event);
    let data = String::from_utf8(extract::encode(&item)).unwrap_or_default();
    Message::default()
        .id(item.seq.to_string())
        .event(&item.kind)
        .data(data)
}
