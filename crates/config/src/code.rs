//! Codes of the findings about one file or one resource. Codes across resources live in `mizzen-analysis`.

/// Not YAML.
pub const SYNTAX: &str = "MZ0001";
/// A file, or what it expands to, is larger than any configuration should be.
pub const TOO_LARGE: &str = "MZ0002";
/// A document is no resource: `kind`, `apiVersion` or `metadata.name` is missing or malformed.
pub const NOT_A_RESOURCE: &str = "MZ0003";
/// A kind that this mesh does not read.
pub const UNKNOWN_KIND: &str = "MZ0004";
/// A field that the kind does not have.
pub const UNKNOWN_FIELD: &str = "MZ0005";
/// A value of the wrong type or form.
pub const WRONG_VALUE: &str = "MZ0006";
/// One key twice in one map.
pub const DUPLICATE_KEY: &str = "MZ0007";
/// Right, but not obeyed by this release.
pub const NOT_OBEYED: &str = "MZ0008";
/// One object in two places.
pub const DUPLICATE_OBJECT: &str = "MZ0009";
/// A file or folder cannot be read.
pub const UNREADABLE: &str = "MZ0010";
/// A required field is missing.
pub const MISSING: &str = "MZ0011";
/// A value that is not allowed in this field.
pub const NOT_ALLOWED: &str = "MZ0012";
/// Fields that exclude each other.
pub const CONFLICT: &str = "MZ0013";
/// A regular expression that cannot be used.
pub const REGEX: &str = "MZ0014";
/// Obeyed, but there is a newer way to write it, or it probably is not what was meant.
pub const DUBIOUS: &str = "MZ0015";

/// An object is wrong now; what it said before stays in force.
pub const LAST_GOOD: &str = "MZ0016";

/// Every code of this crate with what it means, in order: for documentation and tests.
pub const ALL: &[(&str, &str)] = &[
    (SYNTAX, "the document is not YAML"),
    (TOO_LARGE, "the file is larger, deeper or has more values than is read"),
    (NOT_A_RESOURCE, "the document is no resource"),
    (UNKNOWN_KIND, "the kind or version is not read by this mesh"),
    (UNKNOWN_FIELD, "the kind has no such field"),
    (WRONG_VALUE, "the value has the wrong type or form"),
    (DUPLICATE_KEY, "a key stands twice in one map"),
    (NOT_OBEYED, "the field is right but not obeyed by this release"),
    (DUPLICATE_OBJECT, "the same object is given twice"),
    (UNREADABLE, "the file or folder cannot be read"),
    (MISSING, "a required field is missing"),
    (NOT_ALLOWED, "the value is not allowed in this field"),
    (CONFLICT, "the fields exclude each other"),
    (REGEX, "the regular expression cannot be used"),
    (DUBIOUS, "the value is obeyed but probably not what was meant"),
    (LAST_GOOD, "the object is wrong now; its last good version stays in force"),
];
