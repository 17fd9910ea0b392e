//! A review of `admission.k8s.io/v1`: the question, and the answer in its form.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};

/// Longest message of an answer: it ends in events and on terminals.
const MESSAGE_MAX: usize = 1000;

/// Most warnings of an answer, as the API server keeps them.
const WARNINGS_MAX: usize = 8;

/// What is asked.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(super) struct Review {
    pub(super) uid: String,
    pub(super) kind: Kind,
    pub(super) namespace: String,
    pub(super) operation: String,
    pub(super) dry_run: Option<bool>,
    pub(super) object: Value,
}

/// Which kind of object it is about.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Kind {
    pub(super) group: String,
    pub(super) kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    api_version: String,
    request: Review,
}

/// What is answered.
#[derive(Debug, PartialEq)]
pub(super) enum Answer {
    /// Yes, with changes, and what the user is told.
    Allowed {
        /// A JSON Patch; empty for none.
        patch: Vec<Value>,
        warnings: Vec<String>,
    },
    /// No, and why, on one line.
    Refused(String),
}

impl Answer {
    /// Yes, as it is.
    pub(super) fn as_it_is() -> Self {
        Self::Allowed {
            patch: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Whether it is a yes.
    pub(super) fn is_allowed(&self) -> bool {
        matches!(self, Self::Allowed { .. })
    }
}

impl Review {
    /// Reads a question. An error is one line.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, String> {
        let envelope: Envelope = serde_json::from_slice(bytes)
            .map_err(|error| format!("no AdmissionReview: {error}"))?;
        if envelope.api_version != "admission.k8s.io/v1" {
            return Err("only admission.k8s.io/v1 is spoken".to_owned());
        }
        Ok(envelope.request)
    }

    /// The answer as it is sent.
    pub(super) fn answered(&self, answer: Answer) -> Value {
        let response = match answer {
            Answer::Allowed { patch, warnings } => {
                let mut response = json!({"uid": self.uid, "allowed": true});
                if !patch.is_empty() {
                    response["patchType"] = json!("JSONPatch");
                    response["patch"] = json!(STANDARD.encode(Value::Array(patch).to_string()));
                }
                if !warnings.is_empty() {
                    let said = warnings.iter().take(WARNINGS_MAX).map(|text| line(text));
                    response["warnings"] = said.collect();
                }
                response
            }
            Answer::Refused(why) => json!({
                "uid": self.uid, "allowed": false,
                "status": {"code": 422, "reason": "Invalid", "message": line(&why)},
            }),
        };
        json!({
            "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response,
        })
    }
}

fn line(text: &str) -> String {
    let plain = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    plain.take(MESSAGE_MAX).collect()
}
