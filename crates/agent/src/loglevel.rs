//! From Istio's and Envoy's words for log levels to one filter. Pure.

/// A level or list that is not one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LogLevelError {
    #[error("{0:?} is no log level; write trace, debug, info, warning, error, critical or off")]
    Level(String),
    #[error("{0:?} is not of the form NAME:LEVEL")]
    Pair(String),
}

/// What an Envoy component is here. Others do not exist here, so that their levels mean nothing.
const COMPONENTS: [(&str, &str); 14] = [
    ("admin", "mizzen_proxy::admin"),
    ("assert", "mizzen_proxy"),
    ("config", "mizzen_proxy::configure"),
    ("connection", "mizzen_proxy::connection"),
    ("conn_handler", "mizzen_proxy::listener"),
    ("filter", "mizzen_proxy::http"),
    ("grpc", "mizzen_xds"),
    ("http", "mizzen_proxy::http"),
    ("http2", "mizzen_proxy::http::http2"),
    ("main", "mizzen_proxy::run"),
    ("pool", "mizzen_proxy::upstream"),
    ("router", "mizzen_proxy::http::forward"),
    ("tls", "mizzen_identity"),
    ("upstream", "mizzen_proxy::upstream"),
];

/// Parts that are the agent's in Istio.
const AGENT: [&str; 3] = ["mizzen_agent", "mizzen_identity", "mizzen_proxy::configure"];

/// The filter for `--proxyLogLevel`, `--proxyComponentLogLevel` and `--log_output_level`.
pub fn filter(proxy: &str, components: &str, agent: &str) -> Result<String, LogLevelError> {
    let mut filter = word(proxy)?.to_owned();
    let mut agent_level = None;
    for (scope, level) in pairs(agent)? {
        // Scopes are the agent's own parts; here it has one.
        if scope == "default" || scope == "all" || agent_level.is_none() {
            agent_level = Some(level);
        }
    }
    for target in AGENT {
        filter.push_str(&format!(",{target}={}", agent_level.unwrap_or("info")));
    }
    for (component, level) in pairs(components)? {
        for (_, target) in COMPONENTS.iter().filter(|(name, _)| *name == component) {
            filter.push_str(&format!(",{target}={level}"));
        }
    }
    Ok(filter)
}

/// `a:info,b:debug`; a level alone is the default's.
fn pairs(list: &str) -> Result<Vec<(&str, &'static str)>, LogLevelError> {
    let parts = list.split(',').map(str::trim).filter(|part| !part.is_empty());
    parts
        .map(|part| match part.split_once(':') {
            Some(("", _)) => Err(LogLevelError::Pair(part.to_owned())),
            Some((name, level)) => Ok((name, word(level)?)),
            None => word(part).map(|level| ("default", level)).map_err(|_| LogLevelError::Pair(part.to_owned())),
        })
        .collect()
}

fn word(level: &str) -> Result<&'static str, LogLevelError> {
    Ok(match level.trim().to_ascii_lowercase().as_str() {
        "trace" => "trace",
        "debug" => "debug",
        "info" => "info",
        "warn" | "warning" => "warn",
        "error" | "err" | "critical" | "fatal" => "error",
        "off" | "none" => "off",
        _ => return Err(LogLevelError::Level(level.to_owned())),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_of_istio_become_one_filter() {
        let agent = "mizzen_agent=info,mizzen_identity=info,mizzen_proxy::configure=info";
        assert_eq!(filter("warning", "misc:error", "default:info").unwrap(), format!("warn,{agent}"));
        let debug = agent.replace("info", "debug");
        let all = filter("debug", "http:trace,upstream:off", "default:debug").unwrap();
        assert_eq!(all, format!("debug,{debug},mizzen_proxy::http=trace,mizzen_proxy::upstream=off"));
        assert!(filter("warning", "", "info").unwrap().contains("mizzen_agent=info"));
        assert_eq!(filter("loud", "", ""), Err(LogLevelError::Level("loud".to_owned())));
        assert_eq!(filter("info", "http", ""), Err(LogLevelError::Pair("http".to_owned())));
        assert_eq!(filter("info", "http:loud", ""), Err(LogLevelError::Level("loud".to_owned())));
        assert!(filter("info", ":info", "").is_err());
    }
}
