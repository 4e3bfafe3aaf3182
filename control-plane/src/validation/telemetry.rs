//! What is wrong with a `Telemetry`: targets, others for the same targets, an endpoint nobody can reach.

use std::sync::Arc;

use serde_json::json;

use super::path::Path;
use super::references;
use crate::kinds::TELEMETRY;
use crate::kinds::reference::TargetKind;
use crate::kinds::telemetry::Telemetry;
use crate::refusal::Cause;
use crate::store::{Object, Snapshot};

/// All that is wrong with it.
pub(super) fn causes(state: &Snapshot, object: &Object) -> Vec<Cause> {
    let Some(policy) = object.typed::<Telemetry>() else {
        return Vec::new();
    };
    let path = Path::root("spec");
    let targets = path.field("targetRefs");
    let spec = &policy.spec;
    let mut causes = references::targets(state, policy.namespace(), &spec.target_refs, &targets);
    for (index, target) in spec.target_refs.iter().enumerate() {
        if target.kind != TargetKind::Service {
            let path = targets.index(index).field("kind");
            causes.push(Cause::not_supported(
                path,
                &json!(target.kind),
                &["Service"],
            ));
        }
    }
    if spec.tracing.is_none() && spec.access_log.is_none() {
        causes.push(Cause::required(&path, "tracing or accessLog"));
    }
    if let Some(endpoint) = spec
        .tracing
        .as_ref()
        .and_then(|tracing| tracing.endpoint.as_deref())
    {
        causes.extend(endpoint_cause(
            endpoint,
            &path.field("tracing").field("endpoint"),
        ));
    }
    causes.extend(rival(state, &policy).map(|rival| {
        Cause::duplicate(
            &targets,
            rival.name(),
            format!(
                "Telemetry {:?} is for the same requests already",
                rival.name()
            ),
        )
    }));
    causes
}

fn endpoint_cause(endpoint: &str, path: &Path) -> Option<Cause> {
    let is_fine = endpoint.parse::<http::Uri>().is_ok_and(|uri| {
        uri.scheme_str() == Some("http")
            && uri.host().is_some_and(|host| !host.is_empty())
            && uri.port_u16().is_some()
            && matches!(uri.path(), "" | "/")
    });
    (!is_fine).then(|| {
        Cause::invalid(
            path,
            &json!(endpoint),
            "must be of the form http://host:port",
        )
    })
}

fn rival(state: &Snapshot, policy: &Telemetry) -> Option<Arc<Telemetry>> {
    let own = &policy.spec.target_refs;
    state
        .list(&TELEMETRY, Some(policy.namespace()))
        .filter_map(|object| object.typed::<Telemetry>())
        .filter(|other| other.name() != policy.name())
        .find(|other| {
            let others = &other.spec.target_refs;
            (own.is_empty() && others.is_empty())
                || own
                    .iter()
                    .any(|one| others.iter().any(|other| references::is_same(one, other)))
        })
}
