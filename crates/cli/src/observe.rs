//! Looking at what the control plane tells one proxy: a discovery stream with that proxy's node, marked as an observer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use mizzen_compile::{Config, Refused, Resource, Update};
use mizzen_local::run_file::Instance;
use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::google::protobuf::value::Kind;
use mizzen_proto::google::protobuf::{ListValue, Struct, Value as ProtoValue};
use mizzen_xds::ResourceType;
use mizzen_xds::client::{self, Authority, Event, Handle, Subscription};
use serde_json::Value;
use tokio::time::{Instant, timeout};

/// Says that a person looks, not a proxy: the control plane does not list such a node.
const OBSERVER: &str = "MIZZEN_OBSERVER";
/// How long everything may take.
const LIMIT: Duration = Duration::from_secs(10);
/// With the first listeners and clusters there, a pause of this length means that nothing more comes.
const QUIET: Duration = Duration::from_millis(300);

/// Everything that a proxy is told now.
#[derive(Debug)]
pub struct Observed {
    pub config: Config,
    /// What our proxy would refuse.
    pub refused: Vec<Refused>,
}

/// The node of a proxy in a run.
pub fn node(instance: &Instance) -> Node {
    let mut metadata = match to_proto(&instance.metadata) {
        ProtoValue { kind: Some(Kind::StructValue(metadata)) } => metadata,
        _ => Struct::default(),
    };
    metadata.fields.insert(OBSERVER.to_owned(), ProtoValue { kind: Some(Kind::BoolValue(true)) });
    Node { id: instance.node.clone(), metadata: Some(metadata), ..Node::default() }
}

/// Asks the control plane at `xds` what it tells `node`.
pub async fn observe(xds: SocketAddr, node: Node) -> Result<Observed> {
    let (handle, mut events) = client::start(client::Config::new(Authority::Plaintext(xds.to_string()), node));
    handle.subscribe(ResourceType::Cluster, Subscription::Wildcard);
    handle.subscribe(ResourceType::Listener, Subscription::Wildcard);
    let mut observed = Observed { config: Config::new(), refused: Vec::new() };
    let mut answered = BTreeMap::new();
    let end = Instant::now() + LIMIT;
    loop {
        let pause = if complete(&observed.config, &answered) { QUIET / 3 } else { QUIET };
        let basics =
            [ResourceType::Cluster, ResourceType::Listener].iter().all(|kind| answered.contains_key(kind.short_name()));
        let wait = if basics { pause } else { end.saturating_duration_since(Instant::now()) };
        match timeout(wait, events.recv()).await {
            Ok(Some(Event::Update(update))) => {
                *answered.entry(update.kind.short_name()).or_insert(0) += update.resources.len();
                observed.take(update, &handle);
            }
            Ok(Some(Event::Connected)) => {}
            Ok(Some(Event::Disconnected { reason, .. })) => {
                bail!("the control plane at {xds} does not answer: {reason}")
            }
            Ok(None) | Err(_) if basics => return Ok(observed),
            Ok(None) | Err(_) => bail!("the control plane at {xds} does not say what this proxy has"),
        }
        if Instant::now() >= end {
            return Ok(observed);
        }
    }
}

/// Whether everything that is asked for by name has been answered at least in part.
fn complete(config: &Config, answered: &BTreeMap<&'static str, usize>) -> bool {
    let wanted = config.wanted();
    let of = |kind: ResourceType| answered.get(kind.short_name()).copied().unwrap_or_default();
    of(ResourceType::Route) >= wanted.routes.len() && of(ResourceType::Endpoint) >= wanted.endpoints.len()
}

impl Observed {
    fn take(&mut self, update: client::Update, handle: &Handle) {
        let resource = |received: client::Received| Resource {
            name: received.name,
            version: received.version,
            body: received.body,
        };
        let outcome = self.config.apply(Update {
            type_url: update.kind.type_url().to_owned(),
            resources: update.resources.into_iter().map(resource).collect(),
            removed: update.removed,
            full: update.full,
        });
        self.refused.extend(outcome.refused);
        // An observer never refuses: what it thinks of a resource says nothing about the proxy.
        handle.accept(update.id);
        if outcome.wanted_changed {
            let wanted = self.config.wanted();
            let names = |names: Vec<String>| Subscription::Names(names.into_iter().collect());
            handle.subscribe(ResourceType::Endpoint, names(wanted.endpoints));
            handle.subscribe(ResourceType::Route, names(wanted.routes));
        }
    }
}

fn to_proto(value: &Value) -> ProtoValue {
    let kind = match value {
        Value::Null => Kind::NullValue(0),
        Value::Bool(value) => Kind::BoolValue(*value),
        Value::Number(number) => Kind::NumberValue(number.as_f64().unwrap_or_default()),
        Value::String(text) => Kind::StringValue(text.clone()),
        Value::Array(values) => Kind::ListValue(ListValue { values: values.iter().map(to_proto).collect() }),
        Value::Object(fields) => {
            let fields = fields.iter().map(|(key, value)| (key.clone(), to_proto(value))).collect();
            Kind::StructValue(Struct { fields })
        }
    };
    ProtoValue { kind: Some(kind) }
}
