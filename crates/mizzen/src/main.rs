//! The binary. It reads flags and environment (nobody else does), sets up logging, and hands over to the crate that
//! does the work: one small file per subcommand in `cmd/`.

#![forbid(unsafe_code)]

mod cmd;
mod logging;
mod signals;
mod terminal;

use std::process::ExitCode;

use clap::Parser;
use mizzen_local::netns::inside;
use mizzen_local::{child, reaper};

use crate::cmd::Cli;

fn main() -> ExitCode {
    // Children of the supervisor that are not what they will be, or nothing yet: no parsing, no runtime, nothing that costs.
    let mut arguments = std::env::args_os().skip(1);
    match arguments.next() {
        Some(first) if first == child::GUARD => {
            let error = child::become_program(arguments);
            eprintln!("error: {error}");
            return ExitCode::from(126);
        }
        Some(first) if first == child::ENTER => {
            let error = child::enter_and_become(arguments);
            eprintln!("error: {error}");
            return ExitCode::from(126);
        }
        Some(first) if first == reaper::REAPER => {
            return reaper::run(arguments).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
        }
        Some(first) if first == inside::SANDBOX => {
            return inside::run(arguments).map_or(ExitCode::FAILURE, |()| ExitCode::SUCCESS);
        }
        _ => {}
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => {
            // Help and version go to stdout with status 0, mistakes to stderr with status 2.
            let code = u8::try_from(refusal.exit_code()).unwrap_or(2);
            // Nobody to tell when the terminal is gone.
            let _ = refusal.print();
            return ExitCode::from(code);
        }
    };
    cmd::run(cli).unwrap_or_else(|error| {
        terminal::error(&error);
        ExitCode::FAILURE
    })
}
