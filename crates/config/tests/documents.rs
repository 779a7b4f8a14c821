//! `docs/not-obeyed.md` says what `obeyed` says, and the README names every kind that is not obeyed.
//! `MIZZEN_UPDATE=1 cargo test -p mizzen-config --test documents` writes it anew.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::fs;

use mizzen_config::obeyed;
use mizzen_testing::repository;

fn expected() -> String {
    let mut text = String::from(
        "# What is read and not obeyed yet\n\n\
         `mizzen validate` and the control plane tell you when a resource of yours uses one of these; nothing is dropped in silence.\n\
         A test keeps this page equal to `crates/config/src/obeyed.rs`.\n\n\
         | kind | field | what happens instead |\n|---|---|---|\n",
    );
    let mut rows: BTreeMap<(String, String), &str> = BTreeMap::new();
    for (entry, path) in obeyed::entries() {
        let mut field = if path.is_empty() { "all of it".to_owned() } else { format!("`{path}`") };
        if !entry.values.is_empty() {
            let _infallible = write!(field, ": {}", entry.values.join(", "));
        }
        rows.insert((entry.kind.to_owned(), field), entry.instead);
    }
    for ((kind, field), instead) in rows {
        let _infallible = writeln!(text, "| {kind} | {field} | {instead} |");
    }
    text
}

#[test]
fn the_page_says_what_the_table_says() {
    let page = repository().join("docs/not-obeyed.md");
    if std::env::var_os("MIZZEN_UPDATE").is_some() {
        fs::write(&page, expected()).expect("the page can be written");
    }
    let found = fs::read_to_string(&page).expect("docs/not-obeyed.md");
    assert!(found == expected(), "docs/not-obeyed.md is out of date: run this test with MIZZEN_UPDATE=1");
}

#[test]
fn the_readme_names_each_kind_that_is_not_obeyed() {
    let readme = fs::read_to_string(repository().join("README.md")).expect("README.md");
    let table: String = readme.lines().filter(|line| line.starts_with("| no")).collect();
    for (entry, path) in obeyed::entries() {
        assert!(
            !path.is_empty() || table.contains(entry.kind),
            "the README's table does not say that {} is not obeyed",
            entry.kind
        );
    }
}
