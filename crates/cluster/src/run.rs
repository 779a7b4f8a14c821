//! Groups of steps one after the other, the steps of a group side by side, and a report that `cargo xtask test` can count.

use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::diagnosis;
use crate::place::Place;

/// When a step runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Without it no later step makes sense.
    Needed,
    /// As long as what was needed before it holds.
    Usual,
    /// Also after a failure and late: it takes away what the others have left.
    Always,
}

/// One step: a name that says what holds, and what is done.
#[derive(Clone, Copy)]
pub struct Step {
    pub name: &'static str,
    pub when: When,
    pub run: fn(&Place, &Report) -> anyhow::Result<()>,
}

impl fmt::Debug for Step {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.name)
    }
}

/// What a step cannot find here: it counts as ignored, and says why.
#[derive(Debug)]
pub struct Skipped(pub String);

impl fmt::Display for Skipped {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Skipped {}

/// Numbers that steps have measured.
#[derive(Debug, Default)]
pub struct Report {
    lines: Mutex<Vec<String>>,
}

impl Report {
    /// One line of the report.
    pub fn say(&self, what: impl fmt::Display, value: impl fmt::Display) {
        let line = format!("{what}: {value}");
        println!("{line}");
        self.lines.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }
}

/// How many steps ended how.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Counts {
    passed: usize,
    failed: usize,
    ignored: usize,
}

enum Outcome {
    Passed,
    /// Whether later steps make no sense now.
    Failed(bool),
    Ignored,
}

impl Counts {
    fn add(&mut self, outcome: &Outcome) {
        match outcome {
            Outcome::Passed => self.passed += 1,
            Outcome::Failed(_) => self.failed += 1,
            Outcome::Ignored => self.ignored += 1,
        }
    }
}

/// Runs `groups`, or of them the steps whose names contain one of `wanted`; true when none failed. None begins when the
/// place's time is over, but for those that run always where others did run.
pub fn run(place: &Place, groups: &[Vec<Step>], wanted: &[String]) -> bool {
    let report = Report::default();
    let mut counts = Counts::default();
    let (mut stopped, mut touched) = (false, false);
    let start = Instant::now();
    for group in groups {
        let chosen = |step: &Step| wanted.is_empty() || wanted.iter().any(|part| step.name.contains(part.as_str()));
        let late = place.time.is_some_and(|time| start.elapsed() > time);
        let runs = |step: &&Step| match step.when {
            When::Always => touched || !late,
            When::Needed | When::Usual => !(stopped || late),
        };
        let (now, not): (Vec<&Step>, Vec<&Step>) = group.iter().filter(|step| chosen(step)).partition(runs);
        touched |= !now.is_empty();
        for step in not {
            if stopped {
                println!("test {} ... FAILED\n    not reached", step.name);
                counts.failed += 1;
            } else {
                println!("test {} ... ignored, no time was left for it", step.name);
                counts.ignored += 1;
            }
        }
        for outcome in side_by_side(place, &report, &now) {
            counts.add(&outcome);
            stopped |= matches!(outcome, Outcome::Failed(true));
        }
    }
    for line in report.lines.lock().unwrap_or_else(PoisonError::into_inner).iter() {
        println!("measured: {line}");
    }
    let Counts { passed, failed, ignored } = counts;
    println!("all steps: {:.0} s", start.elapsed().as_secs_f32());
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; {ignored} ignored; 0 measured; 0 filtered out");
    failed == 0
}

fn side_by_side(place: &Place, report: &Report, steps: &[&Step]) -> Vec<Outcome> {
    std::thread::scope(|scope| {
        let running: Vec<_> = steps.iter().map(|step| (*step, scope.spawn(move || one(place, report, step)))).collect();
        running
            .into_iter()
            .map(|(step, thread)| {
                thread.join().unwrap_or_else(|_| {
                    println!("test {} ... FAILED\n    it panicked", step.name);
                    Outcome::Failed(step.when == When::Needed)
                })
            })
            .collect()
    })
}

fn one(place: &Place, report: &Report, step: &Step) -> Outcome {
    let began = Instant::now();
    let outcome = (step.run)(place, report);
    let took = seconds(began.elapsed());
    // One call each, so that lines of steps side by side do not mix.
    match outcome {
        Ok(()) => {
            println!("test {} ... ok\n    {took}", step.name);
            Outcome::Passed
        }
        Err(error) => match error.downcast_ref::<Skipped>() {
            Some(Skipped(why)) => {
                println!("test {} ... ignored, {why}\n    {took}", step.name);
                Outcome::Ignored
            }
            None => {
                let state = diagnosis::of_the_cluster();
                println!("test {} ... FAILED\n    {error:#}\n    {took}\n{state}", step.name);
                Outcome::Failed(step.when == When::Needed)
            }
        },
    }
}

fn seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f32())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::time::Duration;

    use anyhow::bail;

    use super::{Report, Skipped, Step, When, run};
    use crate::place::Place;

    fn place(time: Option<Duration>) -> Place {
        Place {
            mizzen: PathBuf::new(),
            istioctl: None,
            exec: Vec::new(),
            samples: PathBuf::new(),
            hub: String::new(),
            tag: String::new(),
            time,
        }
    }

    fn step(name: &'static str, when: When, run: fn(&Place, &Report) -> anyhow::Result<()>) -> Step {
        Step { name, when, run }
    }

    #[test]
    fn what_is_not_there_is_no_failure() {
        let groups = [vec![
            step("a", When::Usual, |_, _| Err(Skipped("no istioctl".to_owned()).into())),
            step("b", When::Usual, |_, _| Ok(())),
        ]];
        assert!(run(&place(None), &groups, &[]));
    }

    #[test]
    fn a_failure_is_one_and_a_panic_too() {
        assert!(!run(&place(None), &[vec![step("a", When::Usual, |_, _| bail!("no"))]], &[]));
        assert!(!run(&place(None), &[vec![step("a", When::Usual, |_, _| panic!("no"))]], &[]));
        assert!(run(&place(None), &[vec![step("a", When::Usual, |_, _| bail!("no"))]], &["b".to_owned()]));
    }

    #[test]
    fn cleaning_runs_also_after_what_was_needed_failed_and_when_the_time_is_over() {
        static CLEANED: std::sync::atomic::AtomicUsize = std::sync::atomic::AtomicUsize::new(0);
        let groups = |first: Step| {
            [
                vec![first],
                vec![step("b", When::Usual, |_, _| panic!("must not be reached"))],
                vec![step("c", When::Always, |_, _| {
                    CLEANED.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    Ok(())
                })],
            ]
        };
        const TIME: Duration = Duration::from_secs(1);
        let fails = step("a", When::Needed, |_, _| bail!("no"));
        let takes_all = step("a", When::Needed, |_, _| {
            std::thread::sleep(2 * TIME);
            Ok(())
        });
        assert!(!run(&place(None), &groups(fails), &[]));
        assert!(run(&place(Some(TIME)), &groups(takes_all), &[]));
        assert_eq!(CLEANED.load(std::sync::atomic::Ordering::Relaxed), 2);
        // Nobody ran, so there is nothing to clean.
        assert!(run(&place(Some(Duration::ZERO)), &groups(fails), &[]));
        assert_eq!(CLEANED.load(std::sync::atomic::Ordering::Relaxed), 2);
    }
}
