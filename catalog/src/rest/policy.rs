//! Who may use a route: checked before its handler runs, written into the document, and audited.
//!
//! ```text
//! log target "audit"   who, what (method and route), on (dataset), result (status or code)
//! ```
//!
//! Every change and every refusal is an audit line at INFO; reads are at DEBUG. A line never has a
//! header, a query or a body in it, so no token can be in it.

use std::time::Duration;

use axum::Router;
use axum::extract::{FromRequestParts, Request, State};
use axum::http::request::Parts;
use axum::http::{Method, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use tokio::time::Instant;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa_axum::router::UtoipaMethodRouter;

use super::described;
use super::error::{ApiError, Code};
use super::extract::{dataset, namespace, path_params, table};
use super::{Api, now_ms};
use crate::access::{Principal, Scope};

/// A request that takes longer is given up: its client has stopped waiting.
const DEADLINE: Duration = Duration::from_secs(30);

/// Name of the security scheme in the document.
pub(super) const SCHEME: &str = "token";

/// What a route asks of its caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Policy {
    /// Nothing: whether the server lives, and the document.
    Open,
    /// The scope over the namespace of the route's dataset.
    Dataset(Scope),
    /// The scope over the route's `{namespace}`.
    Namespace(Scope),
    /// The scope over some namespace; the handler shows no more than what the caller may see.
    Some(Scope),
    /// The scope over every namespace.
    All(Scope),
}

impl Policy {
    /// The smallest scope that passes; none: the route is open.
    pub(super) fn scope(self) -> Option<Scope> {
        match self {
            Self::Open => None,
            Self::Dataset(scope)
            | Self::Namespace(scope)
            | Self::Some(scope)
            | Self::All(scope) => Some(scope),
        }
    }

    /// Over what the scope is asked for, as the document writes it.
    pub(super) fn over(self) -> Option<&'static str> {
        match self {
            Self::Open => None,
            Self::Dataset(_) => Some("dataset"),
            Self::Namespace(_) => Some("namespace"),
            Self::Some(_) => Some("some"),
            Self::All(_) => Some("all"),
        }
    }
}

/// The policy of one route, with what it takes to keep it.
#[derive(Clone, Debug)]
struct Rule {
    api: Api,
    policy: Policy,
    /// The route as the document writes it.
    route: String,
}

/// Puts a policy before a route. The only way in which `routes` adds one.
pub(super) fn guard(
    api: &Api,
    policy: Policy,
    (schemas, mut paths, router): UtoipaMethodRouter<Api>,
) -> UtoipaMethodRouter<Api> {
    let mut route = String::new();
    for (path, item) in &mut paths.paths {
        route.clone_from(path);
        operations(item).for_each(|operation| described::complete(operation, policy));
    }
    let rule = Rule {
        api: api.clone(),
        policy,
        route,
    };
    let guarded = router.route_layer(middleware::from_fn_with_state(rule, enforce));
    (schemas, paths, guarded)
}

fn operations(item: &mut PathItem) -> impl Iterator<Item = &mut Operation> {
    let all = [
        &mut item.get,
        &mut item.put,
        &mut item.post,
        &mut item.delete,
        &mut item.patch,
        &mut item.head,
    ];
    all.into_iter().flatten()
}

async fn enforce(State(rule): State<Rule>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let _under_way = rule.api.metrics.begin();
    let method = request.method().clone();
    let (mut parts, body) = request.into_parts();
    let mut who = "nobody".to_owned();
    let admitted = match identify(&rule, &parts).await {
        Ok(Some(principal)) => {
            // Also when it is refused: who tried is what the audit is for.
            principal.label().clone_into(&mut who);
            permit(&rule, principal, &mut parts).await
        }
        Ok(None) => Ok(()),
        Err(refused) => Err(refused),
    };
    let response = match admitted {
        Err(refused) => refused.into_response(),
        Ok(()) => {
            let on = Request::from_parts(parts.clone(), body);
            match tokio::time::timeout(DEADLINE, next.run(on)).await {
                Ok(response) => response,
                Err(_) => ApiError::timeout().into_response(),
            }
        }
    };
    let status = response.status();
    rule.api
        .metrics
        .record(&method, &rule.route, status.as_u16(), began.elapsed());
    let code = response.extensions().get::<Code>();
    let code = code.map_or("ok", |code| code.0);
    audit(&rule, &mut parts, &who, status.as_u16(), code).await;
    decided(response)
}

/// Marks an answer that somebody decided about: a policy, or a fallback that has no data.
#[derive(Clone, Copy, Debug)]
struct Decided;

/// Lets an answer pass [`only_decided`].
pub(super) fn decided(mut response: Response) -> Response {
    response.extensions_mut().insert(Decided);
    response
}

/// Routes that are open to everybody and are not in the document, such as the document itself.
pub(super) fn open(router: Router<Api>) -> Router<Api> {
    router.layer(middleware::map_response(async |response| decided(response)))
}

/// Withholds what a route answers that has no policy. It stands around all routes, so a route that is
/// added beside [`guard`] and [`open`] fails with its first request, in its first test.
pub(super) async fn only_decided(request: Request, next: Next) -> Response {
    let path = request.uri().path().to_owned();
    let response = next.run(request).await;
    if response.extensions().get::<Decided>().is_some() {
        return response;
    }
    let message = format!("the route of {path} has no policy: add it through guard or open");
    ApiError::internal(message).into_response()
}

/// Who is asking. None: the route asks for nobody.
async fn identify(rule: &Rule, parts: &Parts) -> Result<Option<Principal>, ApiError> {
    if rule.policy == Policy::Open {
        return Ok(None);
    }
    let token = bearer(parts)?;
    let principal = rule.api.access().authenticate(token, now_ms());
    let principal = tokio::time::timeout(DEADLINE, principal).await;
    Ok(Some(principal.map_err(|_| ApiError::timeout())??))
}

/// Lets a caller pass, for the handler to see, or says why not.
async fn permit(rule: &Rule, principal: Principal, parts: &mut Parts) -> Result<(), ApiError> {
    let (allowed, scope, over) = match rule.policy {
        Policy::Open => return Ok(()),
        Policy::Dataset(scope) => {
            let params = path_params(parts, &()).await?;
            let dataset = dataset(&params)?;
            let namespace = dataset.namespace().to_owned();
            (principal.may(scope, &namespace), scope, namespace)
        }
        Policy::Some(scope) => {
            let allowed = principal.grants().cover_some(scope);
            (allowed, scope, "any namespace".to_owned())
        }
        Policy::All(scope) => {
            let allowed = principal.grants().cover_all(scope);
            (allowed, scope, "every namespace".to_owned())
        }
        Policy::Namespace(scope) => {
            let namespace = namespace(&path_params(parts, &()).await?)?;
            (principal.may(scope, &namespace), scope, namespace)
        }
    };
    if allowed {
        parts.extensions.insert(Caller(principal));
        return Ok(());
    }
    let label = principal.label();
    let message = format!("the token {label} does not grant {scope} over {over}");
    Err(ApiError::forbidden(message))
}

/// The token of a request, from its one header.
fn bearer(parts: &Parts) -> Result<&str, ApiError> {
    let mut values = parts.headers.get_all(header::AUTHORIZATION).iter();
    let value = match (values.next(), values.next()) {
        (None, _) => return Err(ApiError::unauthenticated("the request has no token")),
        (Some(_), Some(_)) => {
            return Err(ApiError::unauthenticated("the request has two tokens"));
        }
        (Some(value), None) => value,
    };
    let text = value.to_str().unwrap_or_default();
    let (scheme, token) = text.split_once(' ').unwrap_or((text, ""));
    if !scheme.eq_ignore_ascii_case("bearer") {
        let message = "the Authorization header is not Bearer and a token";
        return Err(ApiError::unauthenticated(message));
    }
    Ok(token.trim())
}

// A response cannot be lent across an await: its body is not Sync.
async fn audit(rule: &Rule, parts: &mut Parts, who: &str, status: u16, code: &'static str) {
    if rule.policy == Policy::Open {
        return;
    }
    // As it was parsed: a text that is no name is not repeated.
    let on = path_params(parts, &()).await.ok().and_then(|params| {
        let has = |wanted: &str| params.iter().any(|(name, _)| name == wanted);
        match (has("dataset"), has("table")) {
            (true, _) => dataset(&params).ok(),
            (_, true) => table(&params).ok().map(|of| of.dataset().clone()),
            _ => None,
        }
    });
    let on = on.map_or_else(String::new, |name| name.to_string());
    let (method, route) = (&parts.method, &rule.route);
    let changes = !matches!(*method, Method::GET | Method::HEAD);
    if changes || matches!(status, 401 | 403) {
        tracing::info!(target: "audit", who, what = %format_args!("{method} {route}"), on, status, result = code);
    } else {
        tracing::debug!(target: "audit", who, what = %format_args!("{method} {route}"), on, status, result = code);
    }
}

/// Who makes the request, for handlers whose answer depends on it.
#[derive(Clone, Debug)]
pub(super) struct Caller(pub(super) Principal);

impl Caller {
    /// Errors with 403 unless the caller has the scope over the namespace.
    pub(super) fn require(&self, scope: Scope, namespace: &str) -> Result<(), ApiError> {
        if self.0.may(scope, namespace) {
            return Ok(());
        }
        let label = self.0.label();
        let message = format!("the token {label} does not grant {scope} over {namespace}");
        Err(ApiError::forbidden(message))
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _state: &S) -> Result<Self, ApiError> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| ApiError::internal("an open route asked who is asking"))
    }
}
