//! String matches and regular expressions.

use mizzen_api::networking::StringMatch;

use crate::check::Check;
use crate::code;

/// As in Istio; longer ones are refused before they are compiled.
const MAX_REGEX_BYTES: usize = 1024;
/// What one compiled expression may take: an expression of 1024 bytes can ask for gigabytes. A little less than proxies
/// allow, which add anchors to it.
const MAX_COMPILED_BYTES: usize = 1000 << 10;

pub(super) fn string_match(check: &mut Check, value: &StringMatch) {
    match value {
        StringMatch::Present | StringMatch::Exact(_) => {}
        StringMatch::Prefix(prefix) => {
            if prefix.is_empty() {
                check.field("prefix", |check| {
                    check.not_allowed("an empty prefix matches everything", "write a prefix, or leave the match out");
                });
            }
        }
        StringMatch::Regex(pattern) => check.field("regex", |check| regex(check, pattern)),
    }
}

/// A regular expression in RE2's syntax, small enough to be compiled by every proxy.
pub(super) fn regex(check: &mut Check, pattern: &str) {
    if pattern.len() > MAX_REGEX_BYTES {
        return check.error(
            code::REGEX,
            format!("the regular expression has {} bytes; at most {MAX_REGEX_BYTES} are taken", pattern.len()),
            "write a shorter one, or several matches",
        );
    }
    // `*` alone means presence of a header, here and in Istio.
    if pattern == "*" {
        return;
    }
    match regex::RegexBuilder::new(pattern).size_limit(MAX_COMPILED_BYTES).build() {
        Ok(_) => {}
        Err(regex::Error::CompiledTooBig(_)) => check.error(
            code::REGEX,
            "the regular expression becomes too large when it is compiled",
            "use smaller repetition counts",
        ),
        Err(error) => {
            let (message, hint) = explained(pattern, &error.to_string());
            check.error(code::REGEX, message, hint);
        }
    }
}

fn explained(pattern: &str, error: &str) -> (String, &'static str) {
    // The last line of the library's message says what is wrong; the lines before draw the expression.
    let reason = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
    let message = format!("`{}` is no regular expression: {reason}", crate::yaml::shortened(pattern));
    let hint = if reason.contains("look-around") {
        "RE2 has no look-ahead and look-behind; use several matches or `withoutHeaders`"
    } else if reason.contains("backreferences") {
        "RE2 has no back-references; write the text out"
    } else if reason.contains("repetition operator missing expression") {
        "write `.*` where a shell would take `*`"
    } else {
        "write it in RE2's syntax, for instance `/v[0-9]+/.*`"
    };
    (message, hint)
}
