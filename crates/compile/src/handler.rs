//! How a filter chain treats HTTP (`HttpConnectionManager`).

use std::sync::Arc;
use std::time::Duration;

use mizzen_proto::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use mizzen_proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use mizzen_proto::envoy::extensions::filters::http::router::v3::Router;
use mizzen_proto::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, HttpFilter, http_connection_manager as wire, http_filter,
};
use mizzen_snapshot::http::{
    ClientCertDetails, Codec, EscapedSlashes, ForwardClientCert, Http2Limits, HttpHandler, PeerExchange, RouteSource,
    ServerHeader, Underscores,
};

use crate::access_log;
use crate::filters::{self, Known, Place};
use crate::invalid::{At, Invalid, Result, not_obeyed};
use crate::peer;
use crate::route;
use crate::value;

pub(crate) fn compile(wire: &HttpConnectionManager) -> Result<HttpHandler> {
    not_obeyed!(
        wire,
        original_ip_detection_extensions,
        early_header_mutation_extensions,
        forward_client_cert_matcher,
        local_reply_config,
        scheme_header_transformation,
        typed_header_validation_config,
        forward_proto_config,
    );
    if wire.internal_address_config.as_ref().is_some_and(|internal| !internal.cidr_ranges.is_empty()) {
        return Err(Invalid::not_obeyed("this field").within("internal_address_config.cidr_ranges"));
    }
    let filters = Filters::read(&wire.http_filters)?;
    let routes = match &wire.route_specifier {
        Some(wire::RouteSpecifier::Rds(rds)) if rds.route_config_name.is_empty() => {
            return Err(Invalid::new("a name is missing").within("rds.route_config_name"));
        }
        Some(wire::RouteSpecifier::Rds(rds)) => RouteSource::Named(rds.route_config_name.as_str().into()),
        Some(wire::RouteSpecifier::RouteConfig(table)) => {
            RouteSource::Inline(Arc::new(route::compile(table).at("route_config")?))
        }
        Some(wire::RouteSpecifier::ScopedRoutes(_)) => {
            return Err(Invalid::not_obeyed("this field").within("scoped_routes"));
        }
        None => return Err(Invalid::new("rds or route_config is missing")),
    };
    let mut handler = HttpHandler::plain(routes);
    handler.stat_prefix.clone_from(&wire.stat_prefix);
    handler.codec = match wire::CodecType::try_from(wire.codec_type) {
        Ok(wire::CodecType::Auto) => Codec::Auto,
        Ok(wire::CodecType::Http1) => Codec::Http1,
        Ok(wire::CodecType::Http2) => Codec::Http2,
        Ok(wire::CodecType::Http3) => return Err(Invalid::not_obeyed("HTTP/3").within("codec_type")),
        Err(_) => return Err(Invalid::new("this codec is not known").within("codec_type")),
    };
    let name = if wire.server_name.is_empty() { "envoy" } else { &wire.server_name };
    handler.server_header = match wire::ServerHeaderTransformation::try_from(wire.server_header_transformation) {
        Ok(wire::ServerHeaderTransformation::Overwrite) => ServerHeader::Overwrite(name.to_owned()),
        Ok(wire::ServerHeaderTransformation::AppendIfAbsent) => ServerHeader::AppendIfAbsent(name.to_owned()),
        Ok(wire::ServerHeaderTransformation::PassThrough) => ServerHeader::PassThrough,
        Err(_) => return Err(Invalid::new("this is not known").within("server_header_transformation")),
    };
    handler.client_certificate = client_certificate(wire)?;
    handler.use_remote_address = value::flag(wire.use_remote_address.as_ref(), false);
    handler.trusted_hops = wire.xff_num_trusted_hops;
    handler.skip_xff_append = wire.skip_xff_append;
    paths(wire, &mut handler)?;
    handler.strip_port = wire.strip_matching_host_port
        || matches!(wire.strip_port_mode, Some(wire::StripPortMode::StripAnyHostPort(true)));
    for (index, upgrade) in wire.upgrade_configs.iter().enumerate() {
        if !upgrade.filters.is_empty() {
            return Err(Invalid::not_obeyed("filters of an upgrade")).at_index("upgrade_configs", index);
        }
        if value::flag(upgrade.enabled.as_ref(), true) {
            handler.upgrades.push(upgrade.upgrade_type.to_ascii_lowercase());
        }
    }
    timeouts(wire, &mut handler)?;
    sizes(wire, &mut handler)?;
    let http1 = wire.http_protocol_options.as_ref();
    handler.accept_http10 = http1.is_some_and(|options| options.accept_http_10);
    handler.fault = filters.fault;
    handler.cors = filters.cors;
    handler.istio_alpn = filters.istio_alpn;
    handler.istio_stats = filters.istio_stats;
    handler.peers = filters.peers;
    handler.suppress_envoy_headers = filters.suppress_envoy_headers;
    handler.access_log = access_log::logs(&wire.access_log)?;
    handler.generate_request_id = value::flag(wire.generate_request_id.as_ref(), true);
    handler.preserve_external_request_id = wire.preserve_external_request_id;
    Ok(handler)
}

fn client_certificate(wire: &HttpConnectionManager) -> Result<ForwardClientCert> {
    let set = wire.set_current_client_cert_details.as_ref();
    let details = ClientCertDetails {
        subject: set.is_some_and(|set| value::flag(set.subject.as_ref(), false)),
        dns: set.is_some_and(|set| set.dns),
        uri: set.is_some_and(|set| set.uri),
        cert: set.is_some_and(|set| set.cert),
        chain: set.is_some_and(|set| set.chain),
    };
    Ok(match wire::ForwardClientCertDetails::try_from(wire.forward_client_cert_details) {
        Ok(wire::ForwardClientCertDetails::Sanitize) => ForwardClientCert::Sanitize,
        Ok(wire::ForwardClientCertDetails::ForwardOnly) => ForwardClientCert::ForwardOnly,
        Ok(wire::ForwardClientCertDetails::AppendForward) => ForwardClientCert::AppendForward(details),
        Ok(wire::ForwardClientCertDetails::SanitizeSet) => ForwardClientCert::SanitizeSet(details),
        Ok(wire::ForwardClientCertDetails::AlwaysForwardOnly) => ForwardClientCert::AlwaysForwardOnly,
        Err(_) => return Err(Invalid::new("this is not known").within("forward_client_cert_details")),
    })
}

fn paths(wire: &HttpConnectionManager, handler: &mut HttpHandler) -> Result<()> {
    not_obeyed!(wire, path_normalization_options);
    handler.normalize_path = value::flag(wire.normalize_path.as_ref(), false);
    handler.merge_slashes = wire.merge_slashes;
    use wire::PathWithEscapedSlashesAction as Action;
    handler.escaped_slashes = match Action::try_from(wire.path_with_escaped_slashes_action) {
        Ok(Action::ImplementationSpecificDefault | Action::KeepUnchanged) => EscapedSlashes::Keep,
        Ok(Action::RejectRequest) => EscapedSlashes::Reject,
        Ok(Action::UnescapeAndRedirect) => EscapedSlashes::UnescapeAndRedirect,
        Ok(Action::UnescapeAndForward) => EscapedSlashes::UnescapeAndForward,
        Err(_) => return Err(Invalid::new("this action is not known").within("path_with_escaped_slashes_action")),
    };
    Ok(())
}

fn timeouts(wire: &HttpConnectionManager, handler: &mut HttpHandler) -> Result<()> {
    let five_minutes = Some(Duration::from_secs(300));
    handler.stream_idle_timeout =
        value::limit(wire.stream_idle_timeout.as_ref(), five_minutes).at("stream_idle_timeout")?;
    handler.request_timeout = value::limit(wire.request_timeout.as_ref(), None).at("request_timeout")?;
    handler.request_headers_timeout =
        value::limit(wire.request_headers_timeout.as_ref(), None).at("request_headers_timeout")?;
    let common = wire.common_http_protocol_options.as_ref();
    let hour = Some(Duration::from_secs(3600));
    handler.idle_timeout = value::limit(common.and_then(|common| common.idle_timeout.as_ref()), hour)
        .at("common_http_protocol_options.idle_timeout")?;
    handler.max_connection_duration =
        value::limit(common.and_then(|common| common.max_connection_duration.as_ref()), None)
            .at("common_http_protocol_options.max_connection_duration")?;
    if common.is_some_and(|common| common.max_stream_duration.as_ref().is_some_and(|limit| limit.seconds > 0)) {
        let field = "common_http_protocol_options.max_stream_duration";
        return Err(Invalid::not_obeyed("this field").within(field));
    }
    Ok(())
}

fn sizes(wire: &HttpConnectionManager, handler: &mut HttpHandler) -> Result<()> {
    if let Some(kilobytes) = value::number(wire.max_request_headers_kb.as_ref()) {
        if !(1..=8192).contains(&kilobytes) {
            return Err(Invalid::new("has to be from 1 to 8192").within("max_request_headers_kb"));
        }
        handler.max_request_headers_kb = kilobytes;
    }
    if let Some(common) = &wire.common_http_protocol_options {
        if let Some(count) = value::number(common.max_headers_count.as_ref()) {
            handler.max_headers = count.max(1);
        }
        handler.max_requests_per_connection =
            value::number(common.max_requests_per_connection.as_ref()).filter(|count| *count > 0);
        handler.underscores = match HeadersWithUnderscoresAction::try_from(common.headers_with_underscores_action) {
            Ok(HeadersWithUnderscoresAction::Allow) => Underscores::Allow,
            Ok(HeadersWithUnderscoresAction::RejectRequest) => Underscores::Reject,
            Ok(HeadersWithUnderscoresAction::DropHeader) => Underscores::Drop,
            Err(_) => {
                let field = "common_http_protocol_options.headers_with_underscores_action";
                return Err(Invalid::new("this action is not known").within(field));
            }
        };
    }
    if let Some(http2) = &wire.http2_protocol_options {
        if http2.allow_connect {
            return Err(Invalid::not_obeyed("this field").within("http2_protocol_options.allow_connect"));
        }
        let default = Http2Limits::default();
        let window =
            |value: Option<u32>, default: u32| value.map_or(default, |window| window.clamp(65_535, i32::MAX as u32));
        let number = value::number;
        handler.http2 = Http2Limits {
            max_concurrent_streams: number(http2.max_concurrent_streams.as_ref())
                .unwrap_or(default.max_concurrent_streams)
                .max(1),
            initial_stream_window: window(
                number(http2.initial_stream_window_size.as_ref()),
                default.initial_stream_window,
            ),
            initial_connection_window: window(
                number(http2.initial_connection_window_size.as_ref()),
                default.initial_connection_window,
            ),
        };
    }
    Ok(())
}

/// What the chain of HTTP filters amounts to.
#[derive(Default)]
struct Filters {
    fault: bool,
    cors: bool,
    istio_alpn: bool,
    istio_stats: bool,
    peers: PeerExchange,
    suppress_envoy_headers: bool,
}

impl Filters {
    fn read(wire: &[HttpFilter]) -> Result<Self> {
        let mut filters = Self::default();
        let mut router = false;
        for (index, filter) in wire.iter().enumerate() {
            if router {
                return Err(Invalid::new("nothing can stand behind the router")).at_index("http_filters", index);
            }
            if !filter.disabled {
                router = filters.add(filter).at_index("http_filters", index)?;
            }
        }
        if !router {
            return Err(Invalid::new("the last filter has to be the router").within("http_filters"));
        }
        Ok(filters)
    }

    /// True for the router.
    fn add(&mut self, filter: &HttpFilter) -> Result<bool> {
        let config = match &filter.config_type {
            Some(http_filter::ConfigType::TypedConfig(any)) => Some(any),
            Some(http_filter::ConfigType::ConfigDiscovery(_)) => {
                return Err(Invalid::not_obeyed("a filter that is discovered").within("config_discovery"));
            }
            None => None,
        };
        match filters::known(&filter.name, config, Place::Http)? {
            Known::Router => {
                if let Some(any) = config {
                    let router: Router = value::unpack(any).at("typed_config")?;
                    not_obeyed!(router, strict_check_headers, upstream_http_filters);
                    self.suppress_envoy_headers = router.suppress_envoy_headers;
                }
                return Ok(true);
            }
            Known::Fault => {
                if let Some(any) = config
                    && value::unpack::<HttpFault>(any).at("typed_config")? != HttpFault::default()
                {
                    return Err(Invalid::not_obeyed("a fault for all routes at once").within("typed_config"));
                }
                self.fault = true;
            }
            Known::Cors => self.cors = true,
            Known::IstioAlpn => self.istio_alpn = true,
            Known::IstioStats => self.istio_stats = true,
            Known::PeerHeaders => {
                if let Some(any) = config {
                    self.peers = peer::headers(any)?;
                }
            }
            _ => {}
        }
        Ok(false)
    }
}
