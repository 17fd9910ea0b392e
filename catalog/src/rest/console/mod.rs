//! The web console: files that are compiled into the program, served as they are.
//!
//! ```text
//! /                        to /console/
//! /console/                index.html
//! /console/NAME            one of ASSETS, each with a strong ETag (SHA-256 of its bytes)
//! ```
//!
//! The files are open to everybody: they hold no data. A browser that has them asks the routes under
//! `/api/v1` with the token that a person enters, so every policy is kept there and none here.
//!
//! Invariant: the page runs nothing but its own files and shows texts of datasets as texts. [`POLICY`]
//! makes a browser enforce both: no inline script, no foreign origin, no markup made from text.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use sha2::{Digest, Sha256};

use super::Api;
use super::error::ApiError;

/// Where the console is.
const HOME: &str = "/console/";

/// What a browser may do for the page. `require-trusted-types-for` refuses every assignment that would
/// parse a text as markup, wherever in the page it is made.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; \
     connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
     require-trusted-types-for 'script'; trusted-types 'none'";

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! assets {
    ($($name:literal $kind:ident),* $(,)?) => {
        [$(($name, $kind, include_bytes!(concat!("assets/", $name)).as_slice())),*]
    };
}

/// Name, type and bytes of every file.
const ASSETS: [(&str, &str, &[u8]); 23] = assets![
    "api.js" SCRIPT,
    "app.js" SCRIPT,
    "base.css" STYLE,
    "chart.js" SCRIPT,
    "dom.js" SCRIPT,
    "format.js" SCRIPT,
    "howto.js" SCRIPT,
    "icon.svg" IMAGE,
    "index.html" HTML,
    "keys.js" SCRIPT,
    "meter.js" SCRIPT,
    "page_datasets.js" SCRIPT,
    "page_nodes.js" SCRIPT,
    "page_roots.js" SCRIPT,
    "page_signin.js" SCRIPT,
    "page_table.js" SCRIPT,
    "parts.css" STYLE,
    "table_data.js" SCRIPT,
    "table_heat.js" SCRIPT,
    "table_overview.js" SCRIPT,
    "table_partitions.js" SCRIPT,
    "table_versions.js" SCRIPT,
    "warm.js" SCRIPT,
];

/// One file, ready to be sent.
#[derive(Clone, Debug)]
struct Asset {
    kind: HeaderValue,
    tag: HeaderValue,
    body: Bytes,
}

/// The console's routes. They are not in the OpenAPI document, because they are pages and no interface.
pub(super) fn routes() -> Router<Api> {
    let home = || async { (StatusCode::SEE_OTHER, [(header::LOCATION, HOME)]) };
    let mut router = Router::new()
        .route("/", get(home))
        .route("/console", get(home));
    for (name, kind, body) in ASSETS {
        let path = match name {
            "index.html" => HOME.to_owned(),
            name => format!("{HOME}{name}"),
        };
        let asset = Arc::new(Asset::new(kind, body));
        router = router.route(&path, get(send).with_state(asset));
    }
    router.route("/console/{*path}", get(absent))
}

async fn absent() -> ApiError {
    ApiError::not_found("the console has no such file")
}

impl Asset {
    fn new(kind: &'static str, body: &'static [u8]) -> Self {
        let digest = Sha256::digest(body);
        let digest: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        // A digest and two quotes are always a header's value.
        let tag = HeaderValue::try_from(format!("\"{digest}\""));
        Self {
            kind: HeaderValue::from_static(kind),
            tag: tag.unwrap_or_else(|_| HeaderValue::from_static("\"\"")),
            body: Bytes::from_static(body),
        }
    }
}

/// Answers with the file, or says that the browser has it already.
async fn send(State(asset): State<Arc<Asset>>, asked: HeaderMap) -> Response {
    let is_known = asked
        .get_all(header::IF_NONE_MATCH)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|tag| tag.trim().trim_start_matches("W/").as_bytes() == asset.tag.as_bytes());
    let mut response = match is_known {
        true => StatusCode::NOT_MODIFIED.into_response(),
        false => Response::new(Body::from(asset.body.clone())),
    };
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, asset.kind.clone());
    headers.insert(header::ETAG, asset.tag.clone());
    for (name, value) in FIXED {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Headers of every file. `no-cache`: kept, but asked for again each time, so that a catalog that was
/// replaced never runs with half of the old page.
const FIXED: [(HeaderName, &str); 6] = [
    (header::CACHE_CONTROL, "no-cache"),
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (
        HeaderName::from_static("cross-origin-opener-policy"),
        "same-origin",
    ),
    (
        HeaderName::from_static("cross-origin-resource-policy"),
        "same-origin",
    ),
];

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    // A file that is not in the list is missing only in the shipped program, on somebody else's screen.
    #[test]
    fn every_file_is_served() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/src/rest/console/assets");
        let mut there: Vec<String> = std::fs::read_dir(directory)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        there.sort();
        assert_eq!(there, ASSETS.map(|(name, ..)| name.to_owned()));
    }

    // One such call turns a dataset's description into a script of whoever wrote it.
    #[test]
    fn no_text_is_read_as_markup() {
        let refused = [
            "innerHTML",
            "outerHTML",
            "insertAdjacentHTML",
            "document.write",
            "DOMParser",
            "eval(",
            "createContextualFragment",
            "srcdoc",
            "setAttribute(\"style\"",
            "javascript:",
        ];
        for (name, _, body) in ASSETS {
            let text = std::str::from_utf8(body).unwrap();
            for word in refused {
                assert!(!text.contains(word), "{name} has {word}");
            }
        }
        let index = ASSETS.iter().find(|(name, ..)| *name == "index.html");
        let index = std::str::from_utf8(index.unwrap().2).unwrap();
        assert!(!index.contains("style=") && !index.contains("<script>"));
    }

    // Files grow one line at a time until nobody reads them.
    #[test]
    fn files_stay_small() {
        for (name, _, body) in ASSETS {
            let lines = body.split(|byte| *byte == b'\n').count();
            assert!(lines <= 300, "{name} has {lines} lines");
        }
    }
}
