//! The stream of events.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::Catalog;

/// An open stream.
struct Stream {
    socket: TcpStream,
    text: String,
}

impl Stream {
    async fn open(catalog: &Catalog, token: &str, query: &str, header: &str) -> Self {
        let mut socket = TcpStream::connect(catalog.address).await.unwrap();
        let head = format!(
            "GET /api/v1/events{query} HTTP/1.1\r\nHost: c\r\n{header}Authorization: Bearer {token}\r\n\r\n"
        );
        socket.write_all(head.as_bytes()).await.unwrap();
        let text = String::new();
        Self { socket, text }
    }

    /// Reads until the text has this many messages; the messages' data.
    async fn messages(&mut self, count: usize) -> Vec<serde_json::Value> {
        let read = async {
            loop {
                let data: Vec<_> = self
                    .text
                    .lines()
                    .filter_map(|line| line.strip_prefix("data: "))
                    .filter_map(|line| serde_json::from_str(line).ok())
                    .collect();
                if data.len() >= count {
                    return data;
                }
                let mut bytes = [0; 4096];
                let length = self.socket.read(&mut bytes).await.unwrap();
                assert!(length > 0, "the stream ended: {}", self.text);
                self.text
                    .push_str(std::str::from_utf8(&bytes[..length]).unwrap());
            }
        };
        tokio::time::timeout(Duration::from_secs(60), read)
            .await
            .unwrap()
    }
}

// A follower that misses an event shows an old version for ever; one that sees another namespace's
// events learns what it must not.
#[tokio::test(flavor = "multi_thread")]
async fn events_are_resumed_and_filtered() {
    let catalog = Catalog::start().await;
    let token = catalog.token(&["list:ads"]).await;
    catalog.publish("ads.old", &[&[("", "f", 1)]]).await;
    let mut all = Stream::open(&catalog, &token, "?after=0", "").await;
    let seen = all.messages(2).await;
    assert_eq!(seen[0]["kind"], "dataset_created");
    assert_eq!(
        (&seen[1]["kind"], &seen[1]["version"]),
        (&"version_committed".into(), &1.into())
    );

    let mut new = Stream::open(&catalog, &token, "", "").await;
    // The head of the answer comes when the stream's place in the log is known.
    let mut head = [0; 12];
    new.socket.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 200");
    catalog.publish("hr.pay", &[&[("", "f", 1)]]).await;
    catalog.publish("ads.new", &[&[("", "f", 1)]]).await;
    let fresh = new.messages(2).await;
    assert!(
        fresh.iter().all(|event| event["dataset"] == "ads.new"),
        "{fresh:?}"
    );
    let all = all.messages(4).await;
    assert_eq!(all[2..], fresh[..]);
    assert!(
        all.windows(2)
            .all(|pair| pair[0]["seq"].as_u64() < pair[1]["seq"].as_u64())
    );

    let last = format!("Last-Event-ID: {}\r\n", all[2]["seq"]);
    let mut again = Stream::open(&catalog, &token, "?after=0", &last).await;
    assert_eq!(again.messages(1).await[0], all[3]);
}

// A server that waits for its followers before it ends never ends.
#[tokio::test(flavor = "multi_thread")]
async fn streams_end_with_the_server() {
    let catalog = Catalog::start().await;
    let token = catalog.token(&["list:*"]).await;
    catalog.publish("ads.x", &[&[("", "f", 1)]]).await;
    let mut stream = Stream::open(&catalog, &token, "?after=0", "").await;
    stream.messages(2).await;
    catalog.shutdown.cancel();
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(
        Duration::from_secs(60),
        stream.socket.read_to_end(&mut rest),
    );
    ended.await.unwrap().unwrap();
}
