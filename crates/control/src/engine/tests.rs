use std::time::Duration;

use super::*;

fn batch(yaml: &str) -> Batch {
    let changes = mizzen_config::parse("a.yaml", yaml).objects.into_iter().map(Change::Put).collect();
    Batch { changes, ..Batch::default() }
}

#[tokio::test(start_paused = true)]
async fn nobody_is_served_before_all_sources_have_been_read() {
    let shared = Arc::new(Shared::new());
    let (events, queue) = mpsc::unbounded_channel();
    let engine = Engine::new(shared.clone(), vec![Layer::Files, Layer::Kubernetes], queue, &events);
    let running = tokio::spawn(engine.run());
    let send = |layer, batch| events.send(Event::Config(layer, batch)).unwrap();
    send(
        Layer::Files,
        batch("{apiVersion: v1, kind: Service, metadata: {name: a, namespace: x}, spec: {ports: [{port: 1}]}}"),
    );
    send(Layer::Files, Batch::default());
    // Virtual time: the engine has done all it can do by then.
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((shared.world.load().revision, shared.is_ready()), (1, false));
    // A cluster without any object is read as well.
    send(Layer::Kubernetes, Batch::default());
    tokio::time::timeout(Duration::from_secs(60), shared.readiness()).await.unwrap();
    assert_eq!(shared.objects.load().size(), 1);
    send(
        Layer::Files,
        Batch { changes: vec![Change::Delete(ObjectKey::new("Service", "x", "a"))], ..Batch::default() },
    );
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((shared.objects.load().size(), shared.is_ready()), (0, true));
    events.send(Event::Stop).unwrap();
    running.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn addresses_in_a_status_are_taken_in_and_concern_no_proxy() {
    let shared = Arc::new(Shared::new());
    let (events, queue) = mpsc::unbounded_channel();
    let running = tokio::spawn(Engine::new(shared.clone(), vec![Layer::Files], queue, &events).run());
    let send = |yaml: &str| events.send(Event::Config(Layer::Files, batch(yaml))).unwrap();
    let entry = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: a, namespace: x, generation: 1}, spec: \
                 {hosts: [a.example.com], ports: [{number: 3306, name: tcp, protocol: TCP}], resolution: DNS}";
    send(&format!("{entry}}}"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    let key = ObjectKey::new("ServiceEntry", "x", "a");
    let given = || shared.world.load().mesh.given_addresses(&key).unwrap();
    let (first, revision) = (given(), shared.world.load().revision);
    let arrived = shared.progress().count(&key, 1);
    assert!(arrived.is_some());
    let addresses: Vec<_> = first.iter().map(|(host, ip)| format!("{{value: '{ip}', host: {host}}}")).collect();
    send(&format!("{entry}, status: {{addresses: [{}]}}}}", addresses.join(", ")));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((given(), shared.world.load().revision), (first, revision));
    assert_eq!(shared.world.load().mesh.given_anew().count(), 0, "what stands there is known");
    assert_eq!(shared.progress().count(&key, 1), arrived);
    events.send(Event::Stop).unwrap();
    running.await.unwrap();
}
