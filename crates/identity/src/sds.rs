//! Hands a workload's certificate to a stock Envoy over a unix socket (SDS), under Istio's names.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use mizzen_proto::envoy::config::core::v3::{DataSource, data_source::Specifier};
use mizzen_proto::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, Secret, TlsCertificate, secret,
};
use mizzen_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use mizzen_proto::envoy::service::secret::v3::secret_discovery_service_server::{
    SecretDiscoveryService, SecretDiscoveryServiceServer,
};
use mizzen_proto::google::protobuf::Any;
use prost::{Message, Name};
use tokio::net::UnixListener;
use tokio::sync::{mpsc, watch};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tonic::{Request, Response, Status, Streaming};

use crate::certificate::{self, Identity};
use crate::secrets::{IDENTITY, ROOTS};

/// A subscription names two secrets; more than this is not a subscription.
const MAX_NAMES: usize = 64;

/// Serves `default` and `ROOTCA` on a socket for its owner alone, until the future is dropped. Every renewal is pushed.
pub async fn serve(path: &Path, identities: watch::Receiver<Option<Arc<Identity>>>) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    tonic::transport::Server::builder()
        .add_service(SecretDiscoveryServiceServer::new(Sds { identities }).max_decoding_message_size(256 * 1024))
        .serve_with_incoming(UnixListenerStream::new(listener))
        .await
        .map_err(io::Error::other)
}

struct Sds {
    identities: watch::Receiver<Option<Arc<Identity>>>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl SecretDiscoveryService for Sds {
    type DeltaSecretsStream = Answers<DeltaDiscoveryResponse>;
    type StreamSecretsStream = Answers<DiscoveryResponse>;

    async fn stream_secrets(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamSecretsStream>, Status> {
        Ok(Response::new(Box::pin(converse(request.into_inner(), self.identities.clone()))))
    }

    async fn delta_secrets(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaSecretsStream>, Status> {
        Ok(Response::new(Box::pin(converse(request.into_inner(), self.identities.clone()))))
    }

    async fn fetch_secrets(&self, _: Request<DiscoveryRequest>) -> Result<Response<DiscoveryResponse>, Status> {
        Err(Status::unimplemented("secrets are streamed, not fetched"))
    }
}

/// One of the two forms of the protocol: what a request asks for, and how an answer is written.
trait Dialogue: Send + 'static {
    type Answer: Send + 'static;

    fn listen(self, session: &mut Session);

    /// An answer with everything due, when something is.
    fn answer(session: &mut Session, identity: &Identity) -> Option<Self::Answer>;
}

/// What one stream wants and has.
#[derive(Debug, Default)]
struct Session {
    wanted: BTreeSet<String>,
    /// Version under which each secret was sent.
    sent: BTreeMap<String, String>,
    answers: u64,
}

fn converse<R: Dialogue>(
    mut requests: Streaming<R>,
    mut identities: watch::Receiver<Option<Arc<Identity>>>,
) -> ReceiverStream<Result<R::Answer, Status>> {
    let (answers, stream) = mpsc::channel(4);
    tokio::spawn(async move {
        let mut session = Session::default();
        loop {
            tokio::select! {
                request = requests.next() => match request {
                    Some(Ok(request)) => request.listen(&mut session),
                    Some(Err(_)) | None => return,
                },
                changed = identities.changed() => if changed.is_err() { return },
            }
            if session.wanted.len() > MAX_NAMES {
                // When this cannot be sent the stream is gone already.
                drop(answers.send(Err(Status::resource_exhausted("too many secrets are asked for"))).await);
                return;
            }
            let identity = identities.borrow_and_update().clone();
            if let Some(answer) = identity.and_then(|identity| R::answer(&mut session, &identity))
                && answers.send(Ok(answer)).await.is_err()
            {
                return;
            }
        }
    });
    ReceiverStream::new(stream)
}

impl Session {
    /// Names, versions and secrets that are wanted, known and not yet sent in this version.
    fn due(&self, identity: &Identity) -> Vec<(String, String, Secret)> {
        self.wanted
            .iter()
            .filter_map(|name| secret_named(name, identity).map(|(version, secret)| (name.clone(), version, secret)))
            .filter(|(name, version, _)| self.sent.get(name) != Some(version))
            .collect()
    }

    fn record(&mut self, due: &[(String, String, Secret)]) -> String {
        self.sent.extend(due.iter().map(|(name, version, _)| (name.clone(), version.clone())));
        self.answers += 1;
        self.answers.to_string()
    }
}

impl Dialogue for DiscoveryRequest {
    type Answer = DiscoveryResponse;

    fn listen(self, session: &mut Session) {
        log_refusal(self.error_detail.map(|status| status.message));
        session.wanted = self.resource_names.into_iter().collect();
        let wanted = &session.wanted;
        session.sent.retain(|name, _| wanted.contains(name));
    }

    fn answer(session: &mut Session, identity: &Identity) -> Option<DiscoveryResponse> {
        let due = session.due(identity);
        if due.is_empty() {
            return None;
        }
        let nonce = session.record(&due);
        Some(DiscoveryResponse {
            version_info: certificate::fingerprint(identity.certificate.leaf()),
            type_url: Secret::type_url(),
            nonce,
            resources: due.iter().map(|(_, _, secret)| packed(secret)).collect(),
            ..DiscoveryResponse::default()
        })
    }
}

impl Dialogue for DeltaDiscoveryRequest {
    type Answer = DeltaDiscoveryResponse;

    fn listen(self, session: &mut Session) {
        log_refusal(self.error_detail.map(|status| status.message));
        for name in self.resource_names_unsubscribe {
            session.wanted.remove(&name);
            session.sent.remove(&name);
        }
        session.sent.extend(self.initial_resource_versions);
        session.wanted.extend(self.resource_names_subscribe);
    }

    fn answer(session: &mut Session, identity: &Identity) -> Option<DeltaDiscoveryResponse> {
        let due = session.due(identity);
        if due.is_empty() {
            return None;
        }
        let nonce = session.record(&due);
        let resources = due.into_iter().map(|(name, version, secret)| Resource {
            name,
            version,
            resource: Some(packed(&secret)),
            ..Resource::default()
        });
        Some(DeltaDiscoveryResponse {
            system_version_info: certificate::fingerprint(identity.certificate.leaf()),
            type_url: Secret::type_url(),
            nonce,
            resources: resources.collect(),
            ..DeltaDiscoveryResponse::default()
        })
    }
}

fn log_refusal(message: Option<String>) {
    if let Some(reason) = message {
        tracing::warn!(reason, "the proxy refuses a secret");
    }
}

fn packed(secret: &Secret) -> Any {
    Any { type_url: Secret::type_url(), value: secret.encode_to_vec() }
}

/// The secret of that name, with its version; `None` for a name that nobody has.
fn secret_named(name: &str, identity: &Identity) -> Option<(String, Secret)> {
    let data = |text: String| {
        Some(DataSource { specifier: Some(Specifier::InlineBytes(text.into_bytes())), ..DataSource::default() })
    };
    let (version, content) = match name {
        IDENTITY => (
            certificate::fingerprint(identity.certificate.leaf()),
            secret::Type::TlsCertificate(TlsCertificate {
                certificate_chain: data(identity.certificate.chain_pem()),
                private_key: data(identity.certificate.key_pem()),
                ..TlsCertificate::default()
            }),
        ),
        ROOTS => (
            identity.roots.certificates().iter().map(certificate::fingerprint).collect::<Vec<_>>().join("+"),
            secret::Type::ValidationContext(CertificateValidationContext {
                trusted_ca: data(identity.roots.pem()),
                ..CertificateValidationContext::default()
            }),
        ),
        _ => return None,
    };
    Some((version, Secret { name: name.to_owned(), r#type: Some(content) }))
}

#[cfg(test)]
mod tests;
