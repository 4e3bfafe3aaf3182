//! What hangs below pods: logs, commands, connections. All of it is the node's; here it is found and passed on.

mod exec;
mod log;
mod proxy;

use std::sync::Arc;

use axum::extract::Request;
use axum::response::Response;

use super::Api;
use crate::kinds::{Kind, POD, Subresource};
use crate::refusal::Refusal;
use crate::store::{Name, Object};

/// What hangs below a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Below {
    Log,
    Exec,
    Proxy,
}

impl Below {
    pub(super) fn of(kind: &Kind, subresource: &str) -> Option<Self> {
        let (below, needed) = match subresource {
            "log" => (Self::Log, Subresource::Log),
            "exec" => (Self::Exec, Subresource::Exec),
            "proxy" => (Self::Proxy, Subresource::Proxy),
            _ => return None,
        };
        kind.has(needed).then_some(below)
    }
}

/// Serves what hangs below a pod.
pub(super) async fn serve(
    api: &Arc<Api>,
    below: Below,
    name: &Name,
    rest: &str,
    request: Request,
) -> Result<Response, Refusal> {
    match below {
        Below::Log => log::serve(api, name, request).await,
        Below::Exec => exec::serve(api, name, request).await,
        Below::Proxy => proxy::serve(api, name, rest, request).await,
    }
}

fn find(api: &Api, name: &Name) -> Result<Arc<Object>, Refusal> {
    api.store
        .snapshot()
        .find(&POD, name)
        .map(Arc::clone)
        .ok_or_else(|| Refusal::not_found(&POD, &name.name))
}

/// The node's name of a pod's container: the one asked for, the default one, or the only one.
fn container(pod: &Object, asked: Option<&str>) -> Result<String, Refusal> {
    let names = |list: &str| -> Vec<&str> {
        let containers = pod.value()["spec"][list].as_array().into_iter().flatten();
        containers
            .filter_map(|container| container["name"].as_str())
            .collect()
    };
    let (main, init) = (names("containers"), names("initContainers"));
    let asked = asked.or_else(|| pod.annotation("kubectl.kubernetes.io/default-container"));
    let container = match (asked, main.as_slice()) {
        (Some(asked), _) => asked,
        (None, [only]) => only,
        (None, _) => {
            return Err(Refusal::BadRequest(format!(
                "a container name must be specified for pod {}, choose one of: [{}]",
                pod.name().name,
                main.join(" ")
            )));
        }
    };
    if !main.contains(&container) && !init.contains(&container) {
        return Err(Refusal::BadRequest(format!(
            "container {container} is not valid for pod {}: it has [{}]",
            pod.name().name,
            [main, init].concat().join(" ")
        )));
    }
    Ok(format!("{}.{container}", sandbox(pod.name())))
}

/// The node's name of a pod's sandbox.
fn sandbox(pod: &Name) -> String {
    format!("{}.{}", pod.namespace, pod.name)
}
