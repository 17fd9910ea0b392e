//! The status of a `Dataset`, from what the catalog says.
//!
//! `lastTransitionTime` moves when the condition does, so a status that says the same is the same JSON and
//! is not written again.

use serde_json::{Value, json};

use crate::kube::api::{DATASETS, DatasetObject, Meta};
use crate::kube::catalog::{Heat, Listed, Resolved};
use crate::kube::clock;

/// Longest message.
const MESSAGE_MAX: usize = 1024;

/// What a resource comes to.
#[derive(Clone, Debug)]
pub(super) enum Found {
    /// The catalog has it.
    Known {
        listed: Listed,
        /// Its latest version; none before the first.
        latest: Option<Resolved>,
        heat: Vec<Heat>,
    },
    /// The catalog does not have it.
    Missing,
    /// The resource is not followed, and why.
    Refused(String),
}

impl Found {
    fn state(&self) -> (&'static str, String) {
        match self {
            Self::Refused(why) => ("Refused", why.clone()),
            Self::Missing => (
                "Missing",
                "the catalog has no such dataset; register it, or let discovery find it".to_owned(),
            ),
            Self::Known { listed, .. } if listed.is_removing => (
                "Removing",
                "it is marked for removal in the catalog".to_owned(),
            ),
            Self::Known { latest: None, .. } => (
                "Pending",
                "it has no version yet; terrace sync why says what it waits for".to_owned(),
            ),
            Self::Known {
                latest: Some(latest),
                ..
            } => match latest.state.as_str() {
                "committed" => ("Ready", String::new()),
                "removing" => ("Removing", "its latest version is being removed".to_owned()),
                _ => ("Degraded", latest.reason.clone().unwrap_or_default()),
            },
        }
    }

    /// The status as the API has it, without the times of conditions.
    fn fields(&self, meta: &Meta) -> (Value, bool) {
        let (state, message) = self.state();
        let message: String = message.chars().take(MESSAGE_MAX).collect();
        let mut status = json!({
            "observedGeneration": meta.generation, "state": state, "message": message,
        });
        let Self::Known {
            listed,
            latest: Some(latest),
            heat,
        } = self
        else {
            return (status, false);
        };
        status["version"] = json!(latest.version);
        status["selector"] = json!(format!("{}@v{}", listed.name, latest.version));
        status["bytes"] = json!(latest.bytes);
        status["files"] = json!(listed.files);
        if let Some(committed) = listed.committed_ms.and_then(clock::from_millis) {
            status["freshness"] = json!(committed);
        }
        let near = heat
            .iter()
            .filter(|heat| heat.is_fresh && heat.version == latest.version && heat.hot_bytes > 0);
        let complete = near
            .clone()
            .filter(|heat| heat.hot_bytes >= heat.total_bytes);
        status["heat"] = json!({"nodes": near.clone().count(), "complete": complete.count()});
        (status, matches!(state, "Ready" | "Degraded"))
    }

    /// The object to apply, unless the resource says all of it already.
    pub(super) fn change(&self, object: &DatasetObject) -> Option<Value> {
        let meta = &object.metadata;
        let (mut status, is_ready) = self.fields(meta);
        let ready = if is_ready { "True" } else { "False" };
        let old = object.status.pointer("/conditions/0");
        let text = |key: &str| old.and_then(|old| old.get(key)).and_then(Value::as_str);
        let same = text("status") == Some(ready);
        let since = text("lastTransitionTime")
            .filter(|_| same)
            .map(str::to_owned);
        status["conditions"] = json!([{
            "type": "Ready", "status": ready, "reason": status["state"], "message": status["message"],
            "observedGeneration": meta.generation,
            "lastTransitionTime": since.unwrap_or_else(|| clock::seconds(clock::now())),
        }]);
        (status != object.status).then(|| {
            json!({
                "apiVersion": DATASETS.api_version(), "kind": DATASETS.kind,
                "metadata": {"name": meta.name, "namespace": meta.namespace},
                "status": status,
            })
        })
    }
}
