//! **The spine**: one request, from its head to its answer, top to bottom.
//!
//! Decide, then do: [`plan`](mizzen_snapshot::plan::plan) says what shall be done; a redirect or a direct response is a
//! plan, an injected fault is an answer, and every failure is a [`Refusal`], which becomes an answer in one place.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, StatusCode, Uri, Version};
use mizzen_net::Body;
use mizzen_snapshot::header::HeaderEdits;
use mizzen_snapshot::http::HttpHandler;
use mizzen_snapshot::plan::{self, Draws, NoPlan, Plan};
use mizzen_snapshot::route::{Abort, CorsDecision, Fault, FaultDraws};

use super::answer::{Reply, is_grpc};
use super::normalize::{Normalized, normalize};
use super::{headers, peer};
use crate::connection::Connection;
use crate::facts::HttpFacts;
use crate::refusal::{Flag, Refusal};

/// Head of a request as it came off the wire.
pub struct Head {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
}

/// Answers one request. Never fails: a refusal is an answer. Dropping the future cancels everything that is under way.
pub async fn exchange(
    connection: &Rc<Connection>,
    handler: &Arc<HttpHandler>,
    facts: &mut HttpFacts,
    body: Body,
) -> Reply {
    let mut reply = match answer(connection, handler, facts, body).await {
        Ok(reply) => reply,
        Err(refusal) => {
            tracing::debug!(cause = %refusal, method = %facts.method, path = facts.path, "refused");
            Reply::refusal(&refusal, facts)
        }
    };
    headers::respond(handler, &mut reply.headers);
    if facts.peer.is_some() && handler.peers.downstream.propagate {
        peer::tell_downstream(connection, &mut reply.headers);
    }
    facts.status = reply.status.as_u16();
    reply
}

async fn answer(
    connection: &Rc<Connection>,
    handler: &Arc<HttpHandler>,
    facts: &mut HttpFacts,
    body: Body,
) -> Result<Reply, Refusal> {
    if let Some(location) = clean(connection, handler, facts, &body)? {
        return Ok(redirect(StatusCode::TEMPORARY_REDIRECT, &location));
    }
    if body.is_end() {
        facts.request_received = Some(facts.started.elapsed());
    }
    let snapshot = connection.worker.snapshot();
    let plan = plan::plan(&snapshot, handler, &facts.view(), draws(connection));
    facts.route = plan.route().cloned();

    let mut grant = None;
    if handler.cors
        && let Some(cors) = plan.cors()
    {
        match cors.decide(&facts.method, &facts.request_headers) {
            CorsDecision::Pass => {}
            CorsDecision::Answer { status, headers } => {
                facts.details = "cors_preflight";
                return Ok(Reply::local(status, headers, Body::Empty));
            }
            CorsDecision::Grant(given) => grant = Some((given, Arc::clone(cors))),
        }
    }
    if handler.fault
        && let Some(fault) = plan.fault()
    {
        inject(connection, fault, facts).await?;
    }
    let mut reply = match plan {
        Plan::Refuse(NoPlan::TlsRequired { location }) => {
            facts.details = "direct_response";
            redirect(StatusCode::MOVED_PERMANENTLY, &location)
        }
        Plan::Refuse(no) => {
            if let NoPlan::NoCluster { route, .. } = &no {
                facts.unfollowed = Some(route.clone());
            }
            return Err(Refusal::NoPlan(no));
        }
        Plan::Redirect { status, location, table, route, host } => {
            facts.details = "direct_response";
            let mut reply = redirect(status, &location);
            edit(&mut reply, facts, [&route.response_headers, &host.response_headers, &table.response_headers]);
            facts.virtual_host = Some(host);
            reply
        }
        Plan::Respond { response, table, route, host } => {
            facts.details = "direct_response";
            let body = if facts.method == Method::HEAD { Body::Empty } else { Body::from_shared(response.body) };
            let mut reply = Reply::text(response.status, body);
            edit(&mut reply, facts, [&route.response_headers, &host.response_headers, &table.response_headers]);
            facts.virtual_host = Some(host);
            reply
        }
        Plan::Forward(plan) => {
            facts.virtual_host = Some(Arc::clone(&plan.host));
            facts.cluster = Some(Arc::clone(&plan.cluster));
            super::forward::forward(connection, handler, &snapshot, &plan, facts, body).await?
        }
    };
    if let Some((grant, cors)) = grant {
        grant.mark(&cors, &mut reply.headers);
    }
    Ok(reply)
}

fn draws(connection: &Connection) -> Draws {
    let random = &connection.worker.random;
    Draws { route_share: random.per_million(), weight: random.next_u32(), cookie: random.next() }
}

fn edit<'a>(reply: &mut Reply, facts: &HttpFacts, edits: impl IntoIterator<Item = &'a HeaderEdits>) {
    for edits in edits.into_iter().filter(|edits| !edits.is_empty()) {
        let before = reply.headers.clone();
        edits.apply(&mut reply.headers, &facts.for_templates(Some(&before)));
    }
}

/// The facts of a request of which only the head is known.
pub fn begin(connection: &Connection, handler: &Arc<HttpHandler>, head: Head) -> Box<HttpFacts> {
    let Head { method, uri, version, headers: mut request_headers } = head;
    // The authority of the target wins over `host`: they name the same thing, and only one of them may be believed
    // (RFC 9112, section 3.2.2).
    let host = request_headers.remove(header::HOST);
    let authority = match uri.authority() {
        Some(authority) => authority.as_str().to_owned(),
        None => host.as_ref().map(|host| String::from_utf8_lossy(host.as_bytes()).into_owned()).unwrap_or_default(),
    };
    let path = if method == Method::CONNECT {
        authority.clone()
    } else {
        uri.path_and_query().map_or("/", |path| path.as_str()).to_owned()
    };
    Box::new(HttpFacts {
        downstream: Arc::clone(&connection.downstream),
        handler: Arc::clone(handler),
        started: Instant::now(),
        started_at: SystemTime::now(),
        method,
        path,
        authority,
        scheme: "http",
        version,
        is_grpc: is_grpc(&request_headers),
        request_headers,
        upgrade: None,
        response_headers: HeaderMap::new(),
        response_trailers: None,
        status: 0,
        flags: Vec::new(),
        details: "via_upstream",
        cause: None,
        bytes_received: 0,
        bytes_sent: 0,
        duration: Duration::ZERO,
        request_received: None,
        upstream_sent: None,
        upstream_responded: None,
        remote: connection.downstream.peer,
        peer: None,
        route: None,
        unfollowed: None,
        virtual_host: None,
        cluster: None,
        upstream: None,
        upstream_peer: None,
        upstream_local: None,
        upstream_connection: Default::default(),
        upstream_identity: None,
        upstream_tls: false,
        upstream_workload: None,
        upstream_failure: None,
        attempts: 0,
    })
}

/// One reading of host, path and headers; everything later uses only this. Gives the place to send the client to, when
/// its path has to be written differently.
fn clean(
    connection: &Connection,
    handler: &HttpHandler,
    facts: &mut HttpFacts,
    body: &Body,
) -> Result<Option<String>, Refusal> {
    if facts.version == Version::HTTP_10 && !handler.accept_http10 {
        return Err(Refusal::Http10NotAllowed);
    }
    if !is_authority(&facts.authority) || facts.authority.is_empty() && facts.version != Version::HTTP_10 {
        return Err(Refusal::BadRequest(format!("{:?} is not a host", facts.authority)));
    }
    if handler.strip_port {
        let bare = crate::upstream::send::without_port(&facts.authority).len();
        facts.authority.truncate(bare);
    }
    if handler.normalize_host_case && facts.authority.bytes().any(|byte| byte.is_ascii_uppercase()) {
        facts.authority.make_ascii_lowercase();
    }
    // A request with a body cannot be followed by another protocol before that body was read.
    if facts.version == Version::HTTP_11 && body.is_end() {
        facts.upgrade = headers::upgrade(&facts.request_headers);
    }
    if facts.method == Method::CONNECT {
        if facts.version == Version::HTTP_2 {
            return Err(Refusal::UpgradeNotAllowed("CONNECT over HTTP/2".to_owned()));
        }
    } else {
        match normalize(handler, &facts.path) {
            Normalized::Same => {}
            Normalized::Path(clean) => facts.path = clean.into_owned(),
            Normalized::Redirect(location) => return Ok(Some(location)),
            Normalized::Reject => return Err(Refusal::PathRejected),
        }
    }
    let wants_upgrade = facts.upgrade.is_some();
    let client = headers::receive(connection, handler, &mut facts.request_headers, wants_upgrade)?;
    if handler.peers.downstream.discover {
        facts.peer = peer::take(&connection.worker, &mut facts.request_headers);
    }
    facts.remote = client.address;
    facts.scheme = client.scheme;
    Ok(None)
}

/// Characters of a host with port (RFC 3986, section 3.2.2). User information is refused, and so is anything that
/// could end a line or a name.
fn is_authority(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_:[]~%*!$&+=;,'()".contains(&byte))
}

fn redirect(status: StatusCode, location: &str) -> Reply {
    let mut headers = HeaderMap::new();
    if let Ok(location) = HeaderValue::from_str(location) {
        headers.insert(header::LOCATION, location);
    }
    Reply::local(status, headers, Body::Empty)
}

/// Waits, or answers, as a fault rule says.
async fn inject(connection: &Connection, fault: &Arc<Fault>, facts: &mut HttpFacts) -> Result<(), Refusal> {
    let random = &connection.worker.random;
    let decision = fault.decide(FaultDraws { delay: random.per_million(), abort: random.per_million() });
    if let Some(delay) = decision.delay {
        facts.flags.push(Flag::DI);
        tokio::time::sleep(delay).await;
    }
    match decision.abort {
        None => Ok(()),
        Some(Abort::Http(status)) => Err(Refusal::FaultAbort { status, grpc: None }),
        Some(Abort::Grpc(grpc)) => Err(Refusal::FaultAbort { status: StatusCode::OK, grpc: Some(grpc) }),
    }
}
