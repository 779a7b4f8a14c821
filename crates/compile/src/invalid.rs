//! What is wrong with a resource, and where in it.

use std::fmt;

/// A field that cannot be obeyed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Invalid {
    /// Dotted path with indexes, in the names of the `.proto` files; empty for the resource as a whole.
    pub(crate) field: String,
    /// Lower case, no full stop.
    pub(crate) message: String,
}

pub(crate) type Result<T> = std::result::Result<T, Invalid>;

impl Invalid {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { field: String::new(), message: message.into() }
    }

    /// Something that Envoy obeys and this proxy does not yet: obeying the rest without it would be wrong.
    pub(crate) fn not_obeyed(what: impl fmt::Display) -> Self {
        Self::new(format!("{what} is not obeyed by this proxy yet"))
    }
}

/// Puts the place before an error on its way up.
pub(crate) trait At<T> {
    fn at(self, field: &str) -> Result<T>;
    fn at_index(self, field: &str, index: usize) -> Result<T>;
}

impl<T> At<T> for Result<T> {
    fn at(self, field: &str) -> Self {
        self.map_err(|invalid| invalid.within(field))
    }

    fn at_index(self, field: &str, index: usize) -> Self {
        self.map_err(|invalid| invalid.within(&format!("{field}[{index}]")))
    }
}

impl Invalid {
    pub(crate) fn within(mut self, outer: &str) -> Self {
        self.field = match (outer.is_empty(), self.field.is_empty()) {
            (true, _) => self.field,
            (false, true) => outer.to_owned(),
            (false, false) => format!("{outer}.{}", self.field),
        };
        self
    }
}

/// Whether a field has another value than its default.
pub(crate) fn is_set<T: Default + PartialEq>(field: &T) -> bool {
    *field != T::default()
}

/// Refuses a message that sets one of these fields, which change behaviour and are not obeyed.
macro_rules! not_obeyed {
    ($message:expr, $($field:ident),+ $(,)?) => {
        $(
            if $crate::invalid::is_set(&$message.$field) {
                return Err($crate::invalid::Invalid::not_obeyed("this field").within(stringify!($field)));
            }
        )+
    };
}
pub(crate) use not_obeyed;
