//! Keeps `docs/security.md` true: every test that it names exists and is named after its row.

use std::collections::BTreeSet;
use std::fs;

use mizzen_testing::repository;

/// Texts in backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

#[test]
fn every_row_is_held_by_tests_named_after_it() {
    let page = fs::read_to_string(repository().join("docs/security.md")).expect("docs/security.md");
    let (mut wrong, mut rows) = (Vec::new(), BTreeSet::new());
    for line in page.lines().filter(|line| line.starts_with("| S")) {
        let columns: Vec<&str> = line.split('|').map(str::trim).collect();
        let (row, tests) = (columns[1], columns[3]);
        rows.insert(row.to_owned());
        let prefix = format!("{}_", row.to_lowercase());
        let (mut source, mut count) = (String::new(), 0);
        for name in quoted(tests) {
            if name.contains('/') {
                source = fs::read_to_string(repository().join(name)).unwrap_or_default();
            } else if name.starts_with(&prefix) && source.contains(&format!("fn {name}()")) {
                count += 1;
            } else {
                wrong.push(format!("{row}: there is no test {name} of that row"));
            }
        }
        if count == 0 {
            wrong.push(format!("{row}: no test holds it"));
        }
    }
    for row in [1, 2, 3, 4, 5, 6, 8, 9, 10, 12, 13, 27, 28, 30, 32, 33, 34, 35, 38] {
        if !rows.contains(&format!("S{row}")) {
            wrong.push(format!("S{row} is missing"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
