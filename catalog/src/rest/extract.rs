//! Parts of a request, parsed once; whatever is wrong with them is a clear 4xx.

use std::str::FromStr;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::request::Parts;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use futures::StreamExt;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::ApiError;
use crate::name::check_segment;
use crate::{DatasetName, Selector};

/// Most bytes of a request's body. The largest that has a meaning is a descriptor.
pub(super) const MAX_BODY: usize = 1 << 20;

/// A body is read up to here before its connection is closed.
const MAX_DROPPED: usize = 16 << 20;

/// The dataset of the route, `{dataset}`.
#[derive(Debug)]
pub(super) struct Dataset(pub(super) DatasetName);

impl<S: Send + Sync> FromRequestParts<S> for Dataset {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = path_params(parts, state).await?;
        Ok(Self(dataset(&params)?))
    }
}

/// Parameters of the route's path, percent-decoded.
pub(super) async fn path_params<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<RawPathParams, ApiError> {
    let params = RawPathParams::from_request_parts(parts, state).await;
    params.map_err(|_| ApiError::invalid("the path is not UTF-8"))
}

/// The dataset among the parameters of a path.
pub(super) fn dataset(params: &RawPathParams) -> Result<DatasetName, ApiError> {
    param(params, "dataset")
}

/// The `{namespace}` among the parameters of a path. What is no name names nothing.
pub(super) fn namespace(params: &RawPathParams) -> Result<String, ApiError> {
    let namespace: String = param(params, "namespace")?;
    let none = |_| ApiError::not_found("there is no such namespace");
    check_segment(&namespace).map_err(none)?;
    Ok(namespace)
}

/// What `{namespace}` and `{table}` select, which may be one version: `clicks@v3`.
pub(super) fn table(params: &RawPathParams) -> Result<Selector, ApiError> {
    let (namespace, table) = (namespace(params)?, param::<String>(params, "table")?);
    let selector = format!("{namespace}.{table}").parse();
    selector.map_err(|_| ApiError::not_found("there is no such table"))
}

/// A parameter of the path, parsed.
pub(super) fn param<T>(params: &RawPathParams, name: &str) -> Result<T, ApiError>
where
    T: FromStr,
    T::Err: std::fmt::Display,
{
    let found = params.iter().find(|(own, _)| *own == name);
    let (_, text) = found.ok_or_else(|| ApiError::internal("a route without its parameter"))?;
    text.parse()
        .map_err(|error: T::Err| ApiError::invalid(error.to_string()))
}

/// Parameters behind `?`; unknown ones are refused.
#[derive(Debug)]
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let parsed = serde_urlencoded::from_str(query);
        let refused = |error| ApiError::invalid(format!("parameters behind '?': {error}"));
        parsed.map(Self).map_err(refused)
    }
}

/// A body of JSON.
#[derive(Debug)]
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned, S: Send + Sync> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _state: &S) -> Result<Self, ApiError> {
        let bytes = body(request).await?;
        let parsed = serde_json::from_slice(&bytes);
        let refused =
            |error| ApiError::invalid(format!("the body is not the JSON expected: {error}"));
        parsed.map(Self).map_err(refused)
    }
}

/// The bytes of a body, up to [`MAX_BODY`]. A larger one is read on and dropped for a while: a client
/// that is still writing when the connection closes would not see why.
pub(super) async fn body(request: Request) -> Result<Bytes, ApiError> {
    let mut frames = request.into_body().into_data_stream();
    let (mut kept, mut read) = (BytesMut::new(), 0);
    while let Some(frame) = frames.next().await {
        let frame = frame.map_err(|_| ApiError::invalid("the body ended early"))?;
        read += frame.len();
        if read <= MAX_BODY {
            kept.extend_from_slice(&frame);
        } else if read > MAX_DROPPED {
            break;
        }
    }
    if read > MAX_BODY {
        let message = format!("a body has at most {MAX_BODY} bytes");
        return Err(ApiError::too_large(message));
    }
    Ok(kept.freeze())
}

/// A body of JSON in an answer.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Types of `wire` have text keys only, which is all that JSON refuses.
    serde_json::to_vec(value).unwrap_or_default()
}

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        let mut response = Response::new(Body::from(encode(&self.0)));
        let json = HeaderValue::from_static("application/json");
        response.headers_mut().insert(header::CONTENT_TYPE, json);
        response
    }
}

/// An answer of JSON with a status of its own.
pub(super) fn with_status<T: Serialize>(status: StatusCode, value: T) -> Response {
    let mut response = Json(value).into_response();
    *response.status_mut() = status;
    response
}

/// The size of a page: what was asked for, between 1 and `max`.
pub(super) fn page(asked: Option<usize>, usual: usize, max: usize) -> Result<usize, ApiError> {
    match asked {
        None => Ok(usual),
        Some(limit) if (1..=max).contains(&limit) => Ok(limit),
        Some(limit) => Err(ApiError::invalid(format!(
            "limit is {limit}, and may be 1 to {max}"
        ))),
    }
}
