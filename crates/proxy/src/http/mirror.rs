//! Copies of requests for clusters whose answers nobody waits for.

use std::rc::Rc;
use std::time::Instant;

use http::Version;
use mizzen_balance::PickContext;
use mizzen_net::Body;
use mizzen_snapshot::plan::ForwardPlan;
use mizzen_snapshot::{Cluster, Snapshot};

use crate::connection::Connection;
use crate::facts::HttpFacts;
use crate::upstream::connect;
use crate::upstream::request::RequestBody;
use crate::upstream::send::{self, Head, Try};
use crate::upstream::timeouts::{Timeouts, Times};

/// A mirror that does not answer within this time is given up.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(15);

/// Starts the copies that the route asks for.
pub fn mirror(
    connection: &Rc<Connection>,
    snapshot: &Snapshot,
    plan: &ForwardPlan,
    facts: &HttpFacts,
    body: &mut RequestBody,
) {
    for mirror in &plan.forward().mirrors {
        let Some(cluster) = snapshot.cluster(&mirror.cluster) else { continue };
        if facts.upgrade.is_some() || !mirror.share.hit(connection.worker.random.per_million()) {
            continue;
        }
        let host = if mirror.shadow_host { shadow(&facts.authority) } else { facts.authority.clone() };
        let mut headers = facts.request_headers.clone();
        if !super::peer::may_know(cluster) {
            super::peer::forget(&mut headers);
        }
        let copy = Copy {
            method: facts.method.clone(),
            scheme: facts.scheme,
            host,
            target: facts.path.clone(),
            headers,
            http2: facts.version == Version::HTTP_2,
        };
        let sending = copy.send(Rc::clone(connection), Cluster::clone(cluster), body.mirror());
        tokio::task::spawn_local(async move {
            let _ = tokio::time::timeout(PATIENCE, sending).await;
        });
    }
}

/// `reviews:9080` becomes `reviews-shadow:9080`.
fn shadow(host: &str) -> String {
    let name = send::without_port(host);
    format!("{name}-shadow{}", &host[name.len()..])
}

struct Copy {
    method: http::Method,
    scheme: &'static str,
    host: String,
    target: String,
    headers: http::HeaderMap,
    http2: bool,
}

impl Copy {
    async fn send(self, connection: Rc<Connection>, cluster: Cluster, body: Body) {
        let worker = &connection.worker;
        let upstream = worker.upstream(&cluster);
        let ask =
            PickContext { now: worker.time(Instant::now()), draw: worker.random.next(), ..PickContext::default() };
        let (Ok(host), Ok(permit)) = (upstream.balancer.pick(&ask), upstream.balancer.breakers().request()) else {
            return;
        };
        let what = Try {
            upstream: &upstream,
            host: &host,
            client_http2: self.http2,
            istio_alpn: true,
            source: None,
            http1_only: false,
            connection: None,
        };
        let endpoint = connect::name(&host);
        let head = Head {
            method: &self.method,
            scheme: self.scheme,
            host: &self.host,
            target: &self.target,
            headers: &self.headers,
            upgrade: false,
            endpoint: &endpoint,
        };
        let body = RequestBody::new(body, 0);
        let mut timeouts = Timeouts::new(Times::default(), false);
        match send::send(&what, head, body, &mut timeouts).await {
            Ok(mut response) => {
                response.body.hold(permit, host.begin_request());
                while let Some(Ok(_)) = std::future::poll_fn(|cx| response.body.poll_frame(cx)).await {}
            }
            Err((failure, _)) => tracing::debug!(cause = %failure.refusal, "mirrored request failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_port_stays_behind_the_shadow() {
        assert_eq!(super::shadow("reviews:9080"), "reviews-shadow:9080");
        assert_eq!(super::shadow("reviews"), "reviews-shadow");
    }
}
