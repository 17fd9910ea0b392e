//! No secret reaches the log. A program of its own: what is logged at all is decided once for a process,
//! and other tests log to nobody.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../rest/support.rs"]
#[expect(dead_code, reason = "the other program uses all of it")]
mod support;

use std::io::Write;
use std::sync::{Arc, Mutex};

use support::Catalog;
use tracing_subscriber::fmt::MakeWriter;

/// Collects what is logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Log {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        self.clone()
    }
}

// A secret in a log is a secret of everybody who reads logs. The canaries are sent in every place of a
// request where somebody may put a token, at the most talkative level there is.
#[test]
fn no_token_reaches_the_log() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    // One thread, so that every task logs to this subscriber and other tests to none.
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let secrets = tracing::subscriber::with_default(subscriber, || {
        runtime.block_on(async {
            let catalog = Catalog::start().await;
            let good = catalog.token(&["admin:*"]).await;
            let small = catalog.token(&["list:ads"]).await;
            let unknown = format!("trc_{}", "ab".repeat(32));
            let odd = "canary-that-is-no-token".to_owned();
            let new = br#"{"name":"x","grants":["read:ads"]}"#;
            let made = catalog
                .ask("POST", "/api/v1/tokens", Some(&good), new)
                .await;
            let fresh = made.json()["token"].as_str().unwrap().to_owned();
            for token in [&good, &small, &unknown, &odd, &fresh] {
                for path in ["/api/v1/datasets", "/api/v1/tokens", "/api/v1/nothing"] {
                    let with_query = format!("{path}?token={token}");
                    for path in [path, &with_query] {
                        let answer = catalog.ask("GET", path, Some(token), b"").await;
                        let hidden = path.contains('?') || !answer.body.contains(token.as_str());
                        assert!(hidden, "an answer repeats the token: {answer:?}");
                    }
                }
                catalog
                    .ask(
                        "DELETE",
                        &format!("/api/v1/tokens/{token}"),
                        Some(token),
                        b"",
                    )
                    .await;
                catalog
                    .ask(
                        "PUT",
                        "/api/v1/datasets/ads.x",
                        Some(token),
                        token.as_bytes(),
                    )
                    .await;
            }
            vec![good, small, unknown, odd, fresh]
        })
    });
    let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    assert!(
        text.contains("audit"),
        "nothing was audited, so nothing was tested:\n{text}"
    );
    assert!(
        text.contains("GET /api/v1/tokens") && text.contains("forbidden"),
        "{text}"
    );
    for secret in secrets {
        // Half of it is as bad.
        assert!(
            !text.contains(&secret[4..secret.len() / 2]),
            "a token is in the log"
        );
    }
}
