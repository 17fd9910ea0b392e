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

    /// Reads the first message: where the stream begins.
    async fn place(&mut self) -> u64 {
        let read = async {
            loop {
                let first = self.text.lines().find_map(|line| line.strip_prefix("id: "));
                // Not before the message is whole.
                let first = first.filter(|_| self.text.contains("\n\n"));
                if let Some(place) = first.and_then(|id| id.parse().ok()) {
                    return place;
                }
                self.more().await;
            }
        };
        let read = tokio::time::timeout(Duration::from_secs(60), read);
        read.await.unwrap()
    }

    async fn more(&mut self) {
        let mut bytes = [0; 4096];
        let length = self.socket.read(&mut bytes).await.unwrap();
        assert!(length > 0, "the stream ended: {}", self.text);
        let text = std::str::from_utf8(&bytes[..length]).unwrap();
        self.text.push_str(text);
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
                self.more().await;
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

// A follower that was cut off before its first event would begin anew, and miss what happened between.
#[tokio::test(flavor = "multi_thread")]
async fn a_fresh_stream_says_where_it_begins() {
    let catalog = Catalog::start().await;
    let token = catalog.token(&["list:ads"]).await;
    catalog.publish("hr.pay", &[&[("", "f", 1)]]).await;
    let newest = catalog.ledger.events(0, 9).await.unwrap().pop().unwrap();
    let mut fresh = Stream::open(&catalog, &token, "", "").await;
    let place = fresh.place().await;
    assert_eq!(place, newest.sequence);
    assert!(!fresh.text.contains("data:"), "{}", fresh.text);
    drop(fresh);
    catalog.publish("ads.new", &[&[("", "f", 1)]]).await;
    let mut again = Stream::open(&catalog, &token, &format!("?after={place}"), "").await;
    assert_eq!(again.place().await, place);
    assert_eq!(again.messages(2).await[1]["kind"], "version_committed");

    // One who was away for too long is told so, and does not wait for what is gone.
    catalog.ledger.trim_events(newest.sequence).await.unwrap();
    let path = format!("/api/v1/events?after={}", newest.sequence - 1);
    let gone = catalog.ask("GET", &path, Some(&token), b"").await;
    assert_eq!(gone.status, 410, "{}", gone.body);
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
