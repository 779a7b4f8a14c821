//! The template `gateway`: a proxy that nothing is redirected to, usually in a pod of its own whose container is
//! `istio-proxy` with `image: auto`.

use serde_json::{Map, Value, json};

use crate::Job;
use crate::container::{self, Role};
use crate::names::*;
use crate::pod;

pub(crate) fn overlay(job: &Job<'_>) -> Value {
    let revision = job.settings.revision.as_str();
    let mut labels = Map::new();
    container::canonical_labels(job, &mut labels);
    labels.insert(REVISION.to_owned(), job.labels.get(REVISION).unwrap_or(revision).into());
    let mut annotations = Map::new();
    annotations.insert(REVISION.to_owned(), revision.into());
    container::default_container(job, &mut annotations);
    let mut spec = Map::new();
    let proxy = Value::Object(container::proxy(job, Role::Router));
    spec.insert(pod::CONTAINERS.to_owned(), json!([proxy]));
    container::rest_of_spec(job, &mut spec);
    json!({"metadata": {"labels": labels, "annotations": annotations}, "spec": spec})
}
