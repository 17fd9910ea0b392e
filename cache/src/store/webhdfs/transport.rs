//! OpenDAL's requests on the same HTTP client as everything else.
//!
//! OpenDAL's own transport would have to be installed for the whole process, and would be a second
//! client with its own connections and time-outs.

use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll};

use futures::stream::BoxStream;
use futures::{Stream, StreamExt as _, TryStreamExt as _};
use http::header::CONTENT_LENGTH;
use http::{Request, Response};
use object_store::client::{HttpClient, HttpError, HttpRequestBody};
use opendal::{Buffer, Error, ErrorKind, HttpBody, HttpTransport};

/// An HTTP client as OpenDAL wants it.
pub(super) struct Transport(HttpClient);

impl Transport {
    pub(super) fn new(http: HttpClient) -> Self {
        Self(http)
    }
}

impl HttpTransport for Transport {
    async fn fetch(&self, request: Request<Buffer>) -> opendal::Result<Response<HttpBody>> {
        let (parts, body) = request.into_parts();
        let request = Request::from_parts(parts, HttpRequestBody::from(body.to_bytes()));
        let (parts, body) = self.0.execute(request).await.map_err(failed)?.into_parts();
        let size = parts
            .headers
            .get(CONTENT_LENGTH)
            .and_then(|size| size.to_str().ok()?.parse().ok());
        let pieces = body
            .bytes_stream()
            .map_err(failed)
            .map_ok(Buffer::from)
            .boxed();
        Ok(Response::from_parts(
            parts,
            HttpBody::new(Exclusive(Mutex::new(pieces)), size),
        ))
    }
}

/// A body is read by one task, but OpenDAL asks for `Sync`: the mutex gives it and is never locked.
struct Exclusive(Mutex<BoxStream<'static, opendal::Result<Buffer>>>);

impl Stream for Exclusive {
    type Item = opendal::Result<Buffer>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let pieces = self.0.get_mut().unwrap_or_else(PoisonError::into_inner);
        pieces.as_mut().poll_next(context)
    }
}

fn failed(error: HttpError) -> Error {
    Error::new(ErrorKind::Unexpected, super::chain(&error))
        .set_temporary()
        .set_source(error)
}
