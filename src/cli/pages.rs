//! The page of numbers of a process, beside what it serves.

use std::net::SocketAddr;

use anyhow::{Context, Result};
use terrace_csi::metrics::Page;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Serves a page at an address, if there is one, until `stop`, or until what is answered is dropped.
///
/// Errors: the address cannot be had.
pub(crate) async fn show(
    page: Page,
    address: Option<SocketAddr>,
    stop: &CancellationToken,
) -> Result<JoinSet<()>> {
    let mut task = JoinSet::new();
    let Some(address) = address else {
        return Ok(task);
    };
    let listener = TcpListener::bind(address).await;
    let listener =
        listener.with_context(|| format!("listen on {address}; try another --metrics"))?;
    let address = listener.local_addr().context("read the own address")?;
    tracing::info!(%address, "metrics are served");
    let stop = stop.clone();
    task.spawn(async move {
        if let Err(error) = page.serve(listener, stop).await {
            tracing::error!(%address, %error, "no metrics page any more");
        }
    });
    Ok(task)
}
