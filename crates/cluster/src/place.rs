//! Where the cluster is and how it is reached from this machine.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use mizzen_testing::repository;

/// What `cargo xtask test --cluster` tells the tests, by environment variables.
#[derive(Debug, Clone)]
pub struct Place {
    /// The program under test (`MIZZEN_BINARY`).
    pub mizzen: PathBuf,
    /// The genuine istioctl (`ISTIOCTL`, or on the PATH), where there is one.
    pub istioctl: Option<PathBuf>,
    /// Put before commands that call addresses of the cluster (`MIZZEN_CLUSTER_EXEC`), empty where they are reachable from here.
    pub exec: Vec<String>,
    /// Istio's sample manifests.
    pub samples: PathBuf,
    /// Image of the program, as the charts' `global.hub`, `global.tag`.
    pub hub: String,
    pub tag: String,
    /// No step begins later than this after the first (`MIZZEN_CLUSTER_SECONDS`).
    pub time: Option<Duration>,
}

impl Place {
    /// # Errors
    ///
    /// Why the tests cannot run here.
    pub fn find() -> Result<Self, String> {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        variable("MIZZEN_CLUSTER")
            .ok_or("no cluster: `cargo xtask test --cluster` uses the one that KUBECONFIG names")?;
        let samples = mizzen_testing::shared("samples").ok_or("../shared/samples is not there")?;
        let binary = variable("MIZZEN_BINARY").ok_or("MIZZEN_BINARY does not name the program to test")?;
        Ok(Self {
            mizzen: binary.into(),
            istioctl: variable("ISTIOCTL").map(PathBuf::from).or_else(|| on_the_path("istioctl")),
            exec: variable("MIZZEN_CLUSTER_EXEC")
                .map(|words| words.split_whitespace().map(str::to_owned).collect())
                .unwrap_or_default(),
            samples,
            hub: variable("MIZZEN_HUB").unwrap_or_else(|| "docker.io/mizzen".to_owned()),
            tag: variable("MIZZEN_TAG").unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
            time: variable("MIZZEN_CLUSTER_SECONDS").and_then(|number| number.parse().ok()).map(Duration::from_secs),
        })
    }

    /// A command that reaches the cluster's addresses.
    pub fn beside(&self, program: &str) -> Command {
        match self.exec.split_first() {
            Some((exec, rest)) => {
                let mut command = Command::new(exec);
                command.args(rest).arg(program);
                command
            }
            None => Command::new(program),
        }
    }

    /// A command on the cluster's node, where this machine can do that.
    pub fn inside(&self, program: &str) -> Option<Command> {
        let at = self.exec.iter().position(|word| word == "--outside")?;
        let (exec, rest) = self.exec.split_first()?;
        let mut command = Command::new(exec);
        command.args(rest.iter().enumerate().map(|(number, word)| if number + 1 == at { "--inside" } else { word }));
        command.arg(program);
        Some(command)
    }

    /// A chart of the repository.
    pub fn chart(&self, name: &str) -> String {
        repository().join("charts").join(name).display().to_string()
    }

    /// A file of Istio's Bookinfo sample.
    pub fn bookinfo(&self, path: &str) -> String {
        self.samples.join("bookinfo").join(path).display().to_string()
    }
}

fn on_the_path(program: &str) -> Option<PathBuf> {
    std::env::split_paths(&std::env::var_os("PATH")?).map(|folder| folder.join(program)).find(|file| file.is_file())
}
