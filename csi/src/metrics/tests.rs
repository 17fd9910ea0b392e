//! The page as Prometheus reads it.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use tonic::Code;

use super::*;

// A counter that is not on the page, or under another name, is an alert that never fires.
#[tokio::test]
async fn the_page_shows_what_was_counted_and_whether_calls_are_taken() {
    let ready = Readiness::default();
    let mut page = Page::new(ready.clone());
    let calls = CallNumbers::new("data.terrace.io");
    calls.show(&mut page);
    let controller = ControllerNumbers::default();
    controller.show(&mut page);
    calls.count("Node/NodeStageVolume", Code::Ok, Duration::from_millis(20));
    calls.count("Node/../../etc", Code::Unimplemented, Duration::ZERO);
    controller.passed("datasets", false);
    controller.reviewed("pods", true);
    controller.listed("nodes", true);
    let leading = controller.leads();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let stop = CancellationToken::new();
    let serving = tokio::spawn(page.serve(listener, stop.clone()));
    let http = reqwest::Client::builder().no_proxy().build().unwrap();
    let get = async |path: &str| {
        let answer = http
            .get(format!("http://{address}{path}"))
            .send()
            .await
            .unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    let (status, text) = get("/metrics").await;
    assert_eq!(status, 200);
    for line in [
        "terrace_csi_calls_total{driver=\"data.terrace.io\",call=\"Node/NodeStageVolume\",code=\"Ok\"} 1",
        "terrace_csi_calls_total{driver=\"data.terrace.io\",call=\"other\",code=\"Unimplemented\"} 1",
        "terrace_controller_passes_total{pass=\"datasets\",outcome=\"failed\"} 1",
        "terrace_controller_reviews_total{webhook=\"pods\",outcome=\"allowed\"} 1",
        "terrace_controller_lists_total{kind=\"nodes\",outcome=\"read\"} 1",
        "terrace_controller_leads 1",
    ] {
        assert!(text.contains(line), "{line} is not in {text}");
    }
    assert!(!text.contains("etc"), "{text}");
    assert_eq!(get("/readyz").await.0, 503);
    ready.set(true);
    assert_eq!(get("/readyz").await.0, 200);
    drop(leading);
    assert!(
        get("/metrics")
            .await
            .1
            .contains("terrace_controller_leads 0")
    );
    stop.cancel();
    serving.await.unwrap().unwrap();
}
