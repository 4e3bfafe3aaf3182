//! Which of a cluster's endpoints a route wants its requests to go to.

use std::sync::Arc;
use std::time::Duration;

use super::balancing::Criteria;
use super::matching::{Subject, Substitution};

/// What a route says of the endpoint.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct AimConfig {
    /// What requests that belong together have in common, in order.
    pub hash: Vec<HashPolicy>,
    /// What labels it must have.
    pub subset: Option<Arc<Criteria>>,
    /// Against which limits requests count.
    pub priority: Priority,
}

/// Against which limits a request counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    /// The usual ones.
    #[default]
    Default,
    /// Those of requests that go before others.
    High,
}

/// Something of a request that decides its endpoint.
#[derive(Debug, Clone, PartialEq)]
pub struct HashPolicy {
    /// What.
    pub source: HashSource,
    /// Whether those after it are not looked at where it is there.
    pub is_terminal: bool,
}

/// What of a request is hashed.
#[derive(Debug, Clone, PartialEq)]
pub enum HashSource {
    /// A header, rewritten first.
    Header {
        /// Which.
        name: Subject,
        /// How.
        rewrite: Option<Substitution>,
    },
    /// A cookie.
    Cookie(HashCookie),
    /// The address of the client.
    SourceAddress,
    /// A parameter of the query.
    QueryParameter(Arc<str>),
}

/// A cookie that is hashed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HashCookie {
    /// Its name.
    pub name: Arc<str>,
    /// Where it is not there, it is made, and holds for so long; 0: until the client ends. `None`: it is not made.
    pub ttl: Option<Duration>,
    /// The path it is made for.
    pub path: Arc<str>,
    /// What else is said of it.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
}
