//! Requests that nobody sends by accident: each is a clear 4xx, and the server serves on.

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::support::Catalog;

// A request that panics a handler, or is held in memory whole, takes the catalog from everybody.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_requests_are_refused() {
    let catalog = Catalog::start().await;
    let token = catalog.token(&["admin:*"]).await;
    let token = Some(token.as_str());
    catalog.publish("ads.clicks", &[&[("", "f", 1)]]).await;
    let long = "n".repeat(10_000);
    let paths = [
        (format!("/api/v1/datasets/{long}.x"), 400),
        (format!("/api/v1/datasets/ads.clicks/versions/{long}"), 400),
        ("/api/v1/datasets/../../etc/passwd".to_owned(), 404),
        ("/api/v1/datasets/..%2F..%2Fetc".to_owned(), 400),
        ("/api/v1/datasets/%ff.%fe".to_owned(), 400),
        ("/api/v1/datasets/ads%00.clicks".to_owned(), 400),
        ("/api/v1/datasets/ads.clicks/versions/v0".to_owned(), 400),
        (
            "/api/v1/datasets/ads.clicks/versions/99999999999999999999".to_owned(),
            400,
        ),
        (
            "/api/v1/datasets/ads.clicks/versions/v18446744073709551615".to_owned(),
            404,
        ),
        ("/api/v1/datasets?limit=0".to_owned(), 400),
        ("/api/v1/datasets?limit=100000".to_owned(), 400),
        ("/api/v1/datasets?limit=-1".to_owned(), 400),
        ("/api/v1/datasets?limit=1&limit=2".to_owned(), 400),
        ("/api/v1/datasets?unknown=1".to_owned(), 400),
        ("/api/v1/datasets?after=..%2F..".to_owned(), 400),
        ("/api/v1/namespaces?after=..".to_owned(), 400),
        ("/api/v1/resolve".to_owned(), 400),
        ("/api/v1/resolve?selector=%ff".to_owned(), 400),
        (
            "/api/v1/datasets/ads.clicks/diff?from=v1&after=x".to_owned(),
            400,
        ),
        (
            "/api/v1/datasets/ads.clicks/versions/v1/directory?path=../x".to_owned(),
            400,
        ),
        ("/api/v1/events?after=x".to_owned(), 400),
        ("/api/v2/datasets".to_owned(), 404),
        ("/nothing".to_owned(), 404),
    ];
    for (path, status) in paths {
        let answer = catalog.ask("GET", &path, token, b"").await;
        assert_eq!(answer.status, status, "{path:.60}: {}", answer.body);
        answer.error();
        assert!(answer.body.len() < 1000, "an answer repeats the request");
    }
    assert_eq!(catalog.ask("GET", "/readyz", None, b"").await.status, 200);
}

// A body or a head without a limit is memory that anybody may take.
#[tokio::test(flavor = "multi_thread")]
async fn oversized_and_malformed_requests_are_refused() {
    let catalog = Catalog::start().await;
    let token = catalog.token(&["admin:*"]).await;
    let token = Some(token.as_str());
    let wrong = catalog
        .ask("PATCH", "/api/v1/datasets/ads.clicks", token, b"")
        .await;
    assert_eq!(
        (wrong.status, wrong.error()),
        (405, "method_not_allowed".into())
    );

    let huge = vec![b'x'; 2 << 20];
    let deep = [vec![b'['; 100_000], vec![b']'; 100_000]].concat();
    for (body, status) in [(huge, 413), (deep, 400), (vec![0xff; 10], 400)] {
        let answer = catalog
            .ask("PUT", "/api/v1/datasets/ads.x", token, &body)
            .await;
        assert_eq!(answer.status, status, "{}", answer.body);
        let answer = catalog.ask("POST", "/api/v1/tokens", token, &body).await;
        assert_eq!(answer.status, status, "{}", answer.body);
    }
    let head = format!(
        "GET /healthz HTTP/1.1\r\nHost: c\r\nX: {}\r\n\r\n",
        "x".repeat(64 << 10)
    );
    let answer = catalog.raw(head.as_bytes()).await;
    assert!((400..500).contains(&answer.status), "{answer:?}");
    assert_eq!(
        catalog.raw(b"\x16\x03\x01 not HTTP\r\n\r\n").await.status,
        400
    );
    assert_eq!(catalog.ask("GET", "/readyz", None, b"").await.status, 200);
}

// Slow clients that hold their connections must not keep others out.
#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_keep_nobody_out() {
    let catalog = Catalog::start().await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(catalog.address).await.unwrap();
        stream.write_all(b"GET /healthz HT").await.unwrap();
        idle.push(stream);
    }
    assert_eq!(catalog.ask("GET", "/healthz", None, b"").await.status, 200);
}
