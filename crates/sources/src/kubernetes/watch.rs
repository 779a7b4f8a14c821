//! One kind's watch: from the API server to [`Told`]s, and what is done when the API server is away.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use kube::api::Api;
use kube::core::discovery::ApiResource;
use kube::core::gvk::GroupVersionKind;
use kube::runtime::watcher::{self, Event};
use kube::{Client, Error};
use mizzen_config::read_object;
use mizzen_types::{ObjectKey, with_causes};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;

use super::Options;
use super::kinds::{From, Need, WatchedKind};
use super::state::Told;
use super::statuses::Statuses;
use super::watched::Watched;

/// Objects of one answer to a list.
const PAGE: u32 = 500;

/// A watch is begun anew this often, from where it stood: a connection that has died unseen is noticed by then.
const TURN: Duration = Duration::from_secs(120);

/// Where a watch tells what it sees.
pub(super) struct Out {
    /// Of its kind.
    pub(super) index: usize,
    pub(super) told: mpsc::Sender<(usize, Told)>,
    pub(super) statuses: Statuses,
}

impl Out {
    async fn send(&self, told: Told) -> Result<(), Closed> {
        self.told.send((self.index, told)).await.map_err(|_| Closed)
    }
}

/// Watches one kind for as long as somebody listens.
pub(super) async fn watch(client: Client, kind: &'static WatchedKind, options: Options, out: Out, outage: Outage) {
    let mut trouble = Trouble::new(kind, &options, outage);
    loop {
        let version = match served(&client, kind).await {
            Ok(Some(version)) => version,
            Ok(None) => {
                if out.send(Told::Absent).await.is_err() {
                    return;
                }
                trouble.absent().await;
                continue;
            }
            Err(error) => {
                trouble.wait(&error).await;
                continue;
            }
        };
        if follow(&client, kind, version, &options, &out, &mut trouble).await.is_err() {
            return;
        }
    }
}

/// Nobody listens any more.
struct Closed;

/// Lists and watches until the kind has to be looked up again.
async fn follow(
    client: &Client,
    kind: &'static WatchedKind,
    version: &'static str,
    options: &Options,
    out: &Out,
    trouble: &mut Trouble,
) -> Result<(), Closed> {
    let resource =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(kind.group, version, kind.kind), kind.plural);
    let mut config = watcher::Config::default().page_size(PAGE).timeout(TURN.as_secs() as u32);
    let api: Api<Watched> = match kind.from {
        From::Everywhere => {
            if let Some(selector) = kind.field_selector {
                config = config.fields(selector);
            }
            Api::all_with(client.clone(), &resource)
        }
        From::MeshConfiguration => {
            config = config.fields(&format!("metadata.name={}", options.mesh_config));
            Api::namespaced_with(client.clone(), &options.namespace, &resource)
        }
    };
    let mut events = pin!(watcher::watcher(api, config));
    let mut statuses = kind.has_status().then(|| out.statuses.of_kind(resource.clone()));
    while let Some(event) = events.next().await {
        let told = match event {
            Ok(event) => {
                if let Some(statuses) = &mut statuses {
                    statuses.take(&event, |object| key(object, kind));
                }
                told(event, kind, &resource.api_version, options)
            }
            Err(error) => {
                let (error, start) = match &error {
                    watcher::Error::InitialListFailed(error) => (error, true),
                    watcher::Error::WatchStartFailed(error) => (error, true),
                    watcher::Error::WatchFailed(error) => (error, false),
                    watcher::Error::WatchError(status) => {
                        // Too old a version: the watcher lists anew by itself.
                        trouble.expired_or(status).await;
                        continue;
                    }
                    watcher::Error::NoResourceVersion => {
                        trouble.say(&error);
                        trouble.pause().await;
                        continue;
                    }
                };
                let code = match error {
                    Error::Api(status) => status.code,
                    _ => 0,
                };
                if start && matches!(code, 403) && kind.need == Need::WherePermitted {
                    // Known only by trying.
                    if trouble.say(error) {
                        out.send(Told::Absent).await?;
                    }
                    trouble.pause().await;
                    continue;
                }
                trouble.wait(error).await;
                if start && matches!(code, 404 | 410) {
                    // Not served any more, or from a version that is forgotten: begin anew.
                    return Ok(());
                }
                continue;
            }
        };
        if !matches!(told, Told::Begin) {
            trouble.over();
        }
        out.send(told).await?;
    }
    Ok(())
}

/// The best version of a kind that the API server has; `None` when it has none.
async fn served(client: &Client, kind: &WatchedKind) -> Result<Option<&'static str>, Error> {
    if kind.need != Need::WhereInstalled {
        return Ok(kind.versions.first().copied());
    }
    for version in kind.versions {
        match client.list_api_group_resources(&format!("{}/{version}", kind.group)).await {
            Ok(list) if list.resources.iter().any(|resource| resource.name == kind.plural) => return Ok(Some(version)),
            Ok(_) => {}
            Err(Error::Api(status)) if status.code == 404 => {}
            Err(error) => return Err(error),
        }
    }
    Ok(None)
}

fn told(event: Event<Watched>, kind: &WatchedKind, api_version: &str, options: &Options) -> Told {
    match event {
        Event::Init => Told::Begin,
        Event::InitDone => Told::End,
        Event::Delete(object) => Told::Gone(key(&object, kind)),
        Event::Apply(object) | Event::InitApply(object) => {
            let key = key(&object, kind);
            let secret_of_nobody = kind.kind == "Secret"
                && (!object.document.has("data")
                    || (*key.namespace == *options.namespace && matches!(&*key.name, "cacerts" | "istio-ca-secret")));
            if secret_of_nobody {
                return Told::Gone(key);
            }
            Told::Object(key, Box::new(read_object(api_version, kind.kind, &object.document)))
        }
    }
}

fn key(object: &Watched, kind: &WatchedKind) -> ObjectKey {
    let text = |value: &Option<String>| value.as_deref().unwrap_or_default().to_owned();
    ObjectKey::new(kind.kind, &text(&object.metadata.namespace), &text(&object.metadata.name))
}

/// How many watches have lost the API server: what befalls all of them is said once.
pub(super) type Outage = Arc<AtomicUsize>;

/// What goes wrong with one watch: said once, waited for ever longer, and its end said too.
struct Trouble {
    kind: &'static WatchedKind,
    first: Duration,
    longest: Duration,
    again: Duration,
    next: Duration,
    said: bool,
    outage: Outage,
    /// Whether this watch counts in the outage.
    lost: bool,
}

impl Trouble {
    fn new(kind: &'static WatchedKind, options: &Options, outage: Outage) -> Self {
        let Options { retry_after, retry_at_most, look_again, .. } = *options;
        let (first, longest, again) = (retry_after, retry_at_most, look_again);
        Self { kind, first, longest, again, next: first, said: false, outage, lost: false }
    }

    /// Whether it was said now, and not before.
    fn say(&mut self, error: &(dyn std::error::Error + 'static)) -> bool {
        let kind = self.kind.kind;
        let why = words(error);
        if std::mem::replace(&mut self.said, true) {
            tracing::debug!(kind, why, "the watch failed again");
            return false;
        }
        match error.downcast_ref::<Error>() {
            Some(Error::Api(status)) if status.code == 403 && self.kind.need == Need::WherePermitted => {
                tracing::warn!(
                    kind,
                    why,
                    "this kind may not be read, and the mesh goes on without it; grant list and watch"
                );
            }
            Some(Error::Api(status)) if status.code < 500 => {
                tracing::warn!(
                    kind,
                    why,
                    "the API server refuses to let this kind be watched; what is known stays in force"
                );
            }
            _ => {
                self.lost = true;
                if self.outage.fetch_add(1, Ordering::Relaxed) == 0 {
                    tracing::warn!(kind, why, "the API server does not answer; what is known stays in force");
                }
            }
        }
        true
    }

    async fn wait(&mut self, error: &Error) {
        self.say(error);
        let forbidden = is_forbidden(error);
        if forbidden { self.look_again().await } else { self.pause().await }
    }

    async fn expired_or(&mut self, status: &kube::core::Status) {
        if status.code == 410 {
            tracing::info!(kind = self.kind.kind, "the watch is too old for the API server; listing anew");
        } else {
            self.say(&Error::Api(Box::new(status.clone())));
        }
        self.pause().await;
    }

    async fn absent(&mut self) {
        if !std::mem::replace(&mut self.said, true) {
            let WatchedKind { kind, group, .. } = self.kind;
            tracing::info!(kind, group, "the API server does not have this kind; it is looked for now and then");
        }
        self.look_again().await;
    }

    async fn look_again(&self) {
        tokio::time::sleep(jittered(self.again)).await;
    }

    /// Waits, the next time longer.
    async fn pause(&mut self) {
        let wait = jittered(self.next);
        self.next = (self.next * 2).min(self.longest);
        tokio::time::sleep(wait).await;
    }

    fn over(&mut self) {
        if std::mem::take(&mut self.lost) {
            if self.outage.fetch_sub(1, Ordering::Relaxed) == 1 {
                tracing::info!("the API server answers all watches again");
            }
            self.said = false;
        }
        if std::mem::take(&mut self.said) {
            tracing::info!(kind = self.kind.kind, "this kind is watched now");
        }
        self.next = self.first;
    }
}

fn is_forbidden(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(error.downcast_ref::<Error>(), Some(Error::Api(status)) if status.code == 403)
}

/// Between three quarters and five quarters of it, so that not all come back at once.
fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(0.75..1.25))
}

/// What the API server says; else the error with its causes.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    match error.downcast_ref::<Error>() {
        Some(Error::Api(status)) => format!("{} {}", status.code, status.message),
        _ => with_causes(error),
    }
}
