//! What one service is told: by the environment names of Istio's Bookinfo.

use std::fmt;
use std::str::FromStr;

/// Which of the four services a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    Productpage,
    Details,
    Reviews,
    Ratings,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Productpage => "productpage",
            Self::Details => "details",
            Self::Reviews => "reviews",
            Self::Ratings => "ratings",
        })
    }
}

/// A name or value that is none of those known.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("{0:?} is not a Bookinfo service; there are productpage, details, reviews and ratings")]
    Service(String),
    #[error("{name}={value:?} is not a port number")]
    Port { name: String, value: String },
    #[error("http_proxy={0:?} is not of the form http://HOST:PORT")]
    Proxy(String),
}

impl FromStr for Service {
    type Err = ConfigError;

    fn from_str(name: &str) -> Result<Self, ConfigError> {
        match name {
            "productpage" => Ok(Self::Productpage),
            "details" => Ok(Self::Details),
            "reviews" => Ok(Self::Reviews),
            "ratings" => Ok(Self::Ratings),
            other => Err(ConfigError::Service(other.to_owned())),
        }
    }
}

/// A host and port to connect to, or to ask the proxy for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    pub host: String,
    pub port: u16,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Everything that a service obeys.
#[derive(Debug, Clone)]
pub struct Config {
    pub service: Service,
    /// Address to listen on.
    pub host: String,
    pub port: u16,
    /// `SERVICE_VERSION`: `v1`, and for reviews also `v2` and `v3`; for ratings also `v-faulty` and `v-delayed`.
    pub version: String,
    pub details: Address,
    pub reviews: Address,
    pub ratings: Address,
    /// Reviews: ask for ratings (`ENABLE_RATINGS`).
    pub enable_ratings: bool,
    /// Reviews: what colour its stars have (`STAR_COLOR`).
    pub star_color: String,
    /// `HOSTNAME`: which instance this is.
    pub pod_name: String,
    /// `CLUSTER_NAME`.
    pub cluster_name: Option<String>,
    /// Where calls to other services go first (`http_proxy`).
    pub proxy: Option<Address>,
}

impl Config {
    /// Version `version` of `service` with everything else as in the original.
    pub fn new(service: Service, version: &str) -> Self {
        let at = |host: &str| Address { host: host.to_owned(), port: 9080 };
        Self {
            service,
            host: "0.0.0.0".to_owned(),
            port: 9080,
            version: version.to_owned(),
            details: at("details"),
            reviews: at("reviews"),
            ratings: at("ratings"),
            enable_ratings: version != "v1",
            star_color: if version == "v3" { "red" } else { "black" }.to_owned(),
            pod_name: format!("{service}-{version}"),
            cluster_name: None,
            proxy: None,
        }
    }

    /// Reads environment variables through `lookup`. `version` is what the image says; `SERVICE_VERSION` wins.
    pub fn from_environment(
        service: Service,
        version: &str,
        lookup: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, ConfigError> {
        let set = |name: &str| lookup(name).filter(|value| !value.is_empty());
        let port = |name: &str, default: u16| match set(name) {
            Some(value) => value.parse().map_err(|_| ConfigError::Port { name: name.to_owned(), value }),
            None => Ok(default),
        };
        let version = set("SERVICE_VERSION").unwrap_or_else(|| version.to_owned());
        let plain = Self::new(service, &version);
        let domain = set("SERVICES_DOMAIN").map(|domain| format!(".{domain}")).unwrap_or_default();
        let address = |name: &str, default: &str| {
            let host = set(&format!("{name}_HOSTNAME")).unwrap_or_else(|| default.to_owned());
            let port = port(&format!("{name}_SERVICE_PORT"), 9080)?;
            Ok::<_, ConfigError>(Address { host: format!("{host}{domain}"), port })
        };
        Ok(Self {
            host: set("HOST").unwrap_or(plain.host),
            port: port("PORT", plain.port)?,
            details: address("DETAILS", "details")?,
            reviews: address("REVIEWS", "reviews")?,
            ratings: address("RATINGS", "ratings")?,
            enable_ratings: set("ENABLE_RATINGS").map_or(plain.enable_ratings, |value| value == "true"),
            star_color: set("STAR_COLOR").unwrap_or(plain.star_color),
            pod_name: set("POD_NAME").or_else(|| set("HOSTNAME")).unwrap_or(plain.pod_name),
            cluster_name: set("CLUSTER_NAME"),
            proxy: set("http_proxy").or_else(|| set("HTTP_PROXY")).map(|url| proxy_address(&url)).transpose()?,
            service,
            version,
        })
    }
}

fn proxy_address(url: &str) -> Result<Address, ConfigError> {
    let bad = || ConfigError::Proxy(url.to_owned());
    let authority = url.strip_prefix("http://").unwrap_or(url).trim_end_matches('/');
    let (host, port) = authority.rsplit_once(':').ok_or_else(bad)?;
    if host.is_empty() || host.contains(['/', '@']) {
        return Err(bad());
    }
    Ok(Address { host: host.trim_matches(['[', ']']).to_owned(), port: port.parse().map_err(|_| bad())? })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(service: Service, version: &str, variables: &[(&str, &str)]) -> Result<Config, ConfigError> {
        let lookup =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| (*value).to_owned());
        Config::from_environment(service, version, lookup)
    }

    #[test]
    fn the_version_says_what_stars_there_are() {
        for (version, ratings, color) in [("v1", false, "black"), ("v2", true, "black"), ("v3", true, "red")] {
            let config = read(Service::Reviews, version, &[]).unwrap();
            assert_eq!((config.enable_ratings, config.star_color.as_str()), (ratings, color), "{version}");
        }
        let variables = [("ENABLE_RATINGS", "true"), ("STAR_COLOR", "green")];
        let config = read(Service::Reviews, "v1", &variables).unwrap();
        assert_eq!((config.enable_ratings, config.star_color.as_str()), (true, "green"));
    }

    #[test]
    fn names_of_services_come_from_the_environment() {
        let variables = [
            ("RATINGS_HOSTNAME", "ratings-v2"),
            ("SERVICES_DOMAIN", "shop.svc"),
            ("RATINGS_SERVICE_PORT", "9999"),
            ("http_proxy", "http://127.64.1.1:15002/"),
        ];
        let config = read(Service::Productpage, "v1", &variables).unwrap();
        assert_eq!(config.ratings.to_string(), "ratings-v2.shop.svc:9999");
        assert_eq!(config.details.to_string(), "details.shop.svc:9080");
        assert_eq!(config.proxy.unwrap().to_string(), "127.64.1.1:15002");
    }

    #[test]
    fn wrong_values_are_named() {
        for (name, value) in [("PORT", "x"), ("http_proxy", "https://user@host"), ("http_proxy", "nowhere")] {
            let error = read(Service::Ratings, "v1", &[(name, value)]).unwrap_err().to_string();
            assert!(error.contains(name) && error.contains(value), "{error}");
        }
        "mongodb".parse::<Service>().unwrap_err();
    }
}
