//! Changes of headers, trailers and queries.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use crate::config::headers::{HeaderAction, HeaderMutations};
use crate::config::matching::TextMatch;

/// What a chain changes.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMutationConfig {
    /// For all requests.
    pub mutations: Mutations,
    /// Whether the innermost part of the routes goes last, and so has the last word; else it goes first.
    pub innermost_wins: bool,
}

/// Changes, each list in order.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Mutations {
    /// Of requests.
    pub request: Vec<Change>,
    /// Of the trailers of requests.
    pub request_trailers: Arc<[Change]>,
    /// Of responses.
    pub response: Arc<[Change]>,
    /// Of the trailers of responses.
    pub response_trailers: Arc<[Change]>,
    /// Of queries.
    pub query: Vec<QueryChange>,
}

/// One change.
#[derive(Debug, Clone, PartialEq)]
pub enum Change {
    /// Headers are set.
    Set(HeaderMutations),
    /// A header is removed.
    Remove(HeaderName),
    /// All headers with such names are removed.
    RemoveMatching(TextMatch),
}

/// One change of a query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum QueryChange {
    /// A parameter is set.
    Set {
        /// Which.
        name: Arc<str>,
        /// To what.
        value: Arc<str>,
        /// How.
        action: HeaderAction,
    },
    /// A parameter is removed.
    Remove(Arc<str>),
}

impl Change {
    /// Carries it out.
    pub fn apply(&self, headers: &mut HeaderMap) {
        match self {
            Change::Set(mutations) => mutations.apply(headers),
            Change::Remove(name) => {
                headers.remove(name);
            }
            Change::RemoveMatching(test) => {
                let is_match = |name: &&HeaderName| test.is_match(name.as_str());
                let names: Vec<_> = headers.keys().filter(is_match).cloned().collect();
                for name in names {
                    headers.remove(name);
                }
            }
        }
    }
}

impl QueryChange {
    /// Carries it out on parameters, which are kept as they are written.
    pub fn apply(&self, parameters: &mut Vec<String>) {
        let is =
            |parameter: &str, name: &str| parameter.split('=').next().unwrap_or_default() == name;
        match self {
            QueryChange::Remove(name) => parameters.retain(|one| !is(one, name)),
            QueryChange::Set {
                name,
                value,
                action,
            } => {
                let is_there = parameters.iter().any(|one| is(one, name));
                let is_set = match action {
                    HeaderAction::Append | HeaderAction::Overwrite => true,
                    HeaderAction::AddIfAbsent => !is_there,
                    HeaderAction::OverwriteIfPresent => is_there,
                };
                if is_set {
                    let new = format!("{name}={value}");
                    let place = parameters.iter().position(|one| is(one, name));
                    match place.filter(|_| *action != HeaderAction::Append) {
                        // The first keeps its place, and is the only one.
                        Some(place) => {
                            let mut rest = parameters.split_off(place);
                            rest.retain(|one| !is(one, name));
                            parameters.push(new);
                            parameters.append(&mut rest);
                        }
                        None => parameters.push(new),
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(change: &QueryChange, query: &str) -> String {
        let mut parameters = query.split('&').map(str::to_owned).collect();
        change.apply(&mut parameters);
        parameters.join("&")
    }

    fn set(action: HeaderAction) -> QueryChange {
        QueryChange::Set {
            name: "a".into(),
            value: "2".into(),
            action,
        }
    }

    #[test]
    fn a_parameter_is_set_as_headers_are() {
        assert_eq!(after(&set(HeaderAction::Append), "a=1&b=1"), "a=1&b=1&a=2");
        assert_eq!(
            after(&set(HeaderAction::Overwrite), "a=1&b=1&a=3"),
            "a=2&b=1"
        );
        assert_eq!(after(&set(HeaderAction::AddIfAbsent), "a=1"), "a=1");
        assert_eq!(after(&set(HeaderAction::OverwriteIfPresent), "b=1"), "b=1");
        assert_eq!(
            after(&QueryChange::Remove("a".into()), "a=1&ab=1&a"),
            "ab=1"
        );
    }

    #[test]
    fn headers_go_by_the_look_of_their_names() {
        use crate::config::matching::TextTest;
        let internal = Change::RemoveMatching(TextMatch {
            test: TextTest::Prefix("x-internal-".into()),
            ignore_case: false,
        });
        let mut headers = HeaderMap::new();
        headers.insert("x-internal-a", http::HeaderValue::from_static("1"));
        headers.insert("x-public", http::HeaderValue::from_static("1"));

        internal.apply(&mut headers);

        assert_eq!(
            headers.keys().map(HeaderName::as_str).collect::<Vec<_>>(),
            ["x-public"]
        );
    }
}
