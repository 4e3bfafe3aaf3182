//! Which requests must present which JSON web tokens (RFC 7519).

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, Uri};

use super::live::Live;
use crate::config::matching::TextMatch;
use crate::config::route::RouteMatch;

/// Who signs tokens, and what requests must present.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtAuthnConfig {
    /// Who signs; requirements name them by position.
    pub providers: Vec<JwtProvider>,
    /// The first that matches counts; a request that none matches passes.
    pub rules: Vec<JwtRule>,
    /// Requirements that routes name.
    pub named: Vec<(Arc<str>, Requirement)>,
    /// Whether preflights pass.
    pub preflight_passes: bool,
    /// Whether callers are not told why.
    pub hides_reasons: bool,
    /// Of its counters; may be empty.
    pub stat_prefix: Arc<str>,
    /// Counters and keys.
    pub live: Live,
}

/// What requests must present.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtRule {
    /// Which requests.
    pub matches: RouteMatch,
    /// What; `None`: nothing.
    pub requirement: Option<Requirement>,
}

/// What a request must present.
#[derive(Debug, Clone, PartialEq)]
pub enum Requirement {
    /// A token of this provider, for one of these audiences where they are not the provider's.
    Provider(usize, Option<Vec<Arc<str>>>),
    /// One of these.
    Any(Vec<Requirement>),
    /// All of these.
    All(Vec<Requirement>),
    /// Nothing; but a token that is there must be valid.
    AllowMissing,
    /// Nothing.
    AllowAll,
}

/// What a part of the routes requires in place of the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JwtOverride {
    /// The name of a requirement; none: nothing is required.
    pub requirement: Option<Arc<str>>,
}

/// Who signs tokens, where they are found, and what becomes of them.
#[derive(Debug, Clone, PartialEq)]
pub struct JwtProvider {
    /// Its name.
    pub name: Arc<str>,
    /// `iss` of its tokens; `None`: whatever.
    pub issuer: Option<Arc<str>>,
    /// One of them must be among `aud`; empty: whatever.
    pub audiences: Vec<Arc<str>>,
    /// `sub` must pass.
    pub subjects: Option<TextMatch>,
    /// Whether tokens must have an end.
    pub requires_expiration: bool,
    /// No token may be made for longer.
    pub max_lifetime: Option<Duration>,
    /// How much clocks may differ.
    pub clock_skew: Duration,
    /// Its keys.
    pub keys: KeySource,
    /// Where tokens are found.
    pub locations: Vec<TokenLocation>,
    /// Whether tokens are passed on.
    pub forwards: bool,
    /// A header that the payload is put into.
    pub payload_header: Option<HeaderName>,
    /// Whether its base64 is padded.
    pub pads_payload: bool,
    /// A key of the metadata that the payload is put under.
    pub payload_metadata: Option<Arc<str>>,
    /// A key of the metadata that the token's header is put under.
    pub header_metadata: Option<Arc<str>>,
    /// A key of the metadata that the reason of a failure is put under.
    pub failure_metadata: Option<Arc<str>>,
    /// Claims that become headers, by their paths.
    pub claim_headers: Vec<(HeaderName, Vec<Arc<str>>)>,
    /// Whether the route is chosen anew when headers have changed.
    pub clears_route: bool,
}

/// Where keys come from.
#[derive(Debug, Clone, PartialEq)]
pub enum KeySource {
    /// From here: a JSON web key set (RFC 7517).
    Local(Arc<str>),
    /// From a server.
    Remote(RemoteKeys),
}

/// Keys that are fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteKeys {
    /// What is fetched.
    pub uri: Uri,
    /// The cluster that serves it.
    pub cluster: Arc<str>,
    /// How long that may take.
    pub timeout: Duration,
    /// How long they are kept.
    pub kept: Duration,
}

/// Where a token is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenLocation {
    /// In a header, after a prefix.
    Header(HeaderName, Arc<str>),
    /// In a parameter of the query.
    Parameter(Arc<str>),
    /// In a cookie.
    Cookie(Arc<str>),
}
