//! Asking an application whether it is ready.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::child;
use crate::netns::Sandbox;

/// An [`Action`](super::Action) with everything resolved: which socket, which environment.
#[derive(Debug, Clone)]
pub enum Target {
    Http { address: SocketAddr, path: String, headers: Vec<(String, String)> },
    Tcp { address: SocketAddr },
    Grpc { address: SocketAddr, service: String },
    Exec { command: Vec<String>, environment: Vec<(String, String)> },
}

/// Why a probe failed, in words for the status.
#[derive(Debug, thiserror::Error)]
pub enum ProbeFailure {
    #[error("no answer within {} s", .0.as_secs())]
    Timeout(Duration),
    #[error("cannot connect to {address}: {reason}")]
    Connect { address: SocketAddr, reason: std::io::Error },
    #[error("HTTP: {0}")]
    Http(String),
    #[error("status {0}")]
    Status(u16),
    #[error("gRPC health: {0}")]
    Grpc(String),
    #[error("`{command}`: {reason}")]
    Exec { command: String, reason: String },
}

/// Where the one who asks stands.
#[derive(Debug, Clone)]
pub(crate) enum From {
    Here,
    /// In the namespaces of a pod, past its proxy.
    Pod {
        pod: Arc<Sandbox>,
        /// Our own binary, by which programs get in.
        mizzen: Arc<Path>,
    },
}

impl From {
    async fn connect(&self, address: SocketAddr) -> std::io::Result<TcpStream> {
        match self {
            Self::Here => TcpStream::connect(address).await,
            Self::Pod { pod, .. } => pod.connect(address).await,
        }
    }

    fn command(&self, program: &str) -> tokio::process::Command {
        match self {
            Self::Here => tokio::process::Command::new(program),
            Self::Pod { pod, mizzen } => {
                child::guarded(mizzen, Some(&child::Inside::pod(pod.pid())), program.as_ref()).into()
            }
        }
    }
}

/// One probe.
pub async fn check(target: &Target, limit: Duration) -> Result<(), ProbeFailure> {
    check_from(&From::Here, target, limit).await
}

/// One probe, asked from somewhere.
pub(crate) async fn check_from(from: &From, target: &Target, limit: Duration) -> Result<(), ProbeFailure> {
    let asked = async {
        match target {
            Target::Http { address, path, headers } => http_get(from, *address, path, headers).await,
            Target::Tcp { address } => connect(from, *address).await.map(drop),
            Target::Grpc { address, service } => grpc(from, *address, service).await,
            Target::Exec { command, environment } => exec(from, command, environment).await,
        }
    };
    timeout(limit, asked).await.unwrap_or(Err(ProbeFailure::Timeout(limit)))
}

async fn connect(from: &From, address: SocketAddr) -> Result<TcpStream, ProbeFailure> {
    from.connect(address).await.map_err(|reason| ProbeFailure::Connect { address, reason })
}

/// Success is a status from 200 to 399, as for the kubelet.
async fn http_get(
    from: &From,
    address: SocketAddr,
    path: &str,
    headers: &[(String, String)],
) -> Result<(), ProbeFailure> {
    match send(from, address, path, headers).await?.status().as_u16() {
        200..=399 => Ok(()),
        status => Err(ProbeFailure::Status(status)),
    }
}

/// A JSON document of this machine's control plane.
pub(crate) async fn get_json(address: SocketAddr, path: &str) -> Result<serde_json::Value, ProbeFailure> {
    let body = send(&From::Here, address, path, &[]).await?.into_body().collect().await;
    let body = body.map_err(|error| ProbeFailure::Http(error.to_string()))?.to_bytes();
    serde_json::from_slice(&body).map_err(|error| ProbeFailure::Http(error.to_string()))
}

async fn send(
    from: &From,
    address: SocketAddr,
    path: &str,
    headers: &[(String, String)],
) -> Result<http::Response<Incoming>, ProbeFailure> {
    let http = |error: hyper::Error| ProbeFailure::Http(error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(connect(from, address).await?)).await.map_err(http)?;
    // It ends with the answer: the request asks for that.
    tokio::spawn(connection);
    let mut request = http::Request::get(path).header("user-agent", "kube-probe/mizzen").header("connection", "close");
    if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
        request = request.header("host", address.to_string());
    }
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let request = request.body(Empty::<Bytes>::new()).map_err(|error| ProbeFailure::Http(error.to_string()))?;
    sender.send_request(request).await.map_err(http)
}

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckRequest {
    #[prost(string, tag = "1")]
    service: String,
}

/// `grpc.health.v1.HealthCheckResponse`; status 1 is SERVING.
#[derive(Clone, PartialEq, prost::Message)]
struct HealthCheckResponse {
    #[prost(int32, tag = "1")]
    status: i32,
}

const SERVING: i32 = 1;

async fn grpc(from: &From, address: SocketAddr, service: &str) -> Result<(), ProbeFailure> {
    let failure = |error: &dyn std::fmt::Display| ProbeFailure::Grpc(error.to_string());
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{address}")).map_err(|error| failure(&error))?;
    let from = from.clone();
    let connector = tower::service_fn(move |_: http::Uri| {
        let from = from.clone();
        async move { from.connect(address).await.map(TokioIo::new) }
    });
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| failure(&error))?;
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.map_err(|error| failure(&error))?;
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let response = client.unary(request, path, codec).await.map_err(|status| failure(&status.message()))?;
    match response.into_inner().status {
        SERVING => Ok(()),
        other => Err(ProbeFailure::Grpc(format!("the service answers status {other}, not SERVING"))),
    }
}

async fn exec(from: &From, command: &[String], environment: &[(String, String)]) -> Result<(), ProbeFailure> {
    let failure = |reason: String| ProbeFailure::Exec { command: command.join(" "), reason };
    let (program, arguments) = command.split_first().ok_or_else(|| failure("the command is empty".to_owned()))?;
    let status = from
        .command(program)
        .args(arguments)
        .envs(environment.iter().map(|(name, value)| (name, value)))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .status()
        .await
        .map_err(|error| failure(error.to_string()))?;
    if status.success() { Ok(()) } else { Err(failure(status.to_string())) }
}

#[cfg(test)]
mod tests;
