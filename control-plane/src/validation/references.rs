//! Whether what a policy refers to is there.

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::path::Path;
use crate::kinds::http_route::HttpRoute;
use crate::kinds::reference::{TargetKind, TargetReference};
use crate::kinds::{HTTP_ROUTE, SERVICE};
use crate::refusal::Cause;
use crate::store::{Name, Snapshot};

/// The group of HTTPRoute.
pub(super) const GATEWAY_GROUP: &str = "gateway.networking.k8s.io";

/// The Service, or why not.
pub(super) fn service(
    state: &Snapshot,
    namespace: &str,
    name: &str,
    path: &Path,
) -> Result<Arc<Service>, Cause> {
    state
        .find(&SERVICE, &Name::new(namespace, name))
        .and_then(|object| object.typed::<Service>())
        .ok_or_else(|| {
            let close = state
                .list(&SERVICE, Some(namespace))
                .map(|service| service.name().name.clone())
                .find(|candidate| is_close(candidate, name));
            let hint = close.map_or_else(String::new, |close| format!("; did you mean {close:?}?"));
            Cause::not_found(
                path,
                format!("Service {name:?} in namespace {namespace:?}{hint}"),
            )
        })
}

/// The Service's ports, by number and name.
pub(super) fn ports(service: &Service) -> Vec<(u16, Option<&str>)> {
    let ports = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
    ports
        .into_iter()
        .flatten()
        .filter_map(|port| Some((u16::try_from(port.port).ok()?, port.name.as_deref())))
        .collect()
}

/// Why a Service has no port of this number.
pub(super) fn missing_port(service: &Service, port: u16, path: &Path) -> Option<Cause> {
    let known = ports(service);
    if known.iter().any(|(number, _)| *number == port) {
        return None;
    }
    let known: Vec<String> = known.iter().map(|(number, _)| number.to_string()).collect();
    Some(Cause::not_found(
        path,
        format!("port {port}; the Service has {}", known.join(", ")),
    ))
}

/// Why a Service has no port of this name.
pub(super) fn missing_section(service: &Service, name: &str, path: &Path) -> Option<Cause> {
    let known = ports(service);
    if known.iter().any(|(_, known)| *known == Some(name)) {
        return None;
    }
    Some(Cause::not_found(
        path,
        format!("the Service has no port named {name:?}"),
    ))
}

/// What is wrong with the targets of a policy.
pub(super) fn targets(
    state: &Snapshot,
    namespace: &str,
    targets: &[TargetReference],
    path: &Path,
) -> Vec<Cause> {
    let mut causes = Vec::new();
    for (index, target) in targets.iter().enumerate() {
        let path = path.index(index);
        if targets[..index].iter().any(|other| is_same(other, target)) {
            causes.push(Cause::duplicate(
                &path,
                &target.name,
                "named before in this list",
            ));
        }
        causes.extend(group(target, &path));
        causes.extend(match target.kind {
            TargetKind::Service => service_target(state, namespace, target, &path),
            TargetKind::HttpRoute => route_target(state, namespace, target, &path),
        });
    }
    causes
}

/// Whether two references mean the same thing; the group may be left out.
pub(super) fn is_same(one: &TargetReference, other: &TargetReference) -> bool {
    (one.kind, &one.name, &one.section_name) == (other.kind, &other.name, &other.section_name)
}

fn group(target: &TargetReference, path: &Path) -> Option<Cause> {
    let group = target.group.as_deref()?;
    let expected: &[&str] = match target.kind {
        TargetKind::Service => &["", "core"],
        TargetKind::HttpRoute => &[GATEWAY_GROUP],
    };
    (!expected.contains(&group))
        .then(|| Cause::not_supported(path.field("group"), &json!(group), expected))
}

fn service_target(
    state: &Snapshot,
    namespace: &str,
    target: &TargetReference,
    path: &Path,
) -> Option<Cause> {
    match service(state, namespace, &target.name, &path.field("name")) {
        Err(cause) => Some(cause),
        Ok(service) => missing_section(
            &service,
            target.section_name.as_deref()?,
            &path.field("sectionName"),
        ),
    }
}

fn route_target(
    state: &Snapshot,
    namespace: &str,
    target: &TargetReference,
    path: &Path,
) -> Option<Cause> {
    let route = state
        .find(&HTTP_ROUTE, &Name::new(namespace, &target.name))
        .and_then(|object| object.typed::<HttpRoute>());
    let Some(route) = route else {
        return Some(Cause::not_found(
            path.field("name"),
            format!("HTTPRoute {:?} in namespace {namespace:?}", target.name),
        ));
    };
    let section = target.section_name.as_deref()?;
    let names: Vec<&str> = route
        .spec
        .rules
        .iter()
        .filter_map(|rule| rule.name.as_deref())
        .collect();
    (!names.contains(&section)).then(|| {
        Cause::not_found(
            path.field("sectionName"),
            format!("the HTTPRoute has no rule named {section:?}"),
        )
    })
}

/// Whether at most one letter is another, missing, or too much.
pub(super) fn is_close(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) = (one.chars().collect(), other.chars().collect());
    if one.len().abs_diff(other.len()) > 1 {
        return false;
    }
    let start = one.iter().zip(&other).take_while(|(a, b)| a == b).count();
    let (one, other) = (&one[start..], &other[start..]);
    let end = one
        .iter()
        .rev()
        .zip(other.iter().rev())
        .take_while(|(a, b)| a == b)
        .count();
    one.len() - end <= 1 && other.len() - end <= 1
}

#[cfg(test)]
mod tests {
    use super::is_close;

    #[test]
    fn names_with_one_wrong_letter_are_close() {
        for (one, other) in [("reviews", "review"), ("reviews", "revews"), ("a", "b")] {
            assert!(is_close(one, other), "{one} {other}");
            assert!(is_close(other, one), "{other} {one}");
        }
        assert!(!is_close("reviews", "ratings"));
        assert!(!is_close("reviews", "rewiesw"));
    }
}
