//! Ranged GETs over plain HTTP, received straight into block buffers.
//!
//! The general client gathers a body in buffers of its own, out of which every byte has to be copied
//! once more before it can be written or sent on as a block. Where the processor is the limit, on a
//! small node or beside a store as fast as the network, that copy and its buffers cost a tenth of a
//! cold read. This client does one thing: HTTP/1.1 without TLS, and a body whose length is told.
//!
//! ```text
//! socket -> buffer of one block (Pool) -> Bytes that end at block borders -> Body
//! ```
//!
//! Whatever it cannot do - connect (a proxy may be in between), understand a head, receive a success of
//! unknown length - it hands back ([`Got`]), and the general client asks instead. Refusals are
//! read however their length is told, because asking a server twice that is overloaded makes it worse.
//! Statuses and headers are judged by the same code for both. A connection is used again only after its
//! body was received to the end; one that turns out to be closed costs another connection, not an attempt.
//! A body that comes slowly is handed on after [`PATIENCE`], and one that breaks off as far as it came,
//! so that the next attempt goes on from there.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use futures::StreamExt as _;
use futures::stream;
use http::header::{CONNECTION, CONTENT_LENGTH, HeaderName, HeaderValue, TRANSFER_ENCODING};
use http::{HeaderMap, StatusCode};
use object_store::client::{HttpRequest, HttpResponse, HttpResponseBody};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use url::Url;

use crate::buffers::Pool;
use crate::hot::BLOCK;
use crate::store::backend::Body;
use crate::store::failure::Failure;

/// Idle connections kept; more are opened when needed.
const IDLE: usize = 64;
/// Idle connections older than this are closed: something in between may have forgotten them.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// Longest head of an answer.
const HEAD: usize = 64 << 10;
/// Most headers of an answer.
const HEADERS: usize = 100;
/// Longest body of a refusal that is read.
const REFUSAL: u64 = 64 << 10;
/// A block that takes longer is handed on in parts.
const PATIENCE: Duration = Duration::from_secs(1);

/// The client; see the module text.
#[derive(Debug)]
pub(super) struct Wire {
    host: String,
    port: u16,
    /// As the signature names it.
    authority: String,
    connect_timeout: Duration,
    idle: Mutex<Vec<(TcpStream, Instant)>>,
    pool: Pool,
    given_up: AtomicBool,
}

/// What came of a request.
pub(super) enum Got {
    /// A checked head and its body still to come.
    Answer(Answer),
    /// The head of a success whose body has no told length: if it is right, ask with the general client.
    Untold(StatusCode, HeaderMap),
    /// Ask with the general client.
    Unable,
}

/// The head of an answer, and the connection its body comes on.
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    receive: Receive,
}

/// How the end of a body is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Framing {
    /// So many bytes.
    Length(u64),
    /// In chunks (RFC 9112, 7.1).
    Chunked,
    /// By the end of the connection.
    Close,
}

/// A body on its way.
struct Receive {
    wire: Arc<Wire>,
    stream: TcpStream,
    /// Came together with the head.
    early: BytesMut,
    framing: Framing,
    /// Bytes to come, when their number is told.
    left: u64,
    /// Ended the stream after bytes that were handed on.
    broken: Option<io::Error>,
    /// The connection may be used again.
    keep: bool,
}

impl Wire {
    /// A client for the server of `bucket` (an address); `None` when it needs more than plain HTTP.
    pub(super) fn new(bucket: &str, connect_timeout: Duration) -> Option<Arc<Self>> {
        let url = Url::parse(bucket)
            .ok()
            .filter(|url| url.scheme() == "http")?;
        Some(Arc::new(Self {
            host: url.host_str()?.trim_matches(['[', ']']).to_owned(),
            port: url.port_or_known_default()?,
            authority: url[url::Position::BeforeHost..url::Position::AfterPort].to_owned(),
            connect_timeout,
            idle: Mutex::default(),
            pool: Pool::default(),
            given_up: AtomicBool::new(false),
        }))
    }

    /// Not to be tried again: the general client reaches the server where this one does not.
    pub(super) fn give_up(&self) {
        self.given_up.store(true, Ordering::Relaxed);
    }

    /// Sends a signed GET; returns when the head of the answer is there. Any status is an answer.
    pub(super) async fn get(self: &Arc<Self>, request: &HttpRequest) -> Result<Got, Failure> {
        if self.given_up.load(Ordering::Relaxed) {
            return Ok(Got::Unable);
        }
        let head = self.head(request);
        while let Some(stream) = self.reuse() {
            // The server may have closed it just now; that says nothing about the request.
            if let Ok(got) = self.exchange(stream, &head).await {
                return Ok(got);
            }
        }
        let connect = TcpStream::connect((&*self.host, self.port));
        let Ok(Ok(stream)) = timeout(self.connect_timeout, connect).await else {
            return Ok(Got::Unable);
        };
        let asked = match stream.set_nodelay(true) {
            Ok(()) => self.exchange(stream, &head).await,
            Err(error) => Err(error),
        };
        match asked {
            Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Got::Unable),
            Err(error) => Err(Failure::unreachable(format!("no answer: {error}"))),
            Ok(got) => Ok(got),
        }
    }

    fn head(&self, request: &HttpRequest) -> Vec<u8> {
        let target = request.uri().path_and_query();
        let mut head = Vec::with_capacity(1024);
        head.extend_from_slice(b"GET ");
        head.extend_from_slice(target.map_or("/", |target| target.as_str()).as_bytes());
        head.extend_from_slice(b" HTTP/1.1\r\nhost: ");
        head.extend_from_slice(self.authority.as_bytes());
        for (name, value) in request.headers() {
            if name != http::header::HOST {
                head.extend_from_slice(b"\r\n");
                head.extend_from_slice(name.as_str().as_bytes());
                head.extend_from_slice(b": ");
                head.extend_from_slice(value.as_bytes());
            }
        }
        head.extend_from_slice(b"\r\n\r\n");
        head
    }

    /// An idle connection that the server has neither closed nor written to.
    fn reuse(&self) -> Option<TcpStream> {
        loop {
            let (stream, since) = self.lock().pop()?;
            let silent = stream.try_read(&mut [0]);
            let open = silent.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock);
            if open && since.elapsed() < IDLE_FOR {
                return Some(stream);
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<(TcpStream, Instant)>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn exchange(self: &Arc<Self>, mut stream: TcpStream, head: &[u8]) -> io::Result<Got> {
        stream.write_all(head).await?;
        let mut early = BytesMut::with_capacity(4096);
        loop {
            if stream.read_buf(&mut early).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let Some((length, status, headers)) = parse(&early)? else {
                if early.len() > HEAD {
                    return Ok(Got::Unable);
                }
                continue;
            };
            early.advance(length);
            let told = |name| {
                headers
                    .get(name)
                    .and_then(|value: &HeaderValue| value.to_str().ok())
            };
            let framing = match told(CONTENT_LENGTH).and_then(|text| text.trim().parse().ok()) {
                _ if headers.contains_key(TRANSFER_ENCODING) => Framing::Chunked,
                None => Framing::Close,
                Some(length) => Framing::Length(length),
            };
            let left = match framing {
                Framing::Length(length) => length,
                _ if status.is_success() => return Ok(Got::Untold(status, headers)),
                _ => 0,
            };
            let close = told(CONNECTION).is_some_and(|text| text.eq_ignore_ascii_case("close"));
            let bounded =
                matches!(framing, Framing::Length(length) if early.len() as u64 <= length);
            let receive = Receive {
                wire: Arc::clone(self),
                stream,
                keep: !close && bounded,
                early,
                framing,
                left,
                broken: None,
            };
            return Ok(Got::Answer(Answer {
                status,
                headers,
                receive,
            }));
        }
    }
}

/// Length of a head, its status and headers; `None` while it is incomplete.
fn parse(bytes: &[u8]) -> io::Result<Option<(usize, StatusCode, HeaderMap)>> {
    fn invalid(error: impl std::fmt::Display) -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, error.to_string())
    }
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(length) = head.parse(bytes).map_err(invalid)? else {
        return Ok(None);
    };
    let status = StatusCode::from_u16(head.code.unwrap_or_default());
    let status = status.map_err(invalid)?;
    let mut map = HeaderMap::with_capacity(head.headers.len());
    for header in head.headers {
        let name = HeaderName::from_bytes(header.name.as_bytes());
        let value = HeaderValue::from_bytes(header.value);
        map.append(name.map_err(invalid)?, value.map_err(invalid)?);
    }
    Ok(Some((length, status, map)))
}

impl Answer {
    /// The body of a success; `start` is the offset of its first byte in the object.
    pub(super) fn body(self, start: u64) -> Body {
        let first = (self.receive, start);
        stream::unfold(Some(first), |state| async move {
            let (mut receive, at) = state?;
            if receive.left == 0 {
                receive.finish();
                return None;
            }
            match receive.piece(BLOCK - at % BLOCK).await {
                Ok(piece) => {
                    let next = at + piece.len() as u64;
                    Some((Ok(piece), Some((receive, next))))
                }
                Err(error) => {
                    let failure = Failure::unreachable(format!("the body broke off: {error}"));
                    Some((Err(failure), None))
                }
            }
        })
        .boxed()
    }

    /// A refusal as the general client would have given it, with its body unless that is long.
    pub(super) async fn refusal(mut self) -> HttpResponse {
        let mut body = Vec::new();
        match self.receive.framing {
            Framing::Length(length) => {
                while length <= REFUSAL && self.receive.left > 0 {
                    // What is there says enough.
                    match self.receive.piece(REFUSAL).await {
                        Ok(piece) => body.extend_from_slice(&piece),
                        Err(_) => break,
                    }
                }
                if self.receive.left == 0 {
                    self.receive.finish();
                }
            }
            Framing::Close => body = self.receive.rest(|_| false).await,
            Framing::Chunked => {
                let raw = self.receive.rest(|raw| raw.ends_with(b"0\r\n\r\n")).await;
                body = joined(&raw);
            }
        }
        let mut response = HttpResponse::new(HttpResponseBody::from(body));
        *response.status_mut() = self.status;
        *response.headers_mut() = self.headers;
        response
    }
}

/// The content of chunks, as far as they can be understood.
fn joined(mut raw: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Ok(httparse::Status::Complete((head, size))) = httparse::parse_chunk_size(raw) {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        raw = raw.get(head..).unwrap_or_default();
        body.extend_from_slice(raw.get(..size).unwrap_or(raw));
        // Its own end of line follows.
        raw = raw.get(size.saturating_add(2)..).unwrap_or_default();
    }
    body
}

impl Receive {
    /// The next bytes: `most` of them, or what has come when the first has waited for [`PATIENCE`].
    /// A connection that ends early gives what has come, and its error the next time.
    async fn piece(&mut self, most: u64) -> io::Result<Bytes> {
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        let size = self.left.min(most) as usize;
        let mut buffer = self.wire.pool.take(size);
        let early = self.early.len().min(size);
        buffer.extend_from_slice(&self.early.split_to(early));
        // What came with the head waits, too.
        let mut until = (early > 0).then(|| Instant::now() + PATIENCE);
        while buffer.len() < size {
            let missing = size - buffer.len();
            let mut space = (&mut buffer).limit(missing);
            let read = self.stream.read_buf(&mut space);
            let read = match until {
                None => read.await,
                Some(until) => match timeout_at(until, read).await {
                    Ok(read) => read,
                    Err(_) => break,
                },
            };
            let error = match read {
                Ok(0) => io::ErrorKind::UnexpectedEof.into(),
                Ok(_) => {
                    until.get_or_insert_with(|| Instant::now() + PATIENCE);
                    continue;
                }
                Err(error) => error,
            };
            if buffer.is_empty() {
                return Err(error);
            }
            self.broken = Some(error);
            break;
        }
        self.left -= buffer.len() as u64;
        Ok(self.wire.pool.freeze(buffer))
    }

    /// What comes until `is_end`, the end of the connection or the limits of a refusal.
    async fn rest(mut self, is_end: impl Fn(&[u8]) -> bool) -> Vec<u8> {
        let mut raw = self.early;
        let until = Instant::now() + PATIENCE;
        while !is_end(&raw) && (raw.len() as u64) < REFUSAL {
            match timeout_at(until, self.stream.read_buf(&mut raw)).await {
                Ok(Ok(read)) if read > 0 => {}
                _ => break,
            }
        }
        raw.into()
    }

    /// The body is complete: the connection is free for others.
    fn finish(self) {
        let mut idle = self.wire.lock();
        if self.keep && idle.len() < IDLE {
            idle.push((self.stream, Instant::now()));
        }
    }
}

#[cfg(test)]
#[path = "wire_tests.rs"]
mod tests;
