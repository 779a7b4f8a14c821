//! `explain`: which way a request takes, decided by the function that the proxy itself asks, and which line of which file
//! says so.

mod render;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri};
use mizzen_local::run_file::Instance;
use mizzen_snapshot::Snapshot;
use mizzen_snapshot::http::RouteSource;
use mizzen_snapshot::listener::{ConnectionFacts, Handler, ListenAddress, Listener, Transport};
use mizzen_snapshot::plan::explain::{Because, Explanation, Verdict};
use mizzen_snapshot::plan::{Draws, explain};
use mizzen_snapshot::route::RequestView;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Value, json};

use crate::ask;
use crate::observe::{self, Observed};
use crate::target::Mesh;

/// The request that is asked about.
#[derive(Debug, Clone)]
pub struct Question {
    pub method: Method,
    pub url: Uri,
    pub headers: HeaderMap,
}

/// An explained request.
#[derive(Debug)]
pub struct Answer {
    proxy: String,
    question: Question,
    explanation: Explanation,
    /// `file:line:column` of every object and field that the explanation names.
    positions: BTreeMap<Place, String>,
    /// Resources of this proxy that are not in force.
    refused: Vec<String>,
}

/// Kind, namespace, name, field.
type Place = (String, String, String, String);

impl Question {
    /// Reads what `curl` would be given: a method, a URL, headers of the form `name: value`.
    pub fn parse(method: &str, url: &str, headers: &[String]) -> Result<Self> {
        let method: Method =
            method.to_ascii_uppercase().parse().with_context(|| format!("`{method}` is no HTTP method"))?;
        let with_scheme = if url.contains("://") { url.to_owned() } else { format!("http://{url}") };
        let url: Uri = with_scheme.parse().with_context(|| format!("`{url}` is no URL"))?;
        if url.authority().is_none() {
            bail!("`{url}` names no host; write it as http://HOST:PORT/PATH");
        }
        let mut map = HeaderMap::new();
        for header in headers {
            let (name, value) =
                header.split_once(':').with_context(|| format!("`{header}` is no header; write `name: value`"))?;
            let name: HeaderName = name.trim().parse().with_context(|| format!("`{name}` is no header name"))?;
            let value: HeaderValue =
                value.trim().parse().with_context(|| format!("the value of {name} is no header value"))?;
            map.append(name, value);
        }
        Ok(Self { method, url, headers: map })
    }

    /// The host with port that the request bears: a `Host` header wins, as with `curl`.
    fn authority(&self) -> String {
        let header = self.headers.get(http::header::HOST).and_then(|value| value.to_str().ok());
        let url = self.url.authority().map(|authority| authority.as_str());
        header.or(url).unwrap_or_default().to_owned()
    }

    fn scheme(&self) -> &str {
        self.url.scheme_str().unwrap_or("http")
    }

    fn port(&self) -> u16 {
        self.url.port_u16().unwrap_or(if self.scheme() == "https" { 443 } else { 80 })
    }
}

/// Explains `question` as sent through the proxy of `instance`.
pub async fn answer(mesh: &Mesh, instance: &Instance, question: Question) -> Result<Answer> {
    let Observed { config, refused } = observe::observe(mesh.xds(), observe::node(instance)).await?;
    let snapshot = config.snapshot();
    let gateway_ports = mesh.run().map(|run| run.gateway_ports.clone()).unwrap_or_default();
    let listener = listener(snapshot, instance, &question, &gateway_ports)?;
    let explanation = ask_snapshot(snapshot, &listener, instance, &question);
    let positions = positions(mesh, &explanation).await;
    let refused = refused.iter().map(ToString::to_string).collect();
    let proxy = format!("{}.{}", instance.pod, instance.namespace);
    Ok(Answer { proxy, question, explanation, positions, refused })
}

/// The listener that such a request comes to.
fn listener(
    snapshot: &Snapshot,
    instance: &Instance,
    question: &Question,
    gateway_ports: &BTreeMap<u16, u16>,
) -> Result<Arc<Listener>> {
    let wanted = if instance.node.starts_with("router~") {
        gateway_ports.get(&question.port()).copied().unwrap_or_else(|| question.port())
    } else {
        let proxy_port = instance.metadata["HTTP_PROXY_PORT"].as_str().and_then(|port| port.parse().ok());
        proxy_port.unwrap_or_else(|| question.port())
    };
    let port = |listener: &Listener| match &listener.address {
        ListenAddress::Tcp(address) => Some(address.port()),
        ListenAddress::Unix(_) => None,
    };
    // Where the kernel catches calls, a port may have several listeners: of requests that of all addresses counts, else the
    // one whose table is for this host.
    let host = question.authority();
    let host = host.rsplit_once(':').map_or(host.as_str(), |(host, _)| host);
    let rank = |listener: &Listener| match &listener.address {
        ListenAddress::Tcp(address) if address.ip().is_unspecified() => 0,
        _ if listener.chains.iter().chain(&listener.default_chain).any(|chain| leads_to(&chain.handler, host)) => 1,
        _ => 2,
    };
    let there = snapshot.listeners.values().filter(|listener| port(listener) == Some(wanted));
    there.min_by_key(|listener| rank(listener)).cloned().with_context(|| {
        let mut known: Vec<u16> = snapshot.listeners.values().filter_map(|listener| port(listener)).collect();
        known.sort_unstable();
        let known: Vec<String> = known.iter().map(ToString::to_string).collect();
        match known.as_slice() {
            [] => format!("{} has no listener at all: is a Gateway or Service missing?", instance.pod),
            _ => format!("{} does not listen on port {wanted}; it listens on {}", instance.pod, known.join(", ")),
        }
    })
}

/// Whether a chain is for the service that `host` may be short for.
fn leads_to(handler: &Handler, host: &str) -> bool {
    let is = |name: &str| name == host || name.strip_prefix(host).is_some_and(|rest| rest.starts_with('.'));
    match handler {
        // `reviews.default.svc.cluster.local:9080`
        Handler::Http(http) => match &http.routes {
            RouteSource::Named(table) => is(table.as_ref().split(':').next().unwrap_or_default()),
            RouteSource::Inline(_) => false,
        },
        Handler::Tcp(tcp) => {
            tcp.clusters.iter().any(|(cluster, _)| cluster.to_string().rsplit('|').next().is_some_and(is))
        }
    }
}

fn ask_snapshot(snapshot: &Snapshot, listener: &Listener, instance: &Instance, question: &Question) -> Explanation {
    let client = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
    let destination = match &listener.address {
        ListenAddress::Tcp(address) => *address,
        ListenAddress::Unix(_) => instance.admin,
    };
    let tls = question.scheme() == "https" && instance.node.starts_with("router~");
    let authority = question.authority();
    let server_name = question.url.host();
    let facts = ConnectionFacts {
        destination,
        source: client,
        direct_source: client.ip(),
        transport: if tls { Transport::Tls } else { Transport::RawBuffer },
        server_name: server_name.filter(|_| tls),
        application_protocols: &["http/1.1"],
    };
    let path = question.url.path_and_query().map_or("/", |path| path.as_str());
    let mut headers = question.headers.clone();
    headers.remove(http::header::HOST);
    let request = RequestView {
        method: &question.method,
        authority: &authority,
        scheme: question.scheme(),
        path_and_query: path,
        headers: &headers,
        client_ip: Some(IpAddr::from(Ipv4Addr::LOCALHOST)),
    };
    explain(snapshot, listener, &facts, &request, Draws::default())
}

/// Everything in the explanation that a resource asked for.
fn places(explanation: &Explanation) -> Vec<Place> {
    let place = |because: &Because, field: &str| {
        (because.kind.clone(), because.namespace.clone(), because.name.clone(), field.to_owned())
    };
    let mut found = Vec::new();
    let mut add = |because: &Option<Because>| {
        found.extend(because.iter().map(|because| place(because, &because.field)));
    };
    add(&explanation.listener.because);
    explanation.host.iter().for_each(|host| add(&host.because));
    explanation.routes.iter().for_each(|route| add(&route.because));
    match &explanation.verdict {
        Verdict::Forward(forward) => {
            forward.choices.iter().for_each(|choice| add(&choice.cluster.because));
            forward.mirrors.iter().for_each(|mirror| add(&mirror.cluster.because));
        }
        Verdict::Tcp { choices } => choices.iter().for_each(|choice| add(&choice.cluster.because)),
        Verdict::Redirect { .. } | Verdict::Respond { .. } | Verdict::Refuse { .. } => {}
    }
    let conditions =
        explanation.routes.iter().filter_map(|route| Some((route.because.as_ref()?, route.match_field.as_ref()?)));
    found.extend(conditions.map(|(because, field)| place(because, field)));
    found.sort();
    found.dedup();
    found
}

/// Asks the control plane where each of them stands. One that it does not know (any more) is left out.
async fn positions(mesh: &Mesh, explanation: &Explanation) -> BTreeMap<Place, String> {
    let mut positions = BTreeMap::new();
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    for place in places(explanation) {
        let (kind, namespace, name, field) = &place;
        let path = format!(
            "/debug/positions?kind={}&namespace={}&name={}&field={}",
            encode(kind),
            encode(namespace),
            encode(name),
            encode(field)
        );
        if let Ok(position) = ask::json(mesh.debug(), &path).await
            && let (Some(file), Some(line)) = (position["file"].as_str(), position["line"].as_u64())
        {
            positions.insert(place, format!("{file}:{line}"));
        }
    }
    positions
}

impl Answer {
    /// For people.
    pub fn text(&self) -> String {
        render::text(self)
    }

    /// For programs: the explanation, with a `position` beside every `because`.
    pub fn json(&self) -> Value {
        let mut explanation = serde_json::to_value(&self.explanation).unwrap_or_default();
        self.add_positions(&mut explanation);
        json!({
            "proxy": self.proxy,
            "request": {
                "method": self.question.method.as_str(),
                "url": self.question.url.to_string(),
                "authority": self.question.authority(),
            },
            "explanation": explanation,
            "refused": self.refused,
        })
    }

    fn add_positions(&self, value: &mut Value) {
        match value {
            Value::Array(values) => values.iter_mut().for_each(|value| self.add_positions(value)),
            Value::Object(fields) => {
                fields.values_mut().for_each(|value| self.add_positions(value));
                let field = fields.get("match_field").and_then(Value::as_str).map(str::to_owned);
                let because =
                    fields.get("because").and_then(|because| serde_json::from_value::<Words>(because.clone()).ok());
                if let Some(Words { kind, namespace, name, field: own }) = because {
                    let at = |field: String| {
                        let place = (kind.clone(), namespace.clone(), name.clone(), field);
                        self.positions.get(&place).map_or(Value::Null, |position| position.as_str().into())
                    };
                    if let Some(field) = field {
                        fields.insert("match_position".to_owned(), at(field));
                    }
                    fields.insert("position".to_owned(), at(own));
                }
            }
            _ => {}
        }
    }

    /// Where `because` stands, for people: the position, or the object's name where there is none.
    fn place(&self, because: &Because, field: &str) -> String {
        let place = (because.kind.clone(), because.namespace.clone(), because.name.clone(), field.to_owned());
        let object = format!("{} {}/{}", because.kind, because.namespace, because.name);
        match self.positions.get(&place) {
            Some(position) if field.is_empty() => format!("{position}  {object}"),
            Some(position) => format!("{position}  {object} {field}"),
            None => format!("{object} {field}").trim_end().to_owned(),
        }
    }

    /// Whether the request is served: forwarded, redirected or answered by a route.
    pub fn is_served(&self) -> bool {
        match &self.explanation.verdict {
            Verdict::Refuse { .. } => false,
            Verdict::Forward(forward) => {
                forward.choices.iter().filter(|choice| choice.chosen).all(|choice| choice.cluster.exists)
            }
            Verdict::Tcp { .. } | Verdict::Redirect { .. } | Verdict::Respond { .. } => true,
        }
    }
}

#[derive(serde::Deserialize)]
struct Words {
    kind: String,
    namespace: String,
    name: String,
    field: String,
}

#[cfg(test)]
mod tests;
