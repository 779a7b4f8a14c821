//! Secrets: what certificates a proxy has. Keys are never shown.

use serde_json::Value;

use super::Rows;

pub(super) fn rows(certs: &Value) -> Rows {
    let mut rows = Rows::new(&["TYPE", "IDENTITY", "VALID CERT", "SERIAL NUMBER", "NOT AFTER", "NOT BEFORE"]);
    for entry in certs["certificates"].as_array().into_iter().flatten() {
        for (list, kind) in [("cert_chain", "Cert Chain"), ("ca_cert", "CA")] {
            for certificate in entry[list].as_array().into_iter().flatten() {
                let text = |field: &str| certificate[field].as_str().unwrap_or_default().to_owned();
                let row = [
                    kind.to_owned(),
                    identity(certificate),
                    valid(certificate).to_string(),
                    text("serial_number"),
                    text("expiration_time"),
                    text("valid_from"),
                ];
                // The same roots are shown once for each TLS context that uses them.
                if !rows.rows.iter().any(|before| before.as_slice() == row.as_slice()) {
                    rows.add(row);
                }
            }
        }
    }
    rows
}

fn identity(certificate: &Value) -> String {
    let names = certificate["subject_alt_names"].as_array().into_iter().flatten();
    let names: Vec<&str> = names.filter_map(|name| name["uri"].as_str().or_else(|| name["dns"].as_str())).collect();
    if names.is_empty() { "-".to_owned() } else { names.join(",") }
}

/// Days are counted by the proxy, in whole numbers: 0 is the last day.
fn valid(certificate: &Value) -> bool {
    let days = &certificate["days_until_expiration"];
    let days = days.as_i64().or_else(|| days.as_str().and_then(|text| text.parse().ok()));
    days.is_none_or(|days| days >= 0)
}
