//! Writes `crates/proto/descriptors/envoy.bin`: the descriptions of the messages that we read and write as JSON or YAML.
//!
//! The `.proto` files are those that the `envoy-types` crate ships, so descriptions and compiled types are of one
//! version; Istio's own filters come from `crates/proto/proto`. Comments, positions and options that JSON does not need
//! are left out, so that the file stays small. To be run when `envoy-types` is raised; a test of `mizzen-proto` tells.

use std::path::{Path, PathBuf};

use anyhow::Context;
use protox::prost::Message;
use protox::prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, FieldOptions, FileDescriptorSet, MessageOptions,
};

use crate::steps::{cargo, repository};

/// The files that hold what a bootstrap, our xDS resources and the extensions in them may say.
const FILES: &[&str] = &[
    "envoy/admin/v3/config_dump.proto",
    "envoy/config/accesslog/v3/accesslog.proto",
    "envoy/config/bootstrap/v3/bootstrap.proto",
    "envoy/config/cluster/v3/cluster.proto",
    "envoy/config/endpoint/v3/endpoint.proto",
    "envoy/config/listener/v3/listener.proto",
    "envoy/config/route/v3/route.proto",
    "envoy/extensions/access_loggers/file/v3/file.proto",
    "envoy/extensions/access_loggers/stream/v3/stream.proto",
    "envoy/extensions/clusters/dns/v3/dns_cluster.proto",
    "envoy/extensions/filters/http/cors/v3/cors.proto",
    "envoy/extensions/filters/http/ext_authz/v3/ext_authz.proto",
    "envoy/extensions/filters/http/fault/v3/fault.proto",
    "envoy/extensions/filters/http/grpc_stats/v3/config.proto",
    "envoy/extensions/filters/http/jwt_authn/v3/config.proto",
    "envoy/extensions/filters/http/local_ratelimit/v3/local_rate_limit.proto",
    "envoy/extensions/filters/http/lua/v3/lua.proto",
    "envoy/extensions/filters/http/rbac/v3/rbac.proto",
    "envoy/extensions/filters/http/router/v3/router.proto",
    "envoy/extensions/filters/listener/http_inspector/v3/http_inspector.proto",
    "envoy/extensions/filters/listener/original_dst/v3/original_dst.proto",
    "envoy/extensions/filters/listener/proxy_protocol/v3/proxy_protocol.proto",
    "envoy/extensions/filters/listener/tls_inspector/v3/tls_inspector.proto",
    "envoy/extensions/filters/network/http_connection_manager/v3/http_connection_manager.proto",
    "envoy/extensions/filters/network/mongo_proxy/v3/mongo_proxy.proto",
    "envoy/extensions/filters/network/rbac/v3/rbac.proto",
    "envoy/extensions/filters/network/tcp_proxy/v3/tcp_proxy.proto",
    "envoy/extensions/load_balancing_policies/least_request/v3/least_request.proto",
    "envoy/extensions/load_balancing_policies/maglev/v3/maglev.proto",
    "envoy/extensions/load_balancing_policies/random/v3/random.proto",
    "envoy/extensions/load_balancing_policies/ring_hash/v3/ring_hash.proto",
    "envoy/extensions/load_balancing_policies/round_robin/v3/round_robin.proto",
    "envoy/extensions/network/dns_resolver/cares/v3/cares_dns_resolver.proto",
    "envoy/extensions/network/dns_resolver/getaddrinfo/v3/getaddrinfo_dns_resolver.proto",
    "envoy/extensions/request_id/uuid/v3/uuid.proto",
    "envoy/extensions/retry/host/previous_hosts/v3/previous_hosts.proto",
    "envoy/extensions/retry/priority/previous_priorities/v3/previous_priorities_config.proto",
    "envoy/extensions/transport_sockets/proxy_protocol/v3/upstream_proxy_protocol.proto",
    "envoy/extensions/transport_sockets/raw_buffer/v3/raw_buffer.proto",
    "envoy/extensions/transport_sockets/tls/v3/secret.proto",
    "envoy/extensions/transport_sockets/tls/v3/tls.proto",
    "envoy/extensions/upstreams/http/v3/http_protocol_options.proto",
    "google/protobuf/any.proto",
    "google/protobuf/struct.proto",
    "google/protobuf/wrappers.proto",
    "istio_alpn.proto",
    "istio_stats.proto",
    "udpa_typed_struct.proto",
    "xds_typed_struct.proto",
];

pub(crate) fn run() -> anyhow::Result<bool> {
    let shipped = envoy_types()?.join("proto");
    let mut folders: Vec<PathBuf> = std::fs::read_dir(&shipped)
        .with_context(|| format!("cannot read {}", shipped.display()))?
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()?;
    folders.sort();
    // One of them keeps its files one folder deeper.
    folders.extend(folders.clone().into_iter().map(|folder| folder.join("proto")).filter(|folder| folder.is_dir()));
    let own = repository().join("crates/proto/proto");
    folders.push(own);
    let mut set = FileDescriptorSet::default();
    // One by one: compiled together, a name that is relative to its package could be taken for one of another file.
    for file in FILES {
        let compiled = protox::compile([file], &folders).with_context(|| format!("cannot compile {file}"))?;
        for file in compiled.file {
            if !set.file.iter().any(|have| have.name == file.name) {
                set.file.push(file);
            }
        }
    }
    slim(&mut set);
    let target = repository().join("crates/proto/descriptors/envoy.bin");
    let bytes = set.encode_to_vec();
    std::fs::write(&target, &bytes).with_context(|| format!("cannot write {}", target.display()))?;
    println!("{}: {} files, {} KiB", target.display(), set.file.len(), bytes.len() / 1024);
    Ok(true)
}

/// The source folder of the `envoy-types` crate that the workspace uses.
fn envoy_types() -> anyhow::Result<PathBuf> {
    let output = cargo(&["metadata", "--format-version", "1", "--locked"]).output().context("cannot run cargo")?;
    anyhow::ensure!(output.status.success(), "cargo metadata: {}", String::from_utf8_lossy(&output.stderr).trim());
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    let packages = metadata["packages"].as_array().context("cargo metadata has no packages")?;
    let package = packages.iter().find(|package| package["name"] == "envoy-types");
    let manifest = package.and_then(|package| package["manifest_path"].as_str());
    let manifest = manifest.context("the workspace does not use envoy-types")?;
    Ok(Path::new(manifest).parent().unwrap_or(Path::new("/")).to_path_buf())
}

/// Drops what JSON does not need: comments, services, and all options but those that change how a field is read.
fn slim(set: &mut FileDescriptorSet) {
    for file in &mut set.file {
        file.source_code_info = None;
        file.options = None;
        file.service.clear();
        file.extension.clear();
        file.message_type.iter_mut().for_each(slim_message);
        file.enum_type.iter_mut().for_each(slim_enum);
    }
}

fn slim_message(message: &mut DescriptorProto) {
    let map_entry = message.options.as_ref().and_then(|options| options.map_entry);
    message.options = map_entry.map(|entry| MessageOptions { map_entry: Some(entry), ..MessageOptions::default() });
    message.extension.clear();
    for field in &mut message.field {
        let packed = field.options.as_ref().and_then(|options| options.packed);
        field.options = packed.map(|packed| FieldOptions { packed: Some(packed), ..FieldOptions::default() });
        // The compiler works it out again from the name.
        field.json_name = None;
    }
    message.oneof_decl.iter_mut().for_each(|oneof| oneof.options = None);
    message.nested_type.iter_mut().for_each(slim_message);
    message.enum_type.iter_mut().for_each(slim_enum);
}

fn slim_enum(descriptor: &mut EnumDescriptorProto) {
    let alias = descriptor.options.as_ref().and_then(|options| options.allow_alias);
    descriptor.options = alias.map(|alias| protox::prost_reflect::prost_types::EnumOptions {
        allow_alias: Some(alias),
        ..Default::default()
    });
    descriptor.value.iter_mut().for_each(|value| value.options = None);
}
