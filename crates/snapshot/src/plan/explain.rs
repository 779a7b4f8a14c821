//! The decision with its reasons, for people: `mizzen explain`, the dashboard, tests.
//!
//! Nothing is compared here: which chain, host, route and cluster is asked of the same functions that the proxy asks.

use std::time::Duration;

use mizzen_types::{ClusterName, Origin};
use serde::Serialize;

use super::{Draws, NoPlan, Plan, plan};
use crate::Snapshot;
use crate::cluster::{Cluster, Health};
use crate::http::HttpHandler;
use crate::listener::{ConnectionFacts, Handler, ListenAddress, Listener};
use crate::route::{Abort, Action, Fault, Forward, HashOn, HostRewrite, RequestView, RetryPolicy, Target, VirtualHost};
use crate::tls::{ClientAuth, ClientTls};

/// The way of one request, step by step.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    pub listener: ListenerStep,
    /// Absent: no filter chain is for such a connection, and it is closed.
    pub chain: Option<ChainStep>,
    /// The route table that was asked; absent for TCP.
    pub table: Option<String>,
    /// The virtual host; absent for TCP and when none is for the request's host.
    pub host: Option<HostStep>,
    /// Every route that was looked at, in order; the last one is the winner, if it matched.
    pub routes: Vec<RouteStep>,
    pub verdict: Verdict,
}

/// The object and field that says so.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Because {
    pub kind: String,
    pub namespace: String,
    pub name: String,
    /// Dotted path with indexes; empty for the object as a whole.
    pub field: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListenerStep {
    pub name: String,
    pub address: String,
    pub because: Option<Because>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ChainStep {
    pub name: String,
    /// `plaintext`, `TLS`, `mTLS` (a client certificate is required), `TLS, client certificate optional`.
    pub security: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct HostStep {
    pub name: String,
    pub domains: Vec<String>,
    pub because: Option<Because>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RouteStep {
    pub name: String,
    /// What the route asks of a path, in words.
    pub path: String,
    pub matched: bool,
    /// The first condition that does not hold, in words.
    pub reason: Option<String>,
    pub because: Option<Because>,
    /// The field of the same object with the conditions.
    pub match_field: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Verdict {
    /// An HTTP request that goes to a cluster.
    Forward(Box<ForwardStep>),
    /// Bytes that go to a cluster.
    Tcp {
        choices: Vec<Choice>,
    },
    Redirect {
        status: u16,
        location: String,
        faults: Vec<String>,
    },
    Respond {
        status: u16,
        body_bytes: usize,
        faults: Vec<String>,
    },
    Refuse {
        status: Option<u16>,
        flag: Option<String>,
        reason: String,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ForwardStep {
    /// All clusters that the route may choose, with their weights.
    pub choices: Vec<Choice>,
    /// The path and query that the upstream sees, when rewritten.
    pub rewritten_path: Option<String>,
    pub rewritten_host: Option<String>,
    /// Of the whole exchange; absent when unlimited.
    pub timeout: Option<String>,
    pub retries: Option<Retries>,
    pub faults: Vec<String>,
    pub mirrors: Vec<MirrorStep>,
    pub cors: bool,
    /// What consistent hashing is keyed by.
    pub hashed_by: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Choice {
    pub weight: u32,
    /// Share of requests in percent.
    pub percent: f64,
    /// Chosen for this request.
    pub chosen: bool,
    pub cluster: ClusterStep,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ClusterStep {
    pub name: String,
    /// False: the cluster does not exist, and requests for it are answered with 503 and flag NC.
    pub exists: bool,
    pub subset: Option<String>,
    pub services: Vec<String>,
    pub balance: Option<String>,
    pub endpoints: Vec<EndpointStep>,
    pub because: Option<Because>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct EndpointStep {
    pub address: String,
    pub healthy: bool,
    pub weight: u32,
    pub priority: u32,
    pub locality: String,
    pub workload: Option<String>,
    /// `plaintext`, `mTLS`, `TLS`.
    pub security: String,
    /// Names of which the endpoint's certificate must bear one.
    pub identities: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Retries {
    pub attempts: u32,
    pub on: Vec<String>,
    pub per_try_timeout: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MirrorStep {
    pub cluster: ClusterStep,
    pub share: String,
}

impl From<&Origin> for Because {
    fn from(origin: &Origin) -> Self {
        Self {
            kind: origin.object.kind.to_string(),
            namespace: origin.object.namespace.to_string(),
            name: origin.object.name.to_string(),
            field: origin.field.clone(),
        }
    }
}

/// Explains what happens to `request` on a connection with these `facts` to `listener`.
pub fn explain(
    snapshot: &Snapshot,
    listener: &Listener,
    facts: &ConnectionFacts<'_>,
    request: &RequestView<'_>,
    draws: Draws,
) -> Explanation {
    let mut explanation = Explanation {
        listener: listener_step(listener),
        chain: None,
        table: None,
        host: None,
        routes: Vec::new(),
        verdict: Verdict::Refuse {
            status: None,
            flag: Some("NR".to_owned()),
            reason: "no filter chain is for such a connection, so it is closed".to_owned(),
        },
    };
    let Some(chain) = listener.choose(facts) else { return explanation };
    let security = match chain.tls.as_ref().map(|tls| &tls.client) {
        None => "plaintext",
        Some(ClientAuth::None) => "TLS",
        Some(ClientAuth::Optional(_)) => "TLS, client certificate optional",
        Some(ClientAuth::Required(_)) => "mTLS",
    };
    explanation.chain = Some(ChainStep { name: chain.name.clone(), security: security.to_owned() });
    let handler = match &chain.handler {
        Handler::Tcp(handler) => {
            let total = handler.clusters.iter().map(|(_, weight)| weight).sum();
            let choices = handler.clusters.iter().map(|(name, weight)| choice(snapshot, name, *weight, total, false));
            let mut choices: Vec<Choice> = choices.collect();
            if let [only] = choices.as_mut_slice() {
                only.chosen = true;
            }
            explanation.verdict = Verdict::Tcp { choices };
            return explanation;
        }
        Handler::Http(handler) => handler,
    };
    if let Some(table) = snapshot.route_table(&handler.routes) {
        explanation.table = Some(table.name.to_string());
        if let Some(host) = table.virtual_host(request.authority) {
            explanation.host = Some(HostStep {
                name: host.name.clone(),
                domains: host.domains.clone(),
                because: host.origin.as_ref().map(Because::from),
            });
            explanation.routes = route_steps(host, request, draws);
        }
    }
    explanation.verdict = verdict(snapshot, handler, plan(snapshot, handler, request, draws), request);
    explanation
}

fn listener_step(listener: &Listener) -> ListenerStep {
    let address = match &listener.address {
        ListenAddress::Tcp(address) => address.to_string(),
        ListenAddress::Unix(path) => path.display().to_string(),
    };
    ListenerStep { name: listener.name.to_string(), address, because: listener.origin.as_ref().map(Because::from) }
}

/// The routes in order, up to the first that matches.
fn route_steps(host: &VirtualHost, request: &RequestView<'_>, draws: Draws) -> Vec<RouteStep> {
    let mut steps = Vec::new();
    for route in &host.routes {
        let mismatch = route.matches.mismatch(request, draws.route_share);
        steps.push(RouteStep {
            name: route.name.clone(),
            path: route.matches.path.to_string(),
            matched: mismatch.is_none(),
            reason: mismatch.map(|mismatch| route.matches.describe(mismatch, request)),
            because: route.origin.as_ref().map(Because::from),
            match_field: route.match_field.clone(),
        });
        if mismatch.is_none() {
            break;
        }
    }
    steps
}

fn verdict(snapshot: &Snapshot, handler: &HttpHandler, plan: Plan, request: &RequestView<'_>) -> Verdict {
    // A route's faults and CORS count only where the filters for them are.
    let faults = plan.fault().filter(|_| handler.fault).map(|fault| fault_words(fault)).unwrap_or_default();
    match plan {
        Plan::Redirect { status, location, .. } => Verdict::Redirect { status: status.as_u16(), location, faults },
        Plan::Respond { response, .. } => {
            Verdict::Respond { status: response.status.as_u16(), body_bytes: response.body.len(), faults }
        }
        Plan::Refuse(no) => refusal(snapshot, &no, request),
        Plan::Forward(plan) => {
            let forward = plan.forward();
            let rewritten_host = plan.rewrite_host().map(|rewrite| match rewrite {
                HostRewrite::Literal(value) => String::from_utf8_lossy(value.as_bytes()).into_owned(),
                HostRewrite::Endpoint => "the host name of the endpoint".to_owned(),
                HostRewrite::Header(name) => format!("the value of header {name}"),
            });
            let mirrors = forward.mirrors.iter().map(|mirror| MirrorStep {
                cluster: cluster_step(&mirror.cluster, snapshot.cluster(&mirror.cluster).map(|cluster| &**cluster)),
                share: mirror.share.to_string(),
            });
            Verdict::Forward(Box::new(ForwardStep {
                choices: choices(snapshot, forward, plan.weighted, plan.cluster.policy.name.clone()),
                rewritten_path: plan.path_and_query.clone(),
                rewritten_host,
                timeout: forward.timeout.map(seconds),
                retries: forward.retry.as_ref().or(plan.host.retry.as_ref()).map(|retry| retries(retry)),
                faults,
                mirrors: mirrors.collect(),
                cors: handler.cors && plan.cors().is_some(),
                hashed_by: forward.hash.iter().map(|policy| hashed_by(&policy.on)).collect(),
            }))
        }
    }
}

fn refusal(snapshot: &Snapshot, no: &NoPlan, request: &RequestView<'_>) -> Verdict {
    let (status, flag, reason) = match no {
        NoPlan::NoRouteTable => (404, "NR", "the route table has not arrived".to_owned()),
        NoPlan::NoVirtualHost => (404, "NR", format!("no virtual host is for {:?}", request.authority)),
        NoPlan::NoRoute { host } => (404, "NR", format!("no route of the virtual host {host:?} matches")),
        NoPlan::NoCluster { cluster, status, route } => {
            let known = similar(snapshot, cluster);
            (
                status.as_u16(),
                "NC",
                format!("route {route:?} names the cluster {cluster:?}, which does not exist{known}"),
            )
        }
        NoPlan::TlsRequired { location } => {
            return Verdict::Redirect { status: 301, location: location.clone(), faults: Vec::new() };
        }
    };
    Verdict::Refuse { status: Some(status), flag: Some(flag.to_owned()), reason }
}

/// Says when only the subset of a cluster is missing: the usual reason for a cluster that does not exist.
fn similar(snapshot: &Snapshot, cluster: &str) -> String {
    let parts: Vec<&str> = cluster.split('|').collect();
    let [direction, port, subset, host] = parts.as_slice() else { return String::new() };
    let whole = format!("{direction}|{port}||{host}");
    if !subset.is_empty() && snapshot.clusters.contains_key(whole.as_str()) {
        format!("; the service does, so no DestinationRule in force defines its subset {subset:?}")
    } else {
        String::new()
    }
}

fn choices(snapshot: &Snapshot, forward: &Forward, weighted: Option<usize>, chosen: ClusterName) -> Vec<Choice> {
    match &forward.target {
        Target::Weighted { clusters, total } => {
            let each = clusters.iter().enumerate();
            each.map(|(index, cluster)| {
                choice(snapshot, &cluster.cluster, cluster.weight, *total, weighted == Some(index))
            })
            .collect()
        }
        Target::Cluster(_) | Target::ClusterHeader(_) => vec![choice(snapshot, &chosen, 1, 1, true)],
    }
}

fn choice(snapshot: &Snapshot, name: &ClusterName, weight: u32, total: u32, chosen: bool) -> Choice {
    let percent = f64::from(weight) * 100.0 / f64::from(total.max(1));
    Choice { weight, percent, chosen, cluster: cluster_step(name, snapshot.cluster(name).map(|cluster| &**cluster)) }
}

fn cluster_step(name: &ClusterName, cluster: Option<&Cluster>) -> ClusterStep {
    let Some(cluster) = cluster else {
        return ClusterStep {
            name: name.to_string(),
            exists: false,
            subset: None,
            services: Vec::new(),
            balance: None,
            endpoints: Vec::new(),
            because: None,
        };
    };
    let policy = &cluster.policy;
    let mut endpoints = Vec::new();
    for locality in &cluster.endpoints.localities {
        for endpoint in &locality.endpoints {
            let tls = policy.transport(endpoint);
            endpoints.push(EndpointStep {
                address: endpoint.address.to_string(),
                healthy: matches!(endpoint.health, Health::Healthy | Health::Degraded),
                weight: endpoint.weight,
                priority: locality.priority,
                locality: locality.locality.to_string(),
                workload: endpoint.workload.as_ref().map(|of| format!("{}.{}", of.workload, of.namespace)),
                security: security(tls.map(|tls| &**tls)).to_owned(),
                identities: tls
                    .map(|tls| tls.validation.names.iter().map(|san| san.value.to_string()).collect())
                    .unwrap_or_default(),
            });
        }
    }
    ClusterStep {
        name: policy.name.to_string(),
        exists: true,
        subset: policy.subset().map(str::to_owned),
        services: policy.services.iter().map(|service| service.host.clone()).collect(),
        balance: Some(policy.balance.to_string()),
        endpoints,
        because: policy.origin.as_ref().map(Because::from),
    }
}

fn security(tls: Option<&ClientTls>) -> &'static str {
    match tls {
        None => "plaintext",
        Some(ClientTls { certificate: Some(_), .. }) => "mTLS",
        Some(ClientTls { certificate: None, .. }) => "TLS",
    }
}

fn retries(policy: &RetryPolicy) -> Retries {
    let mut on: Vec<String> = policy.on.names().into_iter().map(str::to_owned).collect();
    on.extend(policy.statuses.iter().map(ToString::to_string));
    Retries { attempts: policy.retries, on, per_try_timeout: policy.per_try_timeout.map(seconds) }
}

fn fault_words(fault: &Fault) -> Vec<String> {
    let delay = fault.delay.map(|(delay, share)| format!("{share} wait {}", seconds(delay)));
    let abort = fault.abort.map(|(abort, share)| match abort {
        Abort::Http(status) => format!("{share} are answered with HTTP {}", status.as_u16()),
        Abort::Grpc(status) => format!("{share} are answered with gRPC status {status}"),
    });
    delay.into_iter().chain(abort).collect()
}

fn hashed_by(on: &HashOn) -> String {
    match on {
        HashOn::Header(name) => format!("header {name}"),
        HashOn::Cookie { name, .. } => format!("cookie {name}"),
        HashOn::SourceIp => "client address".to_owned(),
        HashOn::QueryParameter(name) => format!("query parameter {name}"),
    }
}

/// `7s`, `0.25s`.
fn seconds(duration: Duration) -> String {
    format!("{}s", duration.as_secs_f64())
}

/// Whether a route's action sends requests on, for listings of routes.
pub fn action_words(action: &Action) -> String {
    match action {
        Action::Redirect(redirect) => format!("redirect {}", redirect.status.as_u16()),
        Action::Respond(response) => format!("respond {}", response.status.as_u16()),
        Action::Forward(forward) => match &forward.target {
            Target::Cluster(name) => name.to_string(),
            Target::ClusterHeader(name) => format!("cluster of header {name}"),
            Target::Weighted { clusters, .. } => {
                let each = clusters.iter().map(|choice| format!("{} ({})", choice.cluster, choice.weight));
                each.collect::<Vec<_>>().join(", ")
            }
        },
    }
}
