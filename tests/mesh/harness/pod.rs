//! What the API says of a pod.

use serde_json::Value;

/// A pod of the mesh.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pod {
    pub(crate) name: String,
    /// The Compose service.
    pub(crate) service: String,
    pub(crate) ipv4: String,
    pub(crate) ipv6: String,
    /// When it was started, as the API writes it.
    pub(crate) started: String,
    pub(crate) is_ready: bool,
    /// Of all its containers together.
    pub(crate) restarts: u64,
    /// Inode of its network namespace.
    pub(crate) network_namespace: u64,
}

impl Pod {
    pub(crate) fn of(object: &Value) -> Self {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &object["metadata"];
        let status = &object["status"];
        let addresses: Vec<String> = status["podIPs"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|address| text(&address["ip"]))
            .collect();
        let address = |is_ipv6: bool| {
            addresses
                .iter()
                .find(|address| address.contains(':') == is_ipv6)
                .cloned()
                .unwrap_or_default()
        };
        let conditions = status["conditions"].as_array().into_iter().flatten();
        Self {
            name: text(&metadata["name"]),
            service: text(&metadata["labels"]["app"]),
            ipv4: address(false),
            ipv6: address(true),
            started: text(&status["startTime"]),
            is_ready: conditions
                .into_iter()
                .any(|condition| condition["type"] == "Ready" && condition["status"] == "True"),
            restarts: containers(status)
                .filter_map(|container| container["restartCount"].as_u64())
                .sum(),
            network_namespace: metadata["annotations"]["weft.dev/network-namespace"]
                .as_str()
                .and_then(|inode| inode.parse().ok())
                .unwrap_or_default(),
        }
    }
}

fn containers(status: &Value) -> impl Iterator<Item = &Value> {
    ["initContainerStatuses", "containerStatuses"]
        .into_iter()
        .flat_map(|field| status[field].as_array().into_iter().flatten())
}
