//! Header edits.

use mizzen_proto::envoy::config::core::v3::{HeaderValueOption, header_value_option::HeaderAppendAction};
use mizzen_snapshot::header::{AppendAction, HeaderEdit, HeaderEdits, HeaderTemplate};

use crate::invalid::{At, Invalid, Result};
use crate::limits;
use crate::matcher::header_name;

pub(crate) fn edits(add: &[HeaderValueOption], remove: &[String], fields: (&str, &str)) -> Result<HeaderEdits> {
    limits::count("header edits", add.len().max(remove.len()), limits::EDITS).at(fields.0)?;
    let set = add.iter().enumerate().map(|(index, option)| edit(option).at_index(fields.0, index));
    let remove = remove.iter().enumerate().map(|(index, name)| editable(name).at_index(fields.1, index));
    Ok(HeaderEdits { set: set.collect::<Result<_>>()?, remove: remove.collect::<Result<_>>()? })
}

fn edit(option: &HeaderValueOption) -> Result<HeaderEdit> {
    let header = option.header.as_ref().ok_or_else(|| Invalid::new("a header is missing").within("header"))?;
    let value = match (header.value.as_str(), header.raw_value.as_slice()) {
        (value, b"") => value,
        ("", raw) => {
            std::str::from_utf8(raw).map_err(|_| Invalid::not_obeyed("a value that is no text").within("header"))?
        }
        _ => return Err(Invalid::new("value and raw_value cannot both be given").within("header")),
    };
    let value = HeaderTemplate::parse(value).map_err(|error| Invalid::new(error.to_string()).within("header.value"))?;
    let action = match (option.append.as_ref(), HeaderAppendAction::try_from(option.append_action)) {
        // The older switch, where it is given.
        (Some(append), Ok(HeaderAppendAction::AppendIfExistsOrAdd)) if append.value => AppendAction::Append,
        (Some(_), Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => AppendAction::OverwriteOrAdd,
        (_, Ok(HeaderAppendAction::AppendIfExistsOrAdd)) => AppendAction::Append,
        (_, Ok(HeaderAppendAction::AddIfAbsent)) => AppendAction::AddIfAbsent,
        (_, Ok(HeaderAppendAction::OverwriteIfExistsOrAdd)) => AppendAction::OverwriteOrAdd,
        (_, Ok(HeaderAppendAction::OverwriteIfExists)) => AppendAction::OverwriteIfExists,
        (_, Err(_)) => return Err(Invalid::new("this action is not known").within("append_action")),
    };
    Ok(HeaderEdit { name: editable(&header.key).at("header.key")?, value, action, keep_empty: option.keep_empty_value })
}

/// Pseudo headers and the host steer the request itself and cannot be edited; there are rewrites for them.
fn editable(name: &str) -> Result<http::HeaderName> {
    if name.starts_with(':') || name.eq_ignore_ascii_case("host") {
        return Err(Invalid::new(format!("{name:?} cannot be edited; use a rewrite")));
    }
    header_name(name)
}
