//! Server side of the control socket: answers from the pieces of the [`Node`].

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use terrace_fuse::directory::{Level, RuleError};
use tokio::net::UnixStream;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

use super::jobs::{self, PIN_BATCH, Plan};
use super::proto::node_server::{Node as Service, NodeServer};
use super::proto::{
    EvictReply, EvictRequest, MaterializeRequest, MetricsReply, MetricsRequest, PinReply,
    PinRequest, PresenceReply, PresenceRequest, StatusReply, StatusRequest, Tier, TieringReport,
    TieringRequest, VolumeFlushProgress, VolumeFlushRequest, VolumeStatusReply,
    VolumeStatusRequest, WarmProgress, WarmRequest,
};
use super::{status, target, tiering, volumes};
use crate::metrics;
use crate::node::assembly::Node;
use crate::node::residency;

/// Progress messages on their way to a client.
const REPORTS: usize = 8;

/// Serves `listener` until `shutdown`. Peers that are neither root nor this user are refused.
///
/// Errors: the listener cannot be used by the runtime.
pub(crate) fn serve(
    node: Arc<Node>,
    listener: UnixListener,
    shutdown: CancellationToken,
) -> std::io::Result<JoinHandle<()>> {
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let me = nix::unistd::geteuid().as_raw();
    let peers = UnixListenerStream::new(listener).filter(move |peer| allowed(peer, me));
    Ok(tokio::spawn(async move {
        let served = tonic::transport::Server::builder()
            .add_service(NodeServer::new(Control { node }))
            .serve_with_incoming_shutdown(peers, shutdown.cancelled())
            .await;
        if let Err(error) = served {
            tracing::error!(%error, "control socket ended");
        }
    }))
}

fn allowed(peer: &std::io::Result<UnixStream>, me: u32) -> bool {
    let Ok(peer) = peer else { return true };
    match peer.peer_cred() {
        Ok(cred) if cred.uid() == 0 || cred.uid() == me => true,
        Ok(cred) => {
            tracing::warn!(uid = cred.uid(), "control socket: peer refused");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "control socket: peer unknown, refused");
            false
        }
    }
}

#[derive(Debug)]
struct Control {
    node: Arc<Node>,
}

#[tonic::async_trait]
impl Service for Control {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        Ok(Response::new(StatusReply {
            json: status::document(&self.node).to_string(),
        }))
    }

    async fn metrics(&self, _: Request<MetricsRequest>) -> Result<Response<MetricsReply>, Status> {
        Ok(Response::new(MetricsReply {
            text: metrics::render(&self.node),
        }))
    }

    type WarmStream = ReceiverStream<Result<WarmProgress, Status>>;

    async fn warm(
        &self,
        request: Request<WarmRequest>,
    ) -> Result<Response<Self::WarmStream>, Status> {
        let request = request.into_inner();
        let warm_only = request.tier() == Tier::Warm;
        let found = target::find(&self.node, request.target).await?;
        if warm_only && !found.has_warm {
            return Err(Status::failed_precondition(
                "this source has no warm tier; mount it with --warm DIR",
            ));
        }
        let plan = Plan {
            pin: request.pin,
            warm_only,
        };
        let (reports, stream) = mpsc::channel(REPORTS);
        let job = if request.wait {
            jobs::warm(Arc::clone(&self.node), found, plan, Some(reports))
        } else {
            let begun = WarmProgress {
                finished: true,
                ..WarmProgress::default()
            };
            reports.try_send(Ok(begun)).ok();
            jobs::warm(Arc::clone(&self.node), found, plan, None)
        };
        self.node.spawn(job);
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn evict(&self, request: Request<EvictRequest>) -> Result<Response<EvictReply>, Status> {
        let request = request.into_inner();
        let mut found = target::find(&self.node, request.target).await?;
        let hot = self.node.cache().hot().clone();
        let mut reply = EvictReply::default();
        while let Some(id) = found.objects.recv().await {
            let id = id.map_err(Status::failed_precondition)?;
            let digest = id.digest();
            if hot.peek(&digest).is_none() {
                continue;
            }
            if hot.is_pinned(&digest) {
                reply.kept_pinned += 1;
            } else if request.dry_run || hot.evict(&digest).map_err(internal)? {
                reply.files += 1;
                reply.bytes += id.size();
            } else {
                reply.kept_open += 1;
            }
        }
        Ok(Response::new(reply))
    }

    async fn pin(&self, request: Request<PinRequest>) -> Result<Response<PinReply>, Status> {
        let request = request.into_inner();
        let mut found = target::find(&self.node, request.target).await?;
        let hot = self.node.cache().hot().clone();
        let mut reply = PinReply::default();
        let mut batch = Vec::new();
        while let Some(id) = found.objects.recv().await {
            let id = id.map_err(Status::failed_precondition)?;
            let digest = id.digest();
            if hot.peek(&digest).is_none() {
                reply.missing += u64::from(request.pinned);
                continue;
            }
            reply.files += 1;
            reply.bytes += id.size();
            batch.push(digest);
            if batch.len() == PIN_BATCH {
                let pinned = hot.pin_all(std::mem::take(&mut batch), request.pinned);
                pinned.await.map_err(internal)?;
            }
        }
        let pinned = hot.pin_all(batch, request.pinned);
        pinned.await.map_err(internal)?;
        Ok(Response::new(reply))
    }

    type MaterializeStream = ReceiverStream<Result<WarmProgress, Status>>;

    async fn materialize(
        &self,
        request: Request<MaterializeRequest>,
    ) -> Result<Response<Self::MaterializeStream>, Status> {
        let request = request.into_inner();
        let (reports, stream) = mpsc::channel(REPORTS);
        crate::node::tree::start(&self.node, request, reports).await?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn volume_status(
        &self,
        request: Request<VolumeStatusRequest>,
    ) -> Result<Response<VolumeStatusReply>, Status> {
        let request = request.into_inner();
        let (volume, path) = volumes::find(&self.node, request.at)?;
        let asked = move || volumes::document(&volume, &path, request.acknowledge);
        let json = tokio::task::spawn_blocking(asked)
            .await
            .map_err(internal)??;
        Ok(Response::new(VolumeStatusReply { json }))
    }

    type VolumeFlushStream = ReceiverStream<Result<VolumeFlushProgress, Status>>;

    async fn volume_flush(
        &self,
        request: Request<VolumeFlushRequest>,
    ) -> Result<Response<Self::VolumeFlushStream>, Status> {
        let request = request.into_inner();
        let level = request.level.parse();
        let level =
            level.map_err(|error: RuleError| Status::invalid_argument(error.to_string()))?;
        let (volume, path) = volumes::find(&self.node, request.at)?;
        let (reports, stream) = mpsc::channel(REPORTS);
        if level == Level::Cold {
            let work = volumes::flush_to_cold(volume, path, request.owed, reports);
            self.node.spawn(work);
            return Ok(Response::new(ReceiverStream::new(stream)));
        }
        self.node.spawn(async move {
            let work = move || volumes::flush(&volume, &path, level, &reports);
            if let Err(error) = tokio::task::spawn_blocking(work).await {
                tracing::error!(%error, "a flush ended by itself");
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    type TieringStream = ReceiverStream<Result<TieringReport, Status>>;

    async fn tiering(
        &self,
        request: Request<TieringRequest>,
    ) -> Result<Response<Self::TieringStream>, Status> {
        let (reports, stream) = mpsc::channel(REPORTS);
        tiering::start(&self.node, request.into_inner(), reports)?;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn presence(
        &self,
        request: Request<PresenceRequest>,
    ) -> Result<Response<PresenceReply>, Status> {
        let mountpoint = request.into_inner().mountpoint;
        let node = Arc::clone(&self.node);
        let counted = tokio::task::spawn_blocking(move || residency::of_mount(&node, &mountpoint));
        let (files, present) = counted.await.map_err(internal)??;
        Ok(Response::new(PresenceReply {
            files,
            complete_files: present.complete_files,
            complete_bytes: present.complete_bytes,
        }))
    }
}

fn internal(error: impl std::fmt::Display) -> Status {
    Status::internal(error.to_string())
}
