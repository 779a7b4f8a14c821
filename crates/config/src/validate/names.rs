//! Names, hosts, ports and addresses.

use std::net::IpAddr;

use crate::check::Check;
use crate::code;
use crate::yaml::shortened;

/// A DNS label: 1 to 63 of `a-z`, `0-9` and `-`, beginning and ending with a letter or digit.
pub(crate) fn is_label(text: &str) -> bool {
    let alphanumeric = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| alphanumeric(b) || b == b'-')
        && text.bytes().next().is_some_and(alphanumeric)
        && text.bytes().last().is_some_and(alphanumeric)
}

/// As [`is_label`], but in any case and with `_`: what host names are made of in practice.
fn is_host_label(text: &str) -> bool {
    let inner = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    let outer = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=63).contains(&text.len())
        && text.bytes().all(inner)
        && text.bytes().next().is_some_and(outer)
        && text.bytes().last().is_some_and(outer)
}

pub(crate) fn label(check: &mut Check, text: &str) {
    if !is_label(text) {
        check.not_allowed(
            format!(
                "`{}` is no name: at most 63 lower-case letters, digits and `-`, with a letter or digit at both ends",
                shortened(text)
            ),
            "write a name such as `reviews-v2`",
        );
    }
}

pub(crate) fn subdomain(check: &mut Check, text: &str) {
    if text.len() > 253 || !text.split('.').all(is_label) {
        check.not_allowed(
            format!(
                "`{}` is no name: lower-case letters, digits, `-` and `.`, with a letter or digit at both ends",
                shortened(text)
            ),
            "write a name such as `reviews-v2`",
        );
    }
}

/// A host name without wildcards; a trailing dot is allowed.
pub(crate) fn is_fqdn(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    !host.is_empty() && host.len() <= 253 && host.split('.').all(is_host_label)
}

/// A host name whose first label may begin with `*`; `*` alone means all.
pub(crate) fn is_wildcard_host(host: &str) -> bool {
    match host.strip_prefix('*') {
        None => is_fqdn(host),
        Some("") => true,
        Some(rest) => {
            let rest = rest.strip_prefix('.').unwrap_or(rest);
            is_fqdn(rest.trim_start_matches('-'))
        }
    }
}

/// A host of a rule: name, wildcard or address.
pub(crate) fn rule_host(check: &mut Check, host: &str) {
    if !is_wildcard_host(host) && host.parse::<IpAddr>().is_err() {
        bad_host(check, host);
    }
}

/// A destination: name, wildcard (not `*` alone) or address.
pub(crate) fn destination_host(check: &mut Check, host: &str) {
    if host == "*" {
        check.not_allowed("`*` names no destination", "write the host of a service, for instance `reviews`");
    } else {
        rule_host(check, host);
    }
}

pub(crate) fn bad_host(check: &mut Check, host: &str) {
    let hint = if host.contains("://") {
        "write the host alone, without scheme and path"
    } else if host.contains(':') {
        "write the host without a port"
    } else if host.contains('/') {
        "write the host alone, without a path or namespace"
    } else if host.rfind('*').is_some_and(|at| at > 0) {
        "`*` can only be the first character"
    } else {
        "write a host such as `reviews`, `reviews.default.svc.cluster.local` or `*.example.com`"
    };
    check.not_allowed(format!("`{}` is no host name", shortened(host)), hint);
}

/// An address or a network such as `10.0.0.0/8`.
pub(crate) fn subnet(check: &mut Check, text: &str) {
    let network = text.parse::<ipnet::IpNet>().is_ok() || text.parse::<IpAddr>().is_ok();
    if !network {
        check.not_allowed(
            format!("`{}` is no address and no network", shortened(text)),
            "write for instance `10.1.2.3` or `10.0.0.0/8`",
        );
    }
}

/// A reference to a Gateway: `name`, `namespace/name`, `./name`, `mesh`, or the old form `name.namespace.svc…`.
pub(crate) fn gateway_reference(check: &mut Check, text: &str) {
    let good = match text.split_once('/') {
        Some((namespace, name)) => (namespace == "." || is_label(namespace)) && name.split('.').all(is_label),
        None => text.split('.').all(is_label),
    };
    if !good {
        check
            .not_allowed(format!("`{}` names no Gateway", shortened(text)), "write `name`, `namespace/name` or `mesh`");
    }
}

/// A header name: the characters of an HTTP token.
pub(crate) fn header_name(check: &mut Check, name: &str) {
    let token = name.strip_prefix(':').unwrap_or(name);
    let tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if token.is_empty() || !token.bytes().all(tchar) {
        check.not_allowed(
            format!("`{}` is no header name", shortened(name)),
            "use letters, digits and `-`, for instance `x-user`",
        );
    }
}

/// A header value: no line breaks, no NUL.
pub(crate) fn header_value(check: &mut Check, value: &str) {
    if value.bytes().any(|b| matches!(b, b'\r' | b'\n' | 0)) {
        check.not_allowed("a header value cannot have a line break or NUL", "write it on one line");
    }
}

/// A name of a port of a Gateway or ServiceEntry.
pub(crate) fn port_name(check: &mut Check, name: &str) {
    if !is_label(name) {
        check.not_allowed(
            format!("`{}` is no port name: lower-case letters, digits and `-`", shortened(name)),
            "write a name such as `http` or `http-web`",
        );
    }
}

/// A protocol by Istio's name.
pub(crate) fn protocol(check: &mut Check, name: &str) {
    const KNOWN: &[&str] =
        &["HTTP", "HTTPS", "GRPC", "GRPC-WEB", "HTTP2", "MONGO", "REDIS", "MYSQL", "TCP", "TLS", "HTTP_PROXY", "UDP"];
    if mizzen_types::Protocol::by_name(name).is_none() {
        let near = crate::nearest(name, KNOWN.iter().copied());
        let hint =
            near.map_or_else(|| format!("write one of {}", KNOWN.join(", ")), |word| format!("did you mean `{word}`?"));
        check.field("protocol", |check| {
            check.error(code::NOT_ALLOWED, format!("`{}` is no protocol", shortened(name)), hint);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hosts() {
        for good in
            ["a", "A.b", "a-b.c", "reviews.default.svc.cluster.local", "a.b.", "_tcp.foo", "*", "*.com", "*-x.com"]
        {
            assert!(is_wildcard_host(good), "{good}");
        }
        for bad in ["", "a..b", "-a", "a b", "a/b", "a:80", "x.*.com", "**", "*.", "http://a"] {
            assert!(!is_wildcard_host(bad), "{bad}");
        }
        assert!(!is_fqdn("*.com"));
    }

    #[test]
    fn labels() {
        assert!(is_label("a") && is_label("a-1") && is_label("1a"));
        assert!(!is_label("") && !is_label("A") && !is_label("-a") && !is_label("a.b") && !is_label(&"a".repeat(64)));
    }
}
