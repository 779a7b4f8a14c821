//! The samples' own DestinationRules and VirtualServices, and what the page shows by them.

use anyhow::{Context, bail, ensure};

use super::bookinfo::gateway_address;
use super::services::MESHED;
use crate::call::from_pod;
use crate::kube::{SOON, apply, delete, eventually, kubectl, run};
use crate::place::Place;
use crate::run::Report;

/// Which reviews a signed-in user gets: asked of the service itself by a meshed client.
fn reviews_for(user: &str) -> anyhow::Result<&'static str> {
    let header = format!("end-user: {user}");
    let answer = from_pod(MESHED, &["-H", &header, "http://reviews.default:9080/reviews/0"])?;
    Ok(version(&answer.expect(200)?.body))
}

fn version(body: &str) -> &'static str {
    if body.contains("red") {
        "v3"
    } else if body.contains("black") {
        "v2"
    } else {
        "v1"
    }
}

/// Counts versions in `calls` calls: by the colour of the stars. One curl makes all calls.
fn shares(place: &Place, calls: usize) -> anyhow::Result<[usize; 3]> {
    let url = format!("http://{}/api/v1/products/0/reviews?call=[1-{calls}]", gateway_address()?);
    let arguments = [
        "--silent",
        "--show-error",
        "--max-time",
        "60",
        "-H",
        "Host: istio.k3s.local",
        "-w",
        "\n--%{http_code}\n",
        &url,
    ];
    let text = run(place.beside("curl").args(arguments))?;
    let mut found = [0; 3];
    let mut body = String::new();
    for line in text.lines() {
        match line.strip_prefix("--") {
            None => body += line,
            Some("200") => {
                found[usize::from(version(&body).as_bytes()[1] - b'1')] += 1;
                body.clear();
            }
            Some(status) => bail!("status {status}: {body:.300}"),
        }
    }
    Ok(found)
}

pub(super) fn samples(place: &Place, _: &Report) -> anyhow::Result<()> {
    let file = |name: &str| place.bookinfo(&format!("networking/{name}.yaml"));
    kubectl(&["apply", "-f", &file("destination-rule-all")])?;
    for (name, wanted) in [("virtual-service-all-v1", "v1"), ("virtual-service-reviews-v3", "v3")] {
        kubectl(&["apply", "-f", &file(name)])?;
        eventually(SOON, || {
            let found = shares(place, 12)?;
            let index = usize::from(wanted == "v3") * 2;
            ensure!(found[index] == 12, "{name}: v1, v2, v3 answered {found:?}");
            Ok(())
        })?;
    }
    for (name, versions) in [
        ("virtual-service-reviews-50-v3", [0, 2]),
        ("virtual-service-reviews-80-20", [0, 1]),
        ("virtual-service-reviews-v2-v3", [1, 2]),
    ] {
        kubectl(&["apply", "-f", &file(name)])?;
        eventually(SOON, || {
            let found = shares(place, 60)?;
            ensure!(versions.iter().map(|&index| found[index]).sum::<usize>() == 60, "{name}: {found:?}");
            ensure!(versions.iter().all(|&index| found[index] > 0), "{name}: {found:?}");
            Ok(())
        })
        .context(name)?;
    }
    kubectl(&["apply", "-f", &file("virtual-service-reviews-test-v2")])?;
    eventually(SOON, || {
        ensure!(shares(place, 12)?[0] == 12, "virtual-service-reviews-test-v2: others go to v1");
        let found = reviews_for("jason")?;
        ensure!(found == "v2", "virtual-service-reviews-test-v2: jason got {found}");
        Ok(())
    })?;
    faults_and_mirror(&file("virtual-service-ratings-test-abort"))?;
    for name in ["virtual-service-all-v1", "virtual-service-ratings-test-abort"] {
        kubectl(&["delete", "--ignore-not-found", "-f", &file(name)])?;
    }
    Ok(())
}

const ABORT_AND_MIRROR: &str = r#"
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: details, namespace: default}
spec:
  hosts: [details]
  http:
  - match: [{headers: {x-break: {exact: "yes"}}}]
    fault: {abort: {httpStatus: 555, percentage: {value: 100}}}
    route: [{destination: {host: details, subset: v1}}]
  - route: [{destination: {host: details, subset: v1}}]
    mirror: {host: service2.ns2.svc.cluster.local, port: {number: 8080}}
"#;

fn faults_and_mirror(sample: &str) -> anyhow::Result<()> {
    kubectl(&["apply", "-f", sample])?;
    apply(ABORT_AND_MIRROR)?;
    let ratings = "http://ratings.default:9080/ratings/0";
    let details = "http://details.default:9080/details/0";
    let outcome = eventually(SOON, || {
        from_pod(MESHED, &["-H", "end-user: jason", ratings])?.expect(500)?;
        from_pod(MESHED, &[ratings])?.expect(200)?;
        from_pod(MESHED, &["-H", "x-break: yes", details])?.expect(555)?;
        from_pod(MESHED, &[details])?.expect(200)?;
        let log = kubectl(&["logs", "-n", "ns2", "deploy/service2", "-c", "istio-proxy", "--tail=50"])?;
        ensure!(log.contains("\"details.default:9080\""), "service2 got no copy of a call of details: {log:.2000}");
        Ok(())
    });
    delete(ABORT_AND_MIRROR)?;
    outcome
}
