//! One leader among the replicas, by a Lease of `coordination.k8s.io`.
//!
//! ```text
//! no lease                       -> create it: the API server lets one of several win
//! ours                           -> renew: replace, with the version that was read as the condition
//! another's, seen unchanged for its whole duration -> take it, with the same condition
//! otherwise                      -> look again after a moment
//! ```
//!
//! Time is only ever this machine's own monotonic clock: a lease is over when *this* process has seen it
//! unchanged for so long, whatever its times say, so clocks need not agree. A leader that could not renew
//! for `renew_within` stops leading before anybody else may begin, because that is shorter than the
//! duration. A killed leader is followed after one duration; one that ends in order lets go.
//! Source: the fields of LeaseSpec.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::client::KubeClient;
use super::error::KubeError;
use super::resource::LEASES;
use crate::kube::clock;

/// Who may lead, and for how long at a time.
#[derive(Clone, Debug)]
pub struct LeaseSettings {
    /// Namespace of the lease.
    pub namespace: String,
    /// Its name: one for each group of replicas.
    pub name: String,
    /// This replica; no two have the same.
    pub identity: String,
    /// Others wait so long after the last sign of life.
    pub duration: Duration,
    /// Without a renewal for so long a leader stops; shorter than `duration`.
    pub renew_within: Duration,
    /// Time between two looks.
    pub every: Duration,
}

impl LeaseSettings {
    /// With the times that Kubernetes' own controllers use.
    pub fn new(namespace: &str, name: &str, identity: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            identity: identity.to_owned(),
            duration: Duration::from_secs(15),
            renew_within: Duration::from_secs(10),
            every: Duration::from_secs(2),
        }
    }
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Spec {
    holder_identity: Option<String>,
    lease_duration_seconds: Option<u64>,
    acquire_time: Option<String>,
    lease_transitions: Option<u64>,
}

/// A candidate.
#[derive(Debug)]
pub(crate) struct Election {
    client: KubeClient,
    settings: LeaseSettings,
    /// The lease of somebody else as it was last seen, and since when it is unchanged.
    other: Option<(String, Instant)>,
}

impl Election {
    pub(crate) fn new(client: KubeClient, settings: LeaseSettings) -> Self {
        Self {
            client,
            settings,
            other: None,
        }
    }

    /// Returns when this replica leads; false when `stop` came first.
    pub(crate) async fn win(&mut self, stop: &CancellationToken) -> bool {
        while !stop.is_cancelled() {
            match self.attempt().await {
                Ok(true) => return true,
                Ok(false) => {}
                Err(error) => tracing::warn!(%error, "the lease is not reached"),
            }
            tokio::select! {
                () = stop.cancelled() => return false,
                () = tokio::time::sleep(self.settings.every) => {}
            }
        }
        false
    }

    /// Renews until leadership is lost or `stop`; lets go in the second case.
    pub(crate) async fn lead(&mut self, stop: &CancellationToken) {
        let mut renewed = Instant::now();
        loop {
            tokio::select! {
                () = stop.cancelled() => break,
                () = tokio::time::sleep(self.settings.every) => {}
            }
            let end = renewed + self.settings.renew_within;
            let began = Instant::now();
            match tokio::time::timeout_at(end, self.attempt()).await {
                Ok(Ok(true)) => renewed = began,
                Ok(Ok(false)) => {
                    tracing::warn!("another replica leads now");
                    return;
                }
                Ok(Err(error)) => tracing::warn!(%error, "the lease is not renewed"),
                Err(_) => {}
            }
            if renewed.elapsed() >= self.settings.renew_within {
                tracing::warn!(
                    "the lease could not be renewed in time; this replica leads no more"
                );
                return;
            }
        }
        if let Err(error) = self.release().await {
            tracing::info!(%error, "the lease is not let go; another replica waits for its end");
        }
    }

    /// One look; whether this replica leads after it.
    async fn attempt(&mut self) -> Result<bool, KubeError> {
        let LeaseSettings {
            namespace, name, ..
        } = &self.settings;
        let Some(lease) = self.client.get(&LEASES, namespace, name).await? else {
            let made = self.object(&Spec::default(), None, Some(&self.settings.identity));
            let made = self.client.create(&LEASES, namespace, &made).await;
            return won(made);
        };
        let spec = spec(&lease);
        let holder = spec.holder_identity.as_deref().unwrap_or_default();
        if holder != self.settings.identity && !holder.is_empty() {
            let version = version(&lease);
            let duration = spec.lease_duration_seconds.map(Duration::from_secs);
            let duration = duration.unwrap_or(self.settings.duration);
            match &self.other {
                Some((seen, since)) if *seen == version => {
                    if since.elapsed() < duration {
                        return Ok(false);
                    }
                }
                _ => {
                    self.other = Some((version, Instant::now()));
                    return Ok(false);
                }
            }
        }
        let taken = self.object(&spec, Some(&lease), Some(&self.settings.identity));
        won(self.client.replace(&LEASES, namespace, name, &taken).await)
    }

    async fn release(&self) -> Result<(), KubeError> {
        let (namespace, name) = (&self.settings.namespace, &self.settings.name);
        let Some(lease) = self.client.get(&LEASES, namespace, name).await? else {
            return Ok(());
        };
        let spec = spec(&lease);
        if spec.holder_identity.as_deref() != Some(&self.settings.identity) {
            return Ok(());
        }
        let free = self.object(&spec, Some(&lease), None);
        won(self.client.replace(&LEASES, namespace, name, &free).await).map(|_| ())
    }

    /// The lease with `holder`, made from the one that was read.
    fn object(&self, old: &Spec, read: Option<&Value>, holder: Option<&str>) -> Value {
        let now = clock::micros(clock::now());
        let same = old.holder_identity.as_deref() == holder;
        let acquired = old.acquire_time.clone().filter(|_| same);
        let transitions = old.lease_transitions.unwrap_or(0) + u64::from(!same && read.is_some());
        let mut metadata = json!({
            "name": self.settings.name, "namespace": self.settings.namespace,
        });
        if let Some(version) = read.and_then(|lease| lease.pointer("/metadata/resourceVersion")) {
            metadata["resourceVersion"] = version.clone();
        }
        json!({
            "apiVersion": LEASES.api_version(), "kind": LEASES.kind, "metadata": metadata,
            "spec": {
                "holderIdentity": holder.unwrap_or_default(),
                "leaseDurationSeconds": self.settings.duration.as_secs().max(1),
                "acquireTime": acquired.unwrap_or_else(|| now.clone()),
                "renewTime": now,
                "leaseTransitions": transitions,
            },
        })
    }
}

fn spec(lease: &Value) -> Spec {
    let spec = lease.get("spec").cloned().unwrap_or_default();
    serde_json::from_value(spec).unwrap_or_default()
}

fn version(lease: &Value) -> String {
    let version = lease.pointer("/metadata/resourceVersion");
    version
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// Somebody else was quicker: no error.
fn won(outcome: Result<Value, KubeError>) -> Result<bool, KubeError> {
    match outcome {
        Ok(_) => Ok(true),
        Err(error) if error.is_conflict() || error.is_taken() || error.is_missing() => Ok(false),
        Err(error) => Err(error),
    }
}
