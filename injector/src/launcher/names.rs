//! The table of the mesh DNS: every Service by its virtual addresses, headless ones by their pods'.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, Service};
use tracing::warn;
use weft_proto::weft::node::v1::Name;

use super::Context;
use super::status::is_ready;
use super::world::State;

/// Changes come in bursts: a table is written when it has been the same for this long …
const SETTLED: Duration = Duration::from_millis(5);
const RETRY: Duration = Duration::from_millis(500);

/// Keeps the node's table as the world says.
pub(super) async fn publish(context: Arc<Context>) {
    let mut changes = context.world.changes();
    let mut published: Option<(u64, Vec<Name>)> = None;
    loop {
        let current = context.world.read(|state| {
            let is_known = state.services_synced && state.pods_synced && state.node_sessions > 0;
            is_known.then(|| (state.node_sessions, table(state)))
        });
        let delay = match current {
            // A new session may be another node, with an empty table.
            Some(current) if published.as_ref() != Some(&current) => {
                match context.node.set_names(current.1.clone()).await {
                    Ok(()) => {
                        published = Some(current);
                        SETTLED
                    }
                    Err(error) => {
                        warn!(%error, "the mesh's names are out of date");
                        RETRY
                    }
                }
            }
            _ => {
                if changes.changed().await.is_err() {
                    return;
                }
                SETTLED
            }
        };
        tokio::time::sleep(delay).await;
    }
}

fn table(state: &State) -> Vec<Name> {
    let names = state.services.iter().map(|(name, service)| Name {
        name: name.name.clone(),
        namespace: name.namespace.clone(),
        addresses: addresses(service, state),
    });
    names.filter(|name| !name.addresses.is_empty()).collect()
}

fn addresses(service: &Service, state: &State) -> Vec<String> {
    let Some(spec) = &service.spec else {
        return Vec::new();
    };
    let mut all: Vec<String> = spec.cluster_ips.clone().unwrap_or_default();
    for address in spec.cluster_ip.iter() {
        if !all.contains(address) {
            all.insert(0, address.clone());
        }
    }
    all.retain(|address| !address.is_empty() && address != "None");
    if !all.is_empty() {
        return all;
    }
    let Some(selector) = spec
        .selector
        .as_ref()
        .filter(|selector| !selector.is_empty())
    else {
        return Vec::new();
    };
    let even_unready = spec.publish_not_ready_addresses.unwrap_or(false);
    let pods = state.pods.values().filter(|pod| {
        let labels = pod.metadata.labels.clone().unwrap_or_default();
        pod.metadata.namespace == service.metadata.namespace
            && pod.metadata.deletion_timestamp.is_none()
            && (even_unready || is_ready(pod))
            && selector
                .iter()
                .all(|(key, value)| labels.get(key) == Some(value))
    });
    pods.flat_map(|pod| pod_addresses(pod)).collect()
}

fn pod_addresses(pod: &Pod) -> Vec<String> {
    let status = pod.status.as_ref();
    let all = status.and_then(|status| status.pod_ips.as_ref());
    all.into_iter().flatten().map(|ip| ip.ip.clone()).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::world::ObjectName;
    use super::*;

    fn state(service: serde_json::Value) -> State {
        let mut state = State::default();
        let service: Service = serde_json::from_value(service).unwrap();
        state
            .services
            .insert(ObjectName::of(&service.metadata), Arc::new(service));
        for (name, ready, address) in [("a", "True", "10.96.0.2"), ("b", "False", "10.96.0.3")] {
            state.put_pod(
                serde_json::from_value(json!({
                    "metadata": { "name": name, "namespace": "shop", "labels": { "app": "db" } },
                    "status": {
                        "podIPs": [{ "ip": address }],
                        "conditions": [{ "type": "Ready", "status": ready }],
                    },
                }))
                .unwrap(),
            );
        }
        state
    }

    #[test]
    fn a_service_has_its_virtual_addresses() {
        let state = state(json!({
            "metadata": { "name": "db", "namespace": "shop" },
            "spec": { "clusterIP": "240.240.0.5", "clusterIPs": ["240.240.0.5", "fd57:f0f0::5"] },
        }));

        assert_eq!(table(&state)[0].addresses, ["240.240.0.5", "fd57:f0f0::5"]);
    }

    #[test]
    fn a_headless_service_has_those_of_its_ready_pods() {
        let state = state(json!({
            "metadata": { "name": "db", "namespace": "shop" },
            "spec": { "clusterIP": "None", "selector": { "app": "db" } },
        }));

        assert_eq!(table(&state)[0].addresses, ["10.96.0.2"]);
    }
}
