//! Every scenario of `scenarios/` as a test case of one runner: what the files under `tests/` call.

use std::sync::{Arc, Mutex, PoisonError};

use libtest_mimic::{Arguments, Failed, Trial};

use crate::expect::{Runner, Wrong};
use crate::live::{Kind, Live};
use crate::memory;
use crate::scenario::Scenario;

/// Runs all scenarios in memory.
pub fn in_memory() -> ! {
    let arguments = Arguments::from_args();
    let trials = all().into_iter().map(|scenario| {
        let ignored = !scenario.is_for(Runner::Memory);
        let name = scenario.name.clone();
        Trial::test(name, move || told(&scenario, memory::run(&scenario))).with_ignored_flag(ignored)
    });
    libtest_mimic::run(&arguments, trials.collect()).exit()
}

/// Runs all scenarios with real proxies, one after the other in one mesh; `Err` says why there are none.
pub fn live(suite: &str, runner: Runner, proxies: Result<Kind, &str>) -> ! {
    let mut arguments = Arguments::from_args();
    // They share the mesh, and each changes its configuration.
    arguments.test_threads = Some(1);
    if let Err(why) = &proxies
        && !arguments.list
    {
        mizzen_testing::skip(&format!("scenarios with {suite}"), why);
    }
    let mesh: Arc<Mutex<Option<Result<Live, String>>>> = Arc::default();
    let trials = all().into_iter().map(|scenario| {
        let ignored = proxies.is_err() || !scenario.is_for(runner);
        let (name, mesh, kind) = (scenario.name.clone(), Arc::clone(&mesh), proxies.clone().ok());
        let run = move || {
            let mut mesh = mesh.lock().unwrap_or_else(PoisonError::into_inner);
            let kind = kind.ok_or("this runner is not there")?;
            let started = mesh.get_or_insert_with(|| Live::start(kind));
            let live = started.as_mut().map_err(|why| Failed::from(format!("the mesh does not start: {why}")))?;
            told(&scenario, live.run(&scenario))
        };
        Trial::test(name, run).with_ignored_flag(ignored)
    });
    let conclusion = libtest_mimic::run(&arguments, trials.collect());
    // Ends what was started before the process does.
    drop(mesh.lock().unwrap_or_else(PoisonError::into_inner).take());
    conclusion.exit()
}

fn all() -> Vec<Scenario> {
    match Scenario::read_all(&mizzen_testing::repository().join("scenarios")) {
        Ok(scenarios) => scenarios,
        Err(error) => {
            eprintln!("{error}");
            std::process::exit(101)
        }
    }
}

fn told(scenario: &Scenario, result: Result<(), Vec<Wrong>>) -> Result<(), Failed> {
    result.map_err(|wrong| {
        let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        format!("scenarios/{}.md: {}\n  {}", scenario.name, scenario.title, lines.join("\n  ")).into()
    })
}
