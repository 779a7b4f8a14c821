//! Our client against a server made from the generated service, as a Go server behaves: it answers nothing, not even
//! headers, before it has read the first request.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::pin::Pin;
use std::time::Duration;

use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::{
    AggregatedDiscoveryService, AggregatedDiscoveryServiceServer,
};
use mizzen_proto::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse, Resource,
};
use mizzen_proto::google::protobuf::Any;
use mizzen_xds::client::{Authority, Config, Event, Subscription, start};
use mizzen_xds::{Mode, ResourceType};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_stream::wrappers::TcpListenerStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// Sends each request on, and answers the first with one cluster.
struct Foreign {
    seen: mpsc::UnboundedSender<String>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

const BODY: &[u8] = &[10, 1, b'a'];

#[tonic::async_trait]
impl AggregatedDiscoveryService for Foreign {
    type StreamAggregatedResourcesStream = Answers<DiscoveryResponse>;
    type DeltaAggregatedResourcesStream = Answers<DeltaDiscoveryResponse>;

    async fn stream_aggregated_resources(
        &self,
        request: Request<Streaming<DiscoveryRequest>>,
    ) -> Result<Response<Self::StreamAggregatedResourcesStream>, Status> {
        let token = format!("{:?}", request.metadata().get("authorization").map(|it| it.to_str().unwrap().to_owned()));
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap();
        let seen = self.seen.clone();
        seen.send(format!("{} {token} {:?}", first.node.unwrap().id, first.resource_names)).unwrap();
        let answer = DiscoveryResponse {
            version_info: "v1".to_owned(),
            resources: vec![Any { type_url: first.type_url.clone(), value: BODY.to_vec() }],
            type_url: first.type_url,
            nonce: "n1".to_owned(),
            ..Default::default()
        };
        let rest = requests.map(move |request| {
            let request = request?;
            seen.send(format!("{} {}", request.version_info, request.response_nonce)).unwrap();
            Err(Status::ok("done"))
        });
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(answer)).chain(rest))))
    }

    async fn delta_aggregated_resources(
        &self,
        request: Request<Streaming<DeltaDiscoveryRequest>>,
    ) -> Result<Response<Self::DeltaAggregatedResourcesStream>, Status> {
        let token = format!("{:?}", request.metadata().get("authorization").map(|it| it.to_str().unwrap().to_owned()));
        let mut requests = request.into_inner();
        let first = requests.message().await?.unwrap();
        let seen = self.seen.clone();
        seen.send(format!("{} {token} {:?}", first.node.unwrap().id, first.resource_names_subscribe)).unwrap();
        let resource = Some(Any { type_url: first.type_url.clone(), value: BODY.to_vec() });
        let answer = DeltaDiscoveryResponse {
            resources: vec![Resource {
                name: "a".to_owned(),
                version: "v1".to_owned(),
                resource,
                ..Default::default()
            }],
            type_url: first.type_url,
            nonce: "n1".to_owned(),
            ..Default::default()
        };
        let rest = requests.map(move |request| {
            let request = request?;
            seen.send(format!(" {}", request.response_nonce)).unwrap();
            Err(Status::ok("done"))
        });
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(answer)).chain(rest))))
    }
}

#[tokio::test]
async fn a_server_that_waits_for_the_first_request() {
    for mode in [Mode::Delta, Mode::Sotw] {
        let (seen, mut requests) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tonic::transport::Server::builder()
            .add_service(AggregatedDiscoveryServiceServer::new(Foreign { seen }))
            .serve_with_incoming(TcpListenerStream::new(listener));
        let server = tokio::spawn(server);

        let node = Node { id: "me".to_owned(), ..Default::default() };
        let mut config = Config { mode, ..Config::new(Authority::Plaintext(address.to_string()), node) };
        config.metadata = std::sync::Arc::new(|| vec![("authorization".to_owned(), "Bearer secret".to_owned())]);
        let (handle, mut events) = start(config);
        handle.subscribe(ResourceType::Cluster, Subscription::Wildcard);
        let mut updates = 0;
        // The server ends the stream after the answer; the client comes back by itself.
        while updates < 2 {
            let event = tokio::time::timeout(Duration::from_secs(60), events.recv()).await.unwrap().unwrap();
            if let Event::Update(update) = event {
                assert_eq!((update.resources[0].name.as_str(), &update.resources[0].body[..]), ("a", BODY));
                handle.accept(update.id);
                updates += 1;
                assert_eq!(requests.recv().await.unwrap(), r#"me Some("Bearer secret") []"#);
                let ack = if mode == Mode::Delta { " n1" } else { "v1 n1" };
                assert_eq!(requests.recv().await.unwrap(), ack);
            }
        }
        server.abort();
    }
}
