//! Numbers of the drivers and of the controller for Prometheus, and the page that shows them.
//!
//! ```text
//! GET /metrics   every number            GET /readyz   200 when calls are taken, else 503
//! ```
//!
//! Labels are bounded: calls of the interface, codes, passes, webhooks and kinds, all of them fixed lists, and
//! tenants, whose names are the administrator's. No volume, dataset or pod is ever a label. Every name is listed in docs/OPERATIONS.md; the tidy test compares
//! both. What has to be looked up (free space, records) is looked up when the page is asked for, on a thread
//! of its own.

mod calls;
mod controller;
mod scratch;
mod volumes;

use std::fmt;
use std::io;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use terrace_catalog::rest;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use calls::CallNumbers;
pub use controller::ControllerNumbers;
pub use scratch::ScratchNumbers;
pub use volumes::VolumeNumbers;

use crate::identity::Readiness;

/// What every name begins with.
const PREFIX: &str = "terrace";

/// The content type that scrapers expect.
const KIND: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Looks something up before the page is made.
type Refresh = Box<dyn Fn() + Send + Sync>;

/// The page of one process.
pub struct Page {
    registry: Registry,
    refreshes: Vec<Refresh>,
    ready: Readiness,
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").finish_non_exhaustive()
    }
}

impl Page {
    /// A page without numbers, of a process that is ready when `ready` says so.
    pub fn new(ready: Readiness) -> Self {
        Self {
            registry: Registry::with_prefix(PREFIX),
            refreshes: Vec::new(),
            ready,
        }
    }

    /// Where numbers are added.
    pub(crate) fn registry(&mut self) -> &mut Registry {
        &mut self.registry
    }

    /// Calls `refresh` each time before the page is made. It may block.
    pub(crate) fn before(&mut self, refresh: impl Fn() + Send + Sync + 'static) {
        self.refreshes.push(Box::new(refresh));
    }

    /// Serves the page until `stop`.
    pub async fn serve(self, listener: TcpListener, stop: CancellationToken) -> io::Result<()> {
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/readyz", get(ready))
            .with_state(Arc::new(self));
        rest::serve(listener, router, stop).await
    }

    fn text(&self) -> Result<String, fmt::Error> {
        self.refreshes.iter().for_each(|refresh| refresh());
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

async fn metrics(State(page): State<Arc<Page>>) -> Response {
    let made = tokio::task::spawn_blocking(move || page.text()).await;
    match made {
        Ok(Ok(text)) => ([(header::CONTENT_TYPE, KIND)], text).into_response(),
        Ok(Err(_)) | Err(_) => {
            tracing::error!("metrics cannot be encoded");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn ready(State(page): State<Arc<Page>>) -> Response {
    match page.ready.get() {
        true => "ok\n".into_response(),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready yet\n").into_response(),
    }
}

#[cfg(test)]
mod tests;
