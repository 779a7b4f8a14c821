//! Errors in words.

use std::error::Error;

/// An error with what lies under it, outermost first: the outer ones rarely say why.
pub fn with_causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        // Some errors write their cause into their own text.
        if !text.contains(&inner_text) {
            text.push_str(": ");
            text.push_str(&inner_text);
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Layer(&'static str, Option<Box<Self>>);

    impl std::fmt::Display for Layer {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str(self.0)
        }
    }

    impl Error for Layer {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            self.1.as_deref().map(|inner| inner as _)
        }
    }

    #[test]
    fn each_cause_is_told_once() {
        let refused = Layer("connection refused", None);
        let connect = Layer("cannot connect: connection refused", Some(Box::new(refused)));
        let outer = Layer("transport error", Some(Box::new(connect)));
        assert_eq!(with_causes(&outer), "transport error: cannot connect: connection refused");
        assert_eq!(with_causes(&Layer("alone", None)), "alone");
    }
}
