//! An object of any kind, as the API server sends it and as this source reads it.

use std::borrow::Cow;

use kube::Resource;
use kube::api::ObjectMeta;
use kube::core::DynamicResourceScope;
use kube::core::discovery::ApiResource;
use mizzen_config::Document;
use serde::{Deserialize, Deserializer};

use super::kinds::FIELDS;

/// Reading one never fails for what it says, so that one bad object does not spoil the list that it came in.
#[derive(Debug, Clone)]
pub(crate) struct Watched {
    pub(crate) metadata: ObjectMeta,
    pub(crate) document: Document,
}

impl<'de> Deserialize<'de> for Watched {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let document = Document::deserialize(deserializer, FIELDS)?;
        let text = |field: &str| document.metadata(field).map(str::to_owned);
        let metadata = ObjectMeta {
            name: text("name"),
            namespace: text("namespace"),
            resource_version: text("resourceVersion"),
            generation: document.metadata_number("generation"),
            ..ObjectMeta::default()
        };
        Ok(Self { metadata, document })
    }
}

impl Resource for Watched {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(resource: &ApiResource) -> Cow<'_, str> {
        resource.kind.as_str().into()
    }

    fn group(resource: &ApiResource) -> Cow<'_, str> {
        resource.group.as_str().into()
    }

    fn version(resource: &ApiResource) -> Cow<'_, str> {
        resource.version.as_str().into()
    }

    fn plural(resource: &ApiResource) -> Cow<'_, str> {
        resource.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}
