//! Changes of headers, trailers and queries.

use std::sync::Arc;

use http::{HeaderMap, HeaderName};

use crate::config::headers::{HeaderAction, HeaderMutations};
use crate::config::matching::TextMatch;
use crate::telemetry::access_log::format::Template;

/// What a chain changes.
#[derive(Debug, Clone, PartialEq)]
pub struct HeaderMutationConfig {
    /// For all requests.
    pub mutations: Mutations,
    /// Whether the innermost part of the routes goes last, and so has the last word; else it goes first.
    pub innermost_wins: bool,
}

impl HeaderMutationConfig {
    /// Whether what it makes of responses depends on their exchange.
    pub fn asks_on_response(&self) -> bool {
        let Mutations {
            response,
            response_trailers,
            ..
        } = &self.mutations;
        let mut changes = response.iter().chain(&**response_trailers);
        changes.any(Change::is_formatted)
    }
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
#[derive(Debug, Clone, PartialEq)]
pub enum QueryChange {
    /// A parameter is set.
    Set {
        /// Which.
        name: Arc<str>,
        /// To what.
        value: Template,
        /// How.
        action: HeaderAction,
    },
    /// A parameter is removed.
    Remove(Arc<str>),
}

impl Change {
    /// Carries it out where nothing is known of the exchange: operators stand for nothing.
    pub fn apply(&self, headers: &mut HeaderMap) {
        self.apply_in(headers, |_| String::new());
    }

    /// Carries it out; `text` says what operators stand for.
    pub fn apply_in(
        &self,
        headers: &mut HeaderMap,
        text: impl Fn((&Template, &HeaderMap)) -> String,
    ) {
        match self {
            Change::Set(mutations) => mutations.apply_in(headers, text),
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

impl Change {
    /// Whether it sets something that operators stand for.
    pub fn is_formatted(&self) -> bool {
        matches!(self, Change::Set(mutations) if mutations.is_formatted())
    }

    /// The same with what operators stand for now.
    pub fn settled(&self, text: impl Fn(&Template) -> String) -> Self {
        match self {
            Change::Set(mutations) => Change::Set(mutations.settled(text)),
            other => other.clone(),
        }
    }
}

impl QueryChange {
    /// Carries it out on parameters, which are kept as they are written; `text` says what operators stand for.
    pub fn apply(&self, parameters: &mut Vec<String>, text: impl Fn(&Template) -> String) {
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
                    let new = format!("{name}={}", as_query(&text(value)));
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

/// A text as a part of a query: what cannot stand there is written in percent signs (RFC 3986 §2.1).
fn as_query(text: &str) -> String {
    let mut query = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'"' | b'#' | b'<' | b'>' | b'\\' | b'^' | b'`' | b'{' | b'|' | b'}' => {
                query.push_str(&format!("%{byte:02X}"));
            }
            b'!'..=b'~' => query.push(char::from(byte)),
            _ => query.push_str(&format!("%{byte:02X}")),
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(change: &QueryChange, query: &str) -> String {
        let mut parameters = query.split('&').map(str::to_owned).collect();
        change.apply(&mut parameters, |value| {
            value.literal().unwrap_or_default().to_owned()
        });
        parameters.join("&")
    }

    fn set(action: HeaderAction) -> QueryChange {
        QueryChange::Set {
            name: "a".into(),
            value: Template::parse("2").expect("a literal"),
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
        let spaced = QueryChange::Set {
            name: "a".into(),
            value: Template::plain("x y&z"),
            action: HeaderAction::Overwrite,
        };
        assert_eq!(after(&spaced, "b=1"), "b=1&a=x%20y&z");
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
