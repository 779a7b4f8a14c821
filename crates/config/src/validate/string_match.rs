//! String matches and regular expressions.

use mizzen_api::networking::StringMatch;

use crate::check::Check;
use crate::code;

/// As in Istio; longer ones are refused before they are compiled.
const MAX_REGEX_BYTES: usize = 1024;
/// What one compiled expression may take: an expression of 1024 bytes can ask for gigabytes. A little less than proxies
/// allow, which add anchors to it.
const MAX_COMPILED_BYTES: usize = 1000 << 10;

/// Expressions up to this size cost next to nothing.
const SMALL_BYTES: usize = 64 << 10;
/// Larger ones of one file: each takes milliseconds, and a file could have ten thousands.
const MAX_LARGE: u32 = 200;

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
    if let Err(mut error) = compile(pattern, SMALL_BYTES) {
        if matches!(error, regex::Error::CompiledTooBig(_)) {
            if check.large_expressions == MAX_LARGE {
                return check.error(
                    code::REGEX,
                    format!("the file has more than {MAX_LARGE} regular expressions that become large when they are compiled"),
                    "use smaller repetition counts, or split the file",
                );
            }
            check.large_expressions += 1;
            match compile(pattern, MAX_COMPILED_BYTES) {
                Ok(()) => return,
                Err(still) => error = still,
            }
        }
        if matches!(error, regex::Error::CompiledTooBig(_)) {
            return check.error(
                code::REGEX,
                "the regular expression becomes too large when it is compiled",
                "use smaller repetition counts",
            );
        }
        let (message, hint) = explained(pattern, &error.to_string());
        check.error(code::REGEX, message, hint);
    }
}

/// As the proxies compile it: `\d` and `\w` are about ASCII, as in RE2, unless other characters are named.
fn compile(pattern: &str, size: usize) -> Result<(), regex::Error> {
    let build = |unicode| regex::bytes::RegexBuilder::new(pattern).unicode(unicode).size_limit(size).build().map(drop);
    build(false).or_else(|error| match error {
        // It would only be larger.
        regex::Error::CompiledTooBig(_) => Err(error),
        _ => build(true),
    })
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
