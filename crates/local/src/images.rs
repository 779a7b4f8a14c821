//! What to run in the place of a container image: the user's `images` map, and the built-in Bookinfo.

use std::collections::BTreeMap;

use serde::Deserialize;

/// How an application is started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AppCommand {
    /// Handed to `/bin/sh -c`, so that `$PORT` and friends can be used.
    Shell(String),
    /// A program and its arguments, as they are.
    Argv(Vec<String>),
    /// The built-in application.
    Bookinfo { service: String, version: String },
}

/// A command as people write it: a line for the shell, or a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
enum Written {
    Line(String),
    List(Vec<String>),
}

/// The `images` map of a `mizzen.yaml`: image pattern → command.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImageMap {
    entries: Vec<(String, AppCommand)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    images: BTreeMap<String, Written>,
}

impl ImageMap {
    /// Reads a `mizzen.yaml`.
    pub fn parse(text: &str) -> Result<Self, serde_saphyr::Error> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let file: File = serde_saphyr::from_str(text)?;
        let mut entries: Vec<_> = file
            .images
            .into_iter()
            .map(|(pattern, written)| {
                let command = match written {
                    Written::Line(line) => AppCommand::Shell(line),
                    Written::List(list) => AppCommand::Argv(list),
                };
                (pattern, command)
            })
            .collect();
        // The most specific pattern wins: most letters that are not a star.
        entries.sort_by_key(|(pattern, _)| std::cmp::Reverse(pattern.chars().filter(|letter| *letter != '*').count()));
        Ok(Self { entries })
    }

    /// The command for `image`: with its tag or digest first, then without.
    pub fn command(&self, image: &str) -> Option<&AppCommand> {
        let find =
            |image: &str| self.entries.iter().find(|(pattern, _)| glob(pattern, image)).map(|(_, command)| command);
        find(image).or_else(|| find(without_tag(image)))
    }
}

/// A command from the annotation `mizzen.dev/command`: a JSON list is taken word for word, anything else goes to a shell.
pub fn from_annotation(text: &str) -> AppCommand {
    match serde_json::from_str::<Vec<String>>(text) {
        Ok(list) if !list.is_empty() => AppCommand::Argv(list),
        _ => AppCommand::Shell(text.to_owned()),
    }
}

/// The built-in application for Istio's Bookinfo images, from whatever registry they come.
pub fn bookinfo(image: &str) -> Option<AppCommand> {
    let name = without_tag(image).rsplit('/').next()?;
    let rest = name.strip_prefix("examples-bookinfo-")?;
    let (service, version) = rest.rsplit_once("-v").map_or((rest, "1"), |(service, number)| (service, number));
    ["productpage", "details", "reviews", "ratings"]
        .contains(&service)
        .then(|| AppCommand::Bookinfo { service: service.to_owned(), version: format!("v{version}") })
}

fn without_tag(image: &str) -> &str {
    let image = image.split('@').next().unwrap_or(image);
    match image.rsplit_once(':') {
        // A colon before a slash belongs to the registry's port.
        Some((name, tag)) if !tag.contains('/') => name,
        _ => image,
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any letters.
fn glob(pattern: &str, text: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut text) = text.strip_prefix(head) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let tail = parts.pop().unwrap_or_default();
    for part in parts {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(tail)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn globs() {
        for (pattern, text, matches) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("*", "", true),
            ("a*", "abc", true),
            ("*c", "abc", true),
            ("a*c", "abc", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*/app:*", "docker.io/me/app:1.2", true),
            ("ab*b", "ab", false),
        ] {
            assert_eq!(glob(pattern, text), matches, "{pattern} {text}");
        }
    }

    #[test]
    fn the_most_specific_pattern_wins() {
        let map =
            ImageMap::parse("images:\n  '*': any\n  'me/app*': mine\n  'me/app:2': [./two, --fast]\n").expect("valid");
        assert_eq!(map.command("me/app:2"), Some(&AppCommand::Argv(vec!["./two".into(), "--fast".into()])));
        assert_eq!(map.command("me/app:3"), Some(&AppCommand::Shell("mine".into())));
        assert_eq!(map.command("other"), Some(&AppCommand::Shell("any".into())));
    }

    #[test]
    fn a_pattern_without_tag_stands_for_all_tags() {
        let map = ImageMap::parse("images: {'localhost:5000/app': ./app}").expect("valid");
        assert!(map.command("localhost:5000/app:7").is_some());
        assert!(map.command("localhost:5000/app@sha256:00").is_some());
        assert!(map.command("localhost:5000/apple").is_none());
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let error = ImageMap::parse("image: {a: b}").expect_err("no such field");
        assert!(error.to_string().contains("image"), "{error}");
    }

    #[test]
    fn bookinfo_images_of_any_registry_are_built_in() {
        for (image, expected) in [
            ("registry.istio.io/release/examples-bookinfo-reviews-v3:1.20.3", Some(("reviews", "v3"))),
            ("docker.io/istio/examples-bookinfo-productpage-v1", Some(("productpage", "v1"))),
            ("examples-bookinfo-ratings-v1@sha256:aa", Some(("ratings", "v1"))),
            ("docker.io/istio/examples-bookinfo-mongodb:1", None),
            ("nginx", None),
        ] {
            let expected = expected.map(|(service, version)| AppCommand::Bookinfo {
                service: service.to_owned(),
                version: version.to_owned(),
            });
            assert_eq!(bookinfo(image), expected, "{image}");
        }
    }

    #[test]
    fn annotations_are_lines_or_lists() {
        assert_eq!(from_annotation("./serve --port $PORT"), AppCommand::Shell("./serve --port $PORT".into()));
        assert_eq!(from_annotation(r#"["./serve", "a b"]"#), AppCommand::Argv(vec!["./serve".into(), "a b".into()]));
    }
}
