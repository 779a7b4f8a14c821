//! ProxyConfig resources: which of them a pod is made with.

use serde_json::{Map, Value, json};

use mizzen_api::networking::ProxyConfig;

use crate::pod;

/// A ProxyConfig resource.
#[derive(Debug, Clone, Copy)]
pub struct Resource<'a> {
    pub namespace: &'a str,
    pub spec: &'a ProxyConfig,
}

/// The `spec` of the resources that hold for a pod of `namespace`, laid over each other: the whole mesh's (those of the root
/// namespace that select nothing), the namespace's, the workload's, later ones over earlier ones. Of two that are alike, the
/// older counts.
pub fn resource<'a>(
    root_namespace: &str,
    namespace: &str,
    pod: &Value,
    oldest_first: impl IntoIterator<Item = Resource<'a>>,
) -> Option<Value> {
    let labels = pod::labels(pod);
    let mut found: [Option<&ProxyConfig>; 3] = [None; 3];
    for Resource { namespace: of, spec } in oldest_first {
        let rank = match &spec.selector {
            // In the root namespace a selector selects its own pods only, as elsewhere.
            Some(selector) => {
                let selects = selector.match_labels.iter().all(|(key, value)| labels.get(key) == Some(value));
                (of == namespace && selects).then_some(2)
            }
            None if of == namespace && of != root_namespace => Some(1),
            None => (of == root_namespace).then_some(0),
        };
        if let Some(rank) = rank {
            found[rank].get_or_insert(spec);
        }
    }
    found.into_iter().flatten().map(written).reduce(|mut below, above| {
        overlay(&mut below, above);
        below
    })
}

fn written(config: &ProxyConfig) -> Value {
    let mut spec = Map::new();
    if let Some(concurrency) = config.concurrency {
        spec.insert("concurrency".to_owned(), concurrency.into());
    }
    let variables = &config.environment_variables;
    if !variables.is_empty() {
        spec.insert("environmentVariables".to_owned(), json!(variables));
    }
    if let Some(image) = &config.image {
        spec.insert("image".to_owned(), json!({"imageType": image.image_type}));
    }
    Value::Object(spec)
}

fn overlay(below: &mut Value, above: Value) {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            for (key, value) in above {
                overlay(below.entry(key).or_insert(Value::Null), value);
            }
        }
        (below, above) => *below = above,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::{Resource, resource};

    fn check(namespace: &str, labels: &Value, expected: &Value) {
        let all = json!([
            ["istio-system", {"concurrency": 1, "environmentVariables": {"A": "mesh", "B": "mesh", "C": "mesh"}}],
            ["istio-system", {"selector": {"matchLabels": {"app": "web"}}, "concurrency": 9}],
            ["shop", {"concurrency": 2, "environmentVariables": {"B": "shop", "C": "shop"}}],
            ["shop", {"concurrency": 3}],
            ["shop", {"selector": {"matchLabels": {"app": "web"}}, "environmentVariables": {"C": "web"}, "image": {"imageType": "debug"}}],
        ]);
        let read: Vec<(String, mizzen_api::networking::ProxyConfig)> =
            serde_json::from_value(all).expect("ProxyConfigs");
        let oldest_first = read.iter().map(|(namespace, spec)| Resource { namespace, spec });
        let got = resource("istio-system", namespace, &json!({"metadata": {"labels": labels}}), oldest_first);
        assert_eq!(got.unwrap_or_default(), *expected, "{namespace} {labels}");
    }

    #[test]
    fn the_narrower_lies_over_the_wider_and_of_equals_the_older_counts() {
        let mesh = json!({"concurrency": 1, "environmentVariables": {"A": "mesh", "B": "mesh", "C": "mesh"}});
        check("other", &json!({"app": "web"}), &mesh);
        check("istio-system", &json!({"app": "db"}), &mesh);
        let mut own = mesh.clone();
        own["concurrency"] = json!(9);
        check("istio-system", &json!({"app": "web"}), &own);
        let shop = json!({"concurrency": 2, "environmentVariables": {"A": "mesh", "B": "shop", "C": "shop"}});
        check("shop", &json!({"app": "db"}), &shop);
        let mut web = shop.clone();
        web["environmentVariables"]["C"] = json!("web");
        web["image"] = json!({"imageType": "debug"});
        check("shop", &json!({"app": "web"}), &web);
        assert_eq!(resource("istio-system", "shop", &Value::Null, []), None);
    }
}
