//! What a sidecar is started with: Envoy's bootstrap, as JSON.
//!
//! [`crate::inject`] puts it into an annotation of the pod, from where it becomes a file of the sidecar. Any Envoy
//! can read it: everything but who it is and where the control plane is found comes over xDS.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use serde_json::{Value, json};
use weft_proto::names::{ADMIN_PORT, POD_SOCKET_DIR, XDS_SOCKET};

/// The static cluster that leads to the control plane.
const XDS_CLUSTER: &str = "xds";
/// Set by Deployments on their pods.
const POD_TEMPLATE_HASH: &str = "pod-template-hash";

/// Who a sidecar serves. What it says about itself is for people: identity comes from attestation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// The pod's namespace.
    pub namespace: String,
    /// What the pod belongs to.
    pub workload: String,
    /// The pod's name.
    pub pod: String,
    /// Its service account.
    pub service_account: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
}

impl Node {
    /// Reads it off a pod.
    pub fn of(meta: &ObjectMeta, service_account: Option<&str>) -> Self {
        let pod = meta
            .name
            .clone()
            .or_else(|| meta.generate_name.clone())
            .unwrap_or_default();
        Self {
            namespace: meta
                .namespace
                .clone()
                .unwrap_or_else(|| "default".to_owned()),
            workload: workload(meta).unwrap_or_else(|| pod.clone()),
            service_account: service_account
                .filter(|name| !name.is_empty())
                .unwrap_or("default")
                .to_owned(),
            labels: meta.labels.clone().unwrap_or_default(),
            pod,
        }
    }
}

/// The bootstrap of a sidecar.
pub fn bootstrap(node: &Node) -> Value {
    json!({
        "node": {
            "id": format!("sidecar~{}.{}", node.pod, node.namespace),
            "cluster": format!("{}.{}", node.workload, node.namespace),
            "metadata": {
                "namespace": node.namespace,
                "workload": node.workload,
                "pod": node.pod,
                "service_account": node.service_account,
                "labels": node.labels,
            },
        },
        "admin": {
            "address": { "socket_address": { "address": "127.0.0.1", "port_value": ADMIN_PORT } },
        },
        "dynamic_resources": {
            "ads_config": {
                "api_type": "DELTA_GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": true,
                "grpc_services": [{ "envoy_grpc": { "cluster_name": XDS_CLUSTER } }],
            },
            // A sidecar is not ready before it knows what to do, however long that takes.
            "lds_config": { "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" },
            "cds_config": { "ads": {}, "resource_api_version": "V3", "initial_fetch_timeout": "0s" },
        },
        "static_resources": { "clusters": [xds_cluster()] },
    })
}

fn xds_cluster() -> Value {
    let http2 = "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions";
    json!({
        "name": XDS_CLUSTER,
        "type": "STATIC",
        "connect_timeout": "1s",
        "load_assignment": {
            "cluster_name": XDS_CLUSTER,
            "endpoints": [{
                "lb_endpoints": [{
                    "endpoint": {
                        "address": { "pipe": { "path": format!("{POD_SOCKET_DIR}/{XDS_SOCKET}") } },
                    },
                }],
            }],
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": http2,
                "explicit_http_config": { "http2_protocol_options": {} },
            },
        },
    })
}

/// The name of the pod's controller; behind a ReplicaSet that of its Deployment, whose name it begins with.
fn workload(meta: &ObjectMeta) -> Option<String> {
    let owners: &[OwnerReference] = meta.owner_references.as_deref().unwrap_or_default();
    let owner = owners
        .iter()
        .find(|owner| owner.controller.unwrap_or(true))?;
    let hash = meta
        .labels
        .as_ref()
        .and_then(|labels| labels.get(POD_TEMPLATE_HASH));
    let deployment = hash
        .filter(|_| owner.kind == "ReplicaSet")
        .and_then(|hash| owner.name.strip_suffix(hash.as_str())?.strip_suffix('-'));
    Some(deployment.unwrap_or(&owner.name).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta() -> ObjectMeta {
        ObjectMeta {
            name: Some("books-x7k2p".to_owned()),
            namespace: Some("shop".to_owned()),
            labels: Some([("app".to_owned(), "books".to_owned())].into()),
            owner_references: Some(vec![OwnerReference {
                kind: "Deployment".to_owned(),
                name: "books".to_owned(),
                controller: Some(true),
                ..OwnerReference::default()
            }]),
            ..ObjectMeta::default()
        }
    }

    #[test]
    fn a_node_says_pod_workload_and_service_account() {
        let node = Node::of(&meta(), Some("librarian"));
        let json = bootstrap(&node);

        assert_eq!(json["node"]["id"], "sidecar~books-x7k2p.shop");
        assert_eq!(json["node"]["cluster"], "books.shop");
        assert_eq!(json["node"]["metadata"]["service_account"], "librarian");
        assert_eq!(json["node"]["metadata"]["labels"]["app"], "books");
    }

    #[test]
    fn the_workload_behind_a_replica_set_is_its_deployment() {
        let mut meta = meta();
        let owner = &mut meta.owner_references.as_mut().unwrap()[0];
        owner.kind = "ReplicaSet".to_owned();
        owner.name = "books-6c9f".to_owned();
        let labels = meta.labels.as_mut().unwrap();
        labels.insert(POD_TEMPLATE_HASH.to_owned(), "6c9f".to_owned());

        assert_eq!(Node::of(&meta, None).workload, "books");
    }

    #[test]
    fn envoys_own_message_can_hold_it() {
        use weft_proto::envoy::config::bootstrap::v3::Bootstrap;

        let json = bootstrap(&Node::of(&meta(), None));
        let message: Bootstrap = weft_proto::json::from_json(json).unwrap();

        let clusters = &message.static_resources.unwrap().clusters;
        assert_eq!(clusters[0].name, "xds");
        assert_eq!(message.node.unwrap().id, "sidecar~books-x7k2p.shop");
    }
}
