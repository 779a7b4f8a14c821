use mizzen_proto::envoy::service::discovery::v3::DiscoveryResponse;
use tonic::metadata::MetadataMap;
use tonic::{Code, Extensions};

use super::super::stream::Wanted;
use super::*;
use crate::{Resource, ResourceType};

/// Has no proxies, and answers every question with its type.
struct Tools;

struct Nothing;

impl Sessions for Tools {
    type Caller = ();
    type Session = Nothing;

    async fn admit(&self, _: &Extensions, _: &MetadataMap) -> Result<(), Status> {
        Ok(())
    }

    fn open(&self, (): (), _: Node, _: Mode) -> Result<Nothing, Status> {
        Err(Status::permission_denied("no proxies"))
    }

    fn inspect(&self, (): &(), question: Question<'_>) -> Result<DiscoveryResponse, Status> {
        Ok(DiscoveryResponse { type_url: question.type_url.to_owned(), ..Default::default() })
    }
}

impl Content for Nothing {
    fn resources(&mut self, _: ResourceType, _: Wanted<'_>) -> Vec<Arc<Resource>> {
        Vec::new()
    }
}

impl Session for Nothing {
    async fn changed(&mut self) -> Result<(), Status> {
        std::future::pending().await
    }

    fn take(&mut self) -> Vec<Mark> {
        Vec::new()
    }

    fn observe(&mut self, _: Observed) {}
}

fn ask(places: &Arc<Semaphore>) -> mpsc::Receiver<Result<Outgoing, Status>> {
    let (responses, queue) = mpsc::channel(5);
    let question = DiscoveryRequest { type_url: "istio.io/debug/syncz".to_owned(), ..Default::default() };
    let requests = tokio_stream::iter([Ok(question)]).chain(tokio_stream::pending());
    tokio::spawn(drive(requests, responses, Arc::new(Tools), (), places.clone()));
    queue
}

#[tokio::test(start_paused = true)]
async fn s30_answers_that_nobody_reads_do_not_pile_up() {
    let places = Arc::new(Semaphore::new(2));
    let (mut first, second) = (ask(&places), ask(&places));
    tokio::time::sleep(TURN / 2).await;
    // Both wait in their queues, so a third has no place.
    let refused = ask(&places).recv().await.unwrap().unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    // What was read, or will never be, gives its place back.
    drop(first.recv().await);
    drop(second);
    assert!(ask(&places).recv().await.unwrap().is_ok());
    assert_eq!(places.available_permits(), 2);
}
