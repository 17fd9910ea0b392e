//! One socket with the services of a driver.
//!
//! ```text
//! /path/csi.sock              0600; appears under this name only when it listens
//! /path/.csi.sock.<pid>       while it is made
//! ```
//!
//! A socket that a dead driver left is replaced; one that answers, or anything that is no socket, is
//! not touched. The end is orderly: calls under way are answered, then the socket goes. Each call is
//! logged with its name, result and duration; of its contents the server knows nothing, and what a
//! service prints of a request shows no secret ([`crate::redact`]).

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Instant;

use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::Response;
use tokio::net::UnixListener;
use tokio_stream::wrappers::UnixListenerStream;
use tokio_util::sync::CancellationToken;
use tonic::Code;
use tonic::service::Routes;
use tonic::transport::Server;

use crate::metrics::CallNumbers;

/// Calls of one connection that are worked on at the same time; kubelet and each sidecar have one
/// connection, and more calls wait in it.
const CALLS_AT_ONCE: usize = 64;

/// Header of a refused call.
const STATUS: &str = "grpc-status";

/// Header with the text of a refusal, percent-encoded.
const MESSAGE: &str = "grpc-message";

/// Where a driver listens: `unix://` and an absolute path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint(PathBuf);

/// A text is not an endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an endpoint: write unix:// and an absolute path, such as unix:///csi/csi.sock")]
pub struct EndpointError;

/// Why a driver cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The path is taken by something that is no socket.
    #[error("listen on {}: there is something that is no socket; remove it first", .0.display())]
    Taken(PathBuf),
    /// Another driver answers.
    #[error("listen on {}: another driver answers there; stop it first", .0.display())]
    Answers(PathBuf),
    /// The socket cannot be made.
    #[error("listen on {}: {source}; check the directory and its permissions", path.display())]
    Listen {
        /// Of the socket.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The server ended by itself.
    #[error("serve the driver: {0}; see the log")]
    Serve(#[from] tonic::transport::Error),
}

impl Endpoint {
    /// The path of the socket.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl FromStr for Endpoint {
    type Err = EndpointError;

    fn from_str(text: &str) -> Result<Self, EndpointError> {
        let path = text.strip_prefix("unix://").ok_or(EndpointError)?;
        let good = path.starts_with('/') && !path.ends_with('/') && !path.contains('\0');
        good.then(|| Self(path.into())).ok_or(EndpointError)
    }
}

/// Serves until `shutdown`, then answers the calls under way and ends.
pub async fn serve(
    endpoint: &Endpoint,
    routes: Routes,
    calls: CallNumbers,
    shutdown: CancellationToken,
) -> Result<(), ServeError> {
    let (listener, socket) = bind(endpoint.path()).await?;
    let logged = routes
        .into_axum_router()
        .layer(middleware::from_fn_with_state(calls, log_call));
    tracing::info!(socket = %endpoint.path().display(), "the driver serves");
    let served = Server::builder()
        .concurrency_limit_per_connection(CALLS_AT_ONCE)
        .add_routes(Routes::from(logged))
        .serve_with_incoming_shutdown(
            UnixListenerStream::new(listener),
            shutdown.cancelled_owned(),
        )
        .await;
    drop(socket);
    Ok(served?)
}

/// A socket's name in its directory, removed at the end if it is still this one.
#[derive(Debug)]
struct Socket {
    path: PathBuf,
    inode: u64,
}

impl Drop for Socket {
    fn drop(&mut self) {
        let ours = std::fs::symlink_metadata(&self.path).map(|found| found.ino());
        if ours.is_ok_and(|inode| inode == self.inode) {
            std::fs::remove_file(&self.path).ok();
        }
    }
}

async fn bind(path: &Path) -> Result<(UnixListener, Socket), ServeError> {
    let failed = |source: io::Error| ServeError::Listen {
        path: path.to_owned(),
        source,
    };
    let directory = path.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(directory).map_err(failed)?;
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(failed(error)),
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ServeError::Taken(path.to_owned()));
        }
        Ok(_) => {
            if tokio::net::UnixStream::connect(path).await.is_ok() {
                return Err(ServeError::Answers(path.to_owned()));
            }
        }
    }
    // Under another name first: nobody can connect before the mode is set.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let making = directory.join(format!(".{name}.{}", std::process::id()));
    match std::fs::remove_file(&making) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
        _ => {}
    }
    let listener = UnixListener::bind(&making).map_err(failed)?;
    let made = std::fs::set_permissions(&making, Permissions::from_mode(0o600))
        .and_then(|()| std::fs::symlink_metadata(&making))
        .and_then(|metadata| std::fs::rename(&making, path).map(|()| metadata.ino()));
    match made {
        Ok(inode) => Ok((
            listener,
            Socket {
                path: path.to_owned(),
                inode,
            },
        )),
        Err(error) => {
            std::fs::remove_file(&making).ok();
            Err(failed(error))
        }
    }
}

/// One line and one count for each call. Refusals are for people; the rest is for those who look for something.
async fn log_call(State(calls): State<CallNumbers>, request: Request, next: Next) -> Response {
    let call = request
        .uri()
        .path()
        .trim_start_matches("/csi.v1.")
        .to_owned();
    let begun = Instant::now();
    let response = next.run(request).await;
    let took = begun.elapsed();
    let seconds = took.as_secs_f64();
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        Some(String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    let refused = header(STATUS).filter(|code| code != "0");
    let code = refused
        .as_ref()
        .map(|code| Code::from_bytes(code.as_bytes()));
    calls.count(&call, code.unwrap_or(Code::Ok), took);
    match refused {
        None => tracing::debug!(call, seconds, "csi call"),
        Some(code) => {
            let why = header(MESSAGE).unwrap_or_default().replace("%20", " ");
            tracing::warn!(call, seconds, code, why, "csi call refused");
        }
    }
    response
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::identity::{Identity, Plugin, Readiness};
    use crate::wire::identity_client::IdentityClient;
    use crate::wire::identity_server::IdentityServer;
    use crate::wire::{GetPluginInfoRequest, ProbeRequest};

    fn routes(ready: &Readiness) -> Routes {
        let plugin = Plugin {
            name: "test.terrace.io",
            version: "1".into(),
            topology: false,
            expansion: false,
        };
        Routes::new(IdentityServer::new(Identity::new(plugin, ready.clone())))
    }

    // A driver that listened on a file of somebody else's, or with open permissions, would give the
    // node away.
    #[tokio::test]
    async fn only_a_dead_socket_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("plugins/a/csi.sock");
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "a file").unwrap();
        assert!(matches!(bind(&path).await, Err(ServeError::Taken(_))));
        std::fs::remove_file(&path).unwrap();
        // A dead one: bound, and its listener gone.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        let (listener, socket) = bind(&path).await.unwrap();
        let metadata = std::fs::metadata(&path).unwrap();
        assert_eq!(metadata.mode() & 0o777, 0o600);
        assert!(matches!(bind(&path).await, Err(ServeError::Answers(_))));
        drop((listener, socket));
        assert!(!path.exists());
    }

    // Sidecars find a driver by these answers, and an end must not cut their calls off.
    #[tokio::test]
    async fn identity_is_served_until_shutdown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("csi.sock");
        let endpoint: Endpoint = format!("unix://{}", path.display()).parse().unwrap();
        let (ready, end) = (Readiness::default(), CancellationToken::new());
        let server = {
            let (routes, end) = (routes(&ready), end.clone());
            let endpoint = endpoint.clone();
            let calls = CallNumbers::new("test.terrace.io");
            tokio::spawn(async move { serve(&endpoint, routes, calls, end).await })
        };
        while !path.exists() {
            assert!(!server.is_finished());
            tokio::task::yield_now().await;
        }
        let uri = format!("unix:{}", path.display());
        let endpoint = tonic::transport::Endpoint::try_from(uri).unwrap();
        let mut client = IdentityClient::new(endpoint.connect().await.unwrap());
        let info = client.get_plugin_info(GetPluginInfoRequest {}).await;
        assert_eq!(info.unwrap().into_inner().name, "test.terrace.io");
        let mut probe = async || client.probe(ProbeRequest {}).await.unwrap().into_inner();
        assert_eq!(probe().await.ready, Some(false));
        ready.set(true);
        assert_eq!(probe().await.ready, Some(true));
        end.cancel();
        server.await.unwrap().unwrap();
        assert!(!path.exists());
    }

    // An endpoint is a path of the node: nothing but an absolute one is taken.
    #[test]
    fn endpoints_are_absolute_unix_paths() {
        let good: Endpoint = "unix:///csi/csi.sock".parse().unwrap();
        assert_eq!(good.path(), Path::new("/csi/csi.sock"));
        for bad in [
            "",
            "/csi.sock",
            "unix://csi.sock",
            "unix:///",
            "tcp://127.0.0.1:1",
        ] {
            assert_eq!(bad.parse::<Endpoint>(), Err(EndpointError), "{bad:?}");
        }
    }
}
