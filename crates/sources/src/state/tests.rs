use std::path::PathBuf;

use mizzen_config::{Change, parse};

use super::{Batch, DUPLICATE_OBJECT, LAST_GOOD, Reading, State, UNREADABLE};

fn service(name: &str, port: u16) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: default}}\nspec: {{ports: [{{name: http, port: {port}}}]}}\n---\n"
    )
}

fn read(state: &mut State, file: &str, text: &str) -> Batch {
    state.update(vec![(PathBuf::from(file), Reading::Text(parse(file, text)))])
}

fn changes(batch: &Batch) -> Vec<String> {
    batch
        .changes
        .iter()
        .map(|change| match change {
            Change::Put(object) => format!("+{}", object.key.name),
            Change::Delete(key) => format!("-{}", key.name),
        })
        .collect()
}

fn codes(batch: &Batch) -> Vec<&str> {
    batch.findings.iter().flatten().map(|finding| finding.code).collect()
}

#[test]
fn only_what_differs_is_a_change() {
    let mut state = State::default();
    let text = service("a", 1) + &service("b", 1);
    assert_eq!(changes(&read(&mut state, "one.yaml", &text)), ["+a", "+b"]);
    let moved = read(&mut state, "one.yaml", &format!("# a comment\n{text}"));
    assert_eq!(changes(&moved), [""; 0]);
    assert_eq!(moved.moved[0].at("").map(|position| position.line), Some(2));
    assert_eq!(changes(&read(&mut state, "one.yaml", &(service("a", 2) + &service("b", 1)))), ["+a"]);
    assert_eq!(changes(&read(&mut state, "one.yaml", &service("a", 2))), ["-b"]);
    assert_eq!(changes(&state.update(vec![("one.yaml".into(), Reading::Gone)])), ["-a"]);
}

#[test]
fn the_last_good_version_stays_while_the_file_is_broken() {
    let mut state = State::default();
    read(&mut state, "one.yaml", &(service("a", 1) + &service("b", 1)));
    let broken = read(&mut state, "one.yaml", &(service("a", 2) + "kind: [unclosed\n"));
    assert_eq!(changes(&broken), ["+a"]);
    assert!(codes(&broken).contains(&LAST_GOOD), "{:?}", broken.findings);
    let unreadable = state.update(vec![("one.yaml".into(), Reading::Unreadable("permission denied".into()))]);
    assert_eq!((changes(&unreadable), codes(&unreadable)), (vec![], vec![UNREADABLE]));
}

#[test]
fn an_object_of_two_files_counts_where_it_stands_first() {
    let mut state = State::default();
    read(&mut state, "b.yaml", &service("a", 1));
    let both = read(&mut state, "a.yaml", &service("a", 2));
    assert_eq!((changes(&both), codes(&both)), (vec!["+a".to_owned()], vec![DUPLICATE_OBJECT]));
    assert_eq!(changes(&state.update(vec![("a.yaml".into(), Reading::Gone)])), ["+a"]);
}
