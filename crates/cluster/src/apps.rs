//! Servers that steps call, written in Perl: an image that every cluster can pull, and that a Debian can make of its own `perl`.
//!
//! Bookinfo speaks HTTP only. Here are servers that speak first, that fail when asked to, and that speak gRPC's health protocol.

/// The image of the servers.
pub const PERL: &str = "docker.io/library/perl:5.40-slim";
/// The image of the clients.
pub const CURL: &str = "docker.io/curlimages/curl:8.10.1";

/// Arguments are `KIND:PORT`: `greet` speaks first, as a mail or file server does; `http` answers with the name of its pod and
/// the path, at `/caller` with the address that its connection comes from; `grpc` answers health checks. The latter two say
/// that they are ill while `/state/ill` is there.
const PROGRAM: &str = include_str!("apps/serve.pl");

/// A ConfigMap `name` with the program. Steps run side by side and take away what they have applied, so each has one of its own.
pub fn program(namespace: &str, name: &str) -> String {
    let indented: String = PROGRAM.lines().map(|line| format!("    {line}\n")).collect();
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata:\n  serve.pl: |\n{indented}---\n"
    )
}

/// The fields of a container that runs it, in YAML's flow style.
pub fn container(name: &str, servers: &str) -> String {
    format!(
        r#"name: {name}, image: "{PERL}", imagePullPolicy: IfNotPresent, command: [perl, /serve/serve.pl, {servers}], volumeMounts: [{{name: serve, mountPath: /serve}}, {{name: state, mountPath: /state}}]"#
    )
}

/// The volumes of a pod with such containers, in YAML's flow style; `program` is the name of the ConfigMap.
pub fn volumes(program: &str) -> String {
    format!("volumes: [{{name: serve, configMap: {{name: {program}}}}}, {{name: state, emptyDir: {{}}}}]")
}
