//! The reviews service: what readers say about a book; versions 2 and 3 add stars, which they ask ratings for.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{Path, State};
use axum::routing::get;
use axum::{Json, Router};
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::config::Config;
use crate::headers;
use crate::upstream::Upstream;

/// Reviewers and what they say.
const REVIEWS: [(&str, &str); 2] = [
    ("Reviewer1", "Two pairs of twins, one town, and not a dull minute. I laughed from the first mix-up to the last."),
    (
        "Reviewer2",
        "Quick, warm and clever. It has less depth than his later plays, but what a way to spend an evening.",
    ),
];

#[derive(Clone)]
struct Reviews {
    config: Arc<Config>,
    upstream: Upstream,
}

pub(crate) fn router(config: Config) -> Router {
    let upstream = Upstream::new(config.proxy.clone());
    Router::new()
        .route("/health", get(|| async { Json(json!({"status": "Reviews is healthy"})) }))
        .route("/reviews/{id}", get(reviews))
        .with_state(Reviews { config: Arc::new(config), upstream })
}

async fn reviews(
    State(service): State<Reviews>,
    Path(id): Path<String>,
    headers: HeaderMap,
) -> (StatusCode, Json<Value>) {
    let Ok(id) = id.parse::<i64>() else {
        return (StatusCode::BAD_REQUEST, Json(json!({"error": "please provide numeric product id"})));
    };
    let rating = service.ratings(id, &headers).await;
    let all = REVIEWS.map(|(reviewer, text)| {
        let mut review = Map::new();
        review.insert("reviewer".to_owned(), reviewer.into());
        review.insert("text".to_owned(), text.into());
        if let Some(rating) = rating.of(reviewer, &service.config.star_color) {
            review.insert("rating".to_owned(), rating);
        }
        Value::Object(review)
    });
    let answer = json!({
        "id": id.to_string(),
        "podname": service.config.pod_name,
        // The original writes the text "null" where it knows no cluster.
        "clustername": service.config.cluster_name.as_deref().unwrap_or("null"),
        "reviews": all,
    });
    (StatusCode::OK, Json(answer))
}

/// What is known about stars.
enum Rating {
    /// This version has none.
    Off,
    Stars(Map<String, Value>),
    Unavailable,
}

impl Rating {
    fn of(&self, reviewer: &str, color: &str) -> Option<Value> {
        match self {
            Self::Off => None,
            Self::Stars(stars) => match stars.get(reviewer).and_then(Value::as_i64) {
                Some(stars) => Some(json!({"stars": stars, "color": color})),
                None => Some(json!({"error": "Ratings service has no rating for this reviewer"})),
            },
            Self::Unavailable => Some(json!({"error": "Ratings service is currently unavailable"})),
        }
    }
}

impl Reviews {
    async fn ratings(&self, id: i64, incoming: &HeaderMap) -> Rating {
        #[derive(Deserialize)]
        struct Answer {
            ratings: Map<String, Value>,
        }
        if !self.config.enable_ratings {
            return Rating::Off;
        }
        // Black stars are patient, all others are not: the samples that inject delays count on it.
        let patience =
            if self.config.star_color == "black" { Duration::from_secs(10) } else { Duration::from_millis(2500) };
        let path = format!("/ratings/{id}");
        match self.upstream.get(&self.config.ratings, &path, headers::forwarded(incoming), patience).await {
            Ok(answer) if answer.status == StatusCode::OK => match serde_json::from_slice::<Answer>(&answer.body) {
                Ok(answer) => Rating::Stars(answer.ratings),
                Err(error) => {
                    tracing::warn!(%error, "ratings answered what cannot be read");
                    Rating::Unavailable
                }
            },
            Ok(answer) => {
                tracing::warn!(status = answer.status.as_u16(), "ratings answered with an error");
                Rating::Unavailable
            }
            Err(error) => {
                tracing::warn!(%error, "ratings cannot be had");
                Rating::Unavailable
            }
        }
    }
}
