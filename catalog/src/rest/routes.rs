//! Every route with its policy, and the document generated from the same handlers.

use axum::Router;
use axum::http::StatusCode;
use axum::middleware;
use axum::response::IntoResponse;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::document::Document;
use super::error::ApiError;
use super::policy::{Policy, SCHEME, decided, guard, only_decided, open};
use super::wire::EventItem;
use super::{
    Api, Parts, datasets, events, health, iceberg, maintain, models, nodes, sample, sync, tags,
    tokens, versions, warm,
};
use crate::access::Scope;

/// The catalog's routes. Runs until the parts' `shutdown` only as far as event streams go; everything
/// else ends with its request.
pub fn router(parts: Parts) -> Router {
    let api = Api::new(parts);
    let (router, openapi) = all(&api).split_for_parts();
    router
        .merge(open(super::document::route(Document::new(&openapi))))
        .merge(open(super::console::routes()))
        .fallback(async || decided(ApiError::not_found("there is no such route").into_response()))
        .method_not_allowed_fallback(async || decided(no_such_method().into_response()))
        .layer(middleware::from_fn(only_decided))
        .with_state(api)
}

fn no_such_method() -> ApiError {
    let message = "the route has no such method";
    let hint = "see /api/openapi.json for the methods of each route";
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "method_not_allowed",
        message,
        hint,
    )
}

/// The OpenAPI document alone.
pub fn document(parts: Parts) -> OpenApi {
    all(&Api::new(parts)).into_openapi()
}

fn all(api: &Api) -> OpenApiRouter<Api> {
    use Policy::{All, Dataset, Open};
    use Scope::{Admin, List, Publish, Read};
    let any = Policy::Some(List);
    OpenApiRouter::with_openapi(head())
        .routes(guard(api, Open, routes!(health::healthz)))
        .routes(guard(api, Open, routes!(health::readyz)))
        .routes(guard(api, Open, routes!(health::metrics)))
        .routes(guard(api, any, routes!(datasets::namespaces)))
        .routes(guard(api, any, routes!(datasets::list)))
        .routes(guard(api, Dataset(List), routes!(datasets::show)))
        .routes(guard(api, Dataset(Publish), routes!(datasets::register)))
        .routes(guard(api, Dataset(Admin), routes!(datasets::remove)))
        .routes(guard(api, Dataset(List), routes!(versions::list)))
        .routes(guard(api, Dataset(List), routes!(versions::show)))
        .routes(guard(api, Dataset(Admin), routes!(versions::remove)))
        .routes(guard(api, Dataset(Read), routes!(versions::files)))
        .routes(guard(api, Dataset(Read), routes!(versions::directory)))
        .routes(guard(api, Dataset(List), routes!(versions::partitions)))
        .routes(guard(api, Dataset(Read), routes!(sample::sample)))
        .routes(guard(api, Dataset(Read), routes!(versions::diff)))
        .routes(guard(api, any, routes!(versions::resolve)))
        .routes(guard(api, Dataset(Publish), routes!(tags::set)))
        .routes(guard(api, Dataset(Publish), routes!(tags::remove)))
        .routes(guard(api, Dataset(List), routes!(sync::why)))
        .routes(guard(api, Dataset(Publish), routes!(sync::batch)))
        .routes(guard(api, All(Admin), routes!(sync::roots)))
        .routes(guard(api, All(Admin), routes!(sync::add_root)))
        .routes(guard(api, All(Admin), routes!(sync::remove_root)))
        .routes(guard(api, Dataset(Publish), routes!(models::begin)))
        .routes(guard(api, Dataset(Publish), routes!(models::finish)))
        .routes(guard(api, Dataset(Publish), routes!(models::show)))
        .routes(guard(api, Dataset(Publish), routes!(models::abandon)))
        .routes(guard(api, All(Admin), routes!(maintain::collect)))
        .routes(guard(api, All(Admin), routes!(maintain::scrub)))
        .routes(guard(api, any, routes!(events::follow)))
        .routes(guard(api, any, routes!(nodes::list)))
        .routes(guard(api, Dataset(List), routes!(nodes::heat)))
        .routes(guard(api, Policy::Some(Read), routes!(nodes::report)))
        .routes(guard(api, any, routes!(warm::list)))
        .routes(guard(api, any, routes!(warm::show)))
        .routes(guard(api, Policy::Some(Read), routes!(warm::create)))
        .routes(guard(api, Policy::Some(Read), routes!(warm::cancel)))
        .routes(guard(api, All(Admin), routes!(tokens::list)))
        .routes(guard(api, All(Admin), routes!(tokens::create)))
        .routes(guard(api, All(Admin), routes!(tokens::revoke)))
        .routes(guard(api, Dataset(Read), routes!(iceberg::made)))
        .merge(iceberg::router(api))
}

/// What the document says before any route.
fn head() -> OpenApi {
    let license = LicenseBuilder::new()
        .name("Apache-2.0")
        .identifier(Some("Apache-2.0"))
        .build();
    let info = InfoBuilder::new()
        .title("Terrace catalog")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(
            "Datasets by name and version. Every error is an ErrorBody.",
        ))
        .license(Some(license))
        .build();
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some(
            "A token of this catalog. What a route asks for is written beside it: list, read, \
             publish or admin, over the dataset's namespace.",
        ))
        .build();
    let components = ComponentsBuilder::new()
        .security_scheme(SCHEME, SecurityScheme::Http(bearer))
        // Named by no route: it stands in the data of messages.
        .schema_from::<EventItem>()
        .build();
    OpenApiBuilder::new()
        .info(info)
        .components(Some(components))
        .build()
}
