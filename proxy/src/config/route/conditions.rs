//! Conditions of routes beside paths, headers and queries.

use std::sync::Arc;

use crate::config::matching::TextMatch;

/// What is asked of the client's certificate; `None`: nothing.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CertificateMatch {
    /// Whether it presented one.
    pub presented: Option<bool>,
    /// Whether it was found to be valid.
    pub validated: Option<bool>,
}

impl CertificateMatch {
    /// Whether a connection passes. Certificates that are not valid end their connection, so that one that was
    /// presented is valid.
    pub fn is_match(self, is_authenticated: bool) -> bool {
        let wanted = [self.presented, self.validated];
        wanted
            .into_iter()
            .flatten()
            .all(|wanted| wanted == is_authenticated)
    }
}

/// A test of one cookie.
#[derive(Debug, Clone, PartialEq)]
pub struct CookieMatch {
    /// Which.
    pub name: Arc<str>,
    /// Of its value.
    pub value: TextMatch,
    /// The opposite is asked.
    pub invert: bool,
}

impl CookieMatch {
    /// Whether a value passes; one that is not there doesn't, inverted or not.
    pub fn is_match(&self, value: Option<&str>) -> bool {
        value.is_some_and(|value| self.value.is_match(value) != self.invert)
    }
}

/// Which requests must have come by TLS.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum TlsRequirement {
    /// None.
    #[default]
    None,
    /// Those from outside.
    External,
    /// All.
    All,
}
