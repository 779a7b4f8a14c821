//! A file of manifests: whatever stands in it, reading it ends, and every finding can be shown.
#![no_main]

use libfuzzer_sys::fuzz_target;
use mizzen_config::{parse, report};

fuzz_target!(|text: &str| {
    let parsed = parse("f.yaml", text);
    for finding in &parsed.findings {
        // A line, and one with the hint: a name with a line break in it must not look like a finding of its own.
        let lines = report::line(finding);
        assert!(lines.lines().skip(1).all(|line| line.starts_with("  hint: ")), "{lines:?}");
        assert!(!lines.contains(|letter: char| letter.is_control() && letter != '\n'), "{lines:?}");
    }
    // The same text means the same.
    let again = parse("f.yaml", text);
    assert_eq!(parsed.objects.len(), again.objects.len());
    assert_eq!(parsed.findings, again.findings);
});
