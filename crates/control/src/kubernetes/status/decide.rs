//! What the status of an object ought to be. Pure.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;

use k8s_openapi::jiff::Timestamp;
use mizzen_config::code;
use mizzen_types::{Finding, Severity};
use serde_json::{Value, json};

use crate::progress::Count;

/// What is known about one generation of an object.
#[derive(Debug)]
pub(super) struct Known<'a> {
    pub(super) generation: i64,
    pub(super) findings: &'a [Finding],
    pub(super) in_force: InForce,
    /// Addresses that the hosts of a ServiceEntry are given; `None` when that is not for us to say.
    pub(super) addresses: Option<Vec<(String, IpAddr)>>,
}

/// Which generation proxies are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InForce {
    Newest(Count),
    /// The newest is wrong, and this one, the last good one, stays.
    Older(i64, Count),
    Nothing,
}

/// Findings about two objects that claim the same.
const CONFLICTS: [&str; 4] = ["MZ0103", "MZ0106", "MZ0109", "MZ0116"];
/// Findings about names that lead nowhere.
const REFERENCES: [&str; 8] = ["MZ0101", "MZ0102", "MZ0104", "MZ0105", "MZ0107", "MZ0108", "MZ0113", "MZ0114"];
/// Findings told in one message.
const TOLD: usize = 5;

impl Known<'_> {
    /// Whether the object is wrong in itself, so that this generation is not in force.
    pub(super) fn rejected(&self) -> bool {
        self.findings.iter().any(rejects)
    }

    /// The status to write in the place of `before`; `None` when that says it all.
    pub(super) fn status(&self, before: &Value, now: Timestamp) -> Option<Value> {
        let old = conditions(before);
        let is = |condition: &Value, wanted: &Value| condition["type"] == wanted["type"];
        let mut conditions = Vec::new();
        let wanted = self.conditions(old);
        for mut condition in wanted {
            let before = old.iter().find(|before| is(before, &condition));
            let kept = before.filter(|before| before["status"] == condition["status"]);
            let since = kept.map(|before| before["lastTransitionTime"].clone()).filter(Value::is_string);
            // Kubernetes writes times in whole seconds.
            let now = || json!(now.strftime("%Y-%m-%dT%H:%M:%SZ").to_string());
            condition["lastTransitionTime"] = since.unwrap_or_else(now);
            conditions.push(condition);
        }
        // What others have to say stays.
        let others: Vec<_> = old.iter().filter(|it| !conditions.iter().any(|ours| is(it, ours))).cloned().collect();
        conditions.extend(others);
        let mut status = json!({
            "observedGeneration": self.generation,
            "conditions": conditions,
            "validationMessages": self.findings.iter().map(validation_message).collect::<Vec<_>>(),
        });
        if let Some(addresses) = &self.addresses {
            let address = |(host, value): &(String, IpAddr)| json!({"value": value.to_string(), "host": host});
            status["addresses"] = addresses.iter().map(address).collect();
        }
        (!same(before, &status)).then_some(status)
    }

    fn conditions(&self, old: &[Value]) -> Vec<Value> {
        let condition = |kind: &str, status: bool, reason: &str, message: String| {
            json!({
                "type": kind,
                "status": if status { "True" } else { "False" },
                "reason": reason,
                "message": message,
                "observedGeneration": self.generation,
            })
        };
        let of = |wanted: fn(&Finding) -> bool| self.findings.iter().filter(|it| wanted(it)).collect::<Vec<_>>();
        let mut conditions = Vec::new();

        let wrong = of(rejects);
        let rest = of(|it| !rejects(it) && !is_conflict(it) && !is_reference(it) && it.code != code::LAST_GOOD);
        conditions.push(match (wrong.first(), rest.is_empty()) {
            (Some(_), _) => condition("Accepted", false, "Invalid", texts(&wrong)),
            (None, true) => condition("Accepted", true, "Accepted", "the object is valid".to_owned()),
            (None, false) => {
                condition("Accepted", true, "Accepted", format!("the object is valid, but: {}", texts(&rest)))
            }
        });

        let unresolved = of(is_reference);
        conditions.push(match unresolved.first() {
            Some(first) => condition("ResolvedRefs", false, &reason(first), texts(&unresolved)),
            None => condition("ResolvedRefs", true, "ResolvedRefs", "everything that it names exists".to_owned()),
        });

        // Said only of those that have, or had, a conflict.
        let conflicts = of(is_conflict);
        match conflicts.first() {
            Some(first) => conditions.push(condition("Conflicted", true, &reason(first), texts(&conflicts))),
            None if old.iter().any(|it| it["type"] == "Conflicted") => {
                conditions.push(condition(
                    "Conflicted",
                    false,
                    "NoConflicts",
                    "no other object claims the same".to_owned(),
                ));
            }
            None => {}
        }

        let reconciled = |status, reason, message| condition("Reconciled", status, reason, message);
        let without_effect = of(is_not_obeyed);
        let current = match (wrong.is_empty(), self.in_force) {
            // All proxies know what there is to know, and it changes nothing: whoever waits for a policy must not take that for a yes.
            (true, _) if !without_effect.is_empty() => reconciled(false, "NotObeyed", texts(&without_effect)),
            (true, InForce::Newest(count)) if count.of == 0 => reconciled(true, "NoProxies", NO_PROXIES.to_owned()),
            (true, InForce::Newest(count)) if count.on == count.of => reconciled(true, "InForce", told(count)),
            (true, InForce::Newest(count)) if count.refused > 0 => reconciled(false, "Refused", told(count)),
            (true, InForce::Newest(count)) => reconciled(false, "Pending", told(count)),
            (_, InForce::Older(generation, count)) => {
                let message = format!("not in force; generation {generation} stays {}", told(count));
                reconciled(false, "NotAccepted", message)
            }
            (_, _) => reconciled(false, "NotAccepted", "not in force".to_owned()),
        };
        conditions.push(self.unless_said(current, old));
        conditions
    }

    /// Once a generation was in force everywhere, a proxy that comes does not take it back: it is told before it serves. When
    /// it has been, everything is counted again. A proxy that refuses does take it back.
    fn unless_said(&self, current: Value, old: &[Value]) -> Value {
        match old.iter().find(|it| self.is_in_force(it)) {
            Some(said) if current["reason"] == "Pending" => said.clone(),
            _ => current,
        }
    }

    /// Whether a status says that this generation is in force everywhere.
    pub(super) fn was_in_force(&self, status: &Value) -> bool {
        conditions(status).iter().any(|it| self.is_in_force(it))
    }

    fn is_in_force(&self, condition: &Value) -> bool {
        condition["type"] == "Reconciled"
            && condition["status"] == "True"
            && condition["reason"] == "InForce"
            && condition["observedGeneration"] == self.generation
    }
}

/// Whether a status as text tells these numbers already.
pub(super) fn says(status: &str, in_force: InForce) -> bool {
    let status: Value = serde_json::from_str(status).unwrap_or_default();
    let text = match in_force {
        InForce::Nothing => return false,
        InForce::Newest(count) if count.of == 0 => NO_PROXIES.to_owned(),
        InForce::Newest(count) | InForce::Older(_, count) => told(count),
    };
    let told = conditions(&status).iter().filter(|it| it["type"] == "Reconciled");
    told.filter_map(|it| it["message"].as_str()).any(|message| message.ends_with(&text))
}

fn conditions(status: &Value) -> &[Value] {
    status["conditions"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Whether a status says what is wanted already, whenever it was written.
fn same(before: &Value, wanted: &Value) -> bool {
    let addresses = wanted.get("addresses");
    said(before) == said(wanted) && addresses.is_none_or(|addresses| before.get("addresses") == Some(addresses))
}

/// Equal for statuses that say the same.
pub(super) fn digest(status: &Value) -> u64 {
    let mut hasher = DefaultHasher::new();
    let (generation, conditions, messages) = said(status);
    format!("{generation}{conditions:?}{messages}{}", status["addresses"]).hash(&mut hasher);
    hasher.finish()
}

/// Generation, conditions without their times in the order of their types, messages.
fn said(status: &Value) -> (Value, Vec<BTreeMap<&str, &Value>>, Value) {
    let list = |key: &str| status[key].as_array().map(Vec::as_slice).unwrap_or_default();
    fn condition(it: &Value) -> BTreeMap<&str, &Value> {
        let fields = it.as_object().into_iter().flatten();
        let lasting = fields.filter(|(key, value)| !key.ends_with("Time") && !value.is_null());
        lasting.map(|(key, value)| (key.as_str(), value)).collect()
    }
    let mut conditions: Vec<_> = list("conditions").iter().map(condition).collect();
    conditions.sort_by_cached_key(|it| it.get("type").map(ToString::to_string));
    (status["observedGeneration"].clone(), conditions, list("validationMessages").to_vec().into())
}

/// Found while reading, and so grave that the object is left out.
fn rejects(finding: &Finding) -> bool {
    finding.severity == Severity::Error && mizzen_analysis::message(finding.code).is_none()
}

/// About the object as a whole.
fn is_not_obeyed(finding: &Finding) -> bool {
    finding.code == code::NOT_OBEYED && finding.origin.as_ref().is_some_and(|origin| origin.field.is_empty())
}

fn is_conflict(finding: &Finding) -> bool {
    CONFLICTS.contains(&finding.code)
}

fn is_reference(finding: &Finding) -> bool {
    REFERENCES.contains(&finding.code)
}

/// A condition's reason: the finding's name in the form that Kubernetes asks for.
fn reason(finding: &Finding) -> String {
    let name = mizzen_analysis::message(finding.code).map_or(finding.code, |message| message.name);
    let mut start = true;
    let mut reason = String::new();
    for char in name.chars() {
        if char == '-' {
            start = true;
        } else if std::mem::take(&mut start) {
            reason.extend(char.to_uppercase());
        } else {
            reason.push(char);
        }
    }
    reason
}

fn texts(findings: &[&Finding]) -> String {
    let text = |finding: &&Finding| {
        let field = finding.origin.as_ref().map(|origin| origin.field.as_str()).unwrap_or_default();
        let place = if field.is_empty() { String::new() } else { format!("{field}: ") };
        let hint = finding.hint.as_ref().map(|hint| format!("; {hint}")).unwrap_or_default();
        format!("{place}{}{hint} ({})", finding.message, finding.code)
    };
    let mut told: Vec<_> = findings.iter().take(TOLD).map(text).collect();
    if findings.len() > TOLD {
        told.push(format!("and {} more", findings.len() - TOLD));
    }
    told.join(". ")
}

/// As Istio's analysers leave them in a status.
fn validation_message(finding: &Finding) -> Value {
    let level = match finding.severity {
        Severity::Info => "INFO",
        Severity::Warning => "WARNING",
        Severity::Error => "ERROR",
    };
    json!({"type": {"code": finding.code, "name": reason(finding)}, "level": level})
}

const NO_PROXIES: &str = "no proxy is connected; each is told when it connects";

fn told(count: Count) -> String {
    let refused = match count.refused {
        0 => String::new(),
        refused => format!("; {} refused it, see `mizzen proxy-status`", proxies(refused)),
    };
    format!("in force on {} of {}{refused}", count.on, proxies(count.of))
}

fn proxies(count: usize) -> String {
    if count == 1 { "1 proxy".to_owned() } else { format!("{count} proxies") }
}

#[cfg(test)]
mod tests;
