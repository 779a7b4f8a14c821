//! The form of a scenario file.
//!
//! ````markdown
//! # A title: what holds
//!
//! Prose.
//!
//! ```yaml reviews.yaml
//! apiVersion: networking.istio.io/v1
//! …
//! ```
//!
//! ```findings
//! error VirtualService/default/reviews spec.http[0].match[0].uri.regex: unclosed
//! ```
//!
//! ```call
//! from productpage
//! times 20
//! GET http://reviews:9080/reviews/0
//! end-user: jason
//! ```
//!
//! ```expect
//! status 200
//! from reviews-v2
//! ```
//! ````
//!
//! A call's first lines may also be `parallel N` (that many at the same time), `protocol http2` and `trailer NAME: VALUE`
//! (sent after the body). The method `TCP` sends the body as bytes to `tcp://HOST:PORT` and takes what comes back for the
//! answer. With `https` the caller speaks TLS; it takes any certificate, and `expect` can look at it.
//!
//! Blocks are taken in order. A `load` block has the form of a call: it is made without pause from there to the end of the
//! scenario, and its `expect` block holds for every single answer. `occupy` names an address that something else listens
//! on from there to the end, `refused` a part of what a proxy says that cannot obey. A `yaml` block is a file of the configuration folder; one with a name that was there
//! before replaces it, an empty one deletes it. `findings` are compared with all that is found about the files as they
//! are then; `none` stands for no warning and no error. An `expect` block belongs to the `call` before it; its lines are
//! those of [`Expect`]. A `runners` block names the runners that can check the scenario, with the reason.

use std::collections::BTreeMap;
use std::path::Path;

use crate::expect::{Expect, Runner};

/// What is wrong with a scenario file itself.
#[derive(Debug, thiserror::Error)]
#[error("{file}:{line}: {message}")]
pub struct ScenarioError {
    pub file: String,
    pub line: usize,
    pub message: String,
}

#[derive(Debug, Clone)]
pub struct Scenario {
    /// File name without `.md`.
    pub name: String,
    pub title: String,
    pub blocks: Vec<Block>,
    /// Runners that can check it; all when the file does not say.
    pub runners: Option<Vec<Runner>>,
}

/// A fenced block that means something.
#[derive(Debug, Clone)]
pub enum Block {
    /// The configuration folder after this block: file names and what is in them.
    Config(BTreeMap<String, String>),
    Findings(Vec<FindingLine>),
    Call(Box<Call>),
    /// A call that is made over and over until the scenario ends.
    Load(Box<Call>),
    /// Something else listens there until the scenario ends.
    Occupy(std::net::SocketAddr),
    /// A proxy refuses what it is told, with this in its reason.
    Refused {
        line: usize,
        text: String,
    },
}

/// A request and what is expected of it.
#[derive(Debug, Clone)]
pub struct Call {
    pub line: usize,
    /// The workload that calls, or `gateway` for a client outside of the mesh.
    pub from: String,
    pub times: u32,
    /// How many of them at the same time.
    pub parallel: u32,
    /// HTTP/2 from the first byte on.
    pub http2: bool,
    /// Sent after the body.
    pub trailers: http::HeaderMap,
    pub method: http::Method,
    pub scheme: String,
    /// Host with port as written.
    pub authority: String,
    pub path_and_query: String,
    pub headers: http::HeaderMap,
    pub body: String,
    pub expects: Vec<Expect>,
}

/// A finding that has to be there: severity, object and field, and a part of its text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindingLine {
    pub line: usize,
    /// `None` for `none`: there is no warning and no error.
    pub wanted: Option<WantedFinding>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WantedFinding {
    pub severity: mizzen_types::Severity,
    /// `KIND/NAMESPACE/NAME`, or `-` for a file that could not be read as objects.
    pub object: String,
    /// Where it begins; empty for anywhere.
    pub field: String,
    pub text: String,
}

impl Scenario {
    /// Reads a file's text. `file` is its path, for messages and for the name.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ScenarioError> {
        Parser { file: file.display().to_string(), line: 0 }.parse(file, text)
    }

    /// All scenarios of a folder, by name.
    pub fn read_all(folder: &Path) -> Result<Vec<Self>, ScenarioError> {
        let failed = |path: &Path, error: std::io::Error| ScenarioError {
            file: path.display().to_string(),
            line: 0,
            message: error.to_string(),
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(|error| failed(folder, error))? {
            let path = entry.map_err(|error| failed(folder, error))?.path();
            if path.extension().is_some_and(|extension| extension == "md") && !path.ends_with("README.md") {
                paths.push(path);
            }
        }
        paths.sort();
        paths
            .iter()
            .map(|path| {
                let text = std::fs::read_to_string(path).map_err(|error| failed(path, error))?;
                Self::parse(path, &text)
            })
            .collect()
    }

    /// Whether `runner` can say something about it: it is not excluded, and some line is for it.
    pub fn is_for(&self, runner: Runner) -> bool {
        self.runners.as_ref().is_none_or(|runners| runners.contains(&runner))
            && self.blocks.iter().any(|block| match block {
                Block::Config(_) => false,
                Block::Findings(_) => runner != Runner::Envoy,
                Block::Call(call) => call.expects.iter().any(|expect| expect.is_for(runner)),
                Block::Load(_) | Block::Occupy(_) | Block::Refused { .. } => runner != Runner::Memory,
            })
    }
}

struct Parser {
    file: String,
    line: usize,
}

impl Parser {
    fn wrong(&self, message: impl Into<String>) -> ScenarioError {
        ScenarioError { file: self.file.clone(), line: self.line, message: message.into() }
    }

    fn parse(mut self, path: &Path, text: &str) -> Result<Scenario, ScenarioError> {
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
        let mut scenario = Scenario { name, title: String::new(), blocks: Vec::new(), runners: None };
        let mut files = BTreeMap::new();
        let mut lines = text.lines().enumerate();
        while let Some((index, line)) = lines.next() {
            self.line = index + 1;
            if scenario.title.is_empty()
                && let Some(title) = line.strip_prefix("# ")
            {
                title.trim().clone_into(&mut scenario.title);
            }
            let Some(info) = line.strip_prefix("```") else { continue };
            let start = self.line;
            let mut content = Vec::new();
            loop {
                match lines.next() {
                    Some((_, "```")) => break,
                    Some((index, line)) => content.push((index + 1, line)),
                    None => return Err(self.wrong("this block has no end")),
                }
            }
            self.block(&mut scenario, &mut files, info.trim(), start, &content)?;
        }
        self.line = 1;
        if scenario.title.is_empty() {
            return Err(self.wrong("there is no title: a line that begins with \"# \""));
        }
        if !scenario.blocks.iter().any(|block| !matches!(block, Block::Config(_))) {
            return Err(self.wrong("nothing is expected: there is neither a call nor a findings block"));
        }
        Ok(scenario)
    }

    fn block(
        &mut self,
        scenario: &mut Scenario,
        files: &mut BTreeMap<String, String>,
        info: &str,
        start: usize,
        content: &[(usize, &str)],
    ) -> Result<(), ScenarioError> {
        let (kind, name) = info.split_once(' ').unwrap_or((info, ""));
        match kind {
            "yaml" => {
                let file = if name.is_empty() { format!("file{}.yaml", files.len() + 1) } else { name.to_owned() };
                if content.is_empty() {
                    files.remove(&file);
                } else {
                    let text = content.iter().map(|(_, line)| format!("{line}\n")).collect();
                    files.insert(file, text);
                }
                match scenario.blocks.last_mut() {
                    Some(Block::Config(folder)) => folder.clone_from(files),
                    _ => scenario.blocks.push(Block::Config(files.clone())),
                }
            }
            // A file too long to be written out: `NAME`, then a line of text and how often it stands there.
            "repeat" => {
                let [(_, count), rest @ ..] = content else { return Err(self.wrong("a repeat block is empty")) };
                let count: usize = count.trim().parse().map_err(|_| self.wrong("the first line is not a number"))?;
                let text: String = rest.iter().map(|(_, line)| format!("{line}\n")).collect();
                files.entry(name.to_owned()).or_default().push_str(&text.repeat(count));
                match scenario.blocks.last_mut() {
                    Some(Block::Config(folder)) => folder.clone_from(files),
                    _ => scenario.blocks.push(Block::Config(files.clone())),
                }
            }
            "findings" => {
                let mut found = Vec::new();
                for (line, text) in content {
                    self.line = *line;
                    if !text.trim().is_empty() {
                        found.push(FindingLine { line: *line, wanted: self.finding(text)? });
                    }
                }
                scenario.blocks.push(Block::Findings(found));
            }
            "call" => {
                let call = self.call(start, content)?;
                scenario.blocks.push(Block::Call(Box::new(call)));
            }
            "load" => {
                let call = self.call(start, content)?;
                scenario.blocks.push(Block::Load(Box::new(call)));
            }
            "occupy" => {
                for (line, text) in content {
                    self.line = *line;
                    let address = text.trim().parse().map_err(|_| self.wrong("expected ADDRESS:PORT"))?;
                    scenario.blocks.push(Block::Occupy(address));
                }
            }
            "refused" => {
                for (line, text) in content {
                    scenario.blocks.push(Block::Refused { line: *line, text: text.trim().to_owned() });
                }
            }
            "expect" => {
                let mut expects = Vec::new();
                for (line, text) in content {
                    self.line = *line;
                    if !text.trim().is_empty() {
                        expects.push(Expect::parse(*line, text.trim()).map_err(|message| self.wrong(message))?);
                    }
                }
                match scenario.blocks.last_mut() {
                    Some(Block::Call(call) | Block::Load(call)) if call.expects.is_empty() => call.expects = expects,
                    _ => return Err(self.wrong("an expect block has to follow a call or load block")),
                }
            }
            "runners" => {
                for (line, text) in content {
                    self.line = *line;
                    // The reason stands after a colon.
                    let names = text.split(':').next().unwrap_or_default();
                    for name in names.split_whitespace() {
                        let runner = name.parse().map_err(|message: String| self.wrong(message))?;
                        scenario.runners.get_or_insert_default().push(runner);
                    }
                }
            }
            // Examples for people.
            "" | "text" | "console" => {}
            other => return Err(self.wrong(format!("{other:?} is no block that a scenario can have"))),
        }
        Ok(())
    }

    fn finding(&self, text: &str) -> Result<Option<WantedFinding>, ScenarioError> {
        if text.trim() == "none" {
            return Ok(None);
        }
        let form = || self.wrong("a finding has the form SEVERITY KIND/NAMESPACE/NAME [FIELD]: TEXT");
        let (place, text) = text.split_once(": ").ok_or_else(form)?;
        let mut words = place.split_whitespace();
        let severity = match words.next() {
            Some("error") => mizzen_types::Severity::Error,
            Some("warning") => mizzen_types::Severity::Warning,
            Some("info") => mizzen_types::Severity::Info,
            _ => return Err(form()),
        };
        let object = words.next().ok_or_else(form)?.to_owned();
        let field = words.next().unwrap_or_default().to_owned();
        if words.next().is_some() {
            return Err(form());
        }
        Ok(Some(WantedFinding { severity, object, field, text: text.trim().to_owned() }))
    }

    fn call(&mut self, start: usize, content: &[(usize, &str)]) -> Result<Call, ScenarioError> {
        let mut call = Call {
            line: start,
            from: "productpage".to_owned(),
            times: 1,
            parallel: 1,
            http2: false,
            trailers: http::HeaderMap::new(),
            method: http::Method::GET,
            scheme: String::new(),
            authority: String::new(),
            path_and_query: String::new(),
            headers: http::HeaderMap::new(),
            body: String::new(),
            expects: Vec::new(),
        };
        let mut lines = content.iter();
        for (line, text) in lines.by_ref() {
            self.line = *line;
            if text.is_empty() {
                break;
            }
            if call.authority.is_empty() {
                match text
                    .split_once(' ')
                    .ok_or_else(|| self.wrong("expected from, times, parallel, protocol, trailer or METHOD URL"))?
                {
                    ("from", from) => from.trim().clone_into(&mut call.from),
                    ("protocol", "http2") => call.http2 = true,
                    ("trailer", trailer) => {
                        let (name, value) = self.field(trailer)?;
                        call.trailers.append(name, value);
                    }
                    ("parallel", number) => {
                        call.parallel = number.trim().parse().map_err(|_| self.wrong("parallel needs a number"))?;
                        call.times = call.times.max(call.parallel);
                    }
                    ("times", times) => {
                        call.times = times.trim().parse().map_err(|_| self.wrong("times needs a number"))?;
                    }
                    (method, url) => self.target(&mut call, method, url.trim())?,
                }
            } else {
                let (name, value) = self.field(text)?;
                call.headers.append(name, value);
            }
        }
        call.body = lines.map(|(_, line)| *line).collect::<Vec<_>>().join("\n");
        self.line = start;
        if call.authority.is_empty() { Err(self.wrong("the call has no METHOD URL line")) } else { Ok(call) }
    }

    fn field(&self, text: &str) -> Result<(http::HeaderName, http::HeaderValue), ScenarioError> {
        let (name, value) = text.split_once(':').ok_or_else(|| self.wrong("expected NAME: VALUE"))?;
        let name = name.trim().parse().map_err(|_| self.wrong("not a header name"))?;
        let value = value.trim().parse().map_err(|_| self.wrong("not a header value"))?;
        Ok((name, value))
    }

    fn target(&self, call: &mut Call, method: &str, url: &str) -> Result<(), ScenarioError> {
        call.method = method.parse().map_err(|_| self.wrong(format!("{method:?} is no method")))?;
        let (scheme, rest) = url.split_once("://").ok_or_else(|| self.wrong("the URL has no scheme"))?;
        let end = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(end);
        if authority.is_empty() {
            return Err(self.wrong("the URL has no host"));
        }
        scheme.clone_into(&mut call.scheme);
        authority.clone_into(&mut call.authority);
        call.path_and_query = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        Ok(())
    }
}

impl Call {
    /// Whether it is bytes and no request.
    pub fn is_tcp(&self) -> bool {
        self.method == "TCP"
    }

    /// Host without port.
    pub fn host(&self) -> &str {
        match self.authority.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
            _ => &self.authority,
        }
    }

    /// The port of the URL: 80, or 443 for https, when none is written.
    pub fn port(&self) -> u16 {
        let written = self.authority.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        written.unwrap_or(if self.scheme == "https" { 443 } else { 80 })
    }
}

#[cfg(test)]
mod tests;
