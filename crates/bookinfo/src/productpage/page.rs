//! The HTML of the product page. Everything that another service or the user said is escaped.

use std::fmt::{self, Write};

use http::StatusCode;
use serde_json::Value;

use super::Heard;

pub(super) const TITLE: &str = "The Comedy of Errors";
pub(super) const DESCRIPTION: &str = "<p>Two pairs of identical twins, separated by a shipwreck, meet again in one \
    town without knowing it. One of Shakespeare's earliest and shortest plays: a farce of mistaken identity, of which \
    wordplay makes the better part.</p>";

/// Text that is safe in HTML and in its attributes.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for character in self.0.chars() {
            match character {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                other => f.write_char(other)?,
            }
        }
        Ok(())
    }
}

const HEAD: &str = r#"<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>Simple Bookstore App</title>
<link rel="icon" href="/static/favicon.svg" type="image/svg+xml">
<link rel="stylesheet" href="/static/bookinfo.css">
</head>
<body>
"#;

const BRAND: &str =
    r#"<a class="brand" href="/productpage"><span aria-hidden="true" class="mark"></span>BookInfo Sample</a>"#;

/// The page at `/`: where to go from here.
pub(super) fn index() -> String {
    format!(
        r#"{HEAD}<header class="bar">{BRAND}</header>
<main class="narrow">
<h1>Welcome to the bookstore</h1>
<p class="lead">A small application made of four services. Every call between them goes through the mesh.</p>
<ul class="links">
<li><a href="/productpage"><strong>Product page</strong><span>what customers see</span></a></li>
<li><a href="/api/v1/products"><strong>/api/v1/products</strong><span>all products as JSON</span></a></li>
<li><a href="/api/v1/products/0"><strong>/api/v1/products/0</strong><span>details of one book</span></a></li>
<li><a href="/api/v1/products/0/reviews"><strong>/api/v1/products/0/reviews</strong><span>its reviews</span></a></li>
<li><a href="/api/v1/products/0/ratings"><strong>/api/v1/products/0/ratings</strong><span>its ratings</span></a></li>
</ul>
</main>
</body>
</html>
"#
    )
}

/// The product page.
pub(super) fn front(user: Option<&str>, details: &Heard, reviews: &Heard) -> String {
    let mut page = String::with_capacity(8 * 1024);
    page.push_str(HEAD);
    // Writing into a String cannot fail.
    let _ = write_front(&mut page, user, details, reviews);
    page
}

fn write_front(page: &mut String, user: Option<&str>, details: &Heard, reviews: &Heard) -> fmt::Result {
    write!(page, "<header class=\"bar\">{BRAND}")?;
    write_session(page, user)?;
    write!(
        page,
        r#"</header>
<main>
<section class="hero" aria-labelledby="title">
<div class="cover" aria-hidden="true"><span>The Comedy<br>of Errors</span><small>W. Shakespeare</small></div>
<div>
<h1 id="title">{TITLE}</h1>
<div class="lead">{DESCRIPTION}</div>
</div>
</section>
<div class="columns">
"#
    )?;
    write_details(page, details)?;
    write_reviews(page, reviews)?;
    page.push_str("</div>\n</main>\n");
    page.push_str(
        "<footer>Bookinfo, as shipped with mizzen. Reload the page to see which version of reviews answers.</footer>\n",
    );
    page.push_str("</body>\n</html>\n");
    Ok(())
}

fn write_session(page: &mut String, user: Option<&str>) -> fmt::Result {
    match user {
        Some(user) => writeln!(
            page,
            r#"<div class="session"><span class="who">Signed in as <strong>{}</strong></span> <a class="button quiet" href="/logout">Sign out</a></div>"#,
            Escaped(user)
        ),
        None => {
            page.push_str(
                r#"<details class="session"><summary class="button">Sign in</summary>
<form method="post" action="/login" class="sheet">
<label for="username">User name</label>
<input id="username" name="username" autocomplete="username" maxlength="64" required>
<label for="passwd">Password <span class="muted">(any, none is checked)</span></label>
<input id="passwd" name="passwd" type="password" autocomplete="off">
<button class="button" type="submit">Sign in</button>
</form></details>
"#,
            );
            Ok(())
        }
    }
}

fn write_details(page: &mut String, details: &Heard) -> fmt::Result {
    page.push_str("<section class=\"card\" aria-labelledby=\"details\">\n<h2 id=\"details\">Book details</h2>\n");
    if details.status == StatusCode::OK {
        page.push_str("<dl>\n");
        for (label, key) in [
            ("Type", "type"),
            ("Pages", "pages"),
            ("Publisher", "publisher"),
            ("Language", "language"),
            ("ISBN-10", "ISBN-10"),
            ("ISBN-13", "ISBN-13"),
            ("Author", "author"),
            ("Year", "year"),
        ] {
            if let Some(value) = details.body.get(key) {
                writeln!(page, "<div><dt>{label}</dt><dd>{}</dd></div>", Escaped(&shown(value)))?;
            }
        }
        page.push_str("</dl>\n");
    } else {
        write_problem(page, "Error fetching product details!", details)?;
    }
    page.push_str("</section>\n");
    Ok(())
}

fn write_reviews(page: &mut String, reviews: &Heard) -> fmt::Result {
    page.push_str("<section class=\"card\" aria-labelledby=\"reviews\">\n<div class=\"heading\"><h2 id=\"reviews\">Book reviews</h2>");
    if reviews.status != StatusCode::OK {
        page.push_str("</div>\n");
        write_problem(page, "Error fetching product reviews!", reviews)?;
        page.push_str("</section>\n");
        return Ok(());
    }
    let list = reviews.body.get("reviews").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let stars = Stars::of(list);
    let pod = reviews.body.get("podname").map(shown).unwrap_or_default();
    let version = version_of(&pod).unwrap_or(match stars {
        Stars::None => "v1",
        Stars::Black => "v2",
        Stars::Red => "v3",
        Stars::Other | Stars::Unavailable => "v?",
    });
    let kind = stars.class();
    writeln!(
        page,
        r#"<span class="chip {kind}"><span class="dot" aria-hidden="true"></span>reviews {} · {}</span></div>"#,
        Escaped(version),
        stars.words(),
    )?;
    for review in list {
        page.push_str("<figure>\n");
        let text = review.get("text").map(shown).unwrap_or_default();
        writeln!(page, "<blockquote>{}</blockquote>", Escaped(&text))?;
        let reviewer = review.get("reviewer").map(shown).unwrap_or_default();
        write!(page, "<figcaption><span class=\"reviewer\">{}</span>", Escaped(&reviewer))?;
        if let Some(rating) = review.get("rating") {
            write_rating(page, rating)?;
        }
        page.push_str("</figcaption>\n</figure>\n");
    }
    let cluster = reviews.body.get("clustername").map(shown).filter(|name| !name.is_empty() && name != "null");
    write!(page, "<p class=\"served\">Reviews served by <code>{}</code>", Escaped(&pod))?;
    if let Some(cluster) = cluster {
        write!(page, " on cluster <code>{}</code>", Escaped(&cluster))?;
    }
    page.push_str("</p>\n</section>\n");
    Ok(())
}

fn write_rating(page: &mut String, rating: &Value) -> fmt::Result {
    if let Some(stars) = rating.get("stars").and_then(Value::as_u64) {
        let full = usize::try_from(stars.min(5)).unwrap_or(5);
        let class = Stars::of_color(rating.get("color").and_then(Value::as_str)).class();
        return write!(
            page,
            r#"<span class="stars {class}" role="img" aria-label="{full} out of 5 stars"><span class="full">{}</span><span class="empty">{}</span></span>"#,
            "★".repeat(full),
            "★".repeat(5 - full),
        );
    }
    let message = rating.get("error").map(shown).unwrap_or_else(|| "Ratings cannot be read".to_owned());
    write!(page, r#"<span class="problem small" role="status">{}</span>"#, Escaped(&message))
}

fn write_problem(page: &mut String, title: &str, heard: &Heard) -> fmt::Result {
    let message = heard.body.get("error").map(shown).unwrap_or_default();
    writeln!(
        page,
        r#"<div class="problem" role="alert"><strong>{title}</strong><span>{}</span></div>"#,
        Escaped(&message)
    )
}

/// What colour the stars of an answer have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stars {
    None,
    Black,
    Red,
    Other,
    Unavailable,
}

impl Stars {
    fn of(reviews: &[Value]) -> Self {
        match reviews.iter().find_map(|review| review.get("rating")) {
            None => Self::None,
            Some(rating) if rating.get("stars").is_none() => Self::Unavailable,
            Some(rating) => Self::of_color(rating.get("color").and_then(Value::as_str)),
        }
    }

    fn of_color(color: Option<&str>) -> Self {
        match color {
            Some("black") => Self::Black,
            Some("red") => Self::Red,
            _ => Self::Other,
        }
    }

    fn class(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Black => "black",
            Self::Red => "red",
            Self::Other | Self::Unavailable => "other",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::None => "no stars",
            Self::Black => "black stars",
            Self::Red => "red stars",
            Self::Other => "stars",
            Self::Unavailable => "stars unavailable",
        }
    }
}

/// `v2` of a pod name such as `reviews-v2-6b8c`.
fn version_of(pod: &str) -> Option<&str> {
    pod.split('-').find(|part| {
        part.strip_prefix('v')
            .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

fn shown(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn heard(body: Value) -> Heard {
        Heard { status: StatusCode::OK, body }
    }

    fn reviews(rating: Option<Value>) -> Heard {
        let mut review = json!({"reviewer": "Reviewer1", "text": "good"});
        if let Some(rating) = rating {
            review["rating"] = rating;
        }
        heard(json!({"podname": "reviews-v2-abc", "clustername": "null", "reviews": [review]}))
    }

    #[test]
    fn nothing_that_others_say_becomes_markup() {
        let evil = "<script>alert('x')</script>\"&";
        let details = heard(json!({"author": evil, "pages": 3}));
        let reviews = heard(json!({
            "podname": evil, "clustername": evil,
            "reviews": [{"reviewer": evil, "text": evil, "rating": {"error": evil}}],
        }));
        let failed = Heard { status: StatusCode::BAD_GATEWAY, body: json!({"error": evil}) };
        for page in [front(Some(evil), &details, &reviews), front(None, &failed, &failed)] {
            assert!(!page.contains("<script"), "{page}");
            assert!(page.contains("&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;"));
        }
    }

    #[test]
    fn stars_are_shown_in_their_colour_and_spoken() {
        let page = front(None, &heard(json!({})), &reviews(Some(json!({"stars": 4, "color": "red"}))));
        assert!(page.contains("class=\"stars red\"") && page.contains("aria-label=\"4 out of 5 stars\""), "{page}");
        assert!(page.contains("★★★★</span>"));
        let page = front(None, &heard(json!({})), &reviews(Some(json!({"stars": 99, "color": "black"}))));
        assert!(page.contains("5 out of 5") && page.contains("stars black"), "{page}");
        let page = front(None, &heard(json!({})), &reviews(None));
        assert!(page.contains("no stars") && !page.contains("★"), "{page}");
    }

    #[test]
    fn failures_are_told_on_the_page() {
        let rating = json!({"error": "Ratings service is currently unavailable"});
        let page = front(None, &heard(json!({})), &reviews(Some(rating)));
        assert!(page.contains("Ratings service is currently unavailable"));
        let gone = Heard { status: StatusCode::SERVICE_UNAVAILABLE, body: json!({"error": "gone"}) };
        let page = front(None, &gone, &gone);
        assert!(page.contains("Error fetching product details!") && page.contains("Error fetching product reviews!"));
        let unreadable = heard(json!(["not", "an", "object"]));
        assert!(front(None, &unreadable, &unreadable).contains("Book reviews"));
    }

    #[test]
    fn the_version_is_read_from_the_pods_name() {
        assert_eq!(version_of("reviews-v2-6b8c"), Some("v2"));
        assert_eq!(version_of("reviews-v13"), Some("v13"));
        assert_eq!(version_of("reviews-vx-van"), None);
    }
}
