//! A pod's sandbox: made closed, told to the control plane, opened when the sidecar is ready.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use weft_proto::weft::node::v1::{CreateSandboxRequest, Sandbox};

use super::PodTask;
use crate::api::{Collection, Patch};
use crate::bootstrap::Node;
use crate::broker::{Claim, Resident};
use crate::inject;
use crate::launcher::container::{annotation, sandbox_labels};
use crate::launcher::failure::Failure;
use crate::rules::{self, Redirect, Rules};

/// The inode of the sandbox's network namespace, by which the control plane knows who is calling.
const NETWORK_NAMESPACE: &str = "weft.dev/network-namespace";
const EXCLUDE_OUTBOUND: &str = "weft.dev/exclude-outbound-ports";
const EXCLUDE_INBOUND: &str = "weft.dev/exclude-inbound-ports";
/// Of a host name, by RFC 1035.
const MAX_HOSTNAME_BYTES: usize = 63;

impl PodTask {
    /// The sandbox that a former launcher made for this very pod.
    pub(super) fn adopted_sandbox(&self) -> Option<Sandbox> {
        let id = self.name.sandbox();
        self.context.world.read(|state| {
            let sandbox = state.sandboxes.get(&id)?;
            (sandbox.labels.get("uid") == Some(&self.uid)).then(|| sandbox.clone())
        })
    }

    /// Makes the sandbox, closed where a sidecar will open it.
    pub(super) async fn make_sandbox(&self, pod: &Pod) -> Result<Sandbox, Failure> {
        let id = self.name.sandbox();
        if self
            .context
            .world
            .read(|state| state.sandboxes.contains_key(&id))
        {
            // Of a former pod of that name, or of an attempt that could not be undone.
            self.context.node.remove_sandbox(id.clone()).await?;
        }
        let rules = if is_injected(pod) {
            rules::closed()
        } else {
            rules::uninjected()
        };
        let spec = pod.spec.as_ref();
        let hostname = spec.and_then(|spec| spec.hostname.clone());
        let mut hostname = hostname.unwrap_or_else(|| self.name.name.clone());
        hostname.truncate(MAX_HOSTNAME_BYTES);
        let request = CreateSandboxRequest {
            id: id.clone(),
            hostname,
            ipv4_rules: rules.ipv4,
            ipv6_rules: rules.ipv6,
            labels: sandbox_labels(&self.name, pod),
        };
        let sandbox = self.context.node.create_sandbox(request).await?;
        self.context.world.update(|state| {
            state.sandboxes.insert(id, sandbox.clone());
        });
        Ok(sandbox)
    }

    /// Tells the control plane whose namespace it is and where its endpoint will be: without that no sidecar gets
    /// a configuration.
    pub(super) async fn announce(&self, sandbox: &Sandbox) -> Result<Pod, Failure> {
        let addresses = [&sandbox.ipv4, &sandbox.ipv6];
        let addresses: Vec<String> = addresses
            .into_iter()
            .filter(|address| !address.is_empty())
            .cloned()
            .collect();
        self.progress
            .send_modify(|progress| progress.addresses = addresses);
        self.report().await;
        let inode = sandbox.network_namespace.to_string();
        let known = self
            .context
            .world
            .read(|state| state.pod(&self.name, &self.uid).cloned());
        if let Some(known) = known
            && annotation(&known, NETWORK_NAMESPACE) == Some(&inode)
        {
            return Ok(known.as_ref().clone());
        }
        self.annotate(json!(inode)).await
    }

    pub(super) async fn annotate(&self, inode: serde_json::Value) -> Result<Pod, Failure> {
        let patch = json!({ "metadata": { "annotations": { NETWORK_NAMESPACE: inode } } });
        self.patch(&patch, "annotating the pod").await
    }

    pub(super) async fn patch(
        &self,
        patch: &serde_json::Value,
        doing: &'static str,
    ) -> Result<Pod, Failure> {
        let collection = Collection::of::<Pod>(&self.name.namespace);
        let patched = self
            .context
            .client
            .patch(&collection, &self.name.name, Patch::Merge, patch);
        let pod: Pod = patched
            .await
            .map_err(|source| Failure::Api { doing, source })?;
        self.context
            .world
            .update(|state| state.put_pod(pod.clone()));
        Ok(pod)
    }

    /// Lets the pod's sidecar be introduced to those of other pods.
    pub(super) fn settle(&self, pod: &Pod, sandbox: &Sandbox) {
        let account = pod.spec.as_ref();
        let account = account.and_then(|spec| spec.service_account_name.as_deref());
        let node = Node::of(&pod.metadata, account);
        let addresses = [&sandbox.ipv4, &sandbox.ipv6];
        let resident = Resident {
            workload: format!("/ns/{}/sa/{}", node.namespace, node.service_account),
            addresses: addresses
                .into_iter()
                .filter_map(|address| address.parse().ok())
                .collect(),
        };
        let namespace = sandbox.network_namespace;
        self.context.broker.settle(namespace, resident);
    }

    /// Takes the ports of the host that the pod publishes.
    pub(super) fn publish_ports(
        &self,
        pod: &Pod,
        sandbox: &Sandbox,
        claim: Claim,
    ) -> Result<(), Failure> {
        let ports = published(pod);
        let Some(first) = ports.first() else {
            return Ok(());
        };
        if !is_injected(pod) {
            return Err(Failure::Spec(format!(
                "{first} is published, which is the sidecar's work, but the pod has no sidecar: let it have one, or publish nothing"
            )));
        }
        Ok(self
            .context
            .broker
            .publish(sandbox.network_namespace, &ports, claim)?)
    }

    pub(super) fn withdraw_ports(&self) {
        let id = self.name.sandbox();
        let inode = self.context.world.read(|state| {
            let sandbox = state.sandboxes.get(&id)?;
            Some(sandbox.network_namespace)
        });
        if let Some(inode) = inode {
            self.context.broker.withdraw(inode);
        }
    }

    /// The rules that lead all traffic through the sidecar.
    pub(super) fn open_rules(&self, pod: &Pod) -> Result<Rules, Failure> {
        Ok(rules::open(&Redirect {
            dns_ipv4: self.context.gateway.ipv4,
            dns_ipv6: self.context.gateway.ipv6,
            exclude_outbound_ports: ports(pod, EXCLUDE_OUTBOUND)?,
            exclude_inbound_ports: ports(pod, EXCLUDE_INBOUND)?,
        }))
    }
}

pub(super) fn is_injected(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(inject::is_injected)
}

/// Host addresses of all container ports that have one.
fn published(pod: &Pod) -> Vec<SocketAddr> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let ports = containers.flat_map(|container| container.ports.iter().flatten());
    let published = ports.filter_map(|port| {
        let number = u16::try_from(port.host_port?)
            .ok()
            .filter(|number| *number != 0)?;
        let address = match port.host_ip.as_deref() {
            None | Some("") => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Some(text) => text.parse().ok()?,
        };
        Some(SocketAddr::new(address, number))
    });
    published.collect()
}

fn ports(pod: &Pod, key: &str) -> Result<BTreeSet<u16>, Failure> {
    let words = annotation(pod, key).unwrap_or_default().split(',');
    words
        .map(str::trim)
        .filter(|word| !word.is_empty())
        .map(|word| {
            let wrong = || {
                Failure::Spec(format!(
                    "the annotation {key} names the port {word:?}, which is none"
                ))
            };
            word.parse().map_err(|_| wrong())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(json: serde_json::Value) -> Pod {
        serde_json::from_value(json).unwrap()
    }

    #[test]
    fn published_ports_are_those_with_a_host_port() {
        let pod = pod(json!({ "spec": { "containers": [{ "name": "a", "ports": [
            { "containerPort": 80, "hostPort": 8080, "hostIP": "127.0.0.1" },
            { "containerPort": 81, "hostPort": 8081 },
            { "containerPort": 82 },
        ] }] } }));

        let expected: Vec<SocketAddr> = vec![
            "127.0.0.1:8080".parse().unwrap(),
            "0.0.0.0:8081".parse().unwrap(),
        ];
        assert_eq!(published(&pod), expected);
    }

    #[test]
    fn excluded_ports_are_read_and_wrong_ones_named() {
        let annotated =
            |value: &str| pod(json!({ "metadata": { "annotations": { EXCLUDE_INBOUND: value } } }));

        assert_eq!(
            ports(&annotated("9000, 9001,"), EXCLUDE_INBOUND).unwrap(),
            [9000, 9001].into()
        );
        let error = ports(&annotated("9000,http"), EXCLUDE_INBOUND).unwrap_err();
        assert!(error.to_string().contains("\"http\""), "{error}");
    }
}
