//! What the pure decision says about a call, in the words of [`Observed`].

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use http::{HeaderMap, HeaderValue};
use mizzen_snapshot::Snapshot;
use mizzen_snapshot::cluster::{Balance, Cluster, Health};
use mizzen_snapshot::header::Facts;
use mizzen_snapshot::listener::{ConnectionFacts, Handler, ListenAddress, TcpHandler, Transport};
use mizzen_snapshot::plan::{Draws, ForwardPlan, NoPlan, Plan, plan};
use mizzen_snapshot::route::{Abort, CorsDecision, FaultDraws, HostRewrite, RequestView, Target};
use mizzen_types::Percent;

use crate::expect::{Observed, Seen};
use crate::memory::workload_at;
use crate::scenario::Call;

/// Weighted choices are tried out completely up to this many.
const MAX_DRAWS: u32 = 10_000;

/// What `snapshot` makes of a call to the listener at `address`.
pub(crate) fn observe(snapshot: &Snapshot, address: SocketAddr, call: &Call) -> Result<Observed, String> {
    let handler = match handler(snapshot, address, call)? {
        Some(Handler::Http(handler)) => handler,
        Some(Handler::Tcp(handler)) => return Ok(of_bytes(snapshot, &handler)),
        // Nobody listens, or nobody takes such a connection: nobody answers.
        None => {
            let shares = Some(BTreeMap::new());
            return Ok(Observed { shares, answered: Some(false), ..Observed::default() });
        }
    };
    let view = RequestView {
        method: &call.method,
        authority: &call.authority,
        scheme: &call.scheme,
        path_and_query: &call.path_and_query,
        headers: &call.headers,
        client_ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
    };
    let decide = |weight| plan(snapshot, &handler, &view, Draws { weight, ..Draws::default() });
    let first = decide(0);
    let mut observed = Observed { tolerance: 0.005, shares: Some(BTreeMap::new()), ..Observed::default() };
    observed.answered = Some(true);
    if let Some(route) = first.route() {
        observed.route = Some(if route.name.is_empty() { "default".to_owned() } else { route.name.clone() });
        let origin = route.origin.as_ref();
        let fields = origin.into_iter().flat_map(|origin| {
            let object = origin.object.to_string();
            route.match_field.iter().chain([&origin.field]).map(move |field| (object.clone(), field.clone()))
        });
        observed.origins = Some(fields.collect());
    }
    let fault = first.fault().filter(|_| handler.fault);
    let decision = fault.map(|fault| {
        let whole = |share: Percent| share == Percent::ALWAYS;
        let decided = fault.decide(FaultDraws { delay: 999_999, abort: 999_999 });
        debug_assert!(decided.abort.is_none() || fault.abort.is_some_and(|(_, share)| whole(share)));
        decided
    });
    observed.delay = Some(decision.and_then(|decision| decision.delay));
    if let Some(abort) = decision.and_then(|decision| decision.abort) {
        observed.status = Some(match abort {
            Abort::Http(status) => status.as_u16(),
            Abort::Grpc(_) => 200,
        });
        return Ok(observed);
    }
    if let Some(CorsDecision::Answer { status, headers }) =
        first.cors().filter(|_| handler.cors).map(|cors| cors.decide(&call.method, &call.headers))
    {
        observed.status = Some(status.as_u16());
        observed.headers = Some(headers);
        return Ok(observed);
    }
    match &first {
        Plan::Forward(forward) => {
            of_forward(&mut observed, forward, &view, call);
            observed.shares = Some(shares(forward, decide));
            let answered = observed.shares.as_ref().is_some_and(|shares| !shares.is_empty());
            // What a workload answers that is told to misbehave is not known here.
            observed.status = (!call.headers.contains_key("x-echo")).then_some(if answered { 200 } else { 503 });
        }
        Plan::Redirect { status, location, .. } => {
            observed.status = Some(status.as_u16());
            observed.headers = Some(one_header("location", location)?);
        }
        Plan::Respond { response, .. } => {
            observed.status = Some(response.status.as_u16());
            observed.body = Some(String::from_utf8_lossy(&response.body).into_owned());
            observed.headers = Some(HeaderMap::new());
        }
        Plan::Refuse(refusal) => match refusal {
            NoPlan::TlsRequired { location } => {
                observed.status = Some(301);
                observed.headers = Some(one_header("location", location)?);
            }
            NoPlan::NoCluster { status, .. } => observed.status = Some(status.as_u16()),
            NoPlan::NoVirtualHost | NoPlan::NoRoute { .. } | NoPlan::NoRouteTable => observed.status = Some(404),
        },
    }
    Ok(observed)
}

fn one_header(name: &'static str, value: &str) -> Result<HeaderMap, String> {
    let value = HeaderValue::from_str(value).map_err(|error| format!("{name}: {value:?}: {error}"))?;
    Ok([(http::HeaderName::from_static(name), value)].into_iter().collect())
}

/// How the connection of a call to that address is handled.
fn handler(snapshot: &Snapshot, address: SocketAddr, call: &Call) -> Result<Option<Handler>, String> {
    let at = |listen: &ListenAddress| matches!(listen, ListenAddress::Tcp(listen) if *listen == address || (listen.ip().is_unspecified() && listen.port() == address.port()));
    let Some(listener) = snapshot.listeners.values().find(|listener| at(&listener.address)) else { return Ok(None) };
    let source = SocketAddr::from((Ipv4Addr::LOCALHOST, 40_000));
    // A sidecar is told of https as plain HTTP; only a gateway's client speaks TLS itself.
    let tls = call.scheme == "https" && call.from == "gateway";
    let protocols: &[&str] = match (call.is_tcp(), call.http2) {
        (true, _) => &[],
        (false, true) => &["h2"],
        (false, false) => &["http/1.1"],
    };
    let facts = ConnectionFacts {
        destination: address,
        source,
        direct_source: source.ip(),
        transport: if tls { Transport::Tls } else { Transport::RawBuffer },
        server_name: tls.then(|| call.host()),
        application_protocols: protocols,
    };
    let Some(chain) = listener.choose(&facts) else { return Ok(None) };
    match &chain.handler {
        Handler::Tcp(_) if !tls && !call.is_tcp() => Err(format!("{} takes the call for TCP", listener.name)),
        handler => Ok(Some(handler.clone())),
    }
}

/// Bytes that are passed on as they are, to the first of the clusters.
fn of_bytes(snapshot: &Snapshot, handler: &TcpHandler) -> Observed {
    let mut observed = Observed { answered: Some(true), shares: Some(BTreeMap::new()), ..Observed::default() };
    let name = handler.clusters.first().map(|(name, _)| name);
    observed.cluster = name.map(ToString::to_string);
    let all = name.and_then(|name| snapshot.clusters.get(name)).map(|cluster| endpoints(cluster)).unwrap_or_default();
    let sum: u32 = all.iter().map(|(_, weight)| *weight).sum();
    observed.shares =
        Some(all.into_iter().map(|(name, weight)| (name, f64::from(weight) / f64::from(sum.max(1)))).collect());
    observed
}

fn of_forward(observed: &mut Observed, plan: &ForwardPlan, view: &RequestView<'_>, call: &Call) {
    let forward = plan.forward();
    observed.cluster = Some(plan.cluster.policy.name.to_string());
    observed.timeout = Some(forward.timeout);
    let retry = forward.retry.as_ref().or(plan.host.retry.as_ref());
    observed.retries = Some(retry.map_or(0, |retry| retry.retries));
    observed.per_try_timeout = Some(retry.and_then(|retry| retry.per_try_timeout));
    observed.balance = Some(
        match plan.cluster.policy.balance {
            Balance::RoundRobin { .. } => "ROUND_ROBIN",
            Balance::LeastRequest { .. } => "LEAST_REQUEST",
            Balance::Random => "RANDOM",
            Balance::RingHash { .. } => "RING_HASH",
            Balance::Maglev { .. } => "MAGLEV",
            Balance::ClusterProvided => "PASSTHROUGH",
        }
        .to_owned(),
    );
    observed.same_workload = Some(plan.hash.is_some() || endpoints(&plan.cluster).len() == 1);
    observed.mtls = plan
        .cluster
        .endpoints
        .iter()
        .next()
        .map(|endpoint| plan.cluster.policy.transport(endpoint).is_some_and(|tls| tls.certificate.is_some()));
    observed.seen = Some(seen(plan, view, call));
    observed.headers = Some(response_headers(plan, view, call));
}

/// What the workload would be asked.
fn seen(plan: &ForwardPlan, view: &RequestView<'_>, call: &Call) -> Seen {
    let mut headers = call.headers.clone();
    let facts = Facts { request: Some(*view), ..Facts::default() };
    for edits in plan.request_edits() {
        edits.apply(&mut headers, &facts);
    }
    let host = match plan.rewrite_host() {
        Some(HostRewrite::Literal(host)) => String::from_utf8_lossy(host.as_bytes()).into_owned(),
        Some(HostRewrite::Endpoint | HostRewrite::Header(_)) | None => call.authority.clone(),
    };
    Seen {
        method: call.method.to_string(),
        path: plan.path_and_query.clone().unwrap_or_else(|| call.path_and_query.clone()),
        host,
        headers,
        trailers: HeaderMap::new(),
    }
}

/// Headers of the answer: the workload's own that scenarios speak of, and what the mesh does to them.
fn response_headers(plan: &ForwardPlan, view: &RequestView<'_>, call: &Call) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert("x-echo-extra", HeaderValue::from_static("1"));
    if let Some(cookie) = &plan.set_cookie {
        headers.append(http::header::SET_COOKIE, cookie.clone());
    }
    if let Some(cors) = plan.cors()
        && let CorsDecision::Grant(grant) = cors.decide(&call.method, &call.headers)
    {
        grant.mark(cors, &mut headers);
    }
    let before = headers.clone();
    let facts = Facts { request: Some(*view), response: Some(&before), ..Facts::default() };
    for edits in plan.response_edits() {
        edits.apply(&mut headers, &facts);
    }
    headers
}

/// How the calls are shared, over all draws of weights and all endpoints.
fn shares(first: &ForwardPlan, decide: impl Fn(u32) -> Plan) -> BTreeMap<String, f64> {
    let total = match &first.forward().target {
        Target::Weighted { total, .. } => (*total).clamp(1, MAX_DRAWS),
        Target::Cluster(_) | Target::ClusterHeader(_) => 1,
    };
    let mut shares = BTreeMap::new();
    for draw in 0..total {
        let Plan::Forward(plan) = decide(draw) else { continue };
        let all = endpoints(&plan.cluster);
        let sum: u32 = all.iter().map(|(_, weight)| *weight).sum();
        for (name, weight) in all {
            *shares.entry(name).or_default() += f64::from(weight) / f64::from(sum.max(1)) / f64::from(total);
        }
    }
    shares
}

/// Healthy endpoints of the first priority that has some, with their weights.
fn endpoints(cluster: &Cluster) -> Vec<(String, u32)> {
    let healthy = |locality: &&mizzen_snapshot::cluster::LocalityEndpoints| {
        locality.endpoints.iter().any(|endpoint| endpoint.health == Health::Healthy)
    };
    let first = cluster.endpoints.localities.iter().filter(healthy).map(|locality| locality.priority).min();
    cluster
        .endpoints
        .localities
        .iter()
        .filter(|locality| Some(locality.priority) == first)
        .flat_map(|locality| &locality.endpoints)
        .filter(|endpoint| endpoint.health == Health::Healthy)
        .map(|endpoint| (workload_at(&endpoint.address), endpoint.weight))
        .collect()
}
