//! What is wrong with an `HTTPRoute`: references, contradictions, rules that can never match.

mod filters;
mod matches;
mod shadows;

use std::sync::Arc;

use k8s_openapi::api::core::v1::Service;
use serde_json::json;

use super::names::is_label;
use super::path::Path;
use super::references;
use crate::kinds::http_route::{
    BackendReference, FilterAction, HttpRoute, HttpRouteRule, ParentReference,
};
use crate::refusal::Cause;
use crate::store::{Object, Snapshot};

/// All that is wrong with it.
pub(super) fn causes(state: &Snapshot, object: &Object) -> Vec<Cause> {
    let Some(route) = object.typed::<HttpRoute>() else {
        return Vec::new();
    };
    let spec = Path::root("spec");
    let mut causes = parents(state, &route, &spec.field("parentRefs"));
    let rules = spec.field("rules");
    for (index, rule) in route.spec.rules.iter().enumerate() {
        let path = rules.index(index);
        causes.extend(name(&route.spec.rules, index, &path));
        causes.extend(matches::causes(rule, &path.field("matches")));
        causes.extend(filters::causes(rule, &path.field("filters")));
        causes.extend(backends(state, &route, rule, &path));
        causes.extend(timing(rule, &path));
    }
    if causes.is_empty() {
        causes.extend(shadows::causes(state, &route, &rules));
    }
    causes
}

fn parents(state: &Snapshot, route: &HttpRoute, path: &Path) -> Vec<Cause> {
    let parents = &route.spec.parent_refs;
    let mut causes = Vec::new();
    for (index, parent) in parents.iter().enumerate() {
        let path = path.index(index);
        if parents[..index].contains(parent) {
            causes.push(Cause::duplicate(
                &path,
                &parent.name,
                "named before in this list",
            ));
        }
        causes.extend(core_group(parent.group.as_deref(), &path));
        let own = route.namespace();
        let namespace = parent.namespace.as_deref().unwrap_or(own);
        if namespace != own {
            causes.push(Cause::forbidden(
                path.field("namespace"),
                format!("a route is attached to Services of its own namespace, {own:?}"),
            ));
            continue;
        }
        causes.extend(parent_service(state, namespace, parent, &path));
    }
    causes
}

fn core_group(group: Option<&str>, path: &Path) -> Option<Cause> {
    let group = group?;
    (!matches!(group, "" | "core"))
        .then(|| Cause::not_supported(path.field("group"), &json!(group), &["", "core"]))
}

fn parent_service(
    state: &Snapshot,
    namespace: &str,
    parent: &ParentReference,
    path: &Path,
) -> Vec<Cause> {
    let service = match references::service(state, namespace, &parent.name, &path.field("name")) {
        Ok(service) => service,
        Err(cause) => return vec![cause],
    };
    let port = parent
        .port
        .and_then(|port| references::missing_port(&service, port, &path.field("port")));
    let section = parent
        .section_name
        .as_deref()
        .and_then(|name| references::missing_section(&service, name, &path.field("sectionName")));
    port.into_iter().chain(section).collect()
}

fn name(rules: &[HttpRouteRule], index: usize, path: &Path) -> Option<Cause> {
    let name = rules[index].name.as_deref()?;
    let path = path.field("name");
    if !is_label(name) {
        return Some(Cause::invalid(
            path,
            &json!(name),
            "must be lower-case letters, digits and dashes, at most 63",
        ));
    }
    rules[..index]
        .iter()
        .any(|other| other.name.as_deref() == Some(name))
        .then(|| Cause::duplicate(path, name, "another rule has this name"))
}

fn backends(state: &Snapshot, route: &HttpRoute, rule: &HttpRouteRule, path: &Path) -> Vec<Cause> {
    let backends = &rule.backend_refs;
    let list = path.field("backendRefs");
    let redirects = rule
        .filters
        .iter()
        .any(|filter| matches!(filter.action(), Some(FilterAction::Redirect(_))));
    if redirects && !backends.is_empty() {
        return vec![Cause::forbidden(
            list,
            "a rule that redirects sends nothing to backends",
        )];
    }
    let mut causes = Vec::new();
    for (index, backend) in backends.iter().enumerate() {
        causes.extend(backend_causes(state, route, backend, &list.index(index)));
    }
    if !backends.is_empty() && backends.iter().all(|backend| backend.weight == 0) {
        causes.push(Cause::invalid(
            &list,
            &json!(0),
            "all weights are 0: no backend would get a request; give one a weight, or use faultInjection.abort to refuse requests",
        ));
    }
    causes
}

fn backend_causes(
    state: &Snapshot,
    route: &HttpRoute,
    backend: &BackendReference,
    path: &Path,
) -> Vec<Cause> {
    let own = route.namespace();
    let namespace = backend.namespace.as_deref().unwrap_or(own);
    if namespace != own {
        return vec![Cause::forbidden(
            path.field("namespace"),
            format!("a route sends to Services of its own namespace, {own:?}"),
        )];
    }
    let mut causes: Vec<Cause> = core_group(backend.group.as_deref(), path)
        .into_iter()
        .collect();
    match references::service(state, namespace, &backend.name, &path.field("name")) {
        Err(cause) => causes.push(cause),
        Ok(service) => causes.extend(backend_port(&service, backend.port, &path.field("port"))),
    }
    causes
}

fn backend_port(service: &Arc<Service>, port: Option<u16>, path: &Path) -> Option<Cause> {
    match port {
        Some(port) => references::missing_port(service, port, path),
        None if references::ports(service).len() == 1 => None,
        None => Some(Cause::required(path, "the Service has more than one port")),
    }
}

fn timing(rule: &HttpRouteRule, path: &Path) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(timeouts) = &rule.timeouts
        && let (Some(request), Some(attempt)) = (timeouts.request, timeouts.backend_request)
        && !request.is_zero()
        && attempt > request
    {
        causes.push(Cause::invalid(
            path.field("timeouts").field("backendRequest"),
            &json!(attempt),
            format!("must not be longer than timeouts.request, {request}"),
        ));
    }
    let codes = rule.retry.iter().flat_map(|retry| &retry.codes);
    let list = path.field("retry").field("codes");
    for (index, code) in codes
        .enumerate()
        .filter(|(_, code)| !(400..=599).contains(*code))
    {
        causes.push(Cause::invalid(
            list.index(index),
            &json!(code),
            "must be between 400 and 599",
        ));
    }
    causes
}
