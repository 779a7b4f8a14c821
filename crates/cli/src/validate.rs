//! `validate`: what is wrong with files, without a mesh.

use std::io::Read;
use std::path::{Path, PathBuf};

use mizzen_config::report::{self, Count};
use mizzen_types::{Finding, Severity};
use serde_json::{Value, json};

/// What validating came to.
#[derive(Debug, Default)]
pub struct Report {
    pub findings: Vec<Finding>,
    /// Files that could not be read at all, with the reason.
    pub unreadable: Vec<(PathBuf, String)>,
    pub files: usize,
    pub objects: usize,
}

/// Reads and checks `paths`: files, folders (all manifests in them), or `-` for `stdin`.
pub fn validate(paths: &[PathBuf], stdin: &mut dyn Read) -> Report {
    let mut report = Report::default();
    for path in paths {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            match stdin.read_to_string(&mut text) {
                Ok(_) => report.check("<stdin>", &text),
                Err(error) => report.unreadable.push((path.clone(), error.to_string())),
            }
        } else {
            report.add_path(path);
        }
    }
    report
}

impl Report {
    fn add_path(&mut self, path: &Path) {
        if !path.is_dir() {
            return self.add_file(path);
        }
        match std::fs::read_dir(path) {
            Ok(entries) => {
                let mut files: Vec<PathBuf> = entries.filter_map(Result::ok).map(|entry| entry.path()).collect();
                files.retain(|file| is_manifest(file));
                files.sort();
                files.iter().for_each(|file| self.add_file(file));
            }
            Err(error) => self.unreadable.push((path.to_owned(), error.to_string())),
        }
    }

    fn add_file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.check(&path.display().to_string(), &text),
            Err(error) => self.unreadable.push((path.to_owned(), error.to_string())),
        }
    }

    fn check(&mut self, name: &str, text: &str) {
        let parsed = mizzen_config::parse(name, text);
        self.files += 1;
        self.objects += parsed.objects.len();
        self.findings.extend(parsed.findings);
    }

    /// No error, though perhaps warnings.
    pub fn is_valid(&self) -> bool {
        self.unreadable.is_empty() && Count::of(&self.findings).errors == 0
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for (path, reason) in &self.unreadable {
            text.push_str(&format!("{}: error: cannot be read: {reason}\n", path.display()));
        }
        if self.findings.is_empty() && self.unreadable.is_empty() {
            let plural = |count: usize| if count == 1 { "" } else { "s" };
            let (objects, files) = (self.objects, self.files);
            return format!("valid: {objects} object{} in {files} file{}\n", plural(objects), plural(files));
        }
        if !self.findings.is_empty() {
            text.push_str(&report::lines(&self.findings));
        }
        text
    }

    /// For programs.
    pub fn json(&self) -> Value {
        let unreadable: Vec<Value> = self
            .unreadable
            .iter()
            .map(|(path, reason)| json!({"file": path.display().to_string(), "reason": reason}))
            .collect();
        json!({
            "valid": self.is_valid(),
            "files": self.files,
            "objects": self.objects,
            "unreadable": unreadable,
            "findings": self.findings.iter().map(finding_json).collect::<Vec<_>>(),
        })
    }
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "code": finding.code,
        "severity": match finding.severity {
            Severity::Info => "info",
            Severity::Warning => "warning",
            Severity::Error => "error",
        },
        "object": finding.origin.as_ref().map(|origin| origin.object.to_string()),
        "field": finding.origin.as_ref().map(|origin| origin.field.as_str()),
        "file": finding.position.as_ref().map(|position| &*position.file),
        "line": finding.position.as_ref().map(|position| position.line),
        "column": finding.position.as_ref().map(|position| position.column),
        "message": finding.message,
        "hint": finding.hint,
    })
}

fn is_manifest(path: &Path) -> bool {
    let extension = path.extension().and_then(|end| end.to_str()).unwrap_or_default();
    let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    ["yaml", "yml", "json"].contains(&extension)
        && !name.starts_with('.')
        && name != mizzen_local::manifest::SETTINGS_FILE
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(text: &str) -> Report {
        validate(&[PathBuf::from("-")], &mut text.as_bytes())
    }

    #[test]
    fn a_mistake_is_told_with_its_line() {
        let report = of(
            "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {name: a}\nspec:\n  hosts: [a]\n  htpp: []\n",
        );
        assert!(!report.is_valid());
        assert!(report.text().contains("<stdin>:6:"), "{}", report.text());
        assert_eq!(report.json()["findings"][0]["line"], 6);
    }

    #[test]
    fn what_is_right_is_valid() {
        let report = of("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\n");
        assert!(report.is_valid() && report.text().contains("valid: 1 object in 1 file"), "{}", report.text());
    }

    #[test]
    fn a_file_that_is_not_there_is_an_error() {
        let report = validate(&[PathBuf::from("/does/not/exist.yaml")], &mut std::io::empty());
        assert!(!report.is_valid() && report.text().contains("/does/not/exist.yaml"));
    }
}
