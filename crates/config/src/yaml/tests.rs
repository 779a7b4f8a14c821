use super::*;
use crate::code;

fn node(text: &str) -> Result<Node, Broken> {
    let mut documents = documents(text);
    assert_eq!(documents.len(), 1, "{documents:?}");
    documents.remove(0)
}

/// A node without its places, short to write.
fn plain(node: &Node) -> String {
    match &node.value {
        Value::Null => "null".into(),
        Value::Bool(flag, _) => flag.to_string(),
        Value::Int(number, _) => number.to_string(),
        Value::Float(number, _) => format!("{number:?}"),
        Value::String(text) => format!("{text:?}"),
        Value::Sequence(items) => format!("[{}]", items.iter().map(plain).collect::<Vec<_>>().join(" ")),
        Value::Mapping(entries) => {
            let entries: Vec<_> = entries.iter().map(|(key, value)| format!("{}={}", key.name, plain(value))).collect();
            format!("{{{}}}", entries.join(" "))
        }
    }
}

#[track_caller]
fn check(text: &str, expected: &str) {
    assert_eq!(plain(&node(text).unwrap()), expected, "{text}");
}

#[track_caller]
fn check_broken(text: &str, line: u32, column: u32, part: &str) {
    let broken = node(text).unwrap_err();
    assert_eq!(broken.mark, Mark { line, column }, "{text}: {broken:?}");
    assert!(broken.message.contains(part), "{text}: {broken:?}");
}

#[test]
fn words_mean_what_they_mean_to_kubernetes() {
    check("[yes, No, on, OFF, true, y]", r#"[true false true false true "y"]"#);
    check("[~, null, '', \"null\"]", r#"[null null "" "null"]"#);
    check("[1, -1, +1, 0x1F, 0o17, 017, 08, 1_000]", r#"[1 -1 1 31 15 15 8.0 "1_000"]"#);
    check(
        "[1.5, .5, -1e3, 1., 1.2.3, 10.0.0.1, .inf, 2026-11-22]",
        r#"[1.5 0.5 -1000.0 1.0 "1.2.3" "10.0.0.1" ".inf" "2026-11-22"]"#,
    );
    check(
        "[9223372036854775807, 99999999999999999999, --1, 0x, 0x-1]",
        r#"[9223372036854775807 1e20 "--1" "0x" "0x-1"]"#,
    );
    check("[!!str 1, !!int '2']", r#"["1" 2]"#);
    check("{1: a, true: b}", r#"{1="a" true="b"}"#);
}

#[test]
fn aliases_and_merged_maps_are_written_out() {
    check("a: &x {k: 1}\nb: *x", "{a={k=1} b={k=1}}");
    check("a: &x {k: 1, l: 2}\nb: {<<: *x, k: 3}", "{a={k=1 l=2} b={k=3 l=2}}");
    check("a: &x {k: 1}\nb: {k: 3, <<: [*x, {m: 4}]}", "{a={k=1} b={k=3 m=4}}");
    check_broken("a: &x [*x]", 1, 8, "inside of what it stands for");
}

#[test]
fn a_key_that_stands_twice_is_named() {
    check_broken("a: 1\nb: {c: 1, c: 2}", 2, 11, "`c` stands twice");
}

#[test]
fn what_is_no_yaml_is_named_with_its_place() {
    check_broken("a: b: c", 1, 5, "mapping values are not allowed");
    check_broken("a: [1", 1, 4, "unclosed bracket");
    check_broken("{[1]: 2}", 1, 2, "cannot be a key");
    check_broken("a: !vault x", 1, 11, "tag");
}

#[test]
fn a_broken_document_spoils_itself_only() {
    let found = documents("a: 1\n---\nb: [\n---\nc: 3\n---\nd: {x: 1, x: 2}\n---\ne: 5\n");
    let read: Vec<_> = found.iter().map(|d| d.as_ref().map(plain).map_err(|b| b.mark.line)).collect();
    assert_eq!(read, [Ok("{a=1}".to_owned()), Err(3), Ok("{c=3}".to_owned()), Err(7), Ok("{e=5}".to_owned())]);
}

#[test]
fn empty_documents_are_nothing() {
    assert!(documents("").is_empty());
    assert!(documents("---\n---\n# only a comment\n...\n").is_empty());
}

#[test]
fn s28_a_bomb_is_refused_before_it_is_built() {
    let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..12 {
        let previous = format!("*a{}", level - 1);
        bomb += &format!("a{level}: &a{level} [{}]\n", vec![previous; 10].join(", "));
    }
    let broken = documents(&bomb).remove(0).unwrap_err();
    assert_eq!(broken.code, code::TOO_LARGE);
    assert!(broken.message.contains("aliases"), "{broken:?}");
}

#[test]
fn s28_depth_is_limited_also_through_aliases() {
    let deep = "[".repeat(MAX_DEPTH + 1) + &"]".repeat(MAX_DEPTH + 1);
    assert_eq!(documents(&deep).remove(0).unwrap_err().code, code::TOO_LARGE);
    for levels in [MAX_DEPTH + 1, 1_000, 100_000] {
        for deep in ["[".repeat(levels), "{a: ".repeat(levels), "- ".repeat(levels), "? ".repeat(levels)] {
            let broken = documents(&deep).remove(0).unwrap_err();
            assert_eq!(broken.code, code::TOO_LARGE, "{levels} of {:?}: {broken:?}", &deep[..4]);
        }
    }
    let mut chain = "a0: &a0 [x]\n".to_owned();
    for level in 1..=MAX_DEPTH {
        chain += &format!("a{level}: &a{level} [*a{}]\n", level - 1);
    }
    assert_eq!(documents(&chain).remove(0).unwrap_err().code, code::TOO_LARGE);
}

#[test]
fn documents_are_counted() {
    let found = documents(&"a: 1\n---\n".repeat(MAX_DOCUMENTS + 2));
    assert_eq!(found.len(), MAX_DOCUMENTS + 1);
    assert!(found.last().unwrap().is_err());
}

proptest::proptest! {
    #[test]
    fn any_text_is_read_or_refused(text in "[-a-c:{}\\[\\],&*?!|>'\"#%@~<\n \t0-9.]{0,80}") {
        let _ = documents(&text);
    }

    #[test]
    fn any_characters_are_read_or_refused(text in proptest::prelude::any::<String>()) {
        let _ = documents(&text);
    }
}
