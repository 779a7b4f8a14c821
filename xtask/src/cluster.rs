//! `cargo xtask test --cluster`: the end-to-end tests of `crates/cluster`, on the Kubernetes cluster that `KUBECONFIG` names.
//!
//! Without `KUBECONFIG`, the cluster that `../shared/cluster` brings up on this machine, where that folder is. Images are
//! written by `cargo xtask image` and loaded by the command that `MIZZEN_CLUSTER_LOAD` names (it is given the archive's
//! path): `kind load image-archive`, `k3s ctr images import`, `minikube image load`. Without it they have to be there.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::image;
use crate::steps::{Counts, cargo, cargo_test, repository};

const IMAGE: &str = concat!("docker.io/mizzen/mizzen:", env!("CARGO_PKG_VERSION"));
/// The cluster that is brought up is not the one a person may be working with.
const NAME: &str = "mizzen-test";

/// How the cluster is reached.
struct Cluster {
    kubeconfig: Option<PathBuf>,
    /// Command and arguments before the archive's path.
    load: Vec<String>,
    /// Put before commands that call addresses of the cluster.
    exec: String,
    /// Folder of kubectl and helm.
    bin: Option<PathBuf>,
    made: Option<PathBuf>,
}

/// Runs the tests; `wanted` are parts of the names of steps.
pub(crate) fn run(wanted: &[String]) -> anyhow::Result<Counts> {
    let cluster = Cluster::find()?;
    let program = image::build("release")?;
    let archive = image::write(&program, &images(), None, None)?;
    cluster.load(&archive)?;
    let mut command = cargo(&["test", "--quiet", "--package", "mizzen-cluster", "--test", "cluster", "--"]);
    command.args(wanted).env("MIZZEN_CLUSTER", "1").env("MIZZEN_BINARY", &program);
    if let Some(file) = &cluster.kubeconfig {
        command.env("KUBECONFIG", file);
    }
    if let Some(bin) = &cluster.bin {
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:{}", bin.display()));
    }
    if !cluster.exec.is_empty() {
        command.env("MIZZEN_CLUSTER_EXEC", &cluster.exec);
    }
    let counts = cargo_test("cluster", &mut command);
    cluster.end();
    counts
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

impl Cluster {
    fn find() -> anyhow::Result<Self> {
        let words = |name: &str| -> Vec<String> {
            let value = std::env::var(name).unwrap_or_default();
            value.split_whitespace().map(str::to_owned).collect()
        };
        if std::env::var_os("KUBECONFIG").is_some_and(|file| !file.is_empty()) {
            return Ok(Self {
                kubeconfig: None,
                load: words("MIZZEN_CLUSTER_LOAD"),
                exec: words("MIZZEN_CLUSTER_EXEC").join(" "),
                bin: None,
                made: None,
            });
        }
        let scripts = repository().join("../shared/cluster");
        if !scripts.join("up").is_file() {
            bail!("KUBECONFIG names no cluster; the README says which commands make one with K3s or kind");
        }
        println!("--- cluster: bringing one up (the first time it is built, which takes a quarter of an hour)");
        let output = Command::new(scripts.join("up"))
            .args(["--name", NAME, "--helm"])
            .stderr(std::process::Stdio::inherit())
            .output()
            .context("cannot start ../shared/cluster/up")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let kubeconfig = text.lines().last().map(PathBuf::from).filter(|_| output.status.success());
        let kubeconfig = kubeconfig.context("../shared/cluster/up brought up no cluster")?;
        let cache = std::env::var_os("TESTCLUSTER_CACHE").map(PathBuf::from).or_else(|| {
            let cache = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from);
            let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache"));
            Some(cache.or_else(home)?.join("testcluster"))
        });
        let script = |name: &str| scripts.join(name).display().to_string();
        let cluster = Self {
            kubeconfig: Some(kubeconfig),
            load: vec![script("load-image"), "--name".to_owned(), NAME.to_owned(), "--tar".to_owned()],
            exec: format!("{} --name {NAME} --outside", script("exec")),
            bin: cache.map(|cache| cache.join("bin")),
            made: Some(scripts.clone()),
        };
        // Elsewhere this image is pulled; here it is made of this machine's own curl.
        let client = ["--name", NAME, "docker.io/curlimages/curl:8.10.1", "--programs", "curl sh sleep cat"];
        check(Command::new(scripts.join("load-image")).args(client))?;
        Ok(cluster)
    }

    fn load(&self, archive: &Path) -> anyhow::Result<()> {
        let Some((program, arguments)) = self.load.split_first() else {
            println!("MIZZEN_CLUSTER_LOAD is not set: the cluster has to have the images of {}", archive.display());
            return Ok(());
        };
        check(Command::new(program).args(arguments).arg(archive))
    }

    /// Takes away what was brought up.
    fn end(&self) {
        if let Some(scripts) = &self.made
            && let Err(error) = check(Command::new(scripts.join("down")).args(["--name", NAME]))
        {
            println!("the cluster is still there: {error:#}");
        }
    }
}

fn check(command: &mut Command) -> anyhow::Result<()> {
    let shown = format!("{command:?}");
    let status = command.status().with_context(|| format!("cannot start {shown}"))?;
    if !status.success() {
        bail!("{shown}: {status}");
    }
    Ok(())
}
