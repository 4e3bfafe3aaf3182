//! What is done to paths and hosts of requests before they are routed.

/// What is done to paths, in this order.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PathOptions {
    /// What is done about `%2F` and `%5C`.
    pub escaped_slashes: EscapedSlashes,
    /// Whether dot segments are resolved, and what need not be escaped is not (RFC 3986 §6.2.2).
    pub normalize: bool,
    /// Whether slashes in a row become one.
    pub merge_slashes: bool,
}

/// What is done about `%2F` and `%5C`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum EscapedSlashes {
    /// They are left alone.
    #[default]
    Keep,
    /// The request is refused.
    Reject,
    /// The caller is sent to the path without them.
    Redirect,
    /// They become slashes.
    Unescape,
}

/// What is done to hosts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostOptions {
    /// Whether a dot at the end is taken away.
    pub strip_trailing_dot: bool,
    /// Which port is taken away.
    pub strip_port: StripPort,
}

/// Which port is taken from a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum StripPort {
    /// None.
    #[default]
    None,
    /// The listener's own.
    Matching,
    /// Any.
    Any,
}
