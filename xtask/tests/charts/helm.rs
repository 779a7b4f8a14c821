//! Running helm, and finding things in what it renders.

use std::path::PathBuf;
use std::process::Command;

use mizzen_testing::{repository, skip};
use serde_json::Value;

pub(crate) struct Helm {
    program: PathBuf,
}

/// The helm that `MIZZEN_HELM` names, or the one on the PATH; says that `test` is skipped where there is none.
pub(crate) fn helm_or_skip(test: &str) -> Option<Helm> {
    let program = std::env::var_os("MIZZEN_HELM").map_or_else(|| "helm".into(), PathBuf::from);
    let works = Command::new(&program).arg("version").output().is_ok_and(|output| output.status.success());
    if !works {
        skip(test, "there is no helm (on the PATH, or named by MIZZEN_HELM)");
    }
    works.then_some(Helm { program })
}

impl Helm {
    /// What helm says, or why it fails.
    pub(crate) fn run(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(&self.program).args(arguments).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
    }

    pub(crate) fn chart(&self, name: &str) -> String {
        repository().join("charts").join(name).display().to_string()
    }

    pub(crate) fn template(
        &self,
        chart: &str,
        release: &str,
        namespace: &str,
        set: &[&str],
    ) -> Result<Rendered, String> {
        let chart = self.chart(chart);
        let mut arguments = vec!["template", release, &chart, "--namespace", namespace];
        arguments.extend(set.iter().flat_map(|value| ["--set", value]));
        self.run(&arguments).map(Rendered::read)
    }
}

/// The objects of a rendered chart.
#[derive(Debug)]
pub(crate) struct Rendered {
    pub(crate) text: String,
    pub(crate) objects: Vec<Value>,
}

impl Rendered {
    fn read(text: String) -> Self {
        let objects: Vec<Option<Value>> = serde_saphyr::from_multiple(&text).unwrap();
        Self { text, objects: objects.into_iter().flatten().collect() }
    }

    pub(crate) fn all(&self, kind: &str) -> Vec<&Value> {
        self.objects.iter().filter(|object| object["kind"] == kind).collect()
    }

    pub(crate) fn one(&self, kind: &str) -> &Value {
        let [one] = self.all(kind)[..] else { panic!("not one {kind}") };
        one
    }

    pub(crate) fn named(&self, kind: &str, name: &str) -> &Value {
        let found = self.all(kind).into_iter().find(|object| object["metadata"]["name"] == name);
        found.unwrap_or_else(|| panic!("no {kind} {name}"))
    }
}
