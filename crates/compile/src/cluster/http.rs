//! How HTTP is spoken to a cluster (`HttpProtocolOptions`, and the older fields of a cluster).

use std::time::Duration;

use mizzen_proto::envoy::config::cluster::v3::Cluster as Wire;
use mizzen_proto::envoy::config::core::v3::{Http2ProtocolOptions, HttpProtocolOptions as Common};
use mizzen_proto::envoy::extensions::upstreams::http::v3::{
    HttpProtocolOptions,
    http_protocol_options::{UpstreamProtocolOptions, explicit_http_config::ProtocolConfig},
};
use mizzen_snapshot::cluster::{UpstreamHttp, UpstreamVersion};

use crate::invalid::{At, Invalid, Result, not_obeyed};
use crate::value;

pub(super) struct Compiled {
    pub(super) http: UpstreamHttp,
    pub(super) max_requests_per_connection: Option<u32>,
    pub(super) auto_sni: bool,
    pub(super) auto_san_validation: bool,
}

const OPTIONS: &str = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions";

pub(super) fn compile(wire: &Wire) -> Result<Compiled> {
    let mut options = None;
    for (name, any) in &wire.typed_extension_protocol_options {
        if !value::is::<HttpProtocolOptions>(any) {
            return Err(Invalid::not_obeyed(format!("{name:?}")).within("typed_extension_protocol_options"));
        }
        options = Some(value::unpack::<HttpProtocolOptions>(any).at("typed_extension_protocol_options")?);
    }
    let compiled = match &options {
        Some(options) => modern(options).at(&format!("typed_extension_protocol_options[{OPTIONS}]"))?,
        None => older(wire)?,
    };
    let per_connection = value::number(wire.max_requests_per_connection.as_ref()).filter(|count| *count > 0);
    Ok(Compiled { max_requests_per_connection: compiled.max_requests_per_connection.or(per_connection), ..compiled })
}

fn modern(options: &HttpProtocolOptions) -> Result<Compiled> {
    not_obeyed!(
        options,
        header_validation_config,
        outlier_detection,
        request_mirror_policies,
        hash_policy,
        retry_policy
    );
    for (index, filter) in options.http_filters.iter().enumerate() {
        if filter.name != "envoy.filters.http.upstream_codec" {
            return Err(Invalid::not_obeyed(format!("the upstream filter {:?}", filter.name)))
                .at_index("http_filters", index);
        }
    }
    let (version, http2) = match &options.upstream_protocol_options {
        None => (UpstreamVersion::Http1, None),
        Some(UpstreamProtocolOptions::ExplicitHttpConfig(explicit)) => match &explicit.protocol_config {
            None | Some(ProtocolConfig::HttpProtocolOptions(_)) => (UpstreamVersion::Http1, None),
            Some(ProtocolConfig::Http2ProtocolOptions(http2)) => (UpstreamVersion::Http2, Some(http2)),
            Some(ProtocolConfig::Http3ProtocolOptions(_)) => {
                return Err(Invalid::not_obeyed("HTTP/3").within("explicit_http_config.http3_protocol_options"));
            }
        },
        Some(UpstreamProtocolOptions::UseDownstreamProtocolConfig(same)) => {
            (UpstreamVersion::Downstream, same.http2_protocol_options.as_ref())
        }
        Some(UpstreamProtocolOptions::AutoConfig(auto)) => {
            (UpstreamVersion::Alpn, auto.http2_protocol_options.as_ref())
        }
    };
    let upstream = options.upstream_http_protocol_options.clone().unwrap_or_default();
    not_obeyed!(upstream, override_auto_sni_header);
    build(
        version,
        http2,
        options.common_http_protocol_options.as_ref(),
        upstream.auto_sni,
        upstream.auto_san_validation,
    )
}

fn older(wire: &Wire) -> Result<Compiled> {
    let version = match (&wire.http2_protocol_options, wire.protocol_selection) {
        // USE_DOWNSTREAM_PROTOCOL
        (_, 1) => UpstreamVersion::Downstream,
        (Some(_), _) => UpstreamVersion::Http2,
        (None, _) => UpstreamVersion::Http1,
    };
    let upstream = wire.upstream_http_protocol_options.clone().unwrap_or_default();
    not_obeyed!(upstream, override_auto_sni_header);
    let common = wire.common_http_protocol_options.as_ref();
    build(version, wire.http2_protocol_options.as_ref(), common, upstream.auto_sni, upstream.auto_san_validation)
}

fn build(
    version: UpstreamVersion,
    http2: Option<&Http2ProtocolOptions>,
    common: Option<&Common>,
    auto_sni: bool,
    auto_san_validation: bool,
) -> Result<Compiled> {
    let field = "common_http_protocol_options";
    let idle = value::limit(common.and_then(|common| common.idle_timeout.as_ref()), Some(Duration::from_secs(3600)));
    let longest = value::limit(common.and_then(|common| common.max_connection_duration.as_ref()), None);
    let keepalive = match http2.and_then(|http2| http2.connection_keepalive.as_ref()) {
        None => None,
        Some(wire) => {
            let field = "http2_protocol_options.connection_keepalive";
            let interval = value::limit(wire.interval.as_ref(), None).at(field)?;
            let timeout = value::positive(wire.timeout.as_ref(), Duration::from_secs(20)).at(field)?;
            interval.map(|interval| (interval, timeout))
        }
    };
    let requests = common.and_then(|common| value::number(common.max_requests_per_connection.as_ref()));
    Ok(Compiled {
        http: UpstreamHttp {
            version,
            idle_timeout: idle.at("idle_timeout").at(field)?,
            max_connection_duration: longest.at("max_connection_duration").at(field)?,
            max_concurrent_streams: http2.and_then(|http2| value::number(http2.max_concurrent_streams.as_ref())),
            http2_keepalive: keepalive,
        },
        max_requests_per_connection: requests.filter(|count| *count > 0),
        auto_sni,
        auto_san_validation,
    })
}
