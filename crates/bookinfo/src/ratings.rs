//! The ratings service: how many stars a reviewer gave. What is posted stays until the process ends.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use http::StatusCode;
use serde_json::{Value, json};

use crate::config::Config;

type Stars = BTreeMap<String, Value>;

/// Books that can be rated; more are refused, so that nobody fills our memory.
const MAX_BOOKS: usize = 1000;

#[derive(Clone)]
struct Ratings {
    posted: Arc<Mutex<BTreeMap<i64, Stars>>>,
    version: Arc<str>,
}

pub(crate) fn router(config: Config) -> Router {
    if !matches!(config.version.as_str(), "v1" | "v-faulty" | "v-delayed") {
        tracing::warn!(
            version = config.version,
            "this version of ratings needs a database; ratings are kept in memory"
        );
    }
    let ratings = Ratings { posted: Arc::default(), version: config.version.into() };
    Router::new()
        .route("/health", get(|| async { Json(json!({"status": "Ratings is healthy"})) }))
        .route("/ratings/{id}", get(read).post(write))
        .with_state(ratings)
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, Json(json!({ "error": message }))).into_response()
}

async fn read(State(ratings): State<Ratings>, Path(id): Path<String>) -> Response {
    let Ok(id) = id.parse::<i64>() else {
        return refuse(StatusCode::BAD_REQUEST, "please provide numeric product ID");
    };
    // Versions that misbehave on purpose: half of the calls fail, or take seven seconds.
    let unlucky = rand::random::<bool>();
    match &*ratings.version {
        "v-faulty" if unlucky => return refuse(StatusCode::SERVICE_UNAVAILABLE, "Service unavailable"),
        "v-delayed" if unlucky => tokio::time::sleep(Duration::from_secs(7)).await,
        _ => {}
    }
    let posted = ratings.posted.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get(&id).cloned();
    let stars = match posted {
        Some(stars) => json!(stars),
        None => json!({"Reviewer1": 5, "Reviewer2": 4}),
    };
    Json(json!({"id": id, "ratings": stars})).into_response()
}

async fn write(State(ratings): State<Ratings>, Path(id): Path<String>, body: Bytes) -> Response {
    let Ok(id) = id.parse::<i64>() else {
        return refuse(StatusCode::BAD_REQUEST, "please provide numeric product ID");
    };
    let Ok(stars) = serde_json::from_slice::<Stars>(&body) else {
        return refuse(StatusCode::BAD_REQUEST, "please provide valid ratings JSON");
    };
    let mut posted = ratings.posted.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if posted.len() >= MAX_BOOKS && !posted.contains_key(&id) {
        return refuse(StatusCode::INSUFFICIENT_STORAGE, "too many books are rated");
    }
    let answer = json!({"id": id, "ratings": stars});
    posted.insert(id, stars);
    Json(answer).into_response()
}
