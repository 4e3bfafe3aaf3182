//! Which endpoint a request is sent to, as far as the request itself decides: Envoy's hash policies.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};

use super::HttpConnection;
use super::filter::Passage;
use super::headers::Head;
use super::target::Destination;
use crate::cluster::Session;
use crate::cluster::hash::xxhash;
use crate::config::affinity::{AimConfig, HashCookie, HashPolicy, HashSource, Priority};
use crate::config::balancing::Criteria;
use crate::config::matching::{RequestLine, Subject, Substitution};
use crate::config::upstream_socket::ClientSource;

/// What a request says of its endpoint.
#[derive(Debug, Clone, Default)]
pub(super) struct Aim {
    pub(super) hash: Option<u64>,
    pub(super) subset: Option<Arc<Criteria>>,
    pub(super) session: Option<Session>,
    pub(super) priority: Priority,
    /// The client whose address the connection is to have.
    pub(super) source: Option<ClientSource>,
}

impl Aim {
    /// One of several clusters of a route may ask for other labels than the route.
    pub(super) fn narrow(&mut self, destination: &Destination<'_>) {
        let weighted = destination.weighted;
        if let Some(subset) = weighted.and_then(|weighted| weighted.subset.as_ref()) {
            self.subset = Some(Arc::clone(subset));
        }
    }
}

/// What a request says of its endpoint; a cookie that is made for it goes with its response.
pub(super) fn aim(
    config: &AimConfig,
    head: &Head,
    (connection, client): (&HttpConnection, Option<IpAddr>),
    passage: &mut Passage,
) -> Aim {
    let (hash, made) = match &*config.hash {
        [] => (None, None),
        policies => hash(
            policies,
            &Facts {
                headers: &head.headers,
                line: head.line(),
                client: client.unwrap_or(connection.downstream.peer.ip()),
                peer: connection.downstream.peer,
                local: connection.downstream.local,
            },
        ),
    };
    if let Some(cookie) = made {
        passage.on_response(move |returning| {
            returning
                .response
                .headers_mut()
                .append(header::SET_COOKIE, cookie);
        });
    }
    Aim {
        hash,
        subset: config.subset.clone(),
        session: passage.session,
        priority: config.priority,
        source: passage.source.or(connection.client_source),
    }
}

/// What hashes are made of.
struct Facts<'a> {
    headers: &'a HeaderMap,
    line: RequestLine<'a>,
    /// Whoever has sent the request.
    client: IpAddr,
    peer: SocketAddr,
    local: SocketAddr,
}

/// Envoy's way of putting several into one: rotated and joined, in order. With it the cookie that is to be set.
fn hash(policies: &[HashPolicy], facts: &Facts<'_>) -> (Option<u64>, Option<HeaderValue>) {
    let mut all: Option<u64> = None;
    let mut made = None;
    for policy in policies {
        let one = match &policy.source {
            HashSource::Header { name, rewrite } => of_header(facts, name, rewrite.as_ref()),
            HashSource::Cookie(cookie) => match value_of(facts.headers, &cookie.name) {
                Some(value) => Some(xxhash(0, value.as_bytes())),
                None => of_new_cookie(cookie, facts, &mut made),
            },
            HashSource::SourceAddress => Some(xxhash(0, facts.client.to_string().as_bytes())),
            HashSource::QueryParameter(name) => of_parameter(facts.line.path, name),
        };
        if let Some(one) = one {
            all = Some(all.map_or(0, |all| all.rotate_left(1)) ^ one);
        }
        if policy.is_terminal && all.is_some() {
            break;
        }
    }
    (all, made)
}

fn of_header(facts: &Facts<'_>, name: &Subject, rewrite: Option<&Substitution>) -> Option<u64> {
    let Subject::Header(name) = name else {
        let value = name.of_line(facts.line)?;
        let value = rewrite.map_or(value.into(), |rewrite| rewrite.apply(value));
        return Some(xxhash(0, value.as_bytes()));
    };
    let mut values = facts.headers.get_all(name).iter();
    let first = values.next()?;
    let rewritten = |value: &HeaderValue| match (rewrite, value.to_str()) {
        (Some(rewrite), Ok(text)) => rewrite.apply(text).into_owned().into_bytes(),
        _ => value.as_bytes().to_vec(),
    };
    let mut all: Vec<_> = values.map(rewritten).collect();
    if all.is_empty() && rewrite.is_none() {
        return Some(xxhash(0, first.as_bytes()));
    }
    all.push(rewritten(first));
    // In one order, whatever the order on the wire.
    all.sort_unstable();
    Some(all.iter().fold(0, |seed, value| xxhash(seed, value)))
}

fn of_new_cookie(
    cookie: &HashCookie,
    facts: &Facts<'_>,
    made: &mut Option<HeaderValue>,
) -> Option<u64> {
    let ttl = cookie.ttl?;
    // The same for all requests of a connection: those that race get the same cookie.
    let local = xxhash(0, facts.local.to_string().as_bytes());
    let value = format!("{:016x}", xxhash(local, facts.peer.to_string().as_bytes()));
    let mut text = format!("{}=\"{value}\"", cookie.name);
    if !ttl.is_zero() {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if !cookie.path.is_empty() {
        text.push_str(&format!("; Path={}", cookie.path));
    }
    for (name, value) in &cookie.attributes {
        text.push_str(&match value.is_empty() {
            true => format!("; {name}"),
            false => format!("; {name}={value}"),
        });
    }
    text.push_str("; HttpOnly");
    *made = HeaderValue::try_from(text).ok();
    Some(xxhash(0, value.as_bytes()))
}

/// The value of a cookie, without quotes.
fn value_of<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let lines = headers.get_all(header::COOKIE).iter();
    let lines = lines.filter_map(|value| value.to_str().ok());
    let mut pairs = lines.flat_map(|line| line.split(';'));
    let value = pairs.find_map(|pair| {
        let (key, value) = pair.trim().split_once('=')?;
        (key == name).then_some(value)
    })?;
    let value = value.trim_matches('"');
    (!value.is_empty()).then_some(value)
}

fn of_parameter(path: &str, name: &str) -> Option<u64> {
    let (_, query) = path.split_once('?')?;
    let value = query.split('&').find_map(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        (key == name).then_some(value)
    })?;
    Some(xxhash(0, value.as_bytes()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use http::HeaderName;

    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    fn hashed(
        policies: &[HashPolicy],
        pairs: &[(&'static str, &'static str)],
        path: &str,
    ) -> (Option<u64>, Option<HeaderValue>) {
        let facts = Facts {
            headers: &headers(pairs),
            line: RequestLine {
                method: "GET",
                path,
                authority: "shop",
                scheme: "http",
            },
            client: [10, 0, 0, 9].into(),
            peer: ([10, 0, 0, 9], 4000).into(),
            local: ([10, 0, 0, 1], 80).into(),
        };
        hash(policies, &facts)
    }

    fn by(source: HashSource) -> HashPolicy {
        HashPolicy {
            source,
            is_terminal: false,
        }
    }

    fn by_header(name: &'static str) -> HashPolicy {
        by(HashSource::Header {
            name: Subject::Header(HeaderName::from_static(name)),
            rewrite: None,
        })
    }

    #[test]
    fn what_is_not_there_is_not_hashed() {
        assert_eq!(hashed(&[by_header("x-user")], &[], "/").0, None);
        assert_eq!(
            hashed(&[by_header("x-user")], &[("x-user", "ann")], "/").0,
            Some(xxhash(0, b"ann"))
        );
    }

    #[test]
    fn the_line_of_a_request_is_hashed_as_headers_are() {
        let by = |name| {
            by(HashSource::Header {
                name,
                rewrite: None,
            })
        };

        let (path, _) = hashed(&[by(Subject::Path)], &[], "/a?q");
        let (host, _) = hashed(&[by(Subject::Authority)], &[], "/a?q");

        assert_eq!(path, Some(xxhash(0, b"/a?q")));
        assert_eq!(host, Some(xxhash(0, b"shop")));
    }

    #[test]
    fn several_are_joined_in_order_and_a_terminal_one_ends_it() {
        let query = by(HashSource::QueryParameter("q".into()));
        let both = [by_header("x-user"), query.clone()];
        let one = xxhash(0, b"ann");

        let joined = hashed(&both, &[("x-user", "ann")], "/a?x=1&q=2").0;
        assert_eq!(joined, Some(one.rotate_left(1) ^ xxhash(0, b"2")));

        let terminal = HashPolicy {
            is_terminal: true,
            ..by_header("x-user")
        };
        let first = hashed(
            &[terminal.clone(), query.clone()],
            &[("x-user", "ann")],
            "/?q=2",
        )
        .0;
        assert_eq!(first, Some(one));
        // Where it is not there, the next is looked at.
        let second = hashed(&[terminal, query], &[], "/?q=2").0;
        assert_eq!(second, Some(xxhash(0, b"2")));
    }

    #[test]
    fn the_values_of_a_header_count_in_one_order() {
        let policies = [by_header("x-user")];

        let one = hashed(&policies, &[("x-user", "a"), ("x-user", "b")], "/").0;
        let other = hashed(&policies, &[("x-user", "b"), ("x-user", "a")], "/").0;

        assert_eq!(one, other);
        assert_ne!(one, hashed(&policies, &[("x-user", "a")], "/").0);
    }

    #[test]
    fn a_cookie_that_is_not_there_is_made_and_leads_to_the_same_endpoint() {
        let policies = [by(HashSource::Cookie(HashCookie {
            name: "session".into(),
            ttl: Some(Duration::from_secs(60)),
            path: "/shop".into(),
            attributes: vec![("SameSite".into(), "Lax".into())],
        }))];

        let (first, made) = hashed(&policies, &[], "/");
        let made = made.expect("a cookie");
        let text = made.to_str().expect("text");
        assert!(
            text.ends_with("; Max-Age=60; Path=/shop; SameSite=Lax; HttpOnly"),
            "{text}"
        );
        let pair: &'static str = text.split(';').next().expect("a pair").to_owned().leak();

        let (again, none) = hashed(&policies, &[("cookie", pair)], "/");

        assert_eq!(again, first);
        assert!(none.is_none());
    }

    #[test]
    fn a_cookie_without_a_lifetime_is_not_made() {
        let policies = [by(HashSource::Cookie(HashCookie {
            name: "session".into(),
            ttl: None,
            path: "".into(),
            attributes: vec![],
        }))];

        assert_eq!(
            hashed(&policies, &[("cookie", "other=1")], "/"),
            (None, None)
        );
    }
}
