//! **The spine**: one request, from its head to its answer, top to bottom.
//!
//! Decide, then do: [`plan`](mizzen_snapshot::plan::plan) says what shall be done; a redirect or a direct response is a
//! plan, an injected fault is an answer, and every failure is a [`Refusal`], which becomes an answer in one place.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{self, HeaderMap, HeaderValue};
use http::{Method, Uri, Version};
use mizzen_net::Body;
use mizzen_snapshot::header::Facts;
use mizzen_snapshot::http::HttpHandler;
use mizzen_snapshot::plan::{self, Draws, NoPlan, Plan};
use mizzen_snapshot::route::{Abort, Cors, CorsDecision, CorsGrant, Fault, FaultDraws, RequestView};

use super::answer::{Answer, Reply, is_grpc};
use super::headers::{self, Client};
use super::normalize::{Normalized, normalize};
use crate::connection::Connection;
use crate::facts::HttpFacts;
use crate::refusal::{Flag, Refusal};

/// A request as it came off the wire.
pub struct Incoming {
    pub method: Method,
    pub uri: Uri,
    pub version: Version,
    pub headers: HeaderMap,
    pub body: Body,
    pub started: Instant,
}

/// A request that was cleaned and is ready to be routed.
pub struct Request {
    pub method: Method,
    pub version: Version,
    pub authority: String,
    /// Path with query; the authority for CONNECT.
    pub path: String,
    pub scheme: &'static str,
    pub headers: HeaderMap,
    /// The protocol that it wants to switch to.
    pub upgrade: Option<String>,
    pub client: Client,
    pub is_grpc: bool,
}

impl Request {
    pub fn view(&self) -> RequestView<'_> {
        RequestView {
            method: &self.method,
            authority: &self.authority,
            scheme: self.scheme,
            path_and_query: &self.path,
            headers: &self.headers,
            client_ip: Some(self.client.address.ip()),
        }
    }
}

pub async fn exchange(connection: &Rc<Connection>, handler: &Arc<HttpHandler>, incoming: Incoming) -> Answer {
    let method = incoming.method.clone();
    let is_grpc = is_grpc(&incoming.headers);
    let (started, version) = (incoming.started, incoming.version);
    let mut facts = begin(connection, handler, &incoming);
    let mut reply = match answer(connection, handler, incoming, &mut facts).await {
        Ok(reply) => reply,
        Err(refusal) => {
            tracing::debug!(cause = %refusal, method = %method, path = facts.path, "refused");
            Reply::refusal(&refusal, is_grpc, &method, &mut facts)
        }
    };
    headers::respond(handler, &mut reply.headers);
    facts.status = reply.status.as_u16();
    facts.duration = started.elapsed();
    let closing = reply.close || version == Version::HTTP_10 && false;
    Answer {
        status: reply.status,
        headers: reply.headers,
        body: reply.body,
        facts,
        close: closing,
        tunnel: reply.tunnel,
    }
}

async fn answer(
    connection: &Rc<Connection>,
    handler: &Arc<HttpHandler>,
    incoming: Incoming,
    facts: &mut HttpFacts,
) -> Result<Reply, Refusal> {
    let (request, body) = match clean(connection, handler, incoming)? {
        Cleaned::Request(request, body) => (request, body),
        Cleaned::Redirect(location) => return Ok(redirect(http::StatusCode::TEMPORARY_REDIRECT, &location)),
    };
    let mut request = request;
    facts.remote = request.client.address;
    facts.scheme = request.scheme;
    let worker = &connection.worker;
    let snapshot = worker.snapshot();
    let random = &worker.random;
    let draws = Draws { route_share: random.per_million(), weight: random.next_u32(), cookie: random.next() };
    let plan = plan::plan(&snapshot, handler, &request.view(), draws);

    let mut grant = None;
    if handler.cors
        && let Some(cors) = plan.cors()
    {
        match cors.decide(&request.method, &request.headers) {
            CorsDecision::Pass => {}
            CorsDecision::Answer { status, headers } => {
                facts.route = plan.route().cloned();
                facts.details = "cors_preflight";
                return Ok(Reply::local(status, headers, Body::Empty));
            }
            CorsDecision::Grant(given) => grant = Some((given, Arc::clone(cors))),
        }
    }
    if handler.fault
        && let Some(fault) = plan.fault()
    {
        facts.route = plan.route().cloned();
        inject(connection, fault, facts).await?;
    }
    let mut reply = match plan {
        Plan::Refuse(NoPlan::TlsRequired { location }) => {
            facts.details = "direct_response";
            redirect(http::StatusCode::MOVED_PERMANENTLY, &location)
        }
        Plan::Refuse(no) => {
            return Err(Refusal::NoPlan(no));
        }
        Plan::Redirect { status, location, table, route, host } => {
            facts.details = "direct_response";
            let mut reply = redirect(status, &location);
            for edits in [&route.response_headers, &host.response_headers, &table.response_headers] {
                edits.apply(&mut reply.headers, &template_facts(facts, &request, None));
            }
            facts.route = Some(route);
            facts.virtual_host = Some(host);
            reply
        }
        Plan::Respond { response, table, route, host } => {
            facts.details = "direct_response";
            let body = if request.method == Method::HEAD { Body::Empty } else { Body::from_shared(response.body) };
            let mut reply = Reply::text(response.status, body);
            for edits in [&route.response_headers, &host.response_headers, &table.response_headers] {
                edits.apply(&mut reply.headers, &template_facts(facts, &request, None));
            }
            facts.route = Some(route);
            facts.virtual_host = Some(host);
            reply
        }
        Plan::Forward(plan) => {
            facts.route = Some(Arc::clone(&plan.route));
            facts.virtual_host = Some(Arc::clone(&plan.host));
            facts.cluster = Some(Arc::clone(&plan.cluster));
            let reply = super::forward::forward(connection, handler, &snapshot, plan, &mut request, body, facts).await;
            remember(facts, &mut request);
            reply?
        }
    };
    if let Some((grant, cors)) = grant {
        mark(&grant, &cors, &mut reply.headers);
    }
    Ok(reply)
}

fn mark(grant: &CorsGrant, cors: &Cors, headers: &mut HeaderMap) {
    grant.mark(cors, headers);
}

/// What the request looked like when it was sent is what the log shows.
fn remember(facts: &mut HttpFacts, request: &mut Request) {
    facts.path = std::mem::take(&mut request.path);
    facts.authority = std::mem::take(&mut request.authority);
    facts.request_headers = std::mem::take(&mut request.headers);
}

fn begin(connection: &Rc<Connection>, handler: &Arc<HttpHandler>, incoming: &Incoming) -> Box<HttpFacts> {
    Box::new(HttpFacts {
        downstream: Arc::clone(&connection.downstream),
        handler: Arc::clone(handler),
        started: incoming.started,
        started_at: SystemTime::now(),
        method: incoming.method.clone(),
        path: String::new(),
        authority: String::new(),
        scheme: "http",
        version: incoming.version,
        request_headers: HeaderMap::new(),
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
        route: None,
        virtual_host: None,
        cluster: None,
        upstream: None,
        upstream_peer: None,
        upstream_local: None,
        upstream_identity: None,
        upstream_tls: false,
        upstream_failure: None,
        attempts: 0,
    })
}

enum Cleaned {
    Request(Request, Body),
    Redirect(String),
}

/// One reading of host, path and headers; everything later uses only this.
fn clean(connection: &Connection, handler: &HttpHandler, incoming: Incoming) -> Result<Cleaned, Refusal> {
    let Incoming { method, uri, version, mut headers, body, .. } = incoming;
    if version == Version::HTTP_10 && !handler.accept_http10 {
        return Err(Refusal::Http10NotAllowed);
    }
    // The authority of the target wins over `host`: they name the same thing, and a proxy must not be told two
    // (RFC 9112, section 3.2.2).
    let mut authority = match uri.authority() {
        Some(authority) => authority.as_str().to_owned(),
        None => match headers.get(header::HOST) {
            Some(host) => host.to_str().map_err(|_| Refusal::BadRequest("host is not ASCII".to_owned()))?.to_owned(),
            None => String::new(),
        },
    };
    headers.remove(header::HOST);
    if !is_authority(&authority) {
        return Err(Refusal::BadRequest(format!("{authority:?} is not a host")));
    }
    if handler.strip_port {
        let bare = crate::upstream::send::without_port(&authority).len();
        authority.truncate(bare);
    }
    if authority.bytes().any(|byte| byte.is_ascii_uppercase()) && handler.normalize_host_case {
        authority.make_ascii_lowercase();
    }
    let upgrade = if version == Version::HTTP_11 { headers::upgrade(&headers) } else { None };
    let upgrade = upgrade.filter(|_| body.is_end());
    let path = if method == Method::CONNECT {
        authority.clone()
    } else {
        uri.path_and_query().map_or("/", |path| path.as_str()).to_owned()
    };
    let path = match normalize(handler, &path) {
        _ if method == Method::CONNECT => path,
        Normalized::Same => path,
        Normalized::Path(clean) => clean.into_owned(),
        Normalized::Redirect(location) => return Ok(Cleaned::Redirect(location)),
        Normalized::Reject => return Err(Refusal::PathRejected),
    };
    let is_grpc = is_grpc(&headers);
    let client = headers::receive(connection, handler, &mut headers, upgrade.is_some())?;
    let scheme = client.scheme;
    let request = Request { method, version, authority, path, scheme, headers, upgrade, client, is_grpc };
    Ok(Cleaned::Request(request, body))
}

/// Characters of a host with port; user information and anything that could end a line or a name is refused.
fn is_authority(text: &str) -> bool {
    text.bytes().all(|byte| {
        byte.is_ascii_alphanumeric()
            || matches!(
                byte,
                b'.' | b'-'
                    | b'_'
                    | b':'
                    | b'['
                    | b']'
                    | b'~'
                    | b'%'
                    | b'*'
                    | b'!'
                    | b'$'
                    | b'&'
                    | b'+'
                    | b'='
                    | b';'
                    | b','
                    | b'\''
                    | b'('
                    | b')'
            )
    })
}

fn redirect(status: http::StatusCode, location: &str) -> Reply {
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
        Some(Abort::Grpc(grpc)) => Err(Refusal::FaultAbort { status: http::StatusCode::OK, grpc: Some(grpc) }),
    }
}

/// What header templates may ask for.
pub fn template_facts<'a>(facts: &'a HttpFacts, request: &'a Request, response: Option<&'a HeaderMap>) -> Facts<'a> {
    let downstream = &facts.downstream;
    let tls = downstream.tls.as_ref();
    Facts {
        request: Some(request.view()),
        response,
        downstream_remote: Some(request.client.address),
        downstream_direct_remote: Some(downstream.peer),
        downstream_local: Some(downstream.local),
        peer_uri_san: downstream.peer_uri(),
        peer_subject: tls.and_then(|tls| Some(tls.peer.as_ref()?.subject.as_str())),
        tls_version: tls.map(|tls| tls.version),
        server_name: tls.and_then(|tls| tls.server_name.as_deref()),
        protocol: Some(protocol_name(request.version)),
        upstream_host: facts.upstream_peer,
        upstream_cluster: facts.cluster.as_ref().map(|cluster| cluster.policy.name.as_str()),
        route_name: facts.route.as_ref().map(|route| route.name.as_str()),
        response_code: None,
        response_flags: None,
        hostname: None,
    }
}

pub fn protocol_name(version: Version) -> &'static str {
    match version {
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        _ => "HTTP/1.1",
    }
}
