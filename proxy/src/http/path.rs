//! Paths and hosts in one spelling, before anybody looks at them.

use http::HeaderValue;
use http::header;
use http::uri::PathAndQuery;

use super::failure::{Failure, LocalReply};
use super::headers::Head;
use crate::config::paths::{EscapedSlashes, HostOptions, PathOptions, StripPort};
use crate::snapshot::routes::matches::is_grpc;
use crate::snapshot::routes::split_port;
use crate::telemetry::managers::HttpEvent;

/// Envoy's response code details.
const DETAILS: &str = "path_normalization_failed";

/// Gives a request's path one spelling; refuses it, or sends its caller there, where that is asked for.
pub(super) fn normalize(head: &mut Head, options: PathOptions) -> Result<(), Failure> {
    if options == PathOptions::default() || head.method == http::Method::CONNECT {
        return Ok(());
    }
    let (path, query) = match head.path().split_once('?') {
        Some((path, query)) => (path, Some(query)),
        None => (head.path(), None),
    };
    if is_plain(path) {
        return Ok(());
    }
    let mut new = path.to_owned();
    let mut is_redirected = false;
    if options.escaped_slashes != EscapedSlashes::Keep
        && let Some(unescaped) = without_escaped_slashes(&new)
    {
        match options.escaped_slashes {
            EscapedSlashes::Reject => return Err(refused()),
            EscapedSlashes::Redirect => is_redirected = true,
            EscapedSlashes::Unescape | EscapedSlashes::Keep => {}
        }
        new = unescaped;
    }
    if options.normalize {
        // No path has one, and readers of C strings would see another path.
        if new.contains("%00") {
            return Err(refused());
        }
        new = canonical(&new);
    }
    // After the normalisation, which may have made some.
    if options.merge_slashes {
        new = merged(&new);
    }
    if new == path {
        return Ok(());
    }
    if let Some(query) = query {
        new.push('?');
        new.push_str(query);
    }
    if is_redirected {
        return Err(if is_grpc(&head.headers) {
            refused()
        } else {
            redirected(&new)
        });
    }
    head.path = new.parse::<PathAndQuery>().map_err(|_| refused())?;
    Ok(())
}

/// Whether a path has one spelling by its looks, as most have: nothing is made of it.
fn is_plain(path: &str) -> bool {
    let bytes = path.as_bytes();
    let is_plain = |pair: &[u8]| {
        !matches!(
            pair,
            [b'%' | b'\\', _] | [_, b'%' | b'\\'] | [b'/', b'/' | b'.']
        )
    };
    bytes.first() == Some(&b'/') && bytes.windows(2).all(is_plain)
}

/// Gives a request's host one spelling; `port` is the listener's.
pub(super) fn normalize_host(head: &mut Head, options: HostOptions, port: u16) {
    if options == HostOptions::default() || head.method == http::Method::CONNECT {
        return;
    }
    let authority = head.authority();
    let (mut host, mut rest) = match split_port(authority) {
        Some((host, digits)) => (host, Some(digits)),
        None => (authority, None),
    };
    if options.strip_trailing_dot {
        host = host.strip_suffix('.').unwrap_or(host);
    }
    let is_stripped = match options.strip_port {
        StripPort::None => false,
        StripPort::Matching => rest.is_some_and(|digits| digits.parse() == Ok(port)),
        StripPort::Any => true,
    };
    if is_stripped {
        rest = None;
    }
    let new = match rest {
        Some(digits) => format!("{host}:{digits}"),
        None => host.to_owned(),
    };
    if new != authority {
        head.authority = HeaderValue::try_from(new).ok();
    }
}

/// As in Envoy, whoever sends such a path is given no second chance on the connection.
fn refused() -> Failure {
    let mut reply = LocalReply::new(http::StatusCode::BAD_REQUEST, DETAILS);
    let close = HeaderValue::from_static("close");
    reply.headers.push((header::CONNECTION, close));
    reply.event = Some(HttpEvent::PathRefused);
    Failure::Answered(Box::new(reply))
}

fn redirected(path: &str) -> Failure {
    let mut reply = LocalReply::new(http::StatusCode::TEMPORARY_REDIRECT, DETAILS);
    if let Ok(location) = HeaderValue::from_str(path) {
        reply.headers.push((header::LOCATION, location));
    }
    reply.event = Some(HttpEvent::PathRedirected);
    Failure::Answered(Box::new(reply))
}

/// The byte that three bytes of a path stand for (RFC 3986 §2.1).
fn escaped(bytes: &[u8]) -> Option<u8> {
    let [b'%', high, low] = *bytes.get(..3)? else {
        return None;
    };
    let digit = |byte: u8| (byte as char).to_digit(16);
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

/// `None` where there are none.
fn without_escaped_slashes(path: &str) -> Option<String> {
    let mut new = String::with_capacity(path.len());
    let mut rest = path;
    let mut has_any = false;
    while let Some(at) = rest.find('%') {
        new.push_str(&rest[..at]);
        rest = &rest[at..];
        let slash = match escaped(rest.as_bytes()) {
            Some(b'/') => '/',
            Some(b'\\') => '\\',
            _ => {
                new.push('%');
                rest = &rest[1..];
                continue;
            }
        };
        new.push(slash);
        rest = &rest[3..];
        has_any = true;
    }
    new.push_str(rest);
    has_any.then_some(new)
}

/// RFC 3986 §6.2.2: what need not be escaped is not, and dot segments are resolved; a backslash is a slash, as
/// for browsers.
fn canonical(path: &str) -> String {
    let unescaped = unescaped(path);
    let mut segments: Vec<&str> = Vec::new();
    let mut ends_with_slash = false;
    let body = unescaped.strip_prefix('/').unwrap_or(&unescaped);
    for segment in body.split('/') {
        ends_with_slash = false;
        match segment {
            "." => ends_with_slash = true,
            ".." => {
                segments.pop();
                ends_with_slash = true;
            }
            segment => segments.push(segment),
        }
    }
    let mut new = format!("/{}", segments.join("/"));
    if ends_with_slash && !new.ends_with('/') {
        new.push('/');
    }
    new
}

fn unescaped(path: &str) -> String {
    let mut new = String::with_capacity(path.len());
    let mut rest = path;
    while let Some(character) = rest.chars().next() {
        let length = match escaped(rest.as_bytes()) {
            Some(byte) if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) => {
                new.push(byte.into());
                end_nested_escape(&mut new, &rest[3..]);
                3
            }
            _ if character == '\\' => {
                new.push('/');
                1
            }
            _ => {
                new.push(character);
                character.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    new
}

/// An escape that another one was in, as in `%2%65`, is none: the percent sign that would begin it is escaped itself.
/// Else whoever reads the path next would find in it what had been taken out.
fn end_nested_escape(new: &mut String, rest: &str) {
    let before = |back: usize| new.len().checked_sub(back);
    let begun = [before(3), before(2)].into_iter().flatten();
    for at in begun.filter(|at| new.as_bytes()[*at] == b'%') {
        let mut escape = new.as_bytes()[at..].to_vec();
        escape.extend(rest.bytes().next());
        if escaped(&escape).is_some() {
            return new.insert_str(at + 1, "25");
        }
    }
}

fn merged(path: &str) -> String {
    let mut new = String::with_capacity(path.len());
    for character in path.chars() {
        if character != '/' || !new.ends_with('/') {
            new.push(character);
        }
    }
    new
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn head(path: &str, host: &str) -> Head {
        Head {
            scheme: "http",
            method: http::Method::GET,
            path: path.parse().expect("a path"),
            authority: HeaderValue::from_str(host).ok(),
            headers: HeaderMap::new(),
            uri: http::Uri::default(),
            extensions: Default::default(),
        }
    }

    fn normalized(path: &str, options: PathOptions) -> String {
        let mut head = head(path, "a");
        match normalize(&mut head, options) {
            Ok(()) => head.path().to_owned(),
            Err(Failure::Answered(reply)) => {
                let mut headers = reply.headers.iter();
                match headers.find(|(name, _)| name == http::header::LOCATION) {
                    Some((_, location)) => format!("to {}", location.to_str().expect("text")),
                    None => reply.status.as_str().to_owned(),
                }
            }
            Err(other) => panic!("{other}"),
        }
    }

    const BOTH: PathOptions = PathOptions {
        escaped_slashes: EscapedSlashes::Keep,
        normalize: true,
        merge_slashes: true,
    };

    #[test]
    fn what_has_one_spelling_by_its_looks_has_one() {
        for path in [
            "/",
            "/a",
            "/a.b/c-d/~e/",
            "/b/1024",
            "/%2e",
            "/a//b",
            "/./a",
            "/a/..",
            "/a\\b",
            "*",
            "/a%",
            "/a/.b",
        ] {
            let is_changed = merged(&canonical(path)) != path;
            assert!(!(is_plain(path) && is_changed), "{path}");
        }
        assert!(is_plain("/b/1024") && !is_plain("/a/../b") && !is_plain("/a\\"));
    }

    #[test]
    fn dots_are_resolved_and_needless_escapes_undone() {
        for (path, expected) in [
            ("/a/./b/../c", "/a/c"),
            ("/a/..", "/"),
            ("/../../a", "/a"),
            ("/a/b/.", "/a/b/"),
            ("//a/./b/../c%2e%2fd%41//\\e?x=//", "/a/c.%2fdA/e?x=//"),
            ("/a/%2E%2e/b", "/b"),
            ("/%zz/%4", "/%zz/%4"),
            ("/", "/"),
        ] {
            assert_eq!(normalized(path, BOTH), expected, "{path}");
        }
    }

    #[test]
    fn an_escape_in_an_escape_makes_no_new_one() {
        for (path, expected) in [
            ("/%2%65%2%65/a", "/%252e%252e/a"),
            ("/%%32e/a", "/%252e/a"),
            ("/%2%66", "/%252f"),
            ("/%%32%65", "/%252e"),
            ("/%%7a%32", "/%z2"),
            ("/%25%32e", "/%252e"),
        ] {
            assert_eq!(normalized(path, BOTH), expected, "{path}");
            assert_eq!(normalized(expected, BOTH), expected, "{expected}");
        }
    }

    #[test]
    fn slashes_are_merged_only_where_asked() {
        let normalize = PathOptions {
            merge_slashes: false,
            ..BOTH
        };

        assert_eq!(normalized("//a//b/", normalize), "//a//b/");
        assert_eq!(normalized("//a//b//", BOTH), "/a/b/");
    }

    #[test]
    fn escaped_slashes_are_kept_refused_redirected_or_unescaped() {
        let with = |escaped_slashes| PathOptions {
            escaped_slashes,
            ..PathOptions::default()
        };

        assert_eq!(normalized("/a%2Fb", with(EscapedSlashes::Keep)), "/a%2Fb");
        assert_eq!(normalized("/a%2Fb", with(EscapedSlashes::Reject)), "400");
        assert_eq!(normalized("/a%20b", with(EscapedSlashes::Reject)), "/a%20b");
        assert_eq!(
            normalized("/a%2fb?c=%2f", with(EscapedSlashes::Redirect)),
            "to /a/b?c=%2f"
        );
        assert_eq!(normalized("/a%2fb", with(EscapedSlashes::Unescape)), "/a/b");
    }

    #[test]
    fn a_host_loses_its_dot_and_its_port_where_asked() {
        let host = |host: &str, strip_port| {
            let mut head = head("/", host);
            let options = HostOptions {
                strip_trailing_dot: true,
                strip_port,
            };
            normalize_host(&mut head, options, 80);
            head.authority().to_owned()
        };

        assert_eq!(host("a.:80", StripPort::None), "a:80");
        assert_eq!(host("a:80", StripPort::Matching), "a");
        assert_eq!(host("a:81", StripPort::Matching), "a:81");
        assert_eq!(host("[::1]:81", StripPort::Any), "[::1]");
        assert_eq!(host("[::1]", StripPort::Any), "[::1]");
    }

    #[test]
    fn no_path_makes_the_normalisation_panic() {
        let pieces = ["/", "%", "2", "f", ".", "..", "\\", "%2e", "é", "?", ";"];
        for first in pieces {
            for second in pieces {
                for third in pieces {
                    let path = format!("/{first}{second}{third}");
                    let path = path.split('?').next().expect("one");
                    let new = merged(&canonical(path));
                    assert!(new.starts_with('/') && !new.contains("//"), "{path} {new}");
                    let _ = without_escaped_slashes(path);
                }
            }
        }
    }
}
