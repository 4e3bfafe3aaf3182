//! Options of HTTP/1.1 that listeners and clusters share: Envoy's `Http1ProtocolOptions`.

use http::HeaderValue;

use super::matching::TextMatch;

/// How HTTP/1.1 is spoken on one side. What only one side knows is ignored on the other.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Http1Options {
    /// How names of headers are written.
    pub names: HeaderNames,
    /// Of clients: whether they may speak HTTP/1.0.
    pub accepts_http10: bool,
    /// The host of requests of HTTP/1.0 that name none.
    pub default_host: Option<HeaderValue>,
    /// Of clients: whether a request that names its whole URL is refused.
    pub refuses_absolute_url: bool,
    /// Of clients: protocols whose upgrade is left out, allowed or not.
    pub ignored_upgrades: Vec<TextMatch>,
    /// Of upstreams: whether requests name their whole URL.
    pub sends_absolute_url: bool,
}

/// How names of headers are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HeaderNames {
    /// `content-type`.
    #[default]
    LowerCase,
    /// `Content-Type`.
    ProperCase,
    /// In lower case; those of messages that are read here as they came, wherever they are written.
    Preserved,
    /// The same; what is added to such a message is written like `Content-Type`.
    PreservedElseProper,
}

impl HeaderNames {
    /// Whether it is remembered how names came.
    pub fn are_preserved(self) -> bool {
        matches!(
            self,
            HeaderNames::Preserved | HeaderNames::PreservedElseProper
        )
    }
}
