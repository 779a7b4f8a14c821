use mizzen_config::{parse, report};

use super::*;

/// A small mesh that every example stands in.
const MESH: &str = "
{apiVersion: v1, kind: Service, metadata: {name: reviews}, spec: {selector: {app: reviews}, ports: [{port: 9080, name: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: ratings}, spec: {selector: {app: ratings}, ports: [{port: 9080, name: http}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: hidden, namespace: other, annotations: {networking.istio.io/exportTo: '.'}}, spec: {ports: [{port: 80, name: http}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: reviews-v1, labels: {app: reviews, version: v1}}, status: {podIP: 10.0.0.1}}
---
{apiVersion: v1, kind: Pod, metadata: {name: reviews-v2, labels: {app: reviews, version: v2}}, status: {podIP: 10.0.0.2}}
---
{apiVersion: v1, kind: Pod, metadata: {name: gateway, namespace: istio-system, labels: {istio: ingressgateway}}, status: {podIP: 10.0.0.3}}
---
";

fn findings(text: &str) -> Vec<Finding> {
    let parsed = parse("mesh.yaml", &format!("{MESH}{text}"));
    assert_eq!(parsed.findings, [], "{text}");
    analyse_objects(&parsed.objects)
}

/// Text blocks under a heading of a documentation.
fn yaml_under<'d>(documentation: &'d str, heading: &str) -> &'d str {
    let (_, section) = documentation.split_once(&format!("## {heading}\n")).expect("the heading is there");
    let (_, block) = section.split_once("```yaml\n").expect("the section has YAML");
    block.split_once("```").expect("the block ends").0
}

/// The documentation is the test: its example raises the message and its fix raises nothing.
#[test]
fn every_documentation_is_true() {
    for message in MESSAGES {
        let documentation = message.documentation();
        assert!(documentation.starts_with(&format!("# {} {}\n", message.code, message.name)), "{documentation}");
        for heading in ["What it does", "Why is this bad", "Example", "Fix"] {
            assert!(documentation.contains(&format!("## {heading}\n")), "{}: {heading}", message.code);
        }
        let raised = findings(yaml_under(&documentation, "Example"));
        let own = raised.iter().filter(|finding| finding.code == message.code).count();
        assert!(own > 0, "{}: {}", message.code, report::lines(&raised));
        for finding in &raised {
            assert!(finding.position.is_some() && finding.hint.is_some(), "{finding:?}");
        }
        let fixed = findings(yaml_under(&documentation, "Fix"));
        assert_eq!(fixed, [], "{}: {}", message.code, report::lines(&fixed));
    }
}

#[test]
fn codes_are_unique_and_in_order() {
    assert!(MESSAGES.windows(2).all(|pair| pair[0].code < pair[1].code));
    let of_config: Vec<_> = mizzen_config::code::ALL.iter().map(|(code, _)| *code).collect();
    assert!(MESSAGES.iter().all(|message| !of_config.contains(&message.code)));
    assert_eq!(message("mz0101").map(|message| message.name), Some("unknown-destination"));
}

#[track_caller]
fn check(text: &str, expected: &[(&str, &str, &str)]) {
    let found = findings(text);
    let short: Vec<_> = found
        .iter()
        .map(|finding| {
            let field = finding.origin.as_ref().map(|origin| origin.field.as_str()).unwrap_or_default();
            (finding.code, field, finding.hint.as_deref().unwrap_or_default())
        })
        .collect();
    let matches = short.len() == expected.len()
        && short.iter().zip(expected).all(|(got, want)| (got.0, got.1) == (want.0, want.1) && got.2.contains(want.2));
    assert!(matches, "{}\n{short:?}", report::lines(&found));
}

fn virtual_service(name: &str, spec: &str) -> String {
    format!(
        "{{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {{name: {name}}}, spec: {{{spec}}}}}\n---\n"
    )
}

#[test]
fn hints_name_what_was_perhaps_meant() {
    let route =
        |to: &str| virtual_service("a", &format!("hosts: [reviews], http: [{{route: [{{destination: {{{to}}}}}]}}]"));
    check(&route("host: review"), &[("MZ0101", "spec.http[0].route[0].destination.host", "`reviews`")]);
    check(
        &route("host: hidden.other.svc.cluster.local"),
        &[("MZ0101", "spec.http[0].route[0].destination.host", "export Service/other/hidden")],
    );
    check(
        &route("host: reviews, port: {number: 80}"),
        &[("MZ0113", "spec.http[0].route[0].destination.port.number", "9080")],
    );
    let rule = "{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: r}, spec: {host: reviews, subsets: [{name: v1, labels: {version: v1}}]}}";
    check(
        &format!("{}{rule}", route("host: reviews, subset: v11")),
        &[("MZ0102", "spec.http[0].route[0].destination.subset", "`v1`")],
    );
    check(
        &format!("{}{}", route("host: reviews, subset: v1"), rule.replace("version: v1", "version: v3")),
        &[("MZ0114", "spec.subsets[0].labels", "`v1` or `v2`")],
    );
}

#[test]
fn mirrors_and_l4_routes_are_destinations_too() {
    let text = virtual_service(
        "a",
        "hosts: [reviews], http: [{route: [{destination: {host: reviews}}], mirrors: [{destination: {host: x}}]}], \
         tcp: [{route: [{destination: {host: y}}]}]",
    );
    check(
        &text,
        &[
            ("MZ0101", "spec.http[0].mirrors[0].destination.host", ""),
            ("MZ0101", "spec.tcp[0].route[0].destination.host", ""),
        ],
    );
}

#[test]
fn a_wildcard_service_entry_covers_its_hosts() {
    let entry = "{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: e}, spec: {hosts: ['*.example.com'], ports: [{number: 443, name: tls, protocol: TLS}]}}\n---\n";
    let rule =
        virtual_service("a", "hosts: [api.example.com], http: [{route: [{destination: {host: api.example.com}}]}]");
    check(&format!("{entry}{rule}"), &[]);
}

#[test]
fn virtual_services_that_never_meet_are_no_duplicates() {
    let one = virtual_service("a", "hosts: [reviews], http: [{route: [{destination: {host: reviews}}]}]");
    let elsewhere = one
        .replace("name: a}", "name: a, namespace: other}")
        .replace("host: reviews", "host: reviews.default.svc.cluster.local");
    check(
        &format!(
            "{one}{}",
            elsewhere.replace("hosts: [reviews]", "exportTo: ['.'], hosts: [reviews.default.svc.cluster.local]")
        ),
        &[("MZ0103", "spec.hosts[0]", "exportTo")],
    );
    let private = one.replace("hosts:", "exportTo: ['.'], hosts:");
    let other = elsewhere.replace("hosts: [reviews]", "exportTo: ['.'], hosts: [reviews.default.svc.cluster.local]");
    check(&format!("{private}{other}"), &[]);
    // Two spellings of one host in one object.
    check(&one.replace("[reviews]", "[reviews, reviews.default.svc.cluster.local]"), &[]);
}

#[test]
fn rules_in_the_shadow_of_an_earlier_one_are_found() {
    let http = |rules: &[&str]| {
        let rules: Vec<_> =
            rules.iter().map(|m| format!("{{match: [{m}], route: [{{destination: {{host: reviews}}}}]}}")).collect();
        virtual_service("a", &format!("hosts: [reviews], http: [{}]", rules.join(", ")))
    };
    let shadowed = [("MZ0111", "spec.http[1]", "move it before `spec.http[0]`")];
    check(&http(&["{uri: {prefix: /a}}", "{uri: {exact: /ab}}"]), &shadowed);
    check(&http(&["{uri: {prefix: /}}", "{headers: {x: {exact: y}}}"]), &shadowed);
    check(&http(&["{headers: {x: {exact: y}}}", "{uri: {exact: /}, headers: {x: {exact: y}}}"]), &shadowed);
    check(&http(&["{uri: {exact: /a}}", "{uri: {prefix: /a}}"]), &[]);
    check(&http(&["{uri: {prefix: /a}}", "{uri: {prefix: /b}}"]), &[]);
    check(&http(&["{uri: {prefix: /a}, method: {exact: GET}}", "{uri: {prefix: /a}}"]), &[]);
    check(&http(&["{sourceLabels: {app: a}}", "{uri: {prefix: /a}}"]), &[]);
}

#[test]
fn findings_come_in_the_order_of_their_codes_and_twice_the_same() {
    let text = virtual_service(
        "a",
        "hosts: [reviews], http: [{route: [{destination: {host: x}}, {destination: {host: y}, weight: 5}]}]",
    );
    assert_eq!(findings(&text), findings(&text));
}
