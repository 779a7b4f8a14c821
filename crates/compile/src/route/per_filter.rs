//! What a route or virtual host says to single filters: faults and CORS.

use std::collections::HashMap;
use std::sync::Arc;

use http::StatusCode;
use mizzen_proto::envoy::config::route::v3::{self as routes, cors_policy};
use mizzen_proto::envoy::extensions::filters::common::fault::v3::fault_delay::FaultDelaySecifier;
use mizzen_proto::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use mizzen_proto::envoy::extensions::filters::http::fault::v3::{HttpFault, fault_abort::ErrorType};
use mizzen_proto::google::protobuf::{Any, BoolValue};
use mizzen_snapshot::route::{Abort, Cors, Fault};
use mizzen_types::Percent;

use crate::invalid::{At, Invalid, Result, not_obeyed};
use crate::matcher;
use crate::value;

#[derive(Default)]
pub(super) struct PerFilter {
    pub(super) fault: Option<Arc<Fault>>,
    pub(super) cors: Option<Arc<Cors>>,
}

pub(super) fn compile(configs: &HashMap<String, Any>, older: Option<&routes::CorsPolicy>) -> Result<PerFilter> {
    let mut all = PerFilter::default();
    for (name, any) in configs {
        one(any, &mut all).at(&format!("typed_per_filter_config[{name}]"))?;
    }
    if all.cors.is_none() {
        all.cors = older_cors(older).at("cors")?;
    }
    Ok(all)
}

fn one(any: &Any, all: &mut PerFilter) -> Result<()> {
    if value::is::<HttpFault>(any) {
        all.fault = fault(&value::unpack(any)?)?.map(Arc::new);
        Ok(())
    } else if value::is::<CorsPolicy>(any) {
        all.cors = cors(value::unpack(any)?)?.map(Arc::new);
        Ok(())
    } else if value::is::<routes::FilterConfig>(any) {
        let wrapper: routes::FilterConfig = value::unpack(any)?;
        not_obeyed!(wrapper, disabled);
        match &wrapper.config {
            // Nothing is nested deeper than one wrapper.
            Some(inner) if !value::is::<routes::FilterConfig>(inner) => one(inner, all).at("config"),
            _ => Err(Invalid::not_obeyed("this wrapper").within("config")),
        }
    } else {
        let message = value::message_name(any);
        Err(Invalid::new(format!("{message} is not obeyed by this proxy yet, and it is not safe to serve without it")))
    }
}

/// `None` for a fault without an effect.
pub(super) fn fault(wire: &HttpFault) -> Result<Option<Fault>> {
    not_obeyed!(wire, upstream_cluster, headers, downstream_nodes, max_active_faults, response_rate_limit);
    let delay = match &wire.delay {
        None => None,
        Some(delay) => {
            let Some(FaultDelaySecifier::FixedDelay(fixed)) = &delay.fault_delay_secifier else {
                return Err(Invalid::not_obeyed("a delay that is not fixed").within("delay"));
            };
            let share = delay.percentage.as_ref().map(value::fraction).transpose().at("delay.percentage")?;
            Some((value::duration(fixed).at("delay.fixed_delay")?, share.unwrap_or(Percent::NEVER)))
        }
    };
    let abort = match &wire.abort {
        None => None,
        Some(abort) => {
            not_obeyed!(abort, response_body);
            let kind = match &abort.error_type {
                Some(ErrorType::HttpStatus(status)) => Abort::Http(http_status(*status).at("abort.http_status")?),
                Some(ErrorType::GrpcStatus(status)) => Abort::Grpc(i32::try_from(*status).unwrap_or(2)),
                Some(ErrorType::HeaderAbort(_)) => {
                    return Err(Invalid::not_obeyed("an abort by header").within("abort.header_abort"));
                }
                None => return Err(Invalid::new("http_status or grpc_status is missing").within("abort")),
            };
            let share = abort.percentage.as_ref().map(value::fraction).transpose().at("abort.percentage")?;
            Some((kind, share.unwrap_or(Percent::NEVER)))
        }
    };
    Ok((delay.is_some() || abort.is_some()).then_some(Fault { delay, abort }))
}

pub(super) fn http_status(status: u32) -> Result<StatusCode> {
    let code = u16::try_from(status).ok().filter(|code| (200..600).contains(code));
    code.and_then(|code| StatusCode::from_u16(code).ok())
        .ok_or_else(|| Invalid::new(format!("{status} is not an HTTP status from 200 to 599")))
}

fn cors(wire: CorsPolicy) -> Result<Option<Cors>> {
    if !enabled(value::runtime_fraction(wire.filter_enabled.as_ref()).at("filter_enabled")?, "filter_enabled")? {
        return Ok(None);
    }
    let origins = wire.allow_origin_string_match.iter().enumerate();
    let origins = origins.map(|(index, wire)| matcher::string(wire).at_index("allow_origin_string_match", index));
    let origins = origins.collect::<Result<_>>()?;
    let flag = |value: &Option<BoolValue>, default| value::flag(value.as_ref(), default);
    if flag(&wire.allow_private_network_access, false) {
        return Err(Invalid::not_obeyed("this field").within("allow_private_network_access"));
    }
    let text = |text: String| Some(text).filter(|text| !text.is_empty());
    Ok(Some(Cors {
        origins,
        credentials: flag(&wire.allow_credentials, false),
        forward_unmatched_preflights: flag(&wire.forward_not_matching_preflights, true),
        methods: text(wire.allow_methods),
        headers: text(wire.allow_headers),
        expose_headers: text(wire.expose_headers),
        max_age: text(wire.max_age),
    }))
}

/// The same policy in the place where it used to be.
pub(super) fn older_cors(wire: Option<&routes::CorsPolicy>) -> Result<Option<Arc<Cors>>> {
    let Some(wire) = wire.cloned() else { return Ok(None) };
    let filter_enabled = wire.enabled_specifier.map(|cors_policy::EnabledSpecifier::FilterEnabled(share)| share);
    let policy = CorsPolicy {
        allow_origin_string_match: wire.allow_origin_string_match,
        allow_methods: wire.allow_methods,
        allow_headers: wire.allow_headers,
        expose_headers: wire.expose_headers,
        max_age: wire.max_age,
        allow_credentials: wire.allow_credentials,
        filter_enabled,
        shadow_enabled: wire.shadow_enabled,
        allow_private_network_access: wire.allow_private_network_access,
        forward_not_matching_preflights: wire.forward_not_matching_preflights,
    };
    Ok(cors(policy)?.map(Arc::new))
}

fn enabled(share: Option<Percent>, field: &str) -> Result<bool> {
    match share {
        None | Some(Percent::ALWAYS) => Ok(true),
        Some(Percent::NEVER) => Ok(false),
        Some(_) => Err(Invalid::not_obeyed("CORS for a share of requests").within(field)),
    }
}
