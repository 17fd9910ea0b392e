//! The HTTP/1.1 server, plain or over TLS: limits of connections, heads and idle time, and an orderly
//! end.
//!
//! `axum::serve` has no limit of connections and waits for ever for a head; this loop has both, and
//! owns every connection's task.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use crate::tls::ServerTls;

/// Most connections at once; more wait in the kernel's queue.
const MAX_CONNECTIONS: usize = 1024;

/// A head that takes longer to arrive, and a connection idle for longer, is closed.
const HEAD_DEADLINE: Duration = Duration::from_secs(30);

/// Most bytes of a request's head: room for a selector and a token many times over.
const MAX_HEAD: usize = 32 << 10;

/// Requests under way get this long when the server ends.
const GRACE: Duration = Duration::from_secs(5);

/// After a failed accept (no descriptors left) the next is tried after so long.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A handshake of TLS that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves until `shutdown`, then lets requests under way end. Returns when every connection is closed.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    accept(listener, None, router, shutdown).await
}

/// The same over TLS. A certificate that is renewed counts from the next connection on.
pub async fn serve_tls(
    listener: TcpListener,
    tls: ServerTls,
    router: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    // Answers that point back here say how they were reached; no proxy ends TLS before this server.
    let router = router.layer(middleware::map_request(async |mut request: Request| {
        let https = HeaderValue::from_static("https");
        request.headers_mut().insert("x-forwarded-proto", https);
        request
    }));
    let ended = accept(listener, Some(tls.acceptor()), router, shutdown);
    tokio::select! {
        ended = ended => ended,
        () = tls.follow() => Ok(()),
    }
}

async fn accept(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    shutdown: CancellationToken,
) -> io::Result<()> {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let slot = tokio::select! {
            () = shutdown.cancelled() => break,
            Ok(slot) = Arc::clone(&slots).acquire_owned() => slot,
        };
        let accepted = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let one = connection(stream, tls.clone(), router.clone(), shutdown.clone());
                connections.spawn(async move {
                    one.await;
                    drop(slot);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    let ended = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, ended).await.is_err() {
        tracing::info!("requests that were still under way are dropped");
    }
    connections.shutdown().await;
    Ok(())
}

async fn connection(
    stream: TcpStream,
    tls: Option<TlsAcceptor>,
    router: Router,
    shutdown: CancellationToken,
) {
    // Answers are written whole: waiting to fill a packet only delays them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "nodelay");
    }
    let Some(tls) = tls else {
        return talk(stream, router, shutdown).await;
    };
    match tokio::time::timeout(HANDSHAKE, tls.accept(stream)).await {
        Ok(Ok(stream)) => talk(stream, router, shutdown).await,
        Ok(Err(error)) => tracing::debug!(%error, "a handshake failed"),
        Err(_) => tracing::debug!("a handshake took too long"),
    }
}

/// Requests and answers, until one side ends it.
async fn talk<S>(stream: S, router: Router, shutdown: CancellationToken)
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let service = TowerToHyperService::new(router);
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_DEADLINE)
        .max_buf_size(MAX_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    let mut serving = std::pin::pin!(serving);
    let outcome = tokio::select! {
        outcome = serving.as_mut() => outcome,
        () = shutdown.cancelled() => {
            serving.as_mut().graceful_shutdown();
            serving.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection ended early");
    }
}
