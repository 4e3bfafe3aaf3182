//! Whom a stream serves.

use std::collections::BTreeMap;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::watch;
use tonic::Status;
use weft_proto::envoy::config::core::v3 as core;

use crate::attest::{self, Caller, Workload};
use crate::mesh::ObjectName;
use crate::translate::Snapshot;
use crate::xds::Shared;
use crate::xds::proxies::ProxyStatus;
use crate::xds::session::Protocol;

/// Who is served: an attested workload, or, where that is allowed, whoever the node id says.
pub(super) struct Client {
    pub(super) pod: ObjectName,
    pub(super) workload: Option<Workload>,
}

/// Recognises the caller.
pub(super) async fn recognise(
    shared: &Shared,
    snapshots: &mut watch::Receiver<Arc<Snapshot>>,
    caller: &Caller,
    node: &core::Node,
) -> Result<Client, Status> {
    if shared.trusts_node_ids {
        let pod = pod_of(&node.id).ok_or_else(|| {
            Status::invalid_argument(format!(
                "node id {:?} is not of the form sidecar~<pod>.<namespace>",
                node.id
            ))
        })?;
        return Ok(Client {
            pod,
            workload: None,
        });
    }
    let workload = attest::attest_patiently(&*shared.attest, snapshots, caller).await?;
    Ok(Client {
        pod: workload.pod.clone(),
        workload: Some(workload),
    })
}

/// The pod of `sidecar~<pod>.<namespace>`; a namespace has no dots.
fn pod_of(node_id: &str) -> Option<ObjectName> {
    let (name, namespace) = node_id.strip_prefix("sidecar~")?.rsplit_once('.')?;
    Some(ObjectName::new(namespace, name))
}

/// What is known of a client that has just come.
pub(super) fn describe(client: &Client, node: &core::Node, protocol: Protocol) -> ProxyStatus {
    use core::node::UserAgentVersionType;

    let version = match &node.user_agent_version_type {
        Some(UserAgentVersionType::UserAgentVersion(version)) => version.clone(),
        Some(UserAgentVersionType::UserAgentBuildVersion(build)) => build
            .version
            .map(|version| {
                format!(
                    "{}.{}.{}",
                    version.major_number, version.minor_number, version.patch
                )
            })
            .unwrap_or_default(),
        None => String::new(),
    };
    ProxyStatus {
        node: node.id.clone(),
        user_agent: format!("{} {version}", node.user_agent_name)
            .trim()
            .to_owned(),
        namespace: client.pod.namespace.clone(),
        pod: client.pod.name.clone(),
        identity: client
            .workload
            .as_ref()
            .map(|workload| workload.identity.to_string())
            .unwrap_or_default(),
        protocol,
        connected_since: Timestamp::now(),
        revision_sent: None,
        revision_acknowledged: None,
        acknowledged: BTreeMap::new(),
        last_error: None,
        last_rejection: None,
        rejections: 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_id_names_pod_and_namespace() {
        assert_eq!(
            pod_of("sidecar~web-1.2.default"),
            Some(ObjectName::new("default", "web-1.2"))
        );
        assert_eq!(pod_of("web.default"), None);
        assert_eq!(pod_of("sidecar~web"), None);
    }
}
