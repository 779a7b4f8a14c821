#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use mizzen_testing::ReservedPort;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::*;
use crate::kubernetes::fake::Fake;

const LONG: Duration = Duration::from_secs(120);

/// What a debug page answers, status line and all.
async fn page(address: SocketAddr, path: &str) -> Option<String> {
    let mut connection = TcpStream::connect(address).await.ok()?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
    connection.write_all(request.as_bytes()).await.ok()?;
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.ok()?;
    Some(answer)
}

async fn until(address: SocketAddr, path: &str, wished: &[&str]) {
    let mut last = None;
    let waiting = async {
        loop {
            last = page(address, path).await;
            if last.as_ref().is_some_and(|answer| wished.iter().all(|wished| answer.contains(wished))) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    if tokio::time::timeout(LONG, waiting).await.is_err() {
        panic!("waited in vain for {wished:?}: {last:?}");
    }
}

#[tokio::test]
async fn without_an_api_server_the_pages_say_what_is_waited_for() {
    let (absent, reserved) = (ReservedPort::new(), ReservedPort::new());
    let (api, http) = (absent.address(), reserved.address());
    let dir = tempfile::tempdir().unwrap();
    let kubeconfig = dir.path().join("kubeconfig");
    let config = json!({"apiVersion": "v1", "kind": "Config", "current-context": "c",
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}], "users": [{"name": "u", "user": {}}],
        "clusters": [{"name": "c", "cluster": {"server": format!("http://{api}")}}]});
    std::fs::write(&kubeconfig, config.to_string()).unwrap();
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let config = ControlConfig {
        kubernetes: Some(KubernetesConfig {
            kubeconfig: Some(kubeconfig),
            namespace: "istio-system".to_owned(),
            revision: "default".to_owned(),
            cluster_id: "Kubernetes".to_owned(),
            replica: "a".to_owned(),
            rotation: Rotation::default(),
        }),
        xds_address: any,
        secure_xds_address: any,
        http_address: http,
        ..ControlConfig::default()
    };
    let (stop, stopped) = oneshot::channel::<()>();
    let (ready, bound) = oneshot::channel();
    let task = tokio::spawn(run(config, async { drop(stopped.await) }, |bound| ready.send(bound).unwrap()));
    // Nobody is there.
    until(http, "/ready", &["503", "ConfigMap istio-system/istio", "refused"]).await;
    until(http, "/debug/syncz", &["200", "[]"]).await;
    // Somebody is there, but does not let Services be listed.
    let fake = Fake::new();
    fake.hook(|_, path, _| path.ends_with("/services").then(|| crate::kubernetes::fake::failure(500, "away")));
    let listener = absent.listen();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener).unwrap();
    let serving = fake.listen(listener);
    until(http, "/ready", &["503", "to list: Service"]).await;
    fake.no_hook();
    until(http, "/ready", &["200", "ready"]).await;
    tokio::time::timeout(LONG, bound).await.unwrap().unwrap();
    // It is lost again: what is known stays in force.
    serving.abort();
    until(http, "/ready", &["200", "ready"]).await;
    stop.send(()).unwrap();
    tokio::time::timeout(LONG, task).await.unwrap().unwrap().unwrap();
}
