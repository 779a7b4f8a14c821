//! Access logs. Sinks that only serve other systems' telemetry are accepted, named and write nothing.

use std::sync::Arc;

use mizzen_proto::envoy::config::accesslog::v3::{
    AccessLog as Wire, AccessLogFilter, access_log, access_log_filter, comparison_filter,
};
use mizzen_proto::envoy::config::core::v3::{SubstitutionFormatString, data_source, substitution_format_string};
use mizzen_proto::envoy::extensions::access_loggers::file::v3::{FileAccessLog, file_access_log};
use mizzen_proto::envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use mizzen_proto::google::protobuf::{Any, Struct, value::Kind};
use mizzen_snapshot::listener::{AccessLog, LogFilter, LogFormat, LogSink, Unmatched};
use mizzen_snapshot::log_format::LogTemplate;
use mizzen_types::Percent;

use crate::invalid::{At, Invalid, Result};
use crate::value;

pub(crate) fn logs(wire: &[Wire]) -> Result<Vec<AccessLog>> {
    let logs = wire.iter().enumerate().map(|(index, wire)| log(wire).at_index("access_log", index));
    Ok(logs.collect::<Result<Vec<_>>>()?.into_iter().flatten().collect())
}

/// The logs that write nothing here, by path and sink.
pub(crate) fn passed_over(wire: &[Wire], notes: &mut Vec<String>) {
    for (index, log) in wire.iter().enumerate() {
        if let Some(access_log::ConfigType::TypedConfig(any)) = &log.config_type
            && !is_known(any)
        {
            notes.push(format!(
                "access_log[{index}] writes nothing: {} is no sink of this proxy",
                value::message_name(any)
            ));
        }
    }
}

fn is_known(any: &Any) -> bool {
    value::is::<FileAccessLog>(any) || value::is::<StdoutAccessLog>(any) || value::is::<StderrAccessLog>(any)
}

/// A listener's own logs. They tell of connections that no filter chain matches; of the others their chain's do.
pub(crate) fn unmatched(wire: &[Wire], notes: &mut Vec<String>) -> Result<Option<Arc<Unmatched>>> {
    passed_over(wire, notes);
    let access_log = logs(wire)?;
    let of_others = |log: &AccessLog| {
        !log.filters.iter().any(|filter| matches!(filter, LogFilter::ResponseFlags(flags) if *flags == ["NR"]))
    };
    if access_log.iter().any(of_others) {
        notes.push("access_log of the listener tells only of connections that no filter chain matches".to_owned());
    }
    Ok((!access_log.is_empty()).then(|| Arc::new(Unmatched { access_log })))
}

fn log(wire: &Wire) -> Result<Option<AccessLog>> {
    let Some(access_log::ConfigType::TypedConfig(any)) = &wire.config_type else {
        return Err(Invalid::new("a sink is missing").within("typed_config"));
    };
    let sink = if value::is::<FileAccessLog>(any) {
        let file: FileAccessLog = value::unpack(any).at("typed_config")?;
        file_log(file).at("typed_config")?
    } else if value::is::<StdoutAccessLog>(any) {
        let stream: StdoutAccessLog = value::unpack(any).at("typed_config")?;
        let format = match &stream.access_log_format {
            None => LogFormat::Text(None),
            Some(stdout_access_log::AccessLogFormat::LogFormat(format)) => {
                substitution(format).at("typed_config.log_format")?
            }
        };
        (LogSink::Stdout, format)
    } else if value::is::<StderrAccessLog>(any) {
        let stream: StderrAccessLog = value::unpack(any).at("typed_config")?;
        let format = match &stream.access_log_format {
            None => LogFormat::Text(None),
            Some(stderr_access_log::AccessLogFormat::LogFormat(format)) => {
                substitution(format).at("typed_config.log_format")?
            }
        };
        (LogSink::Stderr, format)
    } else {
        // Nothing that decides on traffic depends on it.
        return Ok(None);
    };
    LogTemplate::compile(&sink.1).map_err(|error| Invalid::new(error.to_string()).within("typed_config"))?;
    let mut filters = Vec::new();
    if let Some(wire) = &wire.filter {
        filter(wire, &mut filters, 0).at("filter")?;
    }
    Ok(Some(AccessLog { sink: sink.0, format: sink.1, filters }))
}

fn file_log(file: FileAccessLog) -> Result<(LogSink, LogFormat)> {
    use file_access_log::AccessLogFormat as Format;
    let sink = match file.path.as_str() {
        "" => return Err(Invalid::new("a path is missing").within("path")),
        "/dev/stdout" => LogSink::Stdout,
        "/dev/stderr" => LogSink::Stderr,
        path => LogSink::File(path.into()),
    };
    let format = match file.access_log_format {
        None => LogFormat::Text(None),
        Some(Format::Format(text)) => LogFormat::Text(Some(text).filter(|text| !text.is_empty())),
        Some(Format::JsonFormat(object)) => json(&object).at("json_format")?,
        Some(Format::TypedJsonFormat(object)) => json(&object).at("typed_json_format")?,
        Some(Format::LogFormat(format)) => substitution(&format).at("log_format")?,
    };
    Ok((sink, format))
}

fn substitution(wire: &SubstitutionFormatString) -> Result<LogFormat> {
    use substitution_format_string::Format;
    Ok(match &wire.format {
        None => LogFormat::Text(None),
        Some(Format::TextFormat(text)) => LogFormat::Text(Some(text.clone()).filter(|text| !text.is_empty())),
        Some(Format::JsonFormat(object)) => json(object).at("json_format")?,
        Some(Format::TextFormatSource(source)) => match &source.specifier {
            Some(data_source::Specifier::InlineString(text)) => LogFormat::Text(Some(text.clone())),
            _ => return Err(Invalid::not_obeyed("a format that is not an inline string").within("text_format_source")),
        },
    })
}

/// Keys with format strings; nested objects are not written by us.
fn json(object: &Struct) -> Result<LogFormat> {
    let mut pairs = Vec::with_capacity(object.fields.len());
    for (key, value) in &object.fields {
        match &value.kind {
            Some(Kind::StringValue(text)) => pairs.push((key.clone(), text.clone())),
            _ => return Err(Invalid::not_obeyed("a value that is not a string").within(key)),
        }
    }
    pairs.sort();
    Ok(LogFormat::Json(pairs))
}

/// All of the filters have to agree.
fn filter(wire: &AccessLogFilter, out: &mut Vec<LogFilter>, depth: usize) -> Result<()> {
    use access_log_filter::FilterSpecifier as Filter;
    if depth > 16 {
        return Err(Invalid::new("filters are nested more than 16 deep"));
    }
    match &wire.filter_specifier {
        None => Err(Invalid::new("a condition is missing")),
        Some(Filter::StatusCodeFilter(status)) => {
            let comparison = status.comparison.as_ref().ok_or_else(|| Invalid::new("a comparison is missing"))?;
            let least = comparison.value.as_ref().map_or(0, |value| value.default_value);
            if comparison.op != comparison_filter::Op::Ge as i32 {
                return Err(
                    Invalid::not_obeyed("a comparison other than GE").within("status_code_filter.comparison.op")
                );
            }
            out.push(LogFilter::StatusAtLeast(u16::try_from(least).unwrap_or(u16::MAX)));
            Ok(())
        }
        Some(Filter::ResponseFlagFilter(flags)) => {
            out.push(LogFilter::ResponseFlags(flags.flags.clone()));
            Ok(())
        }
        Some(Filter::RuntimeFilter(runtime)) => {
            let share = runtime
                .percent_sampled
                .as_ref()
                .map(value::fraction)
                .transpose()
                .at("runtime_filter.percent_sampled")?;
            out.push(LogFilter::Share(share.unwrap_or(Percent::NEVER)));
            Ok(())
        }
        Some(Filter::AndFilter(all)) => {
            let mut each = all.filters.iter().enumerate();
            each.try_for_each(|(index, wire)| filter(wire, out, depth + 1).at_index("and_filter.filters", index))
        }
        Some(_) => Err(Invalid::not_obeyed("this condition of an access log")),
    }
}
