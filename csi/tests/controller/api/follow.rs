//! Watches: every event of a kind from a version on, as lines, with the faults that a test asks for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::body::{Body, Bytes};
use axum::response::{IntoResponse, Response};
use futures::stream;
use serde_json::json;
use tokio::sync::watch;

use super::{Shared, status};

/// Where a watch is.
struct Follow {
    shared: Arc<Shared>,
    changes: watch::Receiver<u64>,
    plural: String,
    version: u64,
    epoch: u64,
}

pub(super) fn follow(shared: Arc<Shared>, plural: String, version: String) -> Response {
    let version: u64 = version.parse().unwrap();
    let (floor, epoch) = {
        let world = shared.lock();
        (world.floor, world.epoch)
    };
    if version < floor {
        let seen = shared.faults.expired.fetch_add(1, Ordering::SeqCst);
        // Both forms are seen in the field.
        if seen.is_multiple_of(2) {
            return status(410, "Expired", "too old resource version");
        }
        let error = json!({"type": "ERROR", "object": {"kind": "Status", "code": 410}});
        return Body::from(format!("{error}\n")).into_response();
    }
    let follow = Follow {
        changes: shared.changes.subscribe(),
        shared,
        plural,
        version,
        epoch,
    };
    let events = stream::unfold(follow, |mut follow| async move {
        loop {
            follow.changes.mark_unchanged();
            let lines = follow.ready()?;
            if !lines.is_empty() {
                return Some((Ok::<_, std::io::Error>(Bytes::from(lines)), follow));
            }
            follow.changes.changed().await.ok()?;
        }
    });
    Body::from_stream(events).into_response()
}

impl Follow {
    /// The events that are ready, as lines; none: the watch ends.
    fn ready(&mut self) -> Option<String> {
        let faults = &self.shared.faults;
        let world = self.shared.lock();
        if world.epoch != self.epoch || self.version < world.floor {
            return None;
        }
        let new = world.events.iter().filter(|event| event.0 > self.version);
        let mut events: Vec<_> = new.filter(|event| event.1 == self.plural).collect();
        self.version = world.version;
        if faults.reorder.load(Ordering::SeqCst) && events.len() > 1 {
            events.swap(0, 1);
            faults.reordered.fetch_add(1, Ordering::SeqCst);
        }
        let mut lines = String::new();
        for (_, _, kind, object) in events {
            let line = format!("{}\n", json!({"type": kind, "object": object}));
            lines.push_str(&line);
            if faults.duplicate.load(Ordering::SeqCst) {
                lines.push_str(&line);
                faults.duplicated.fetch_add(1, Ordering::SeqCst);
            }
        }
        Some(lines)
    }
}
