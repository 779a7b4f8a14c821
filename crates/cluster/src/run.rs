//! Steps one after the other, and a report that `cargo xtask test` can count.

use std::time::Instant;

use crate::place::Place;

/// One step: a name that says what holds, and what is done.
pub struct Step {
    pub name: &'static str,
    /// Without it no later step makes sense.
    pub needed: bool,
    pub run: fn(&Place, &mut Report) -> anyhow::Result<()>,
}

impl std::fmt::Debug for Step {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(self.name)
    }
}

/// Numbers that steps have measured.
#[derive(Debug, Default)]
pub struct Report {
    lines: Vec<(String, String)>,
}

impl Report {
    /// One line of the report.
    pub fn say(&mut self, what: impl Into<String>, value: impl Into<String>) {
        let (what, value) = (what.into(), value.into());
        println!("{what}: {value}");
        self.lines.push((what, value));
    }
}

/// Runs `steps`, or those whose names contain one of `wanted`; true when all passed.
pub fn run(place: &Place, steps: &[Step], wanted: &[String]) -> bool {
    let mut report = Report::default();
    let (mut passed, mut failed, mut stopped) = (0, 0, false);
    for step in steps {
        if !wanted.is_empty() && !wanted.iter().any(|part| step.name.contains(part.as_str())) {
            continue;
        }
        if stopped {
            println!("test {} ... FAILED", step.name);
            println!("    not reached");
            failed += 1;
            continue;
        }
        let began = Instant::now();
        match (step.run)(place, &mut report) {
            Ok(()) => {
                passed += 1;
                println!("test {} ... ok", step.name);
            }
            Err(error) => {
                failed += 1;
                stopped = step.needed;
                println!("test {} ... FAILED", step.name);
                println!("    {error:#}");
            }
        }
        println!("    {:.1} s", began.elapsed().as_secs_f32());
    }
    for (what, value) in &report.lines {
        println!("measured: {what}: {value}");
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; 0 ignored; 0 measured; 0 filtered out");
    failed == 0
}
