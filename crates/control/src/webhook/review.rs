//! AdmissionReview: the API server's question and the answer to it, in versions v1 and v1beta1.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use json_patch::Patch;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// What the answer repeats.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Head {
    api_version: String,
    uid: String,
}

/// The question, with its object read as a `T`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Review<T> {
    #[serde(default)]
    uid: String,
    #[serde(default)]
    pub(crate) kind: GroupVersionKind,
    #[serde(default)]
    pub(crate) namespace: String,
    #[serde(default)]
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) operation: String,
    #[serde(default = "none")]
    pub(crate) object: Option<T>,
}

fn none<T>() -> Option<T> {
    None
}

#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub(crate) struct GroupVersionKind {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) kind: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope<T> {
    #[serde(default)]
    api_version: String,
    #[serde(default)]
    kind: String,
    #[serde(default = "none")]
    request: Option<Review<T>>,
}

/// What is answered.
#[derive(Debug)]
pub(crate) enum Verdict {
    Allowed { patch: Option<Patch>, warnings: Vec<String> },
    Denied { message: String, warnings: Vec<String> },
}

impl Verdict {
    /// Neither changed nor worth a word.
    pub(crate) const ALLOWED: Self = Self::Allowed { patch: None, warnings: Vec::new() };
}

const VERSIONS: [&str; 2] = ["admission.k8s.io/v1", "admission.k8s.io/v1beta1"];

impl<T: DeserializeOwned> Review<T> {
    /// Reads a body. The reader limits the depth; the size is limited before.
    pub(crate) fn read(body: &[u8]) -> Result<(Head, Self), String> {
        let envelope: Envelope<T> =
            serde_json::from_slice(body).map_err(|error| format!("the body is no AdmissionReview: {error}"))?;
        if envelope.kind != "AdmissionReview" || !VERSIONS.contains(&envelope.api_version.as_str()) {
            return Err(format!("the body has to be an AdmissionReview of {} or {}", VERSIONS[0], VERSIONS[1]));
        }
        let Some(review) = envelope.request else {
            return Err("the AdmissionReview has no `request`".to_owned());
        };
        if review.uid.is_empty() {
            return Err("the AdmissionReview has no `request.uid`".to_owned());
        }
        let head = Head { api_version: envelope.api_version, uid: review.uid.clone() };
        Ok((head, review))
    }
}

/// Kubernetes cuts warnings, and drops them when there are too many; so it is done here, at the end of a word.
const LONGEST_WARNING: usize = 250;
const MOST_WARNINGS: usize = 12;

fn fit(mut warnings: Vec<String>) -> Vec<String> {
    let rest = warnings.len().saturating_sub(MOST_WARNINGS);
    warnings.truncate(MOST_WARNINGS);
    for warning in &mut warnings {
        if let Some((cut, _)) = warning.char_indices().nth(LONGEST_WARNING) {
            warning.truncate(cut);
            warning.push('…');
        }
    }
    if rest > 0 {
        warnings.push(format!("and {rest} more"));
    }
    warnings
}

impl Head {
    /// The body of the answer.
    pub(crate) fn respond(self, verdict: Verdict) -> String {
        let mut response = json!({"uid": self.uid});
        let warnings = match verdict {
            Verdict::Allowed { patch, warnings } => {
                response["allowed"] = true.into();
                if let Some(patch) = patch.filter(|patch| !patch.0.is_empty()) {
                    // A patch of JSON values can always be written.
                    let patch = serde_json::to_vec(&patch).unwrap_or_default();
                    response["patchType"] = "JSONPatch".into();
                    response["patch"] = STANDARD.encode(patch).into();
                }
                warnings
            }
            Verdict::Denied { message, warnings } => {
                response["allowed"] = false.into();
                // What a handler of requests says of an object that is understood and wrong.
                response["status"] = json!({"status": "Failure", "message": message, "reason": "Invalid", "code": 422});
                warnings
            }
        };
        if !warnings.is_empty() {
            response["warnings"] = fit(warnings).into();
        }
        let review: Value = json!({"apiVersion": self.api_version, "kind": "AdmissionReview", "response": response});
        review.to_string()
    }
}
