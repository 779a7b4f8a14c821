use super::*;

fn planned(text: &str) -> Plan {
    let mut manifests = Manifests::default();
    manifests.add_text(&Path::new("folder/test.yaml").into(), text);
    assert_eq!(manifests.problems, []);
    plan(&manifests, Capture::Explicit)
}

fn deployment(name: &str, annotations: &str, spec: &str, containers: &str) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\nspec: {{{spec} template: {{metadata: {{labels: {{app: {name}}}}}, spec: {{containers: [{containers}]}}}}}}\n---\n"
    )
}

#[test]
fn the_annotation_wins_over_the_built_in_application() {
    let image = "{name: a, image: docker.io/istio/examples-bookinfo-reviews-v2}";
    let plan = planned(&(deployment("a", "", "", image) + &deployment("b", "mizzen.dev/command: ./mine", "", image)));
    assert_eq!(plan.workloads[0].command, AppCommand::Bookinfo { service: "reviews".into(), version: "v2".into() });
    assert_eq!(plan.workloads[1].command, AppCommand::Shell("./mine".into()));
    assert_eq!(&*plan.workloads[1].folder, Path::new("folder"));
}

#[test]
fn a_deployment_without_command_is_named_with_what_to_write() {
    let plan = planned(&deployment("web", "", "", "{name: web, image: 'me/web:1'}"));
    assert_eq!(plan.workloads, []);
    let left_out = &plan.left_out[0];
    assert_eq!(left_out.deployment, "default/web");
    assert!(left_out.why.contains("me/web:1"), "{}", left_out.why);
    assert!(left_out.hint.contains("mizzen.dev/command") && left_out.hint.contains("images"), "{}", left_out.hint);
}

#[test]
fn target_ports_of_services_count_as_ports() {
    let service = "apiVersion: v1\nkind: Service\nmetadata: {name: s}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: 8000, name: http}, {port: 81, targetPort: extra}]}\n";
    let plan = planned(
        &(deployment(
            "web",
            "mizzen.dev/command: x",
            "",
            "{name: web, image: i, ports: [{containerPort: 7000, name: extra}]}",
        ) + service),
    );
    let numbers: Vec<u16> = plan.workloads[0].ports.iter().map(|port| port.number).collect();
    assert_eq!(numbers, [7000, 8000]);
    assert_eq!(plan.workloads[0].port(&PortRef::Name("extra".into())), Some(7000));
}

#[test]
fn a_fixed_port_is_for_one_replica() {
    let annotations = "mizzen.dev/command: x, mizzen.dev/app-port: '8000'";
    let image = "{name: a, image: i}";
    let plan = planned(
        &(deployment("one", annotations, "", image)
            + &deployment("two", annotations, "replicas: 2,", image)
            + &deployment("bad", "mizzen.dev/command: x, mizzen.dev/app-port: web", "", image)),
    );
    assert_eq!(plan.workloads[0].fixed_port, Some(8000));
    let names: Vec<&str> = plan.left_out.iter().map(|left_out| left_out.deployment.as_str()).collect();
    assert_eq!(names, ["default/two", "default/bad"]);
}

#[test]
fn what_is_obeyed_in_part_is_said() {
    let plan = planned(&deployment(
        "web",
        "mizzen.dev/command: x",
        "",
        "{name: web, image: i, env: [{name: KEY, valueFrom: {secretKeyRef: {name: s, key: k}}}]}, {name: helper, image: h}",
    ));
    assert!(plan.notes.iter().any(|note| note.contains("helper")), "{:?}", plan.notes);
    assert!(plan.notes.iter().any(|note| note.contains("KEY") && note.contains("secretKeyRef")), "{:?}", plan.notes);
}

#[test]
fn what_a_pod_asks_of_its_sidecar_and_does_not_get_is_said() {
    const ASKED: &str = "mizzen.dev/command: x, sidecar.istio.io/inject: 'false', sidecar.istio.io/interceptionMode: TPROXY, traffic.sidecar.istio.io/excludeOutboundPorts: '3306', traffic.sidecar.istio.io/excludeInterfaces: eth1, proxy.istio.io/config: '{concurrency: 1}'";
    let check = |capture: Capture, expected: &[&str]| {
        let mut manifests = Manifests::default();
        let text = deployment("web", ASKED, "", "{name: web, image: i}");
        manifests.add_text(&Path::new("test.yaml").into(), &text);
        let notes = plan(&manifests, capture).notes;
        let said: Vec<&str> = notes.iter().filter_map(|note| note.split('`').nth(1)?.split(": ").next()).collect();
        assert_eq!(said, expected, "{notes:?}");
    };
    let always = ["proxy.istio.io/config", "sidecar.istio.io/inject", "sidecar.istio.io/interceptionMode"];
    let (interfaces, ports) =
        ("traffic.sidecar.istio.io/excludeInterfaces", "traffic.sidecar.istio.io/excludeOutboundPorts");
    check(Capture::Netns, &[&always[..], &[interfaces]].concat());
    check(Capture::Explicit, &[&always[..], &[interfaces, ports]].concat());
}

#[test]
fn another_number_of_replicas_is_the_same_process() {
    let with = |spec: &str| {
        planned(&deployment("a", "mizzen.dev/command: x", spec, "{name: a, image: i}")).workloads[0].clone()
    };
    assert!(with("").same_processes(&with("replicas: 3,")));
    let other = planned(&deployment("a", "mizzen.dev/command: y", "", "{name: a, image: i}")).workloads[0].clone();
    assert!(!with("").same_processes(&other));
}

#[test]
fn the_samples_can_be_run_unchanged() {
    let Some(samples) = mizzen_testing::shared_or_skip("local::plan::the_samples_can_be_run_unchanged", "samples")
    else {
        return;
    };
    let platform = samples.join("bookinfo/platform/kube/bookinfo.yaml");
    let networking = samples.join("bookinfo/networking/bookinfo-gateway.yaml");
    let manifests = crate::manifest::read(&[platform, networking]);
    assert_eq!((&manifests.problems, &manifests.skipped), (&Vec::new(), &Vec::new()));
    let plan = plan(&manifests, Capture::Explicit);
    assert_eq!(plan.left_out, []);
    let names: Vec<&str> = plan.workloads.iter().map(|workload| workload.name.as_str()).collect();
    assert_eq!(names, ["details-v1", "ratings-v1", "reviews-v1", "reviews-v2", "reviews-v3", "productpage-v1"]);
    assert_eq!(plan.workloads[5].service_account, "bookinfo-productpage");
    assert!(plan.workloads.iter().all(|workload| workload.ports[0].number == 9080));
    assert_eq!(manifests.entries[0].path, "/productpage");
}
