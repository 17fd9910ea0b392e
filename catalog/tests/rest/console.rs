//! The console's files, and the preview of rows, over HTTP.

use crate::support::{Answer, Catalog};

fn header<'a>(answer: &'a Answer, name: &str) -> &'a str {
    let mut lines = answer.head.lines().filter_map(|line| line.split_once(": "));
    let found = lines.find(|(own, _)| own.eq_ignore_ascii_case(name));
    found.map_or("", |(_, value)| value)
}

// A browser that runs half of an old page with half of a new one shows nonsense; one without the policy
// runs whatever a dataset's description says.
#[tokio::test(flavor = "multi_thread")]
async fn files_are_served_with_their_tag_and_policy() {
    let catalog = Catalog::start().await;
    let root = catalog.ask("GET", "/", None, b"").await;
    assert_eq!((root.status, header(&root, "location")), (303, "/console/"));
    let page = catalog.ask("GET", "/console/", None, b"").await;
    assert_eq!(page.status, 200);
    let mut linked = vec!["/console/".to_owned()];
    for part in page
        .body
        .split('"')
        .filter(|part| part.ends_with(".js") || part.ends_with(".css"))
    {
        linked.push(format!("/console/{part}"));
    }
    assert!(linked.len() > 3, "{linked:?}");
    for path in linked {
        let file = catalog.ask("GET", &path, None, b"").await;
        assert_eq!(file.status, 200, "{path}");
        assert!(header(&file, "content-security-policy").contains("script-src 'self'; "));
        assert_eq!(header(&file, "x-content-type-options"), "nosniff");
        let tag = header(&file, "etag");
        assert_eq!(tag.len(), 66, "{path}: {tag}");
        let known = format!(
            "GET {path} HTTP/1.1\r\nHost: c\r\nIf-None-Match: \"x\", {tag}\r\nConnection: close\r\n\r\n"
        );
        let known = catalog.raw(known.as_bytes()).await;
        assert_eq!((known.status, known.body.as_str()), (304, ""), "{path}");
    }
    let absent = catalog
        .ask("GET", "/console/../../etc/passwd", None, b"")
        .await;
    assert_eq!((absent.status, absent.error()), (404, "not_found".into()));
    let written = catalog.ask("POST", "/console/", None, b"").await;
    assert_eq!(written.status, 405);
}

// A preview reads for its caller with the catalog's own credentials: only where a root is.
#[tokio::test(flavor = "multi_thread")]
async fn nothing_outside_of_a_root_is_read() {
    let catalog = Catalog::start().await;
    catalog
        .publish("ads.clicks", &[&[("dt=1", "f.parquet", 10)]])
        .await;
    let token = catalog.token(&["read:ads"]).await;
    let path = "/api/v1/datasets/ads.clicks/versions/latest/sample";
    let sample = catalog.ask("GET", path, Some(&token), b"").await;
    assert_eq!(sample.status, 200, "{}", sample.body);
    let sample = sample.json();
    assert_eq!(sample["file"], "dt=1/f.parquet");
    assert!(
        sample["note"]
            .as_str()
            .unwrap()
            .contains("no root of this catalog holds")
    );
    assert_eq!(sample["rows"].as_array().unwrap().len(), 0);
    for (query, status) in [("?limit=100", 200), ("?limit=101", 400), ("?limit=0", 400)] {
        let answer = catalog
            .ask("GET", &format!("{path}{query}"), Some(&token), b"")
            .await;
        assert_eq!(answer.status, status, "{query}");
    }
}
