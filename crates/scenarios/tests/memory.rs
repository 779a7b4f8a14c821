//! Every scenario of `scenarios/`, as the pure decision sees it.

use libtest_mimic::{Arguments, Failed, Trial};
use mizzen_scenarios::{Runner, Scenario, memory};

fn main() {
    let arguments = Arguments::from_args();
    let folder = mizzen_testing::repository().join("scenarios");
    let scenarios = Scenario::read_all(&folder).unwrap_or_else(|error| panic!("{error}"));
    let trials = scenarios
        .into_iter()
        .map(|scenario| {
            let ignored = !scenario.is_for(Runner::Memory);
            Trial::test(scenario.name.clone(), move || check(&scenario)).with_ignored_flag(ignored)
        })
        .collect();
    libtest_mimic::run(&arguments, trials).exit();
}

fn check(scenario: &Scenario) -> Result<(), Failed> {
    memory::run(scenario).map_err(|wrong| {
        let lines: Vec<String> = wrong.iter().map(ToString::to_string).collect();
        format!("scenarios/{}.md: {}\n  {}", scenario.name, scenario.title, lines.join("\n  ")).into()
    })
}
