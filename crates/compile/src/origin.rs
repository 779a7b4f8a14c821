//! Which object of configuration asked for a resource, from the metadata that the control plane puts on it.
//!
//! Istio names the object (`filter_metadata["istio"].config`); our own control plane the field too
//! (`filter_metadata["mizzen"]`).

use mizzen_proto::envoy::config::core::v3::Metadata;
use mizzen_proto::google::protobuf::{Struct, Value, value::Kind};
use mizzen_types::{ObjectKey, Origin};

pub(crate) fn origin(metadata: Option<&Metadata>) -> Option<Origin> {
    let metadata = metadata?;
    let path = text(metadata.filter_metadata.get("istio")?, "config")?;
    let object = object(path)?;
    let field = metadata.filter_metadata.get("mizzen").and_then(|of| text(of, "field")).unwrap_or_default();
    Some(Origin { object, field: field.to_owned() })
}

/// The field with the conditions of a route.
pub(crate) fn match_field(metadata: Option<&Metadata>) -> Option<String> {
    text(metadata?.filter_metadata.get("mizzen")?, "match").map(str::to_owned)
}

/// Reads `/apis/networking.istio.io/v1/namespaces/NS/virtual-service/NAME`.
fn object(path: &str) -> Option<ObjectKey> {
    let (_, rest) = path.split_once("/namespaces/")?;
    let mut parts = rest.split('/');
    let (namespace, kind, name) = (parts.next()?, parts.next()?, parts.next()?);
    let kind: String = kind
        .split('-')
        .flat_map(|word| {
            let mut letters = word.chars();
            letters.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(letters)
        })
        .collect();
    Some(ObjectKey::new(&kind, namespace, name))
}

pub(crate) fn text<'a>(of: &'a Struct, key: &str) -> Option<&'a str> {
    match of.fields.get(key)?.kind.as_ref()? {
        Kind::StringValue(text) => Some(text),
        _ => None,
    }
}

pub(crate) fn list<'a>(of: &'a Struct, key: &str) -> &'a [Value] {
    match of.fields.get(key).and_then(|value| value.kind.as_ref()) {
        Some(Kind::ListValue(list)) => &list.values,
        _ => &[],
    }
}

/// Keys with string values, in order.
pub(crate) fn pairs(of: &Struct) -> Vec<(String, String)> {
    let pair = |(key, value): (&String, &Value)| match &value.kind {
        Some(Kind::StringValue(text)) => Some((key.clone(), text.clone())),
        _ => None,
    };
    let mut pairs: Vec<_> = of.fields.iter().filter_map(pair).collect();
    pairs.sort();
    pairs
}

#[cfg(test)]
mod tests {
    use super::object;

    #[test]
    fn istio_names_the_object_by_its_path() {
        let key = object("/apis/networking.istio.io/v1/namespaces/default/virtual-service/bookinfo").unwrap();
        assert_eq!(key.to_string(), "VirtualService/default/bookinfo");
        assert!(object("/apis/x").is_none());
    }
}
