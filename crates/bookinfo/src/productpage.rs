//! The product page: the one service that people see. It asks details and reviews and shows what they say.

mod page;
mod session;

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION, SET_COOKIE, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, StatusCode};
use serde_json::{Value, json};

use crate::config::{Address, Config};
use crate::headers;
use crate::upstream::Upstream;

/// How long details, one try of reviews, and ratings may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Tries for reviews. With the time above it gives up after six seconds, which the delay-injection samples count on.
const REVIEW_TRIES: usize = 2;

#[derive(Clone)]
struct Productpage {
    config: Arc<Config>,
    upstream: Upstream,
}

pub(crate) fn router(config: Config) -> Router {
    let upstream = Upstream::new(config.proxy.clone());
    Router::new()
        .route("/", get(index))
        .route("/index.html", get(index))
        .route("/health", get(|| async { "Product page is healthy" }))
        .route("/productpage", get(front))
        .route("/login", post(login))
        .route("/logout", get(logout))
        .route("/static/{file}", get(asset))
        .route("/api/v1/products", get(|| async { Json(products()) }))
        .route("/api/v1/products/{id}", get(product))
        .route("/api/v1/products/{id}/reviews", get(product_reviews))
        .route("/api/v1/products/{id}/ratings", get(product_ratings))
        .with_state(Productpage { config: Arc::new(config), upstream })
}

/// What another service said, or why there is nothing: the status and JSON that the API passes on.
struct Heard {
    status: StatusCode,
    body: Value,
}

impl IntoResponse for Heard {
    fn into_response(self) -> Response {
        (self.status, Json(self.body)).into_response()
    }
}

impl Productpage {
    async fn ask(&self, what: &str, target: &Address, path: String, headers: &HeaderMap, tries: usize) -> Heard {
        let mut status = StatusCode::INTERNAL_SERVER_ERROR;
        for _ in 0..tries {
            match self.upstream.get(target, &path, headers.clone(), PATIENCE).await {
                Ok(answer) if answer.status == StatusCode::OK => match serde_json::from_slice(&answer.body) {
                    Ok(body) => return Heard { status: StatusCode::OK, body },
                    Err(error) => tracing::warn!(%error, what, "an answer cannot be read"),
                },
                Ok(answer) => {
                    tracing::warn!(status = answer.status.as_u16(), what, "answered with an error");
                    status = answer.status;
                }
                Err(error) => tracing::warn!(%error, what, "cannot be had"),
            }
        }
        let error = format!("Sorry, product {what} are currently unavailable for this book.");
        Heard { status, body: json!({ "error": error }) }
    }

    async fn details(&self, id: i64, headers: &HeaderMap) -> Heard {
        self.ask("details", &self.config.details, format!("/details/{id}"), headers, 1).await
    }

    async fn reviews(&self, id: i64, headers: &HeaderMap) -> Heard {
        self.ask("reviews", &self.config.reviews, format!("/reviews/{id}"), headers, REVIEW_TRIES).await
    }

    async fn ratings(&self, id: i64, headers: &HeaderMap) -> Heard {
        self.ask("ratings", &self.config.ratings, format!("/ratings/{id}"), headers, 1).await
    }
}

/// The headers for inner calls: those of the request, with the signed-in user as `end-user`.
fn inner_headers(incoming: &HeaderMap) -> (HeaderMap, Option<String>) {
    let user = session::user(incoming);
    let mut outgoing = headers::forwarded(incoming);
    headers::set_user(&mut outgoing, user.as_deref());
    (outgoing, user)
}

async fn index() -> Response {
    html(page::index())
}

async fn front(State(service): State<Productpage>, incoming: HeaderMap) -> Response {
    let (outgoing, user) = inner_headers(&incoming);
    let (details, reviews) = tokio::join!(service.details(0, &outgoing), service.reviews(0, &outgoing));
    html(page::front(user.as_deref(), &details, &reviews))
}

async fn product(State(service): State<Productpage>, Path(id): Path<String>, incoming: HeaderMap) -> Response {
    match id.parse() {
        Ok(id) => service.details(id, &inner_headers(&incoming).0).await.into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn product_reviews(State(service): State<Productpage>, Path(id): Path<String>, incoming: HeaderMap) -> Response {
    match id.parse() {
        Ok(id) => service.reviews(id, &inner_headers(&incoming).0).await.into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn product_ratings(State(service): State<Productpage>, Path(id): Path<String>, incoming: HeaderMap) -> Response {
    match id.parse() {
        Ok(id) => service.ratings(id, &inner_headers(&incoming).0).await.into_response(),
        Err(_) => StatusCode::NOT_FOUND.into_response(),
    }
}

fn products() -> Value {
    json!([{"id": 0, "title": page::TITLE, "descriptionHtml": page::DESCRIPTION}])
}

async fn login(body: Bytes) -> Response {
    match session::user_of_form(&body) {
        Some(user) => back_to_page(session::signed_in(&user)),
        None => (StatusCode::BAD_REQUEST, "the form needs a username of 1 to 64 printable characters").into_response(),
    }
}

async fn logout() -> Response {
    back_to_page(session::signed_out())
}

fn back_to_page(cookie: HeaderValue) -> Response {
    let location = HeaderValue::from_static("/productpage");
    (StatusCode::FOUND, [(LOCATION, location), (SET_COOKIE, cookie)]).into_response()
}

fn html(page: String) -> Response {
    let headers = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (
            CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none'",
        ),
    ];
    (headers, Html(page)).into_response()
}

async fn asset(Path(file): Path<String>) -> Response {
    let (kind, content) = match file.as_str() {
        "bookinfo.css" => ("text/css; charset=utf-8", include_str!("productpage/bookinfo.css")),
        "favicon.svg" => ("image/svg+xml", include_str!("productpage/favicon.svg")),
        _ => return StatusCode::NOT_FOUND.into_response(),
    };
    ([(CONTENT_TYPE, kind), (CACHE_CONTROL, "max-age=300"), (X_CONTENT_TYPE_OPTIONS, "nosniff")], content)
        .into_response()
}
