//! How a string is compared.

use schemars::JsonSchema;
use serde::Deserialize;

/// `{exact: …}`, `{prefix: …}` or `{regex: …}`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Deserialize, JsonSchema)]
#[serde(try_from = "Message")]
pub enum StringMatch {
    /// `{}`: on a header or query parameter, it only has to be there (reference: semantics 25).
    #[default]
    Present,
    Exact(String),
    Prefix(String),
    /// RE2 syntax; the whole string has to match.
    Regex(String),
}

/// A string is compared in one of these ways; `{}` on a header or query parameter only asks that it is there.
#[derive(Deserialize, Default, JsonSchema)]
#[serde(default)]
#[schemars(extend("maxProperties" = 1))]
struct Message {
    /// Equal to this.
    exact: Option<String>,
    /// Begins with this.
    prefix: Option<String>,
    /// The whole string matches this expression in RE2's syntax.
    regex: Option<String>,
}

impl TryFrom<Message> for StringMatch {
    type Error = &'static str;

    fn try_from(message: Message) -> Result<Self, Self::Error> {
        match message {
            Message { exact: None, prefix: None, regex: None } => Ok(Self::Present),
            Message { exact: Some(exact), prefix: None, regex: None } => Ok(Self::Exact(exact)),
            Message { exact: None, prefix: Some(prefix), regex: None } => Ok(Self::Prefix(prefix)),
            Message { exact: None, prefix: None, regex: Some(regex) } => Ok(Self::Regex(regex)),
            _ => Err("only one of `exact`, `prefix` and `regex` may be given"),
        }
    }
}
