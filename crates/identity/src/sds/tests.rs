use std::time::{Duration, SystemTime};

use hyper_util::rt::TokioIo;
use mizzen_proto::envoy::service::secret::v3::secret_discovery_service_client::SecretDiscoveryServiceClient;
use mizzen_types::{SpiffeId, TrustDomain};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::PrivateKeyDer;
use tokio::net::UnixStream;

use super::*;
use crate::ca::Authority;
use crate::certificate::{Certificate, TrustRoots};

fn identity(authority: &Authority) -> Arc<Identity> {
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let id = SpiffeId::new(TrustDomain::default(), "default", "reviews");
    let signed = authority.sign(&csr, &id, None, SystemTime::now()).unwrap();
    let chain = certificate::certificates_from_pem(signed.chain[0].as_bytes()).unwrap();
    let certificate = Certificate::new(chain, PrivateKeyDer::Pkcs8(key.serialize_der().into())).unwrap();
    Arc::new(Identity::new(certificate, TrustRoots::clone(authority.roots())).unwrap())
}

type Client = SecretDiscoveryServiceClient<tonic::transport::Channel>;

async fn served(identities: watch::Receiver<Option<Arc<Identity>>>) -> (tempfile::TempDir, Client) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sds.sock");
    let socket = path.clone();
    tokio::spawn(async move { serve(&socket, identities).await.unwrap() });
    while !path.exists() {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let channel = tonic::transport::Endpoint::from_static("http://sds")
        .connect_with_connector(tower::service_fn(move |_| {
            let path = path.clone();
            async move { UnixStream::connect(path).await.map(TokioIo::new) }
        }))
        .await
        .unwrap();
    (folder, Client::new(channel))
}

fn secret(any: &Any) -> Secret {
    assert_eq!(any.type_url, Secret::type_url());
    Secret::decode(any.value.as_slice()).unwrap()
}

async fn next<T>(stream: &mut Streaming<T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), stream.next()).await.expect("no answer").unwrap().unwrap()
}

async fn silent<T>(stream: &mut Streaming<T>) -> bool {
    tokio::time::timeout(Duration::from_millis(150), stream.next()).await.is_err()
}

#[tokio::test]
async fn a_stream_gets_the_certificate_and_every_renewal() {
    let authority = Authority::in_memory(TrustDomain::default(), SystemTime::now()).unwrap();
    let (publish, identities) = watch::channel(None);
    let (_folder, mut client) = served(identities).await;
    let (requests, stream) = mpsc::channel(4);
    let asked = DiscoveryRequest { resource_names: vec!["default".to_owned()], ..Default::default() };
    requests.send(asked.clone()).await.unwrap();
    let mut answers = client.stream_secrets(ReceiverStream::new(stream)).await.unwrap().into_inner();
    assert!(silent(&mut answers).await, "there is no certificate yet");

    let one = identity(&authority);
    publish.send_replace(Some(Arc::clone(&one)));
    let answer = next(&mut answers).await;
    let Some(secret::Type::TlsCertificate(certificate)) = secret(&answer.resources[0]).r#type else { panic!() };
    let Some(Specifier::InlineBytes(key)) = certificate.private_key.unwrap().specifier else { panic!() };
    assert_eq!(key, one.certificate.key_pem().into_bytes());

    let ack = DiscoveryRequest { version_info: answer.version_info, response_nonce: answer.nonce, ..asked };
    requests.send(ack).await.unwrap();
    assert!(silent(&mut answers).await, "an acknowledgement is not answered");
    publish.send_replace(Some(identity(&authority)));
    assert_eq!(next(&mut answers).await.resources.len(), 1);
}

#[tokio::test]
async fn a_delta_stream_gets_only_what_changed() {
    let authority = Authority::in_memory(TrustDomain::default(), SystemTime::now()).unwrap();
    let (publish, identities) = watch::channel(Some(identity(&authority)));
    let (_folder, mut client) = served(identities).await;
    let (requests, stream) = mpsc::channel(4);
    let names = ["default", "ROOTCA", "kubernetes://other"].map(str::to_owned).to_vec();
    let asked = DeltaDiscoveryRequest { resource_names_subscribe: names, ..Default::default() };
    requests.send(asked).await.unwrap();
    let mut answers = client.delta_secrets(ReceiverStream::new(stream)).await.unwrap().into_inner();
    let names = |answer: &DeltaDiscoveryResponse| {
        answer.resources.iter().map(|resource| resource.name.clone()).collect::<Vec<_>>()
    };
    assert_eq!(names(&next(&mut answers).await), ["ROOTCA", "default"]);
    publish.send_replace(Some(identity(&authority)));
    assert_eq!(names(&next(&mut answers).await), ["default"], "the roots are the same");
}

#[tokio::test]
async fn the_socket_is_its_owners() {
    let (_publish, identities) = watch::channel(None);
    let (folder, _client) = served(identities).await;
    let mode = std::fs::metadata(folder.path().join("sds.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
}
