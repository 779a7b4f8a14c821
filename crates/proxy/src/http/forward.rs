//! A request that goes to a cluster: edits, tries, and what comes back.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Version};
use mizzen_balance::{Ejection, Host, Outcome as HostOutcome, PickContext};
use mizzen_net::Body;
use mizzen_snapshot::Snapshot;
use mizzen_snapshot::cluster::Discovery;
use mizzen_snapshot::http::HttpHandler;
use mizzen_snapshot::listener::Direction;
use mizzen_snapshot::plan::ForwardPlan;
use mizzen_snapshot::route::{HostRewrite, Outcome, Reset, RetryPolicy};

use super::answer::Reply;
use super::{headers, peer};
use crate::connection::Connection;
use crate::facts::HttpFacts;
use crate::refusal::{Flag, Refusal};
use crate::upstream::request::RequestBody;
use crate::upstream::send::{self, Failure, Head, Try, UpstreamResponse};
use crate::upstream::timeouts::{Timeouts, Times};
use crate::upstream::{Source, Upstream, connect};

/// How often a request is sent again because the endpoint closed an idle connection under it.
const MAX_RACES: u32 = 3;

pub async fn forward(
    connection: &Rc<Connection>,
    handler: &HttpHandler,
    snapshot: &Snapshot,
    plan: &ForwardPlan,
    facts: &mut HttpFacts,
    body: Body,
) -> Result<Reply, Refusal> {
    let worker = &connection.worker;
    allow_upgrade(handler, plan, facts)?;
    let upstream = worker.upstream(&plan.cluster);
    let retry = retry_policy(plan, facts);
    let keep = if retry.is_some() { worker.shared.limits.retry_buffer } else { 0 };
    let mut body = RequestBody::new(body, keep);
    edit(handler, plan, facts);
    if handler.peers.upstream.propagate {
        peer::tell_upstream(connection, &plan.cluster, &mut facts.request_headers);
    }
    super::mirror::mirror(connection, snapshot, plan, facts, &mut body);

    let some = |time: Option<std::time::Duration>| time.filter(|time| !time.is_zero());
    let times = Times {
        route: timeout(plan, facts),
        per_try: retry.as_deref().and_then(|retry| retry.per_try_timeout),
        idle: [
            some(plan.forward().idle_timeout.or(handler.stream_idle_timeout)),
            some(retry.as_deref().and_then(|retry| retry.per_try_idle_timeout)),
        ]
        .into_iter()
        .flatten()
        .min(),
        receive: some(handler.request_timeout),
    };
    let mut timeouts = Timeouts::new(times, body.is_received());
    let mut tries = Tries { connection, upstream: &upstream, plan, retry: retry.as_deref(), tried: Vec::new() };
    let mut response = tries.run(handler, body, facts, &mut timeouts).await?;

    facts.upstream_responded = Some(facts.started.elapsed());
    facts.connected(&response.facts);
    let (deadline, whole) = timeouts.rest();
    response.body.deadline.set(deadline);
    response.body.timeout = whole;

    let switch = crate::upstream::http1::is_switch(response.status, &facts.method, facts.upgrade.is_some());
    headers::remove_hop_headers(&mut response.headers, switch && facts.method != Method::CONNECT);
    if handler.peers.upstream.discover {
        facts.upstream_workload = peer::take(worker, &mut response.headers);
    }
    if !handler.suppress_envoy_headers {
        let waited =
            facts.upstream_responded.unwrap_or_default().saturating_sub(facts.upstream_sent.unwrap_or_default());
        let millis = u64::try_from(waited.as_millis()).unwrap_or(u64::MAX);
        response.headers.insert(headers::X_ENVOY_SERVICE_TIME, HeaderValue::from(millis));
    }
    if let Some(cookie) = plan.set_cookie.clone() {
        response.headers.append(header::SET_COOKIE, cookie);
    }
    for edits in plan.response_edits().filter(|edits| !edits.is_empty()) {
        let before = response.headers.clone();
        edits.apply(&mut response.headers, &facts.for_templates(Some(&before)));
    }
    Ok(Reply { status: response.status, headers: response.headers, body: response.body, tunnel: switch, close: false })
}

/// An upgrade that is not enabled is not asked for: the request goes on as plain HTTP, as RFC 9110 (7.8) allows, unless
/// the route switches it off explicitly.
fn allow_upgrade(handler: &HttpHandler, plan: &ForwardPlan, facts: &mut HttpFacts) -> Result<(), Refusal> {
    let wanted = match (&facts.upgrade, &facts.method) {
        (Some(protocol), _) => protocol.as_str(),
        (None, &Method::CONNECT) => "connect",
        (None, _) => return Ok(()),
    };
    let of_route = plan.forward().upgrades.iter().find(|(name, _)| name.eq_ignore_ascii_case(wanted));
    let allowed = match of_route {
        Some((_, enabled)) => *enabled,
        None => handler.upgrades.iter().any(|name| name.eq_ignore_ascii_case(wanted)),
    };
    if allowed {
        return Ok(());
    }
    if of_route.is_some() || facts.method == Method::CONNECT {
        return Err(Refusal::UpgradeNotAllowed(wanted.to_owned()));
    }
    facts.upgrade = None;
    headers::remove_hop_headers(&mut facts.request_headers, false);
    Ok(())
}

fn retry_policy(plan: &ForwardPlan, facts: &HttpFacts) -> Option<Arc<RetryPolicy>> {
    if facts.upgrade.is_some() || facts.method == Method::CONNECT {
        return None;
    }
    plan.forward().retry.clone().or_else(|| plan.host.retry.clone()).filter(|retry| retry.retries > 0)
}

/// The route's timeout, or what a gRPC client asks for within the route's bound.
fn timeout(plan: &ForwardPlan, facts: &HttpFacts) -> Option<std::time::Duration> {
    let forward = plan.forward();
    if let (true, Some(bound)) = (facts.is_grpc, forward.grpc_timeout_max)
        && let Some(asked) = facts.request_headers.get("grpc-timeout").and_then(|value| grpc_timeout(value.as_bytes()))
    {
        return Some(if bound.is_zero() { asked } else { asked.min(bound) });
    }
    forward.timeout.filter(|timeout| !timeout.is_zero())
}

fn grpc_timeout(value: &[u8]) -> Option<std::time::Duration> {
    use std::time::Duration;
    let (unit, digits) = value.split_last()?;
    if digits.is_empty() || digits.len() > 8 {
        return None;
    }
    let number: u64 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(match unit {
        b'H' => Duration::from_secs(number * 3600),
        b'M' => Duration::from_secs(number * 60),
        b'S' => Duration::from_secs(number),
        b'm' => Duration::from_millis(number),
        b'u' => Duration::from_micros(number),
        b'n' => Duration::from_nanos(number),
        _ => return None,
    })
}

/// What the route changes in the request, in Envoy's order: header edits, then path and host.
fn edit(handler: &HttpHandler, plan: &ForwardPlan, facts: &mut HttpFacts) {
    let forward = plan.forward();
    if !handler.suppress_envoy_headers
        && let Some(timeout) = forward.timeout.filter(|timeout| !timeout.is_zero())
    {
        let millis = u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX);
        facts.request_headers.insert(headers::X_ENVOY_EXPECTED_TIMEOUT, HeaderValue::from(millis));
    }
    for edits in plan.request_edits().filter(|edits| !edits.is_empty()) {
        let mut changed = facts.request_headers.clone();
        edits.apply(&mut changed, &facts.for_templates(None));
        facts.request_headers = changed;
    }
    if let Some(operation) = plan.route.operation.as_deref()
        && facts.downstream.listener.direction == Direction::Outbound
        && let Ok(operation) = HeaderValue::from_str(operation)
    {
        facts.request_headers.insert(headers::X_ENVOY_DECORATOR, operation);
    }
    if facts.method != Method::CONNECT
        && let Some(path) = &plan.path_and_query
    {
        let original = std::mem::replace(&mut facts.path, path.clone());
        if let (Ok(original), false) =
            (HeaderValue::from_maybe_shared(bytes::Bytes::from(original)), handler.suppress_envoy_headers)
        {
            facts.request_headers.insert(headers::X_ENVOY_ORIGINAL_PATH, original);
        }
    }
    let host = match plan.rewrite_host() {
        Some(HostRewrite::Literal(host)) => host.to_str().ok().map(str::to_owned),
        Some(HostRewrite::Header(name)) => {
            facts.request_headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
        }
        // Known when the endpoint is.
        Some(HostRewrite::Endpoint) | None => None,
    };
    if let Some(host) = host {
        rewrite_host(plan, facts, host);
    }
}

fn rewrite_host(plan: &ForwardPlan, facts: &mut HttpFacts, host: String) {
    if let Ok(original) = HeaderValue::from_str(&facts.authority) {
        facts.request_headers.insert(headers::X_ENVOY_ORIGINAL_HOST, original.clone());
        if plan.forward().append_x_forwarded_host {
            facts.request_headers.append(headers::X_FORWARDED_HOST, original);
        }
    }
    facts.authority = host;
}

/// All tries of one request.
struct Tries<'a> {
    connection: &'a Rc<Connection>,
    upstream: &'a Rc<Upstream>,
    plan: &'a ForwardPlan,
    retry: Option<&'a RetryPolicy>,
    tried: Vec<Arc<Host>>,
}

impl Tries<'_> {
    async fn run(
        &mut self,
        handler: &HttpHandler,
        mut body: RequestBody,
        facts: &mut HttpFacts,
        timeouts: &mut Timeouts,
    ) -> Result<UpstreamResponse, Refusal> {
        let mut attempt = 1;
        let mut races = 0;
        // Held from the decision to the end of that try.
        let mut _retry_permit = None;
        loop {
            facts.attempts = attempt;
            if self.plan.host.include_attempt_count {
                facts.request_headers.insert(headers::X_ENVOY_ATTEMPT_COUNT, HeaderValue::from(attempt));
            }
            let host = self.pick(facts)?;
            facts.upstream = Some(Arc::clone(&host));
            if matches!(self.plan.rewrite_host(), Some(HostRewrite::Endpoint))
                && let Some(name) = host.endpoint.hostname.clone()
            {
                rewrite_host(self.plan, facts, name);
            }
            if facts.upstream_sent.is_none() {
                facts.upstream_sent = Some(facts.started.elapsed());
            }
            let (failure, returned) = match self.try_once(handler, &host, facts, body, timeouts).await {
                Ok(mut response) => {
                    if self.worth_another(&response, attempt)
                        && let Ok(permit) = self.retry_permit()
                        && let Some(taken) = response.body.take_request()
                    {
                        drop(response);
                        body = taken;
                        _retry_permit = Some(permit);
                        self.back_off(attempt, timeouts).await?;
                        attempt += 1;
                        self.tried.push(host);
                        continue;
                    }
                    if self.is_exhausted(&response, attempt) {
                        facts.flags.push(Flag::URX);
                    }
                    response.body.commit();
                    return Ok(response);
                }
                Err((failure, returned)) => (failure, returned),
            };
            body = returned;
            facts.bytes_received = body.received();
            facts.upstream_failure = Some(failure.refusal.to_string());
            let whole = body.rewind();
            if whole && races < MAX_RACES && failure.is_idle_race(&facts.method) {
                tracing::debug!(cause = %failure.refusal, "sent again: the endpoint had closed an idle connection");
                races += 1;
                continue;
            }
            if !whole || !self.may_retry(&failure, attempt) {
                if let (Some(retry), true) = (self.retry, failure.is_upstreams())
                    && attempt > retry.retries
                {
                    facts.flags.push(Flag::URX);
                }
                return Err(failure.refusal);
            }
            tracing::debug!(cause = %failure.refusal, attempt, "retry");
            self.tried.push(host);
            match self.retry_permit() {
                Ok(permit) => _retry_permit = Some(permit),
                Err(_) => return Err(failure.refusal),
            }
            self.back_off(attempt, timeouts).await?;
            attempt += 1;
        }
    }

    fn pick(&self, facts: &HttpFacts) -> Result<Arc<Host>, Refusal> {
        let worker = &self.connection.worker;
        if let Discovery::OriginalDst { port_override } = self.plan.cluster.policy.discovery {
            let mut address = facts.downstream.local;
            if let Some(port) = port_override {
                address.set_port(port);
            }
            return Ok(self.upstream.original(address, self.source(facts)));
        }
        let avoid = self.retry.is_some_and(|retry| retry.avoid_previous_hosts);
        let ask = PickContext {
            now: worker.time(Instant::now()),
            draw: worker.random.next(),
            hash: self.plan.hash,
            avoid: if avoid { &self.tried } else { &[] },
            attempts: self.retry.map_or(0, |retry| retry.host_selection_attempts),
            tried: &self.tried,
            leave_priorities_after: self.retry.map_or(0, |retry| retry.leave_priorities_after as usize),
        };
        self.upstream.balancer.pick(&ask).map_err(|none| Refusal::NoHealthyUpstream {
            cluster: self.upstream.name().to_owned(),
            empty: none == mizzen_balance::NoEndpoint::Empty,
        })
    }

    fn source(&self, facts: &HttpFacts) -> Option<Source> {
        let client = &facts.downstream;
        Source::of(&client.listener.inspect, self.upstream.policy(), client.peer)
    }

    async fn try_once(
        &self,
        handler: &HttpHandler,
        host: &Arc<Host>,
        facts: &HttpFacts,
        body: RequestBody,
        timeouts: &mut Timeouts,
    ) -> Result<UpstreamResponse, (Failure, RequestBody)> {
        let permit = match self.upstream.balancer.breakers().request() {
            Ok(permit) => permit,
            Err(exceeded) => return Err((send::overflow(self.upstream, &exceeded), body)),
        };
        let active = host.begin_request();
        let what = Try {
            upstream: self.upstream,
            host,
            client_http2: facts.version == Version::HTTP_2,
            istio_alpn: handler.istio_alpn,
            source: self.source(facts),
            http1_only: facts.upgrade.is_some() || facts.method == Method::CONNECT,
            connection: Some(&facts.upstream_connection),
        };
        let endpoint = connect::name(host);
        let head = Head {
            method: &facts.method,
            scheme: facts.scheme,
            host: &facts.authority,
            target: &facts.path,
            headers: &facts.request_headers,
            upgrade: facts.upgrade.is_some(),
            endpoint: &endpoint,
        };
        let result = send::send(&what, head, body, timeouts).await;
        self.judge(host, &result);
        result.map(|mut response| {
            response.body.hold(permit, active);
            response
        })
    }

    /// Tells the outlier detection how the endpoint did.
    fn judge(&self, host: &Arc<Host>, result: &Result<UpstreamResponse, (Failure, RequestBody)>) {
        let outcome = match result {
            Ok(response) => HostOutcome::Response(judged_status(&response.headers, response.status)),
            Err((failure, _)) => match &failure.refusal {
                Refusal::ConnectTimeout { .. } | Refusal::RequestTimeout { .. } | Refusal::PerTryTimeout { .. } => {
                    HostOutcome::Timeout
                }
                refusal if is_upstreams(refusal) => HostOutcome::ConnectFailed,
                _ => return,
            },
        };
        let worker = &self.connection.worker;
        if let Some(ejection) = self.upstream.balancer.record(host, outcome, worker.time(Instant::now())) {
            tracing::info!(cluster = self.upstream.name(), endpoint = connect::name(host), ?ejection, "outlier");
            if self.upstream.policy().close_on_host_failure && matches!(ejection, Ejection::Ejected { .. }) {
                self.upstream.close_idle(host);
            }
        }
    }

    fn worth_another(&self, response: &UpstreamResponse, attempt: u32) -> bool {
        self.retry.is_some_and(|retry| attempt <= retry.retries && retry.should_retry(outcome(response)))
    }

    fn is_exhausted(&self, response: &UpstreamResponse, attempt: u32) -> bool {
        self.retry.is_some_and(|retry| attempt > retry.retries && retry.should_retry(outcome(response)))
    }

    fn may_retry(&self, failure: &Failure, attempt: u32) -> bool {
        let Some(retry) = self.retry.filter(|retry| attempt <= retry.retries) else { return false };
        failure.is_upstreams()
            && retry.should_retry(Outcome::Reset { reset: failure.reset, request_started: failure.request_started })
    }

    fn retry_permit(&self) -> Result<mizzen_balance::Permit, mizzen_balance::Exceeded> {
        self.upstream.balancer.breakers().retry()
    }

    /// Waits before the next try, and gives it its own time.
    async fn back_off(&self, attempt: u32, timeouts: &mut Timeouts) -> Result<(), Refusal> {
        let Some(retry) = self.retry else { return Ok(()) };
        let pause = retry.backoff(attempt, self.connection.worker.random.next_u32());
        timeouts.pause_try();
        timeouts.within(tokio::time::sleep(pause)).await?;
        timeouts.next_try();
        Ok(())
    }
}

impl Failure {
    /// The endpoint or the way to it failed, not the client and not the whole request.
    fn is_upstreams(&self) -> bool {
        self.reset == Reset::PerTryTimeout || is_upstreams(&self.refusal)
    }
}

fn is_upstreams(refusal: &Refusal) -> bool {
    matches!(
        refusal,
        Refusal::ConnectFailure { .. }
            | Refusal::ConnectTimeout { .. }
            | Refusal::TlsFailure { .. }
            | Refusal::ConnectionTermination { .. }
            | Refusal::RemoteReset { .. }
            | Refusal::UpstreamProtocol { .. }
    )
}

fn outcome(response: &UpstreamResponse) -> Outcome {
    Outcome::Response {
        status: response.status.as_u16(),
        grpc_status: grpc_status(&response.headers),
        ratelimited: response.headers.contains_key("x-envoy-ratelimited"),
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<i32> {
    headers.get("grpc-status")?.to_str().ok()?.parse().ok()
}

/// A gRPC error stands for an HTTP status (Envoy: `grpcToHttpStatus`).
fn judged_status(headers: &HeaderMap, status: StatusCode) -> u16 {
    match grpc_status(headers) {
        None | Some(0) => status.as_u16(),
        Some(1) => 499,
        Some(3 | 9 | 11) => 400,
        Some(4) => 504,
        Some(5) => 404,
        Some(6 | 10) => 409,
        Some(7) => 403,
        Some(8) => 429,
        Some(12) => 501,
        Some(14) => 503,
        Some(16) => 401,
        Some(_) => 500,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn grpc_timeouts_are_read() {
        assert_eq!(grpc_timeout(b"5S"), Some(Duration::from_secs(5)));
        assert_eq!(grpc_timeout(b"100m"), Some(Duration::from_millis(100)));
        assert_eq!(grpc_timeout(b"m"), None);
        assert_eq!(grpc_timeout(b"123456789S"), None);
        assert_eq!(grpc_timeout(b"5x"), None);
    }
}
