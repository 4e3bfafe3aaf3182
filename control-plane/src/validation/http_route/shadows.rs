//! Rules that can never match, because another has the very same conditions and goes first.
//!
//! Gateway API orders conditions by how specific they are, so a more general rule never hides a more specific one,
//! wherever it stands; only equals hide each other. Among equals the older route goes first, then the first by
//! name, then the first in the list.

use std::sync::Arc;

use serde_json::json;

use super::super::path::Path;
use crate::kinds::HTTP_ROUTE;
use crate::kinds::http_route::{
    HttpRoute, HttpRouteMatch, ParentReference, PathMatch, PathMatchType, ValueMatch,
};
use crate::refusal::Cause;
use crate::store::Snapshot;

/// The matches of `route` that another one hides.
pub(super) fn causes(state: &Snapshot, route: &HttpRoute, path: &Path) -> Vec<Cause> {
    let everything = HttpRouteMatch::default();
    let own: Vec<(Path, &HttpRouteMatch)> = numbered(route, path, &everything);
    let elders = elders(state, route);
    let mut causes = Vec::new();
    for (index, (path, one)) in own.iter().enumerate() {
        if let Some((first, _)) = own[..index].iter().find(|(_, other)| is_equal(one, other)) {
            causes.push(hidden(
                path,
                one,
                &format!("{first} has the same conditions"),
            ));
        } else if let Some(elder) = elders.iter().find(|elder| has_match(elder, one)) {
            causes.push(hidden(
                path,
                one,
                &format!(
                    "HTTPRoute {:?}, which is older, has the same conditions for the same Service",
                    elder.name()
                ),
            ));
        }
    }
    causes
}

fn hidden(path: &Path, one: &HttpRouteMatch, why: &str) -> Cause {
    Cause::invalid(path, &json!(one), format!("can never match: {why}"))
}

fn numbered<'a>(
    route: &'a HttpRoute,
    path: &Path,
    everything: &'a HttpRouteMatch,
) -> Vec<(Path, &'a HttpRouteMatch)> {
    let mut all = Vec::new();
    for (index, rule) in route.spec.rules.iter().enumerate() {
        let path = path.index(index);
        if rule.matches.is_empty() {
            all.push((path, everything));
            continue;
        }
        let list = path.field("matches");
        let matches = rule.matches.iter().enumerate();
        all.extend(matches.map(|(index, one)| (list.index(index), one)));
    }
    all
}

/// Routes of the same Service and port that go before this one.
fn elders(state: &Snapshot, route: &HttpRoute) -> Vec<Arc<HttpRoute>> {
    let age = |route: &HttpRoute| {
        (
            route.metadata.creation_timestamp.clone(),
            route.name().to_owned(),
        )
    };
    state
        .list(&HTTP_ROUTE, Some(route.namespace()))
        .filter_map(|object| object.typed::<HttpRoute>())
        .filter(|other| other.name() != route.name() && age(other) < age(route))
        .filter(|other| shares_parent(&other.spec.parent_refs, &route.spec.parent_refs))
        .collect()
}

fn shares_parent(one: &[ParentReference], other: &[ParentReference]) -> bool {
    one.iter().any(|one| {
        other.iter().any(|other| {
            (&one.name, one.port, &one.section_name)
                == (&other.name, other.port, &other.section_name)
        })
    })
}

fn has_match(route: &HttpRoute, wanted: &HttpRouteMatch) -> bool {
    route.spec.rules.iter().any(|rule| {
        if rule.matches.is_empty() {
            is_equal(&HttpRouteMatch::default(), wanted)
        } else {
            rule.matches.iter().any(|one| is_equal(one, wanted))
        }
    })
}

/// Whether two matches ask for the same, in whatever order and with whatever left out.
fn is_equal(one: &HttpRouteMatch, other: &HttpRouteMatch) -> bool {
    is_equal_path(one.path.as_ref(), other.path.as_ref())
        && one.method == other.method
        && is_equal_set(&one.headers, &other.headers, is_equal_header)
        && is_equal_set(&one.query_params, &other.query_params, |one, other| {
            one == other
        })
}

fn is_equal_path(one: Option<&PathMatch>, other: Option<&PathMatch>) -> bool {
    let normal = |path: Option<&PathMatch>| match path {
        None => (PathMatchType::PathPrefix, String::new()),
        // `/shop/` and `/shop` are one prefix: it is matched by segments.
        Some(path) if path.kind == PathMatchType::PathPrefix => {
            (path.kind, path.value.trim_end_matches('/').to_owned())
        }
        Some(path) => (path.kind, path.value.clone()),
    };
    normal(one) == normal(other)
}

fn is_equal_header(one: &ValueMatch, other: &ValueMatch) -> bool {
    one.name.eq_ignore_ascii_case(&other.name)
        && (one.kind, &one.value) == (other.kind, &other.value)
}

fn is_equal_set<T>(one: &[T], other: &[T], is_equal: fn(&T, &T) -> bool) -> bool {
    one.len() == other.len()
        && one
            .iter()
            .all(|one| other.iter().any(|other| is_equal(one, other)))
}
