//! The end-to-end tests of `crates/cluster`: `cargo xtask test --cluster` runs them on the Kubernetes cluster that `KUBECONFIG`
//! names, the step `cluster` of `cargo xtask test` on one that `../shared/cluster` brings up on this machine, where that folder is.
//!
//! The step never touches the cluster of `KUBECONFIG`: who runs all tests has not asked for changes there. Images are
//! written by `cargo xtask image` and loaded by the command that `MIZZEN_CLUSTER_LOAD` names (it is given the archive's
//! path): `kind load image-archive`, `k3s ctr images import`, `minikube image load`. Without it they have to be there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::image;
use crate::steps::{Counts, Priority, cargo, cargo_test, repository};

const IMAGE: &str = concat!("docker.io/mizzen/mizzen:", env!("CARGO_PKG_VERSION"));
/// The cluster that is brought up is not the one a person may be working with.
const NAME: &str = "mztest";
/// What the programs of a cluster are built in at the longest; otherwise the step is skipped, and says so.
const BUILD: Duration = Duration::from_secs(22 * 60);
/// How long after the start of all tests a step on the cluster may still begin.
const LATEST: Duration = Duration::from_secs(48 * 60);

/// Runs the tests that `wanted` names by parts of the names of steps, or all, for `cargo xtask test --cluster`.
pub(crate) fn run(wanted: &[String]) -> anyhow::Result<Counts> {
    let named = std::env::var_os("KUBECONFIG").is_some_and(|file| !file.is_empty());
    let program = image::build("release", Priority::Usual)?;
    if named {
        return Cluster::named().run(&program, wanted, None);
    }
    let Ok(local) = Local::find() else {
        bail!("KUBECONFIG names no cluster; the README says which commands make one with K3s or kind");
    };
    println!("--- cluster: bringing one up (the first time it is built, which takes a quarter of an hour)");
    let cluster = local.up(None)?;
    let counts = cluster.run(&program, wanted, None);
    local.down();
    counts
}

/// The scripts that bring up a cluster on this machine.
pub(crate) struct Local {
    scripts: PathBuf,
    /// Folder of kubectl and helm.
    bin: PathBuf,
}

impl Local {
    /// # Errors
    ///
    /// Why there can be no cluster here.
    pub(crate) fn find() -> Result<Self, String> {
        let scripts = repository().join("../shared/cluster");
        if !scripts.join("up").is_file() {
            return Err("../shared/cluster is not there".to_owned());
        }
        let variable = |name: &str| std::env::var_os(name).map(PathBuf::from);
        let cache = variable("TESTCLUSTER_CACHE")
            .or_else(|| Some(variable("XDG_CACHE_HOME")?.join("testcluster")))
            .or_else(|| Some(variable("HOME")?.join(".cache/testcluster")))
            .ok_or("neither HOME nor TESTCLUSTER_CACHE is set")?;
        Ok(Self { scripts, bin: cache.join("bin") })
    }

    /// Brings a cluster up and takes it down: after that kubectl and helm are in the folder that is returned, and it was seen that
    /// a cluster can run here.
    ///
    /// # Errors
    ///
    /// Why it cannot.
    pub(crate) fn prepare(&self) -> anyhow::Result<&Path> {
        println!("--- cluster tools (they are built the first time)");
        let began = Instant::now();
        let outcome = self.up(Some(BUILD));
        self.down();
        outcome?;
        println!("--- cluster tools: ok in {:.0} s", began.elapsed().as_secs_f32());
        Ok(&self.bin)
    }

    /// The step `cluster` of all tests, which began at `began`.
    pub(crate) fn step(&self, program: &Path, began: Instant) -> Counts {
        let counts = self.up(Some(BUILD)).and_then(|cluster| cluster.run(program, &[], Some(began + LATEST)));
        self.down();
        counts.unwrap_or_else(|error| {
            println!("--- cluster: FAILED: {error:#}");
            Counts::single("cluster", false)
        })
    }

    /// Brings it up, within `limit`.
    fn up(&self, limit: Option<Duration>) -> anyhow::Result<Cluster> {
        let up = self.scripts.join("up");
        let mut command = match limit {
            Some(limit) => {
                // With all that it has started.
                let mut command = Command::new("timeout");
                command.arg("--kill-after=10").arg(limit.as_secs().to_string()).arg(&up);
                command
            }
            None => Command::new(&up),
        };
        let output = command.args(["--name", NAME, "--helm"]).stderr(Stdio::inherit()).output();
        let output = output.with_context(|| format!("cannot start {}", up.display()))?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let kubeconfig = text.lines().last().map(PathBuf::from).filter(|_| output.status.success());
        let kubeconfig =
            kubeconfig.with_context(|| format!("../shared/cluster/up brought up no cluster: {}", output.status))?;
        // Elsewhere these images are pulled; here they are made of this machine's own programs.
        for (image, programs) in [
            ("docker.io/curlimages/curl:8.10.1", "curl sh sleep cat"),
            ("docker.io/library/perl:5.40-slim", "perl sh sleep cat"),
        ] {
            let arguments = ["--name", NAME, image, "--programs", programs];
            check(Command::new(self.scripts.join("load-image")).args(arguments))?;
        }
        let script = |name: &str| self.scripts.join(name).display().to_string();
        Ok(Cluster {
            kubeconfig: Some(kubeconfig),
            load: vec![script("load-image"), "--name".to_owned(), NAME.to_owned(), "--tar".to_owned()],
            exec: format!("{} --name {NAME} --outside", script("exec")),
            bin: Some(self.bin.clone()),
        })
    }

    /// Takes away what was brought up.
    fn down(&self) {
        if let Err(error) = check(Command::new(self.scripts.join("down")).args(["--name", NAME])) {
            println!("the cluster is still there: {error:#}");
        }
    }
}

/// `PATH` with `bin` behind it.
pub(crate) fn path_with(bin: &Path) -> String {
    format!("{}:{}", std::env::var("PATH").unwrap_or_default(), bin.display())
}

/// How a cluster is reached.
struct Cluster {
    kubeconfig: Option<PathBuf>,
    /// Command and arguments before the archive's path.
    load: Vec<String>,
    /// Put before commands that call addresses of the cluster.
    exec: String,
    /// Folder of kubectl and helm.
    bin: Option<PathBuf>,
}

impl Cluster {
    /// The one that `KUBECONFIG` names.
    fn named() -> Self {
        let words = |name: &str| -> Vec<String> {
            let value = std::env::var(name).unwrap_or_default();
            value.split_whitespace().map(str::to_owned).collect()
        };
        Self {
            kubeconfig: None,
            load: words("MIZZEN_CLUSTER_LOAD"),
            exec: words("MIZZEN_CLUSTER_EXEC").join(" "),
            bin: None,
        }
    }

    /// Loads the images and runs the steps that `wanted` names; none begins after `latest`.
    fn run(&self, program: &Path, wanted: &[String], latest: Option<Instant>) -> anyhow::Result<Counts> {
        let archive = image::write(program, &images(), None, None)?;
        self.load(&archive)?;
        // Features are those of the whole workspace: what the other steps have built is not built again.
        let mut command = cargo(&["test", "--quiet", "--workspace", "--test", "cluster", "--"]);
        command.args(wanted).env("MIZZEN_CLUSTER", "1").env("MIZZEN_BINARY", program);
        if let Some(latest) = latest {
            let left = latest.saturating_duration_since(Instant::now());
            command.env("MIZZEN_CLUSTER_SECONDS", left.as_secs().to_string());
        }
        if let Some(file) = &self.kubeconfig {
            command.env("KUBECONFIG", file);
        }
        if let Some(bin) = &self.bin {
            command.env("PATH", path_with(bin));
        }
        if !self.exec.is_empty() {
            command.env("MIZZEN_CLUSTER_EXEC", &self.exec);
        }
        cargo_test("cluster", &mut command)
    }

    fn load(&self, archive: &Path) -> anyhow::Result<()> {
        let Some((program, arguments)) = self.load.split_first() else {
            println!("MIZZEN_CLUSTER_LOAD is not set: the cluster has to have the images of {}", archive.display());
            return Ok(());
        };
        check(Command::new(program).args(arguments).arg(archive))
    }
}

/// Our own image, and Bookinfo's under the names that the sample has.
fn images() -> Vec<String> {
    let mut tags = vec![IMAGE.to_owned()];
    let sample = repository().join("../shared/samples/bookinfo/platform/kube/bookinfo.yaml");
    if let Ok(text) = std::fs::read_to_string(&sample) {
        tags.extend(image::bookinfo_images(&text));
    }
    tags
}

fn check(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}
