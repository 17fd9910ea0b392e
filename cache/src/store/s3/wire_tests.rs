//! The plain HTTP client against a server that says exactly what the test wants.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::time::Duration;

use futures::TryStreamExt as _;
use http::{Method, Request};
use object_store::client::HttpRequestBody;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::*;

/// A connection on which the next request has been read to its end.
async fn asked(mut stream: TcpStream) -> (TcpStream, String) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let read = stream.read_buf(&mut head).await.unwrap();
        assert!(read > 0, "the client closed the connection");
    }
    (stream, String::from_utf8(head).unwrap())
}

async fn server() -> (TcpListener, Arc<Wire>, HttpRequest) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let bucket = format!("http://{}/bucket", listener.local_addr().unwrap());
    let request = Request::builder()
        .method(Method::GET)
        .uri(format!("{bucket}/a%20key?versionId=1"))
        .header("range", "bytes=0-9")
        .body(HttpRequestBody::empty())
        .unwrap();
    let wire = Wire::new(&bucket, Duration::from_secs(5)).unwrap();
    (listener, wire, request)
}

fn answer(got: Got) -> Answer {
    match got {
        Got::Answer(answer) => answer,
        Got::Untold(..) | Got::Unable => panic!("the request was handed back"),
    }
}

async fn pieces(answer: Answer, start: u64) -> Result<Vec<Bytes>, Failure> {
    answer.body(start).try_collect().await
}

// Without it each read would cost a connection, or one that the server has closed would cost a
// failed read.
#[tokio::test]
async fn a_connection_is_used_again_while_it_is_open() {
    let (listener, wire, request) = server().await;
    let serve = async {
        let mut stream = listener.accept().await.unwrap().0;
        for _ in 0..2 {
            let (next, head) = asked(stream).await;
            stream = next;
            assert!(head.starts_with("GET /bucket/a%20key?versionId=1 HTTP/1.1\r\nhost: 127."));
            assert!(head.contains("\r\nrange: bytes=0-9\r\n"), "{head}");
            let text = "HTTP/1.1 206 Partial\r\ncontent-length: 5\r\nETag: x\r\n\r\nhello";
            stream.write_all(text.as_bytes()).await.unwrap();
        }
        // Reads the third request and closes: the client has to come again.
        drop(asked(stream).await);
        let (mut stream, _) = asked(listener.accept().await.unwrap().0).await;
        let text = "HTTP/1.1 206 Partial\r\nconnection: close\r\ncontent-length: 5\r\n\r\nagain";
        stream.write_all(text.as_bytes()).await.unwrap();
    };
    let client = async {
        for expected in ["hello", "hello", "again"] {
            let answer = answer(wire.get(&request).await.unwrap());
            assert_eq!(answer.status, 206);
            assert_eq!(
                pieces(answer, 0).await.unwrap().concat(),
                expected.as_bytes()
            );
        }
        assert!(wire.lock().is_empty(), "kept what the server closes");
    };
    tokio::join!(serve, client);
}

// Without it blocks would be copied once more, or bytes be lost where a piece ends.
#[tokio::test]
async fn pieces_end_at_block_borders() {
    let (listener, wire, request) = server().await;
    let body: Vec<u8> = (0..2 * BLOCK as usize + 7)
        .map(|n| (n % 251) as u8)
        .collect();
    let sent = body.clone();
    let serve = async move {
        let (mut stream, _) = asked(listener.accept().await.unwrap().0).await;
        let head = format!("HTTP/1.1 206 P\r\ncontent-length: {}\r\n\r\n", sent.len());
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&sent).await.unwrap();
    };
    let client = async {
        let answer = answer(wire.get(&request).await.unwrap());
        let pieces = pieces(answer, BLOCK - 10).await.unwrap();
        assert_eq!(pieces.concat(), body);
        let lengths: Vec<u64> = pieces.iter().map(|piece| piece.len() as u64).collect();
        assert_eq!(lengths, [10, BLOCK, BLOCK - 3]);
        assert_eq!(wire.lock().len(), 1);
    };
    tokio::join!(serve, client);
}

// Without it a body that breaks off would look complete, or one that comes slowly would look
// stalled.
#[tokio::test]
async fn slow_bodies_are_handed_on_and_cut_ones_fail() {
    let (listener, wire, request) = server().await;
    let (go_on, told) = tokio::sync::oneshot::channel();
    let serve = async {
        let (mut stream, _) = asked(listener.accept().await.unwrap().0).await;
        let head = "HTTP/1.1 206 P\r\ncontent-length: 300\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&[1; 100]).await.unwrap();
        told.await.unwrap();
        stream.write_all(&[2; 100]).await.unwrap();
    };
    let client = async {
        let mut body = answer(wire.get(&request).await.unwrap()).body(0);
        let first = body.try_next().await.unwrap().unwrap();
        assert_eq!(&first[..], [1; 100]);
        go_on.send(()).unwrap();
        let mut rest = 0;
        let failure = loop {
            match body.try_next().await {
                Ok(Some(piece)) => rest += piece.len(),
                Ok(None) => panic!("a cut body looks complete"),
                Err(failure) => break failure,
            }
        };
        assert!(
            rest <= 100 && failure.reason.contains("broke off"),
            "{rest} {failure:?}"
        );
        assert!(wire.lock().is_empty());
    };
    tokio::join!(serve, client);
}

// Without it answers that this client cannot judge would fail reads that the other client can do.
#[tokio::test]
async fn what_it_cannot_do_is_handed_back() {
    let unable = [
        "HTTP/1.1 206 P\r\ntransfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 206 P\r\n\r\nhello",
        "what is this\r\n\r\n",
    ];
    for text in unable {
        let (listener, wire, request) = server().await;
        let serve = async {
            let (mut stream, _) = asked(listener.accept().await.unwrap().0).await;
            stream.write_all(text.as_bytes()).await.unwrap();
        };
        let (got, ()) = tokio::join!(wire.get(&request), serve);
        let got = got.unwrap();
        assert!(!matches!(got, Got::Answer(_)), "{text}");
    }
    let (listener, wire, request) = server().await;
    drop(listener);
    assert!(matches!(wire.get(&request).await, Ok(Got::Unable)));
    assert!(Wire::new("https://example.org/bucket", Duration::ZERO).is_none());
}

// Without it a server that is overloaded would be asked twice each time, or its reason be lost.
#[tokio::test]
async fn a_refusal_is_read_however_its_length_is_told() {
    let chunked = "HTTP/1.1 503 S\r\ntransfer-encoding: chunked\r\n\r\n";
    for text in [
        "HTTP/1.1 503 S\r\ncontent-length: 5\r\n\r\nhello".to_owned(),
        "HTTP/1.1 503 S\r\n\r\nhello".to_owned(),
        format!("{chunked}2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n"),
        format!("{chunked}ffffffffffffffff\r\nhello"),
    ] {
        let (listener, wire, request) = server().await;
        let serve = async {
            let (mut stream, _) = asked(listener.accept().await.unwrap().0).await;
            stream.write_all(text.as_bytes()).await.unwrap();
        };
        let (got, ()) = tokio::join!(wire.get(&request), serve);
        let refusal = answer(got.unwrap()).refusal().await;
        assert_eq!(refusal.status(), 503);
        let body = refusal.into_body().bytes().await.unwrap();
        assert_eq!(body, "hello", "{text}");
    }
}
