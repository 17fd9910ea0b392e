//! An S3 server that misbehaves as told: one script entry per request, then healthy again.
//!
//! It speaks HTTP by hand over TCP, because most of what it does no HTTP library would do. Every
//! request is recorded, and every fault that was acted out is counted, so that a test can prove that
//! its fault fired.

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use terrace_cache::store::Credentials;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// What to do instead of answering properly.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// Right head, this many bytes of the body, then a closed connection.
    Cut(usize),
    /// Right head, this many bytes, then silence.
    Stall(usize),
    /// One byte of the body every 20 ms.
    Trickle,
    /// Close without an answer.
    Fin,
    /// Reset the connection without an answer.
    Reset,
    /// Never answer.
    Silence,
    /// This status, extra head lines and body.
    Status(u16, &'static str, &'static str),
    /// Status 200 and the whole object: the range was ignored.
    Whole,
    /// Status 206 whose Content-Range starts this much later.
    Shifted(i64),
    /// Status 206 with more bytes than the object has.
    PastEnd,
    /// Status 206, right ranges, but an error document as body.
    ErrorBody,
    /// Status 206 encoded on the way, chunked.
    Gzip,
    /// Chunked body that ends properly but this many bytes early (negative: late).
    Chunked(i64),
    /// A resumed request is answered from the start of the object.
    FromStart,
    /// Status 206 without this head line.
    Without(&'static str),
    /// A weak ETag.
    WeakTag,
    /// The object is replaced first; the condition is honoured.
    Replace(Bytes),
    /// The object is replaced first; the condition is ignored.
    ReplaceUnchecked(Bytes),
    /// The object is deleted first.
    Delete,
    /// Healthy for one request.
    Nothing,
}

/// One request as it came in.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) head: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
struct State {
    objects: BTreeMap<String, (u32, Bytes)>,
    script: VecDeque<Fault>,
    forever: Option<Fault>,
    /// Only requests whose target contains this follow the script.
    only: Option<String>,
    seen: Vec<Seen>,
    fired: usize,
    page: usize,
}

/// A running server; stops when dropped.
pub(crate) struct FaultServer {
    address: SocketAddr,
    state: Arc<Mutex<State>>,
    _tasks: JoinSet<()>,
}

impl FaultServer {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let state = Arc::new(Mutex::new(State {
            page: 1000,
            ..State::default()
        }));
        let mut tasks = JoinSet::new();
        let shared = Arc::clone(&state);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(serve(stream, Arc::clone(&shared)));
            }
        });
        Self {
            address,
            state,
            _tasks: tasks,
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    pub(crate) fn put(&self, key: &str, bytes: Bytes) {
        put(&mut self.state(), key, bytes);
    }

    pub(crate) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state().script = faults.into_iter().collect();
    }

    pub(crate) fn always(&self, fault: Fault) {
        self.state().forever = Some(fault);
    }

    pub(crate) fn only_for(&self, part: &str) {
        self.state().only = Some(part.to_string());
    }

    /// Entries per page of a listing.
    pub(crate) fn page(&self, entries: usize) {
        self.state().page = entries;
    }

    pub(crate) fn fired(&self) -> usize {
        self.state().fired
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// Forgets requests and faults.
    pub(crate) fn reset(&self) {
        let mut state = self.state();
        (state.script, state.forever, state.only) = (VecDeque::new(), None, None);
        (state.seen, state.fired) = (Vec::new(), 0);
    }

    pub(crate) fn credentials(&self) -> Credentials {
        super::credentials(&[
            ("AWS_ENDPOINT_URL", &format!("http://{}", self.address)),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
        ])
    }
}

fn put(state: &mut State, key: &str, bytes: Bytes) {
    let version = state.objects.get(key).map_or(1, |(version, _)| version + 1);
    state.objects.insert(key.to_string(), (version, bytes));
}

async fn serve(mut stream: TcpStream, state: Arc<Mutex<State>>) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            match stream.read_buf(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(_) => {}
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end + 4);
        let seen = parse(&head);
        let fault = next_fault(&mut state.lock().unwrap(), &seen);
        if !answer(&mut stream, &state, &seen, fault).await {
            return;
        }
    }
}

fn parse(head: &str) -> Seen {
    let mut lines = head.split("\r\n");
    let mut words = lines.next().unwrap_or("").split(' ');
    let mut word = || words.next().unwrap_or("").to_string();
    Seen {
        method: word(),
        target: word(),
        head: lines
            .filter_map(|line| line.split_once(':'))
            .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_string()))
            .collect(),
    }
}

fn next_fault(state: &mut State, seen: &Seen) -> Fault {
    state.seen.push(seen.clone());
    if state
        .only
        .as_ref()
        .is_some_and(|part| !seen.target.contains(part.as_str()))
    {
        return Fault::Nothing;
    }
    let scripted = state.script.pop_front().or_else(|| state.forever.clone());
    let fault = scripted.unwrap_or(Fault::Nothing);
    state.fired += usize::from(!matches!(fault, Fault::Nothing));
    fault
}

/// Answers one request; false when the connection is over.
async fn answer(
    stream: &mut TcpStream,
    state: &Arc<Mutex<State>>,
    seen: &Seen,
    fault: Fault,
) -> bool {
    let key = seen
        .target
        .split('?')
        .next()
        .unwrap_or("")
        .trim_start_matches("/bucket/")
        .to_string();
    match &fault {
        Fault::Replace(bytes) | Fault::ReplaceUnchecked(bytes) => {
            put(&mut state.lock().unwrap(), &key, bytes.clone());
        }
        Fault::Delete => {
            state.lock().unwrap().objects.remove(&key);
        }
        Fault::Fin => return false,
        Fault::Reset => {
            let socket = reset_on_close(stream);
            assert!(socket.is_ok(), "{socket:?}");
            return false;
        }
        Fault::Silence => {
            std::future::pending::<()>().await;
        }
        Fault::Status(status, lines, body) => {
            let text = format!(
                "HTTP/1.1 {status} X\r\n{lines}content-length: {}\r\n\r\n",
                body.len()
            );
            let body = if seen.method == "HEAD" { "" } else { body };
            return stream.write_all((text + body).as_bytes()).await.is_ok();
        }
        _ => {}
    }
    if seen.target.contains("list-type=2") {
        let body = listing(&state.lock().unwrap(), &seen.target);
        return send(stream, "200 OK", "", body.as_bytes(), &fault).await;
    }
    let object = state.lock().unwrap().objects.get(&key).cloned();
    let Some((version, bytes)) = object else {
        let body = b"<Error><Code>NoSuchKey</Code></Error>";
        return send(
            stream,
            "404 Not Found",
            "content-type: application/xml\r\n",
            body,
            &Fault::Nothing,
        )
        .await;
    };
    object_answer(stream, seen, &fault, version, &bytes).await
}

/// Makes the coming close a reset.
fn reset_on_close(stream: &TcpStream) -> std::io::Result<()> {
    #[expect(deprecated, reason = "a zero linger time does not block")]
    stream.set_linger(Some(Duration::ZERO))
}

async fn object_answer(
    stream: &mut TcpStream,
    seen: &Seen,
    fault: &Fault,
    version: u32,
    bytes: &Bytes,
) -> bool {
    let tag = format!("\"v{version}\"");
    let shown = if matches!(fault, Fault::WeakTag) {
        format!("W/{tag}")
    } else {
        tag.clone()
    };
    let etag = match fault {
        Fault::Without("etag") => String::new(),
        _ => format!("etag: {shown}\r\n"),
    };
    let date = "last-modified: Thu, 01 Jan 2026 00:00:00 GMT\r\n";
    if seen.method == "HEAD" {
        let head = format!(
            "HTTP/1.1 200 OK\r\n{etag}{date}content-length: {}\r\n\r\n",
            bytes.len()
        );
        return stream.write_all(head.as_bytes()).await.is_ok();
    }
    let wanted = seen
        .head
        .get("if-match")
        .is_none_or(|wanted| *wanted == tag);
    if !wanted && !matches!(fault, Fault::ReplaceUnchecked(_)) {
        return send(stream, "412 Precondition Failed", "", b"", &Fault::Nothing).await;
    }
    let Some((start, end)) = range(seen) else {
        return send(stream, "200 OK", &etag, bytes, fault).await;
    };
    let (start, end) = match fault {
        Fault::FromStart => (0, end),
        _ => (start, end),
    };
    let mut body = bytes[start..end.min(bytes.len())].to_vec();
    let mut shown = format!(
        "content-range: bytes {start}-{}/{}\r\n",
        end - 1,
        bytes.len()
    );
    let mut status = "206 Partial Content";
    match fault {
        Fault::Whole => {
            (status, shown, body) = ("200 OK", String::new(), bytes.to_vec());
        }
        Fault::Shifted(by) => {
            let (start, last) = (start as i64 + by, end as i64 - 1 + by);
            shown = format!("content-range: bytes {start}-{last}/{}\r\n", bytes.len());
        }
        Fault::PastEnd => {
            body.extend_from_slice(&[0; 100]);
            let total = bytes.len() + 100;
            shown = format!("content-range: bytes {start}-{}/{total}\r\n", end + 99);
        }
        Fault::ErrorBody => body = b"<Error><Code>InternalError</Code></Error>".to_vec(),
        Fault::Without("content-range") => shown = String::new(),
        _ => {}
    }
    send(stream, status, &(etag + &shown), &body, fault).await
}

fn range(seen: &Seen) -> Option<(usize, usize)> {
    let (start, last) = seen
        .head
        .get("range")?
        .strip_prefix("bytes=")?
        .split_once('-')?;
    Some((start.parse().ok()?, last.parse::<usize>().ok()? + 1))
}

/// Sends head and body, in the way the fault wants the body to go.
async fn send(
    stream: &mut TcpStream,
    status: &str,
    lines: &str,
    body: &[u8],
    fault: &Fault,
) -> bool {
    if let Fault::Chunked(_) | Fault::Gzip = fault {
        return send_chunked(stream, status, lines, body, fault).await;
    }
    let head = format!(
        "HTTP/1.1 {status}\r\n{lines}content-length: {}\r\n\r\n",
        body.len()
    );
    if stream.write_all(head.as_bytes()).await.is_err() {
        return false;
    }
    match fault {
        Fault::Cut(size) => {
            let _ = stream.write_all(&body[..(*size).min(body.len())]).await;
            let _ = stream.shutdown().await;
            false
        }
        Fault::Stall(size) => {
            let _ = stream.write_all(&body[..(*size).min(body.len())]).await;
            let mut byte = [0];
            // Until the client gives up.
            let _ = stream.read(&mut byte).await;
            false
        }
        Fault::Trickle => {
            for byte in body {
                if stream.write_all(&[*byte]).await.is_err() {
                    return false;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            true
        }
        _ => stream.write_all(body).await.is_ok(),
    }
}

async fn send_chunked(
    stream: &mut TcpStream,
    status: &str,
    lines: &str,
    body: &[u8],
    fault: &Fault,
) -> bool {
    let (coding, mut body) = match fault {
        Fault::Gzip => ("content-encoding: gzip\r\n", body.to_vec()),
        _ => ("", body.to_vec()),
    };
    if let Fault::Chunked(early) = fault {
        body.resize((body.len() as i64 - early) as usize, 0xAA);
    }
    let mut all = format!("HTTP/1.1 {status}\r\n{lines}{coding}transfer-encoding: chunked\r\n\r\n")
        .into_bytes();
    for part in body.chunks(10_000) {
        all.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
        all.extend_from_slice(part);
        all.extend_from_slice(b"\r\n");
    }
    all.extend_from_slice(b"0\r\n\r\n");
    stream.write_all(&all).await.is_ok()
}

/// ListObjectsV2 with delimiter, in pages; the token is the last key of the page before.
fn listing(state: &State, target: &str) -> String {
    let query = |name: &str| {
        let found = target
            .split(['?', '&'])
            .find_map(|part| part.strip_prefix(name));
        found.unwrap_or("").replace("%2F", "/")
    };
    let (prefix, after) = (query("prefix="), query("continuation-token="));
    let flat = !target.contains("delimiter=");
    let mut entries: Vec<(String, String)> = Vec::new();
    for (key, (version, bytes)) in state.objects.range(prefix.clone()..) {
        let Some(rest) = key.strip_prefix(&prefix) else {
            break;
        };
        let entry = match rest.split_once('/') {
            Some((dir, _)) if !flat => {
                let dir = format!("{prefix}{dir}/");
                let text = format!("<CommonPrefixes><Prefix>{dir}</Prefix></CommonPrefixes>");
                (dir, text)
            }
            _ => (
                key.clone(),
                format!(
                    "<Contents><Key>{key}</Key><Size>{}</Size>\
                 <LastModified>2026-01-01T00:00:00.000Z</LastModified><ETag>\"v{version}\"</ETag></Contents>",
                    bytes.len()
                ),
            ),
        };
        if entry.0 > after && entries.last() != Some(&entry) {
            entries.push(entry);
        }
    }
    let more = entries.len() > state.page;
    entries.truncate(state.page);
    let token = match (more, entries.last()) {
        (true, Some((last, _))) => format!("<NextContinuationToken>{last}</NextContinuationToken>"),
        _ => String::new(),
    };
    let body: String = entries.into_iter().map(|(_, text)| text).collect();
    format!("<ListBucketResult><IsTruncated>{more}</IsTruncated>{token}{body}</ListBucketResult>")
}
