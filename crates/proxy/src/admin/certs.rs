//! `/certs`: certificates and roots in use, without keys.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use mizzen_identity::Secrets;
use mizzen_identity::certificate::Peer;
use serde_json::{Value, json};

pub(super) fn json(secrets: &Secrets) -> Value {
    let chains = secrets.certificates();
    let roots = secrets.all_roots();
    let mut all: Vec<Value> = chains
        .iter()
        .map(|(name, certificate)| {
            let entry = entry(name.as_str(), &Peer::of(certificate.leaf()).unwrap_or_default());
            json!({"cert_chain": [with_validity(entry, certificate.not_before, certificate.not_after)]})
        })
        .collect();
    all.extend(roots.iter().map(|(name, roots)| {
        let entries = roots.certificates().iter();
        let entries: Vec<Value> =
            entries.map(|root| entry(name.as_str(), &Peer::of(root).unwrap_or_default())).collect();
        json!({ "ca_cert": entries })
    }));
    json!({ "certificates": all })
}

fn entry(name: &str, peer: &Peer) -> Value {
    let uris = peer.uris.iter().map(|uri| json!({"uri": uri}));
    let names = peer.dns_names.iter().map(|name| json!({"dns": name}));
    json!({
        // Envoy shows the file; secrets come by name.
        "path": name,
        "subject": peer.subject,
        "subject_alt_names": uris.chain(names).collect::<Vec<_>>(),
    })
}

fn with_validity(mut entry: Value, from: SystemTime, until: SystemTime) -> Value {
    if let Some(object) = entry.as_object_mut() {
        let left = until.duration_since(SystemTime::now()).unwrap_or_default();
        object.insert("days_until_expiration".to_owned(), (left.as_secs() / 86_400).to_string().into());
        object.insert("valid_from".to_owned(), timestamp(from).into());
        object.insert("expiration_time".to_owned(), timestamp(until).into());
    }
    entry
}

/// A time as protobuf's JSON has it: `2026-01-31T23:59:59Z`.
pub(super) fn timestamp(time: SystemTime) -> String {
    mizzen_telemetry::log::timestamp(UNIX_EPOCH + Duration::from_secs(seconds(time)))
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}
