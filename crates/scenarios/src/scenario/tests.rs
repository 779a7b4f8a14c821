use super::*;

fn parse(text: &str) -> Result<Scenario, ScenarioError> {
    Scenario::parse(Path::new("scenarios/a-name.md"), text)
}

const WHOLE: &str = "# A title\n\nprose\n```yaml a.yaml\na: 1\n```\n```findings\nerror VirtualService/default/r spec.x: wrong\nnone\n```\n\
    ```call\nfrom gateway\ntimes 20\nPOST http://Host:81/p?q\nA: b\n\nbody\n```\n```expect\nstatus 404\n```\n";

#[test]
fn a_file_becomes_blocks() {
    let scenario = parse(WHOLE).unwrap();
    assert_eq!((scenario.name.as_str(), scenario.title.as_str()), ("a-name", "A title"));
    let [Block::Config(files), Block::Findings(findings), Block::Call(call)] = scenario.blocks.as_slice() else {
        panic!("{:?}", scenario.blocks)
    };
    assert_eq!(files["a.yaml"], "a: 1\n");
    assert_eq!(findings.len(), 2);
    assert_eq!((call.from.as_str(), call.times, call.method.as_str()), ("gateway", 20, "POST"));
    assert_eq!((call.host(), call.port(), call.path_and_query.as_str()), ("Host", 81, "/p?q"));
    assert_eq!((call.headers["a"].to_str().unwrap(), call.body.as_str()), ("b", "body"));
    assert_eq!(call.expects.len(), 1);
}

#[test]
fn later_blocks_replace_and_delete_files() {
    let scenario = parse(
        "# t\n```yaml a.yaml\n1\n```\n```call\nGET http://a\n```\n```yaml a.yaml\n2\n```\n```yaml b.yaml\n3\n```\n```call\nGET http://a\n```\n```yaml a.yaml\n```\n```findings\nnone\n```\n",
    )
    .unwrap();
    let folders: Vec<String> = scenario
        .blocks
        .iter()
        .filter_map(|block| match block {
            Block::Config(files) => Some(files.iter().map(|(name, text)| format!("{name}={} ", text.trim())).collect()),
            _ => None,
        })
        .collect();
    assert_eq!(folders, ["a.yaml=1 ", "a.yaml=2 b.yaml=3 ", "b.yaml=3 "]);
}

#[test]
fn mistakes_are_told_with_their_line() {
    for (text, wanted) in [
        ("no title", "title"),
        ("# t\nno block", "nothing is expected"),
        ("# t\n```call\nGET http://a\n", "no end"),
        ("# t\n```expect\nstatus 1\n```\n", "has to follow"),
        ("# t\n```call\nGET nowhere\n```\n", ":3: the URL has no scheme"),
        ("# t\n```call\nGET http://a\n```\n```expect\nstatus 200\nwat 3\n```\n", ":7: "),
        ("# t\n```jaml\n```\n", "no block"),
        ("# t\n```findings\nbad x: y\n```\n", "SEVERITY"),
    ] {
        let error = parse(text).expect_err(text).to_string();
        assert!(error.contains(wanted), "{text:?}: {error}");
    }
}
