//! The four services, talking to each other over real sockets.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use mizzen_testing::ReservedPort;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;

async fn start(config: Config) -> Address {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = address(listener.local_addr().unwrap());
    tokio::spawn(serve(listener, config, std::future::pending()));
    address
}

fn address(socket: SocketAddr) -> Address {
    Address { host: socket.ip().to_string(), port: socket.port() }
}

/// All of Bookinfo, with this version of reviews.
async fn bookinfo(version: &str) -> (Address, Config) {
    let details = start(Config::new(Service::Details, "v1")).await;
    let ratings = start(Config::new(Service::Ratings, "v1")).await;
    let reviews = start(Config { ratings: ratings.clone(), ..Config::new(Service::Reviews, version) }).await;
    let config = Config { details, reviews, ratings, ..Config::new(Service::Productpage, "v1") };
    (start(config.clone()).await, config)
}

/// Sends one request on a connection of its own; head and body of the answer.
async fn call(to: &Address, method: &str, path: &str, headers: &str, body: &str) -> (String, String) {
    let mut stream = TcpStream::connect((to.host.as_str(), to.port)).await.unwrap();
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nhost: {to}\r\nconnection: close\r\ncontent-length: {length}\r\n{headers}\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

async fn get(to: &Address, path: &str) -> (String, String) {
    call(to, "GET", path, "", "").await
}

async fn json(to: &Address, path: &str) -> Value {
    let (head, body) = get(to, path).await;
    serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {head}\n{body}"))
}

#[tokio::test]
async fn the_page_shows_the_stars_of_each_version() {
    for (version, seen) in [("v1", "no stars"), ("v2", "stars black"), ("v3", "stars red")] {
        let (page, _) = bookinfo(version).await;
        let (head, body) = get(&page, "/productpage").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert!(body.contains("<title>Simple Bookstore App</title>"));
        assert!(body.contains(seen), "{version}: {body}");
        assert!(body.contains(&format!("reviews-{version}")) && body.contains("William Shakespeare"));
    }
}

#[tokio::test]
async fn the_api_says_what_the_original_says() {
    let (page, config) = bookinfo("v3").await;
    assert_eq!(json(&page, "/api/v1/products").await[0]["title"], "The Comedy of Errors");
    assert_eq!(json(&page, "/api/v1/products/0").await["ISBN-13"], "123-1234567890");
    assert_eq!(json(&page, "/api/v1/products/0/ratings").await["ratings"]["Reviewer2"], 4);
    let reviews = json(&page, "/api/v1/products/0/reviews").await;
    assert_eq!((&reviews["id"], &reviews["clustername"]), (&"0".into(), &"null".into()));
    assert_eq!(reviews["reviews"][0]["rating"], serde_json::json!({"stars": 5, "color": "red"}));
    for (service, said) in [
        (&page, "Product page is healthy"),
        (&config.details, "Details is healthy"),
        (&config.reviews, "Reviews is healthy"),
        (&config.ratings, "Ratings is healthy"),
    ] {
        assert!(get(service, "/health").await.1.contains(said));
    }
    assert!(get(&config.details, "/details/x").await.0.starts_with("HTTP/1.1 400"));
    assert!(get(&page, "/nothing").await.0.starts_with("HTTP/1.1 404"));
    assert!(get(&page, "/static/bookinfo.css").await.0.contains("text/css"));
    assert!(get(&page, "/static/..%2fCargo.toml").await.0.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn ratings_can_be_posted() {
    let ratings = start(Config::new(Service::Ratings, "v1")).await;
    let (head, _) = call(&ratings, "POST", "/ratings/7", "", r#"{"Reviewer1": 1}"#).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    assert_eq!(json(&ratings, "/ratings/7").await["ratings"]["Reviewer1"], 1);
    assert_eq!(json(&ratings, "/ratings/8").await["ratings"]["Reviewer1"], 5, "other books are as before");
    assert!(call(&ratings, "POST", "/ratings/7", "", "{").await.0.starts_with("HTTP/1.1 400"));
    let large = "a".repeat(MAX_BODY_BYTES + 1);
    assert!(call(&ratings, "POST", "/ratings/7", "", &large).await.0.starts_with("HTTP/1.1 413"));
}

/// Answers every connection with what it was asked.
async fn echo() -> Address {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let at = address(listener.local_addr().unwrap());
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut asked = vec![0; 8192];
            let read = stream.read(&mut asked).await.unwrap_or(0);
            let body = serde_json::json!({"author": String::from_utf8_lossy(&asked[..read])}).to_string();
            let length = body.len();
            let answer = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}");
            drop(stream.write_all(answer.as_bytes()).await);
        }
    });
    at
}

#[tokio::test]
async fn the_signed_in_user_and_the_trace_go_along() {
    let details = echo().await;
    let page = start(Config { details, ..Config::new(Service::Productpage, "v1") }).await;
    let (head, _) = call(&page, "POST", "/login", "", "username=jason&passwd=x").await;
    assert!(head.starts_with("HTTP/1.1 302") && head.contains("location: /productpage"), "{head}");
    let cookie = head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    let cookie = cookie.split(';').next().unwrap();

    let headers =
        format!("cookie: {cookie}\r\nx-request-id: r1\r\ntraceparent: t1\r\nend-user: mallory\r\nx-other: no\r\n");
    let (_, body) = call(&page, "GET", "/api/v1/products/0", &headers, "").await;
    let seen: Value = serde_json::from_str(&body).unwrap();
    let seen = seen["author"].as_str().unwrap();
    for wanted in ["GET /details/0 HTTP/1.1", "end-user: jason", "x-request-id: r1", "traceparent: t1"] {
        assert!(seen.contains(wanted), "{wanted} is not in {seen}");
    }
    assert!(!seen.contains("mallory") && !seen.contains("x-other"), "{seen}");

    // Nobody is signed in: a client cannot name itself.
    let (_, body) = call(&page, "GET", "/api/v1/products/0", "end-user: mallory\r\n", "").await;
    assert!(!body.contains("mallory"), "{body}");
    let (head, _) = call(&page, "GET", "/logout", "", "").await;
    assert!(head.contains("Max-Age=0"), "{head}");
    for bad in ["", "username=", "username=a%0d%0ab", "name=jason"] {
        assert!(call(&page, "POST", "/login", "", bad).await.0.starts_with("HTTP/1.1 400"), "{bad:?}");
    }
}

#[tokio::test]
async fn a_proxy_is_asked_with_the_whole_uri() {
    let proxy = echo().await;
    let page = start(Config { proxy: Some(proxy), ..Config::new(Service::Productpage, "v1") }).await;
    let (_, body) = get(&page, "/api/v1/products/0").await;
    assert!(
        body.contains("GET http://details:9080/details/0 HTTP/1.1") && body.contains("host: details:9080"),
        "{body}"
    );
}

#[tokio::test]
async fn a_missing_service_is_told_and_spoils_nothing_else() {
    let details = start(Config::new(Service::Details, "v1")).await;
    let reserved = ReservedPort::new();
    let nobody = || address(reserved.address());
    let reviews = start(Config { ratings: nobody(), ..Config::new(Service::Reviews, "v2") }).await;
    let page = start(Config { details, reviews, ..Config::new(Service::Productpage, "v1") }).await;
    let (head, body) = get(&page, "/productpage").await;
    assert!(head.starts_with("HTTP/1.1 200"));
    assert!(body.contains("Ratings service is currently unavailable"), "{body}");

    let lonely = Config { details: nobody(), reviews: nobody(), ..Config::new(Service::Productpage, "v1") };
    let page = start(lonely).await;
    let (head, body) = get(&page, "/productpage").await;
    assert!(head.starts_with("HTTP/1.1 200"), "the page itself is there");
    assert!(body.contains("Sorry, product details are currently unavailable for this book."));
    assert!(body.contains("Sorry, product reviews are currently unavailable for this book."));
    assert!(get(&page, "/api/v1/products/0/reviews").await.0.starts_with("HTTP/1.1 500"));
}

/// Reviews that never answer: two tries of three seconds, as the samples about delays count on.
#[tokio::test]
async fn reviews_are_tried_twice() {
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let reviews = address(silent.local_addr().unwrap());
    let (tell, mut told) = tokio::sync::mpsc::unbounded_channel();
    let accepted = tokio::spawn(async move {
        while let Ok(connection) = silent.accept().await {
            tell.send(connection).unwrap();
        }
    });
    let page = start(Config { reviews, ..Config::new(Service::Productpage, "v1") }).await;
    let before = Instant::now();
    let (head, _) = get(&page, "/api/v1/products/0/reviews").await;
    let took = before.elapsed();
    assert!(head.starts_with("HTTP/1.1 500"), "{head}");
    // How much longer it took says only how busy the machine is.
    assert!(took >= Duration::from_millis(5_900), "took {took:?}");
    let tries = std::iter::from_fn(|| told.try_recv().ok()).count();
    assert_eq!(tries, 2, "tries that arrived");
    accepted.abort();
}
