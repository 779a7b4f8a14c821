//! The access log that the mesh configuration asks for (reference: features 7.2).

use mizzen_api::mesh::{AccessLogEncoding, MeshConfig};
use mizzen_mesh::Mesh;
use mizzen_proto::envoy::config::accesslog::v3::{
    AccessLog, AccessLogFilter, ResponseFlagFilter, access_log, access_log_filter,
};
use mizzen_proto::envoy::config::core::v3::{
    DataSource, SubstitutionFormatString, data_source::Specifier, substitution_format_string,
};
use mizzen_proto::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use mizzen_proto::google::protobuf::Any;
use prost::{Message, Name};
use serde_json::{Map, Value};

use crate::{canonical, pb};

/// Istio's default line.
pub(crate) const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
     %RESPONSE_CODE% %RESPONSE_FLAGS% %RESPONSE_CODE_DETAILS% %CONNECTION_TERMINATION_DETAILS% \
     \"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
     %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \"%REQ(X-REQUEST-ID)%\" \
     \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\" %UPSTREAM_CLUSTER_RAW% %UPSTREAM_LOCAL_ADDRESS% \
     %DOWNSTREAM_LOCAL_ADDRESS% %DOWNSTREAM_REMOTE_ADDRESS% %REQUESTED_SERVER_NAME% %ROUTE_NAME%\n";

const DEFAULT_FIELDS: [(&str, &str); 24] = [
    ("start_time", "%START_TIME%"),
    ("route_name", "%ROUTE_NAME%"),
    ("method", "%REQ(:METHOD)%"),
    ("path", "%REQ(X-ENVOY-ORIGINAL-PATH?:PATH)%"),
    ("protocol", "%PROTOCOL%"),
    ("response_code", "%RESPONSE_CODE%"),
    ("response_flags", "%RESPONSE_FLAGS%"),
    ("response_code_details", "%RESPONSE_CODE_DETAILS%"),
    ("connection_termination_details", "%CONNECTION_TERMINATION_DETAILS%"),
    ("bytes_received", "%BYTES_RECEIVED%"),
    ("bytes_sent", "%BYTES_SENT%"),
    ("duration", "%DURATION%"),
    ("upstream_service_time", "%RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)%"),
    ("x_forwarded_for", "%REQ(X-FORWARDED-FOR)%"),
    ("user_agent", "%REQ(USER-AGENT)%"),
    ("request_id", "%REQ(X-REQUEST-ID)%"),
    ("authority", "%REQ(:AUTHORITY)%"),
    ("upstream_host", "%UPSTREAM_HOST%"),
    ("upstream_cluster", "%UPSTREAM_CLUSTER_RAW%"),
    ("upstream_local_address", "%UPSTREAM_LOCAL_ADDRESS%"),
    ("downstream_local_address", "%DOWNSTREAM_LOCAL_ADDRESS%"),
    ("downstream_remote_address", "%DOWNSTREAM_REMOTE_ADDRESS%"),
    ("requested_server_name", "%REQUESTED_SERVER_NAME%"),
    ("upstream_transport_failure_reason", "%UPSTREAM_TRANSPORT_FAILURE_REASON%"),
];

/// The log of requests and connections; none when the mesh has no log.
pub(super) fn log(mesh: &Mesh) -> Vec<AccessLog> {
    let config = mesh.config();
    if config.access_log_file.is_empty() {
        return Vec::new();
    }
    vec![AccessLog {
        name: "envoy.access_loggers.file".to_owned(),
        config_type: Some(access_log::ConfigType::TypedConfig(file(config))),
        ..Default::default()
    }]
}

/// Of a listener: only connections for which there was no filter chain, for all others are logged further in.
pub(super) fn unmatched(mesh: &Mesh) -> Vec<AccessLog> {
    let filter = AccessLogFilter {
        filter_specifier: Some(access_log_filter::FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter {
            flags: vec!["NR".to_owned()],
        })),
    };
    log(mesh).into_iter().map(|log| AccessLog { filter: Some(filter.clone()), ..log }).collect()
}

fn file(config: &MeshConfig) -> Any {
    let format = match config.access_log_encoding {
        AccessLogEncoding::Text => {
            let text = match config.access_log_format.as_str() {
                "" => DEFAULT_FORMAT.to_owned(),
                own if own.ends_with('\n') => own.to_owned(),
                own => format!("{own}\n"),
            };
            substitution_format_string::Format::TextFormatSource(DataSource {
                specifier: Some(Specifier::InlineString(text)),
                ..Default::default()
            })
        }
        AccessLogEncoding::Json => {
            let own = serde_json::from_str::<Value>(&config.access_log_format).ok().filter(Value::is_object);
            let default = || DEFAULT_FIELDS.iter().map(|(name, value)| ((*name).to_owned(), (*value).into()));
            let fields = own.unwrap_or_else(|| Value::Object(default().collect::<Map<_, _>>()));
            substitution_format_string::Format::JsonFormat(pb::structure(&fields))
        }
    };
    let log = FileAccessLog {
        path: config.access_log_file.clone(),
        access_log_format: Some(file_access_log::AccessLogFormat::LogFormat(SubstitutionFormatString {
            format: Some(format),
            ..Default::default()
        })),
    };
    let mut value = log.encode_to_vec();
    canonical::sort(&mut value, canonical::FILE_ACCESS_LOG);
    Any { type_url: FileAccessLog::type_url(), value }
}
