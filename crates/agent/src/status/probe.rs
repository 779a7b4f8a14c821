//! Asking the application in the kubelet's place.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;

use http::HeaderMap;
use hyper_util::rt::TokioIo;
use mizzen_identity::Secrets;
use mizzen_identity::tls::client_config;
use mizzen_snapshot::tls::{ClientTls, TlsVersions, Validation};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::http::{HttpError, Limit, Url, get_over};
use crate::probers::{Action, Prober};

/// The kubelet reads no more of an answer either.
const LIMIT: Limit = Limit { bytes: 64 << 10 };
/// Headers of the kubelet's request that mean the connection, or that we set.
const NOT_PASSED: [&str; 8] =
    ["host", "connection", "keep-alive", "transfer-encoding", "content-length", "te", "upgrade", "proxy-connection"];

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProbeFailure {
    #[error("no answer within {0:?}")]
    Timeout(std::time::Duration),
    #[error(transparent)]
    Http(#[from] HttpError),
    #[error("cannot connect to port {port}: {reason}")]
    Connect { port: u16, reason: io::Error },
    #[error("TLS: {0}")]
    Tls(String),
    #[error("gRPC health: {0}")]
    Grpc(String),
}

/// The status to answer with.
pub(super) async fn probe(prober: &Prober, pod: Option<IpAddr>, asked: &HeaderMap) -> Result<u16, ProbeFailure> {
    let asking = async {
        match &prober.action {
            Action::Http { .. } => http_get(&prober.action, pod, asked).await,
            Action::Tcp { port } => connect(pod, *port).await.map(|_| 200),
            Action::Grpc { port, service } => grpc(pod, *port, service).await.map(|()| 200),
        }
    };
    timeout(prober.timeout, asking).await.unwrap_or(Err(ProbeFailure::Timeout(prober.timeout)))
}

async fn connect(pod: Option<IpAddr>, port: u16) -> Result<TcpStream, ProbeFailure> {
    dial(pod, port).await.map_err(|reason| ProbeFailure::Connect { port, reason })
}

async fn http_get(action: &Action, pod: Option<IpAddr>, asked: &HeaderMap) -> Result<u16, ProbeFailure> {
    let Action::Http { port, path, tls, headers, host } = action else { return Ok(404) };
    // The probe's own headers come with the kubelet's request; one that asks by hand gets them too.
    let mut all: Vec<(String, String)> = Vec::new();
    for (name, value) in asked {
        let own = headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name.as_str()));
        if let (false, false, Ok(value)) = (own, NOT_PASSED.contains(&name.as_str()), value.to_str()) {
            all.push((name.as_str().to_owned(), value.to_owned()));
        }
    }
    all.extend(headers.iter().filter(|(name, _)| !name.is_empty()).cloned());
    let named = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host"));
    if let (false, Some(host)) = (named, host) {
        all.push(("host".to_owned(), host.clone()));
    }
    let address = pod.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    let url = Url { host: address.to_string(), port: *port, path: path.clone() };
    let stream = connect(pod, *port).await?;
    let answer = if *tls {
        get_over(unverified_tls(stream, address).await?, &url, &all, LIMIT).await
    } else {
        get_over(stream, &url, &all, LIMIT).await
    };
    match answer {
        Ok(answer) => Ok(answer.status),
        Err(error) => Err(error.into()),
    }
}

/// TLS as the kubelet speaks it for probes: whoever answers is believed.
async fn unverified_tls(
    stream: TcpStream,
    address: IpAddr,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, ProbeFailure> {
    let failed = |error: &dyn std::fmt::Display| ProbeFailure::Tls(error.to_string());
    let tls = ClientTls {
        certificate: None,
        validation: Validation { insecure: true, ..Validation::default() },
        sni: None,
        auto_sni: false,
        auto_san_validation: false,
        alpn: vec!["http/1.1".to_owned()],
        versions: TlsVersions::default(),
    };
    let (config, _) = client_config(&tls, &Secrets::new()).current(None).map_err(|error| failed(&error))?;
    TlsConnector::from(config).connect(address.into(), stream).await.map_err(|error| failed(&error))
}

/// Connects to the application: at the pod's address, as the kubelet would.
async fn dial(pod: Option<IpAddr>, port: u16) -> io::Result<TcpStream> {
    let pod = pod.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST));
    // From this address the capture rules let a connection of ours to the pod's own address pass. Where it cannot be
    // had nothing is captured.
    let (socket, source): (_, IpAddr) = match pod {
        IpAddr::V4(_) => (TcpSocket::new_v4()?, Ipv4Addr::new(127, 0, 0, 6).into()),
        IpAddr::V6(_) => (TcpSocket::new_v6()?, Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 6).into()),
    };
    let _ = socket.bind(SocketAddr::new(source, 0));
    socket.connect(SocketAddr::new(pod, port)).await
}

/// The same for an application that may listen on loopback alone.
pub(super) async fn dial_anywhere(pod: Option<IpAddr>, port: u16) -> Result<TcpStream, HttpError> {
    let to = format!("localhost:{port}");
    match TcpStream::connect(("localhost", port)).await {
        Ok(stream) => Ok(stream),
        Err(reason) if pod.is_none() => Err(HttpError::Connect { to, reason }),
        Err(_) => dial(pod, port).await.map_err(|reason| HttpError::Connect { to, reason }),
    }
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

async fn grpc(pod: Option<IpAddr>, port: u16, service: &str) -> Result<(), ProbeFailure> {
    const SERVING: i32 = 1;
    let failed = |error: &dyn std::fmt::Display| ProbeFailure::Grpc(error.to_string());
    let stream = Arc::new(std::sync::Mutex::new(Some(connect(pod, port).await?)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = stream.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
        std::future::ready(stream.map(TokioIo::new).ok_or_else(|| io::Error::other("the connection is used up")))
    });
    let address = SocketAddr::new(pod.unwrap_or(IpAddr::V4(Ipv4Addr::LOCALHOST)), port);
    let endpoint =
        tonic::transport::Endpoint::from_shared(format!("http://{address}")).map_err(|error| failed(&error))?;
    let channel = endpoint.connect_with_connector(connector).await.map_err(|error| failed(&error))?;
    let mut client = tonic::client::Grpc::new(channel).max_decoding_message_size(LIMIT.bytes);
    client.ready().await.map_err(|error| failed(&error))?;
    let request = tonic::Request::new(HealthCheckRequest { service: service.to_owned() });
    let path = http::uri::PathAndQuery::from_static("/grpc.health.v1.Health/Check");
    let codec = tonic_prost::ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let response = client.unary(request, path, codec).await.map_err(|status| failed(&status.message()))?;
    match response.into_inner().status {
        SERVING => Ok(()),
        other => Err(ProbeFailure::Grpc(format!("the service answers status {other}, not SERVING"))),
    }
}

#[cfg(test)]
mod tests;
