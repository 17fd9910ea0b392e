//! The token of a pod's service account, as a kubelet hands it over when a volume is published.
//!
//! ```text
//! csi.storage.k8s.io/serviceAccount.tokens = {"<audience>": {"token": "...", "expirationTimestamp": "..."}, ...}
//! ```
//!
//! A kubelet does so for the audiences of the CSIDriver's `tokenRequests`, in the context of
//! NodePublishVolume. Source: Kubernetes, "CSIDriver spec: token requests" (1.22 and newer). The value is a
//! secret, which [`crate::redact`] keeps out of every log.

use std::collections::HashMap;

use serde::Deserialize;
use tonic::Status;

/// Key of the context.
const TOKENS: &str = "csi.storage.k8s.io/serviceAccount.tokens";

#[derive(Deserialize)]
struct Token {
    token: String,
}

/// The token for an audience.
///
/// Errors: PERMISSION_DENIED when there is none, INVALID_ARGUMENT for a value that no kubelet writes.
pub(crate) fn of(context: &HashMap<String, String>, audience: &str) -> Result<String, Status> {
    let Some(text) = context.get(TOKENS) else {
        return Err(absent(audience));
    };
    // The parser's words could show a part of a token.
    let strange = |_| Status::invalid_argument(format!("{TOKENS} is no map of tokens"));
    let mut tokens: HashMap<String, Token> = serde_json::from_str(text).map_err(strange)?;
    let found = tokens.remove(audience).map(|found| found.token);
    found
        .filter(|token| !token.is_empty())
        .ok_or_else(|| absent(audience))
}

fn absent(audience: &str) -> Status {
    Status::permission_denied(format!(
        "the pod came without a token of its service account for {audience:?}; name the audience in the \
         tokenRequests of the CSIDriver"
    ))
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use tonic::Code;

    use super::*;

    // A token for another service, or a part of one in a message, is a key in the wrong hands.
    #[test]
    fn only_the_token_for_the_audience_is_taken() {
        let context = |text: &str| HashMap::from([(TOKENS.to_owned(), text.to_owned())]);
        let good = r#"{"":{"token":"api"},"terrace":{"token":"ours","expirationTimestamp":"2026-01-01T00:00:00Z"}}"#;
        assert_eq!(of(&context(good), "terrace").unwrap(), "ours");
        for (text, code) in [
            (r#"{"":{"token":"api"}}"#, Code::PermissionDenied),
            (r#"{"terrace":{"token":""}}"#, Code::PermissionDenied),
            (r#"{"terrace":"canary"}"#, Code::InvalidArgument),
            (r#"{"terrace":{"token":"canary""#, Code::InvalidArgument),
            ("canary", Code::InvalidArgument),
        ] {
            let refused = of(&context(text), "terrace").unwrap_err();
            assert_eq!(refused.code(), code, "{text}");
            assert!(!refused.message().contains("canary"), "{refused}");
        }
        let refused = of(&HashMap::new(), "terrace").unwrap_err();
        assert_eq!(refused.code(), Code::PermissionDenied);
    }
}
