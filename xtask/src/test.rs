//! `cargo xtask test`: the README's test command.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::bail;

use crate::release::Release;
use crate::steps::{Counts, cargo, cargo_test, check, repository};
use crate::{cluster, demo, envoy};

/// In this order: what is quickly said comes first.
const STEPS: [&str; 6] = ["format", "clippy", "unit", "docs", "demo", "cluster"];

/// Runs the named steps, or all; with `--cluster` those of a real cluster instead. True when nothing failed.
pub(crate) fn run(wanted: &[String]) -> anyhow::Result<bool> {
    if let Some((first, parts)) = wanted.split_first()
        && first == "--cluster"
    {
        let started = Instant::now();
        let total = cluster::run(parts)?;
        return Ok(summary(&total, started));
    }
    if let Some(unknown) = wanted.iter().find(|step| !STEPS.contains(&step.as_str())) {
        bail!("there is no step {unknown:?}; there are: {}", STEPS.join(", "));
    }
    let started = Instant::now();
    let chosen = |step: &str| wanted.is_empty() || wanted.iter().any(|name| name == step);
    let mut total = Counts::default();
    // Helm and kubectl come with the cluster, and other steps use them where they are there.
    let local = if chosen("cluster") { cluster::Local::find() } else { Err("it was not asked for".to_owned()) };
    let prepared = match &local {
        Ok(local) => local.prepare().map(|bin| (local, bin)).map_err(|error| format!("{error:#}")),
        Err(why) => Err(why.clone()),
    };
    // The program is linked statically where an image is made of it: one release build is enough.
    let mut release = Release::new(prepared.is_ok());
    for step in STEPS.into_iter().filter(|step| chosen(step)) {
        total.add(match step {
            "format" => check("format", &mut cargo(&["fmt", "--all", "--check"]))?,
            "clippy" => check(
                "clippy",
                &mut cargo(&["clippy", "--quiet", "--workspace", "--all-targets", "--", "-D", "warnings"]),
            )?,
            "unit" => {
                if chosen("demo") || chosen("cluster") && prepared.is_ok() {
                    release.begin();
                }
                unit(prepared.as_ref().ok().map(|(_, bin)| *bin))?
            }
            "docs" => check(
                "docs",
                cargo(&["doc", "--quiet", "--workspace", "--no-deps", "--document-private-items"])
                    .env("RUSTDOCFLAGS", "-D warnings -A rustdoc::private_intra_doc_links"),
            )?,
            "demo" => release.program("demo").map_or_else(|counts| counts, demo::run),
            "cluster" => match &prepared {
                Err(why) => Counts { skipped: vec![format!("cluster: {why}")], ..Counts::default() },
                Ok((local, _)) => match release.program("cluster") {
                    Ok(program) => local.step(program, started),
                    Err(failed) => failed,
                },
            },
            other => bail!("step {other} is not wired"),
        });
    }
    Ok(summary(&total, started))
}

/// Prints what was found; true when nothing failed.
fn summary(total: &Counts, started: Instant) -> bool {
    for skipped in &total.skipped {
        println!("skipped: {skipped}");
    }
    for failure in &total.failures {
        println!("failed: {failure}");
    }
    println!("all steps in {:.0} s", started.elapsed().as_secs_f32());
    println!("{} passed, {} failed, {} skipped", total.passed, total.failed, total.skipped.len());
    total.failed == 0
}

/// Unit, scenario and end-to-end tests of every crate; a stock Envoy judges where it can be installed. `bin` has helm and kubectl.
fn unit(bin: Option<&Path>) -> anyhow::Result<Counts> {
    let skip_log = repository().join("target/skipped.txt");
    fs::create_dir_all(repository().join("target"))?;
    fs::remove_file(&skip_log).ok();
    let mut command = cargo(&["test", "--quiet", "--workspace", "--no-fail-fast"]);
    command.args(["--", "--format=pretty"]).env("MIZZEN_SKIP_LOG", &skip_log);
    // The steps on a cluster are a step of their own.
    command.env("MIZZEN_CLUSTER", "elsewhere");
    if let Some(bin) = bin {
        command.env("PATH", cluster::path_with(bin));
    }
    match envoy::install() {
        Ok(path) => {
            command.env("MIZZEN_ENVOY", path);
        }
        Err(error) => println!("no stock Envoy, tests that need it are skipped: {error:#}"),
    }
    let mut counts = cargo_test("unit", &mut command)?;
    // A test that found out at run time that it cannot run counted as passed: it is not.
    if let Ok(log) = fs::read_to_string(&skip_log) {
        let mut skipped: Vec<String> = log.lines().map(str::to_owned).collect();
        skipped.sort();
        skipped.dedup();
        counts.passed = counts.passed.saturating_sub(skipped.len());
        counts.skipped.extend(skipped);
    }
    Ok(counts)
}
