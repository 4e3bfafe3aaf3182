//! What a request for resources is about: the path taken apart.

use http::{HeaderMap, Method, Uri};

use super::query::Query;
use crate::auth::Caller;
use crate::kinds::{self, Kind};
use crate::refusal::Refusal;
use crate::revisions::Author;
use crate::store::Name;

/// No path has more segments that matter.
const MOST_SEGMENTS: usize = 64;

/// What a path below `/api` or `/apis` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Path {
    /// A group: `/apis/apps`.
    Group(String),
    /// A version of a group: `/api/v1`.
    Version { group: String, version: String },
    /// All objects of a kind, or those of one namespace.
    Collection {
        kind: &'static Kind,
        namespace: Option<String>,
    },
    /// One object.
    Object { kind: &'static Kind, name: Name },
    /// Something below an object.
    Below {
        kind: &'static Kind,
        name: Name,
        subresource: String,
        /// What follows the subresource, without a leading slash.
        rest: String,
    },
}

impl Path {
    pub(super) fn of(path: &str) -> Result<Self, Refusal> {
        parse(path).ok_or_else(|| Refusal::NotFound {
            resource: "paths".to_owned(),
            name: path.to_owned(),
        })
    }
}

fn parse(path: &str) -> Option<Path> {
    let mut segments = path.trim_matches('/').splitn(MOST_SEGMENTS, '/');
    let (group, version) = match segments.next()? {
        "api" => ("", segments.next()),
        "apis" => (segments.next()?, segments.next()),
        _ => return None,
    };
    let Some(version) = version else {
        return Some(Path::Group(group.to_owned()));
    };
    let Some(first) = segments.next() else {
        return Some(Path::Version {
            group: group.to_owned(),
            version: version.to_owned(),
        });
    };
    let rest: Vec<&str> = segments.collect();
    // `namespaces/a/pods` is about pods; `namespaces/a` and `namespaces/a/status` are about the namespace.
    if first == "namespaces"
        && let [namespace, plural, rest @ ..] = rest.as_slice()
        && let Some(kind) = kinds::by_plural(group, version, plural)
        && kind.is_namespaced
    {
        return named(kind, Some(decode(namespace)?), rest);
    }
    named(kinds::by_plural(group, version, first)?, None, &rest)
}

fn named(kind: &'static Kind, namespace: Option<String>, rest: &[&str]) -> Option<Path> {
    let [name, rest @ ..] = rest else {
        return Some(Path::Collection { kind, namespace });
    };
    // An object of a kind with namespaces is only found in one.
    if kind.is_namespaced && namespace.is_none() {
        return None;
    }
    let name = Name::new(namespace.unwrap_or_default(), decode(name)?);
    Some(match rest {
        [] => Path::Object { kind, name },
        [subresource, rest @ ..] => Path::Below {
            kind,
            name,
            subresource: (*subresource).to_owned(),
            rest: rest.join("/"),
        },
    })
}

/// Percent-decoding (RFC 3986 §2.1) of one segment; `None` where it is no text, or would be more than one segment.
pub(super) fn decode(segment: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        let digits = std::str::from_utf8(&digits).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.contains(['/', '\0'])).then_some(text)
}

/// A request for resources.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) query: Query,
    pub(super) caller: Caller,
}

impl Request {
    /// Whether the caller would rather have a table.
    pub(super) fn wants_table(&self) -> bool {
        self.accept().contains("as=Table")
    }

    /// What the caller takes.
    pub(super) fn accept(&self) -> &str {
        text(&self.headers, "accept")
    }

    /// What the body is, without parameters, in lower case.
    pub(super) fn content_type(&self) -> String {
        let full = text(&self.headers, "content-type");
        let essence = full.split(';').next().unwrap_or_default();
        essence.trim().to_ascii_lowercase()
    }

    /// Who changes fields, as server-side apply knows them.
    pub(super) fn manager(&self) -> String {
        const LONGEST: usize = 128;
        let agent = text(&self.headers, "user-agent");
        let program = agent.split(['/', ' ']).next().unwrap_or_default();
        let given = self.query.text("fieldManager").unwrap_or(program);
        let given: String = given.chars().take(LONGEST).collect();
        if given.is_empty() {
            "unknown".to_owned()
        } else {
            given
        }
    }

    /// Who changes objects, as the history knows them.
    pub(super) fn author(&self) -> Author {
        Author {
            user: self.caller.user.clone(),
            manager: self.manager(),
        }
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> &'a str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kinds::{DEPLOYMENT, NAMESPACE, POD};

    #[test]
    fn paths_name_groups_collections_objects_and_what_is_below() {
        let object = |kind, namespace: &str, name: &str| Path::Object {
            kind,
            name: Name::new(namespace, name),
        };

        for (path, expected) in [
            ("/apis/apps", Path::Group("apps".into())),
            (
                "/api/v1",
                Path::Version {
                    group: String::new(),
                    version: "v1".into(),
                },
            ),
            (
                "/apis/apps/v1/deployments",
                Path::Collection {
                    kind: &DEPLOYMENT,
                    namespace: None,
                },
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments",
                Path::Collection {
                    kind: &DEPLOYMENT,
                    namespace: Some("a".into()),
                },
            ),
            (
                "/apis/apps/v1/namespaces/a/deployments/b",
                object(&DEPLOYMENT, "a", "b"),
            ),
            ("/api/v1/namespaces/a", object(&NAMESPACE, "", "a")),
            (
                "/api/v1/namespaces/a/pods/b%3A80/proxy/x/y",
                Path::Below {
                    kind: &POD,
                    name: Name::new("a", "b:80"),
                    subresource: "proxy".into(),
                    rest: "x/y".into(),
                },
            ),
        ] {
            assert_eq!(parse(path), Some(expected), "{path}");
        }
    }

    #[test]
    fn what_no_path_can_name_is_not_found() {
        for path in [
            "/api/v1/podz",
            "/apis/apps/v2/deployments",
            "/api/v1/pods/b",
            "/api/v1/namespaces/a/namespaces/b/c",
            "/api/v1/namespaces/..%2F..%2Fx/pods",
            "/api/v1/namespaces/%zz/pods",
        ] {
            let found = parse(path);
            let is_object_of_a_namespace =
                matches!(&found, Some(Path::Below { kind, .. }) if **kind == NAMESPACE);
            assert!(
                found.is_none() || is_object_of_a_namespace,
                "{path}: {found:?}"
            );
        }
    }
}
