//! Client side of the control socket, with deadlines: a worker that is starting is waited for, one
//! that hangs is reported.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use terrace_fuse::keeper::RunDir;
use tonic::transport::{Channel, Endpoint};

use super::proto::node_client::NodeClient;

/// How long a command waits for the worker's socket; the keeper holds the listener, so a call made
/// while a worker starts is queued and not refused.
const CONNECT_DEADLINE: Duration = Duration::from_secs(10);

/// Connects to the worker of a node.
pub(crate) async fn connect(node: &RunDir) -> Result<NodeClient<Channel>> {
    let socket = node.node_socket();
    let channel = endpoint(&socket)?
        .connect()
        .await
        .map_err(|error| anyhow::anyhow!("{}", root_cause(&error)))
        .with_context(|| format!("reach the node at {}", socket.display()))
        .context("try terrace status, then the log beside the socket")?;
    Ok(NodeClient::new(channel))
}

fn endpoint(socket: &Path) -> Result<Endpoint> {
    let uri = format!("unix:{}", socket.display());
    Ok(Endpoint::try_from(uri)
        .with_context(|| format!("use the socket path {}", socket.display()))?
        .connect_timeout(CONNECT_DEADLINE))
}

/// The innermost error: what a user can act on.
pub(crate) fn root_cause(error: &dyn std::error::Error) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

/// Text of a refused call, without protocol words.
pub(crate) fn refused(status: &tonic::Status) -> anyhow::Error {
    anyhow::anyhow!("{}", status.message())
}

/// A runtime for one command.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start a runtime for the command")
}
