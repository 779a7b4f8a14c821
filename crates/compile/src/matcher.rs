//! Conditions on strings, headers and query parameters.

use http::HeaderName;
use mizzen_proto::envoy::config::route::v3::{
    HeaderMatcher, QueryParameterMatcher, header_matcher, query_parameter_matcher,
};
use mizzen_proto::envoy::r#type::matcher::v3::{RegexMatcher, StringMatcher, string_matcher};
use mizzen_snapshot::header::{HeaderCondition, HeaderKey, HeaderMatch};
use mizzen_snapshot::matcher::{ANCHORS, StringMatch, StringMatchKind};
use mizzen_snapshot::route::QueryMatch;
use regex::bytes::{Regex, RegexBuilder};

use crate::invalid::{At, Invalid, Result};
use crate::limits;

pub(crate) fn string(value: &StringMatcher) -> Result<StringMatch> {
    use string_matcher::MatchPattern as Pattern;
    let kind = match &value.match_pattern {
        Some(Pattern::Exact(text)) => StringMatchKind::Exact(text.as_str().into()),
        Some(Pattern::Prefix(text)) => StringMatchKind::Prefix(text.as_str().into()),
        Some(Pattern::Suffix(text)) => StringMatchKind::Suffix(text.as_str().into()),
        Some(Pattern::Contains(text)) => StringMatchKind::Contains(text.as_str().into()),
        // Envoy ignores `ignore_case` for expressions.
        Some(Pattern::SafeRegex(matcher)) => StringMatchKind::Regex(whole(matcher).at("safe_regex")?),
        Some(Pattern::Custom(_)) => return Err(Invalid::not_obeyed("an extension").within("custom")),
        None => return Err(Invalid::new("nothing to compare with is given")),
    };
    Ok(StringMatch { kind, ignore_case: value.ignore_case })
}

/// An expression that has to match a whole value.
pub(crate) fn whole(value: &RegexMatcher) -> Result<Regex> {
    anchored(&value.regex).at("regex")
}

pub(crate) fn anchored(pattern: &str) -> Result<Regex> {
    check_length(pattern)?;
    let pattern = format!("{}{pattern}{}", ANCHORS.0, ANCHORS.1);
    // RE2's `\d`, `\w` and `\b` are about ASCII; only an expression that names other characters needs more.
    build(&pattern, false).or_else(|_| build(&pattern, true)).map_err(|error| bad_regex(&error))
}

fn build(pattern: &str, unicode: bool) -> std::result::Result<Regex, regex::Error> {
    RegexBuilder::new(pattern)
        .unicode(unicode)
        .size_limit(limits::REGEX_BYTES)
        .dfa_size_limit(limits::REGEX_CACHE_BYTES)
        .build()
}

/// An expression that may match anywhere, for rewriting.
pub(crate) fn anywhere(pattern: &str) -> Result<regex::Regex> {
    check_length(pattern)?;
    regex::RegexBuilder::new(pattern)
        .size_limit(limits::REGEX_BYTES)
        .dfa_size_limit(limits::REGEX_CACHE_BYTES)
        .build()
        .map_err(|error| bad_regex(&error))
}

fn check_length(pattern: &str) -> Result<()> {
    limits::count("characters in an expression", pattern.len(), limits::REGEX_CHARACTERS)
}

fn bad_regex(error: &regex::Error) -> Invalid {
    let text = error.to_string();
    // The last line says what is wrong; those before draw the place in a pattern that has our anchors in it.
    let reason = text.lines().last().unwrap_or_default().trim_start_matches("error: ");
    Invalid::new(format!("the regular expression is not valid: {reason}"))
}

/// A substitution as RE2 writes it (`\1`, `\\`) in the syntax of the `regex` crate.
pub(crate) fn substitution(text: &str, groups: usize) -> Result<String> {
    let mut out = String::with_capacity(text.len() + 4);
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        match character {
            '$' => out.push_str("$$"),
            '\\' => match characters.next() {
                Some('\\') => out.push('\\'),
                Some(digit) if digit.is_ascii_digit() => {
                    if digit.to_digit(10).is_none_or(|group| group as usize >= groups) {
                        return Err(Invalid::new(format!("the expression has no group {digit}")));
                    }
                    out.push_str("${");
                    out.push(digit);
                    out.push('}');
                }
                _ => return Err(Invalid::new(r"after \ comes a digit or another \")),
            },
            other => out.push(other),
        }
    }
    Ok(out)
}

pub(crate) fn headers(values: &[HeaderMatcher]) -> Result<Vec<HeaderMatch>> {
    limits::count("header conditions", values.len(), limits::CONDITIONS)?;
    values.iter().enumerate().map(|(index, value)| header(value).at_index("", index)).collect()
}

fn header(value: &HeaderMatcher) -> Result<HeaderMatch> {
    use header_matcher::HeaderMatchSpecifier as Specifier;
    let matches = |kind| HeaderCondition::Matches(StringMatch { kind, ignore_case: false });
    let condition = match &value.header_match_specifier {
        None | Some(Specifier::PresentMatch(true)) => HeaderCondition::Present,
        Some(Specifier::PresentMatch(false)) => HeaderCondition::Absent,
        Some(Specifier::ExactMatch(text)) => matches(StringMatchKind::Exact(text.as_str().into())),
        Some(Specifier::PrefixMatch(text)) => matches(StringMatchKind::Prefix(text.as_str().into())),
        Some(Specifier::SuffixMatch(text)) => matches(StringMatchKind::Suffix(text.as_str().into())),
        Some(Specifier::ContainsMatch(text)) => matches(StringMatchKind::Contains(text.as_str().into())),
        Some(Specifier::SafeRegexMatch(regex)) => matches(StringMatchKind::Regex(whole(regex).at("safe_regex_match")?)),
        Some(Specifier::StringMatch(matcher)) => HeaderCondition::Matches(string(matcher).at("string_match")?),
        Some(Specifier::RangeMatch(range)) if range.start < range.end => {
            HeaderCondition::Range { start: range.start, end: range.end }
        }
        Some(Specifier::RangeMatch(_)) => return Err(Invalid::new("the range is empty").within("range_match")),
    };
    Ok(HeaderMatch {
        name: header_key(&value.name).at("name")?,
        condition,
        invert: value.invert_match,
        missing_as_empty: value.treat_missing_header_as_empty,
    })
}

pub(crate) fn header_key(name: &str) -> Result<HeaderKey> {
    Ok(match name.to_ascii_lowercase().as_str() {
        ":method" => HeaderKey::Method,
        ":authority" | "host" => HeaderKey::Authority,
        ":scheme" => HeaderKey::Scheme,
        ":path" => HeaderKey::Path,
        _ => HeaderKey::Name(header_name(name)?),
    })
}

pub(crate) fn header_name(name: &str) -> Result<HeaderName> {
    HeaderName::from_bytes(name.as_bytes()).map_err(|_| Invalid::new(format!("{name:?} is not a header name")))
}

pub(crate) fn query(values: &[QueryParameterMatcher]) -> Result<Vec<QueryMatch>> {
    limits::count("query conditions", values.len(), limits::CONDITIONS)?;
    let one = |value: &QueryParameterMatcher| {
        use query_parameter_matcher::QueryParameterMatchSpecifier as Specifier;
        let matcher = match &value.query_parameter_match_specifier {
            None | Some(Specifier::PresentMatch(true)) => None,
            Some(Specifier::PresentMatch(false)) => {
                return Err(Invalid::not_obeyed("absence of a parameter").within("present_match"));
            }
            Some(Specifier::StringMatch(matcher)) => Some(string(matcher).at("string_match")?),
        };
        if value.name.is_empty() {
            return Err(Invalid::new("a name is missing").within("name"));
        }
        Ok(QueryMatch { name: value.name.clone(), value: matcher })
    };
    values.iter().enumerate().map(|(index, value)| one(value).at_index("", index)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expressions_match_whole_values_with_ascii_classes() {
        let regex = anchored(r"/v\d+").unwrap();
        assert!(regex.is_match(b"/v12") && !regex.is_match(b"/v12/") && !regex.is_match("/v٣".as_bytes()));
        assert!(anchored(r"\p{Greek}+").unwrap().is_match("αβ".as_bytes()));
        assert!(anchored("a|ab").unwrap().is_match(b"ab"));
    }

    #[test]
    fn bad_and_huge_expressions_are_refused() {
        for pattern in ["(", "(?=a)", "a{1000}{1000}", &"a".repeat(5000)] {
            assert!(anchored(pattern).is_err(), "{pattern:.20}");
        }
        assert_eq!(
            anchored("[z-a]").unwrap_err().message.split(':').next(),
            Some("the regular expression is not valid")
        );
    }

    #[test]
    fn substitutions_are_translated() {
        assert_eq!(substitution(r"\2/x$\\\1", 3).unwrap(), r"${2}/x$$\${1}");
        assert!(substitution(r"\3", 3).is_err());
        assert!(substitution(r"\x", 3).is_err());
    }
}
