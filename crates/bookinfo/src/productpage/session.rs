//! Who is signed in. There is no password: the name in the cookie is for routing by user, and proves nothing.

use http::header::COOKIE;
use http::{HeaderMap, HeaderValue};
use percent_encoding::{NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

const NAME: &str = "session";
const MAX_USER_BYTES: usize = 64;

/// The user of a request's session cookie.
pub(super) fn user(headers: &HeaderMap) -> Option<String> {
    headers
        .get_all(COOKIE)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == NAME)
        .and_then(|(_, value)| decoded(value))
}

/// The user name of a sign-in form.
pub(super) fn user_of_form(body: &[u8]) -> Option<String> {
    let body = std::str::from_utf8(body).ok()?;
    let (_, value) = body.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == "username")?;
    decoded(&value.replace('+', " "))
}

/// A name that fits a header: printable ASCII without spaces around it.
fn decoded(text: &str) -> Option<String> {
    let name = percent_decode_str(text).decode_utf8().ok()?;
    let name = name.trim();
    let fits = (1..=MAX_USER_BYTES).contains(&name.len()) && name.bytes().all(|byte| (0x20..0x7f).contains(&byte));
    fits.then(|| name.to_owned())
}

pub(super) fn signed_in(user: &str) -> HeaderValue {
    cookie(&format!("{NAME}={}; Path=/; HttpOnly; SameSite=Lax", utf8_percent_encode(user, NON_ALPHANUMERIC)))
}

pub(super) fn signed_out() -> HeaderValue {
    cookie(&format!("{NAME}=; Path=/; HttpOnly; SameSite=Lax; Max-Age=0"))
}

fn cookie(text: &str) -> HeaderValue {
    // Encoded names are ASCII; should that ever fail, nobody is signed in.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}
