//! Slips and malice in configuration: whatever is done to a file, it is read or refused, and nothing panics.

use mizzen_analysis::analyse_objects;
use mizzen_config::{parse, report};
use proptest::prelude::*;

/// Every kind that is read, with most of its fields.
const WHOLE: &str = include_str!("whole.yaml");

#[derive(Debug, Clone)]
enum Edit {
    Remove { at: usize, lines: usize },
    Repeat { at: usize, lines: usize, to: usize },
    Replace { at: usize, with: String },
    Value { at: usize, with: &'static str },
}

fn edits() -> impl Strategy<Value = Edit> {
    let lines = WHOLE.lines().count();
    let value = prop::sample::select(vec![
        "",
        "null",
        "{}",
        "[]",
        "-1",
        "0",
        "99999999999",
        "1.5",
        "true",
        "\"\"",
        "'*'",
        "a/b/c",
        "[{}]",
        "[null]",
        "*x",
        "&x 1",
    ]);
    prop_oneof![
        (0..lines, 1usize..6).prop_map(|(at, lines)| Edit::Remove { at, lines }),
        (0..lines, 1usize..20, 0..lines).prop_map(|(at, lines, to)| Edit::Repeat { at, lines, to }),
        (0..WHOLE.len(), ".{0,4}").prop_map(|(at, with)| Edit::Replace { at, with }),
        (0..lines, value).prop_map(|(at, with)| Edit::Value { at, with }),
    ]
}

fn apply(text: &str, edit: &Edit) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let at = |at: usize| at.min(lines.len().saturating_sub(1));
    match edit {
        Edit::Remove { at: from, lines: count } => {
            let from = at(*from);
            lines.drain(from..(from + count).min(lines.len()));
        }
        Edit::Repeat { at: from, lines: count, to } => {
            let (from, to) = (at(*from), at(*to));
            let block: Vec<String> = lines[from..(from + count).min(lines.len())].to_vec();
            lines.splice(to..to, block);
        }
        Edit::Replace { at, with } => {
            let mut text = text.to_owned();
            let start = (0..=(*at).min(text.len())).rev().find(|index| text.is_char_boundary(*index)).unwrap_or(0);
            let end = text[start..].chars().next().map_or(start, |c| start + c.len_utf8());
            text.replace_range(start..end, with);
            return text;
        }
        Edit::Value { at: line, with } => {
            let line = at(*line);
            if let Some((key, _)) = lines[line].split_once(':') {
                lines[line] = format!("{key}: {with}");
            }
        }
    }
    lines.join("\n") + "\n"
}

#[test]
fn the_whole_is_right() {
    let parsed = parse("whole.yaml", WHOLE);
    let errors = report::Count::of(&parsed.findings).errors;
    assert_eq!(errors, 0, "{}", report::lines(&parsed.findings));
    assert!(parsed.objects.len() >= 20);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn nothing_that_is_done_to_a_file_panics(edits in prop::collection::vec(edits(), 1..6)) {
        let text = edits.iter().fold(WHOLE.to_owned(), |text, edit| apply(&text, edit));
        let parsed = parse("whole.yaml", &text);
        let mut findings = parsed.findings;
        findings.extend(analyse_objects(&parsed.objects));
        let _ = report::lines(&findings);
        for finding in &findings {
            if let (Some(origin), Some(object)) = (&finding.origin, parsed.objects.first()) {
                let _ = object.at(&origin.field);
            }
        }
    }
}
