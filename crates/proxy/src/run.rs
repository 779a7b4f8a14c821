//! Which threads and tasks live, and how they end.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mizzen_compile::bootstrap::BootstrapError;
use mizzen_compile::{Bootstrap, bootstrap};
use mizzen_identity::Secrets;
use mizzen_identity::client::{self as identity, WorkloadIdentity, start_into};
use mizzen_identity::connect::{ControlPlane, RootSource};
use mizzen_proto::envoy::config::core::v3::Node;
use mizzen_proto::google::protobuf::{Struct, Value, value::Kind};
use mizzen_types::ListenerName;
use mizzen_xds::client as xds;
use tokio::sync::mpsc::UnboundedSender;
use tokio::sync::{Notify, mpsc};

use crate::admin::{self, About, Admin, Held, LogLevel, Order};
use crate::config::{Ending, IdentityOptions, ProxyConfig};
use crate::configure::Configurator;
use crate::control_plane;
use crate::handle::Handle;
use crate::health::{self, Health};
use crate::peer::Own;
use crate::publish::Publisher;
use crate::record::Record;
use crate::shared::Shared;
use crate::worker::{self, Command};

/// Time between looks at ejected endpoints, while a cluster has outlier detection.
const SWEEP: Duration = Duration::from_secs(1);
/// Time between looks for metrics and handles that nobody needs any more.
const TIDY: Duration = Duration::from_secs(60);

/// Time between looks for open connections, when the process waits for the last to go.
const POLL: Duration = Duration::from_millis(200);
/// What is still open after the time to leave is over has this long.
const LAST_MOMENT: Duration = Duration::from_secs(1);

/// Why the proxy does not start.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{name}: {source}")]
    Bootstrap { name: String, source: BootstrapError },
    #[error("{name} holds what cannot be obeyed: {}", .refused.join("; "))]
    Refused { name: String, refused: Vec<String> },
    #[error("{}", .0.join("; "))]
    Bind(Vec<String>),
    #[error("cannot listen on {address} for {what}: {source}")]
    Port { what: &'static str, address: SocketAddr, source: io::Error },
    #[error("cannot start a worker thread: {0}")]
    Worker(io::Error),
}

/// Addresses that were opened, for whoever started the proxy with port 0.
#[derive(Debug, Clone, Default)]
pub struct Started {
    pub health: Option<SocketAddr>,
    pub stats: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
    pub listeners: Vec<(ListenerName, SocketAddr)>,
    /// Asks and orders the running proxy; always there.
    pub handle: Option<Handle>,
    /// Fields of the bootstrap that are known and do nothing here.
    pub without_effect: Vec<String>,
}

/// Checks a bootstrap and all that is static in it, without opening anything.
pub fn validate(config: &ProxyConfig) -> Result<Vec<String>, RunError> {
    let read = read_bootstrap(config)?;
    let mut check = mizzen_compile::Config::new();
    let mut refused = Vec::new();
    for update in read.resources {
        refused.extend(check.apply_static(update).refused.iter().map(ToString::to_string));
    }
    if refused.is_empty() {
        Ok(read.without_effect)
    } else {
        Err(RunError::Refused { name: config.bootstrap_name.clone(), refused })
    }
}

fn read_bootstrap(config: &ProxyConfig) -> Result<Bootstrap, RunError> {
    bootstrap(&config.bootstrap).map_err(|source| RunError::Bootstrap { name: config.bootstrap_name.clone(), source })
}

/// Runs the proxy until `shutdown` is ready, then drains. `started` is told the addresses once they are open.
pub async fn run(
    config: ProxyConfig,
    log_level: Option<LogLevel>,
    started: impl FnOnce(&Started),
    shutdown: impl Future<Output = ()>,
) -> Result<(), RunError> {
    let boot = read_bootstrap(&config)?;
    let node = node_json(&boot.node);
    let secrets = Secrets::new();
    let health = Health::new();
    let own = crate::record::party_of_node(node.get("metadata").unwrap_or(&serde_json::Value::Null));
    let record = Arc::new(Record::new(own, &hostname(), secrets.clone()));
    let recorder: Arc<dyn crate::shared::Recorder> = Arc::<Record>::clone(&record);
    let shared = Arc::new(Shared::new(secrets.clone(), recorder, config.limits, config.drain_time));
    if let Some(own) = Own::of(&boot.node) {
        // Set here and nowhere else.
        let _ = shared.own.set(own);
    }
    if let Some(mark) = boot.upstream_mark {
        let _ = shared.upstream_mark.set(mark);
    }
    let held = Arc::new(Held::default());
    held.set_bootstrap(serde_json::json!({ "node": node }));
    let _identity = config.identity.as_ref().map(|options| start_identity(options, &config, &secrets));

    let workers = Workers::start(&shared, config.concurrency).map_err(RunError::Worker)?;
    let configurator = Configurator::new(
        &boot,
        Arc::clone(&shared),
        workers.publisher(&shared),
        Arc::clone(&health),
        Arc::clone(&held),
        config.identity.is_some(),
        config.state_dir.clone(),
    );
    if let Err(error) = fit_to_start(&configurator, &boot, &config) {
        workers.drain();
        return Err(error);
    }
    let listeners = configurator.addresses();
    let (orders, ordered) = mpsc::unbounded_channel();
    let (quit, linger) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let about = About {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        concurrency: config.concurrency,
        drain_time: config.drain_time,
        node,
    };
    let admin = Admin {
        shared: Arc::clone(&shared),
        record: Arc::clone(&record),
        health: Arc::clone(&health),
        held,
        log_level,
        orders: Box::new({
            let (quit, linger) = (Arc::clone(&quit), Arc::clone(&linger));
            move |order| match order {
                Order::Quit => quit.notify_one(),
                Order::Linger => linger.notify_one(),
                // Nobody listens any more only when the process is ending.
                Order::DrainListeners { inbound_only } => drop(orders.send(inbound_only)),
            }
        }),
        about,
    };
    let admin = Arc::new(admin);
    let handle = Some(Handle::new(Arc::clone(&admin)));
    let ports = match ports(&config, &boot, admin).await {
        Ok(ports) => ports,
        Err(error) => {
            workers.drain();
            return Err(error);
        }
    };
    started(&Started { listeners, handle, without_effect: boot.without_effect.clone(), ..ports.started.clone() });

    let serve = async {
        tokio::select! {
            () = configure(configurator, ordered, &boot, &config, &secrets) => {}
            () = tidy(&shared, &record) => {}
        }
    };
    let end = async {
        tokio::pin!(shutdown);
        tokio::select! {
            () = &mut shutdown => {
                leave(&health, &workers);
                linger_for(config.ending, &shared).await;
            }
            () = linger.notified() => {
                leave(&health, &workers);
                // Whoever gave the order has waited.
                shutdown.await;
            }
        }
    };
    // Configuration is followed until the end: clients that are still served go where it says.
    tokio::select! {
        () = serve => {}
        () = quit.notified() => {}
        () = end => {}
    }
    health.draining();
    let limit = if config.ending == Ending::AtOnce { config.drain_time } else { config.drain_time.min(LAST_MOMENT) };
    let drained = tokio::task::spawn_blocking(move || workers.drain_for(limit));
    if drained.await.is_err() {
        tracing::error!("draining was broken off");
    }
    Ok(())
}

/// Nobody new shall come, and who is here is asked to leave.
fn leave(health: &Health, workers: &Workers) {
    health.draining();
    tracing::info!("draining");
    workers.linger();
}

async fn linger_for(ending: Ending, shared: &Shared) {
    let (least, until_idle) = match ending {
        Ending::AtOnce => return,
        Ending::After(time) => (time, false),
        Ending::WhenIdle(time) => (time, true),
    };
    tokio::time::sleep(least).await;
    while until_idle && shared.open.load(Relaxed) > 0 {
        tokio::time::sleep(POLL).await;
    }
}

/// The node as JSON. By hand, because protobuf's own way needs the descriptions of all messages in memory.
fn node_json(node: &Node) -> serde_json::Value {
    serde_json::json!({
        "id": node.id,
        "cluster": node.cluster,
        "metadata": node.metadata.as_ref().map_or(serde_json::Value::Null, struct_json),
    })
}

pub(crate) fn struct_json(fields: &Struct) -> serde_json::Value {
    fields.fields.iter().map(|(key, value)| (key.clone(), value_json(value))).collect()
}

fn value_json(value: &Value) -> serde_json::Value {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => serde_json::Value::Null,
        Some(Kind::NumberValue(number)) => (*number).into(),
        Some(Kind::StringValue(text)) => text.clone().into(),
        Some(Kind::BoolValue(value)) => (*value).into(),
        Some(Kind::StructValue(fields)) => struct_json(fields),
        Some(Kind::ListValue(list)) => list.values.iter().map(value_json).collect(),
    }
}

/// What a person wrote into the file has to be right; what a control plane says may come right later.
fn fit_to_start(configurator: &Configurator, boot: &Bootstrap, config: &ProxyConfig) -> Result<(), RunError> {
    let refused: Vec<String> = configurator.refused_in_bootstrap().iter().map(ToString::to_string).collect();
    if !refused.is_empty() {
        return Err(RunError::Refused { name: config.bootstrap_name.clone(), refused });
    }
    if !configurator.bind_failures().is_empty() && boot.ads.is_none() {
        return Err(RunError::Bind(configurator.bind_failures().iter().map(ToString::to_string).collect()));
    }
    Ok(())
}

async fn configure(
    configurator: Configurator,
    ordered: mpsc::UnboundedReceiver<bool>,
    boot: &Bootstrap,
    config: &ProxyConfig,
    secrets: &Secrets,
) {
    match &boot.ads {
        Some(ads) => {
            let token = config.identity.as_ref().map(|identity| identity.token.clone());
            let (handle, events) = xds::start(control_plane::client(ads, boot, token, secrets));
            configurator.run(handle, events, ordered, boot).await;
        }
        None => configurator.run_static(ordered).await,
    }
}

fn start_identity(options: &IdentityOptions, config: &ProxyConfig, secrets: &Secrets) -> WorkloadIdentity {
    let mut control_plane = ControlPlane::new(&options.ca_address, RootSource::File(options.ca_root.clone()));
    if let Some(name) = &options.ca_server_name {
        control_plane.server_name.clone_from(name);
    }
    let client = identity::Config {
        control_plane,
        token: options.token.clone(),
        id: None,
        ttl: None,
        state_dir: config.state_dir.clone(),
    };
    start_into(client, secrets)
}

/// The tasks that serve operators; they end when this is dropped.
struct Ports {
    started: Started,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Drop for Ports {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

async fn ports(config: &ProxyConfig, boot: &Bootstrap, admin: Arc<Admin>) -> Result<Ports, RunError> {
    let mut ports = Ports { started: Started::default(), tasks: Vec::new() };
    let failed = |what, address| move |source| RunError::Port { what, address, source };
    if let Some(address) = config.health_address {
        let listening = health::listen(address, Arc::clone(&admin.health)).await;
        let (opened, task) = listening.map_err(failed("health", address))?;
        ports.started.health = Some(opened);
        ports.tasks.push(task);
    }
    if let Some(address) = config.stats_address {
        let (shared, record) = (Arc::clone(&admin.shared), Arc::clone(&admin.record));
        let listening = admin::listen_metrics(address, shared, record, Arc::clone(&admin.health)).await;
        let (opened, task) = listening.map_err(failed("metrics", address))?;
        ports.started.stats = Some(opened);
        ports.tasks.push(task);
    }
    if let Some(address) = boot.admin {
        let (opened, task) = admin::listen(address, admin).await.map_err(failed("admin", address))?;
        ports.started.admin = Some(opened);
        ports.tasks.push(task);
    }
    Ok(ports)
}

/// Lets ejected endpoints return and forgets what is gone. Never ends.
async fn tidy(shared: &Arc<Shared>, record: &Record) {
    let mut tidied = Instant::now();
    loop {
        let pause = if shared.balancers.any_outliers() { SWEEP } else { TIDY };
        tokio::time::sleep(pause).await;
        shared.balancers.sweep(shared.time(Instant::now()));
        if tidied.elapsed() >= TIDY {
            tidied = Instant::now();
            let snapshot = shared.snapshot.load_full();
            record.sweep(|cluster| snapshot.clusters.contains_key(cluster));
            if shared.swollen.swap(false, Relaxed) {
                mizzen_net::memory::release_free_heap();
            }
            // What the last minute did not need is not counted as ours; the rest comes back page by page, unread.
            mizzen_net::memory::release_program_text();
        }
    }
}

fn hostname() -> String {
    std::fs::read_to_string("/proc/sys/kernel/hostname").map(|name| name.trim().to_owned()).unwrap_or_default()
}

/// The worker threads.
pub struct Workers {
    commands: Vec<UnboundedSender<Command>>,
    threads: Vec<JoinHandle<()>>,
    drain_time: Duration,
}

impl Workers {
    pub fn start(shared: &Arc<Shared>, count: usize) -> io::Result<Self> {
        let (mut commands, mut threads) = (Vec::new(), Vec::new());
        for index in 0..count.max(1) {
            let (sender, thread) = worker::start(index, Arc::clone(shared))?;
            commands.push(sender);
            threads.push(thread);
        }
        Ok(Self { commands, threads, drain_time: shared.drain_time })
    }

    pub fn publisher(&self, shared: &Arc<Shared>) -> Publisher {
        Publisher::new(Arc::clone(shared), self.commands.clone())
    }

    /// Tells connections to leave, while new ones are still accepted.
    pub fn linger(&self) {
        for worker in &self.commands {
            let _ = worker.send(Command::Linger);
        }
    }

    /// Drains all connections and waits for the threads; at most about the drain time.
    pub fn drain(self) {
        let limit = self.drain_time;
        self.drain_for(limit);
    }

    /// The same with a limit of its own.
    pub fn drain_for(self, limit: Duration) {
        for worker in &self.commands {
            let _ = worker.send(Command::Drain { limit });
        }
        for thread in self.threads {
            if thread.join().is_err() {
                tracing::error!("a worker thread ended with a panic");
            }
        }
    }
}
