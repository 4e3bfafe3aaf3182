//! How many pods of a Deployment to make and which to delete next: pure arithmetic over what there is.

use k8s_openapi::api::apps::v1::{DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use sha2::{Digest, Sha256};

use super::container::restart_policy;
use super::status::{is_ready, phase};
use super::world::ObjectName;
use weft_proto::weft::node::v1::RestartPolicy;

/// The template that a pod was made from.
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";

/// The next steps of a Deployment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// New pods of the current template.
    pub(super) create: usize,
    /// Pods to delete.
    pub(super) delete: Vec<ObjectName>,
}

/// A Deployment's pods, counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Count {
    pub(super) total: usize,
    pub(super) updated: usize,
    pub(super) ready: usize,
}

/// A short hash of a template: the same for the same pods.
pub(super) fn template_hash(template: &PodTemplateSpec) -> String {
    let json = serde_json::to_vec(template).unwrap_or_default();
    let digest = Sha256::digest(&json);
    digest
        .iter()
        .take(5)
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

/// The steps that lead from the pods there are to those that are wanted. `pods` are the Deployment's own.
pub(super) fn plan(spec: &DeploymentSpec, hash: &str, pods: &[&Pod]) -> Plan {
    let wanted = wanted(spec);
    let (new, old) = split(pods, hash);
    if wanted == 0 {
        return delete(new.into_iter().chain(old));
    }
    if new.len() > wanted {
        let surplus = new.len() - wanted;
        return delete(least_useful(new).into_iter().take(surplus));
    }
    if spec.paused == Some(true) && !old.is_empty() {
        return scale_paused(wanted, new, old);
    }
    let is_recreated = spec
        .strategy
        .as_ref()
        .is_some_and(|strategy| strategy.type_.as_deref() == Some("Recreate"));
    if is_recreated && !old.is_empty() {
        return delete(old);
    }
    if is_recreated && pods.iter().any(|pod| is_terminating(pod)) {
        return Plan::default();
    }
    roll(spec, wanted, new, old)
}

/// How the pods of a Deployment stand.
pub(super) fn count(hash: &str, pods: &[&Pod]) -> Count {
    let (new, old) = split(pods, hash);
    Count {
        total: new.len() + old.len(),
        updated: new.len(),
        ready: new
            .iter()
            .chain(&old)
            .filter(|pod| is_available(pod))
            .count(),
    }
}

pub(super) fn wanted(spec: &DeploymentSpec) -> usize {
    usize::try_from(spec.replicas.unwrap_or(1)).unwrap_or(0)
}

/// New before old: as many new pods as the surge allows, and an old one goes for each that is ready.
fn roll(spec: &DeploymentSpec, wanted: usize, new: Vec<&Pod>, old: Vec<&Pod>) -> Plan {
    let (surge, unavailable) = limits(spec.strategy.as_ref(), wanted);
    let total = new.len() + old.len();
    let create = (wanted - new.len()).min((wanted + surge).saturating_sub(total));

    // Old pods that serve nobody hold up nobody when they go.
    let (serving, useless): (Vec<_>, Vec<_>) = old.into_iter().partition(|pod| is_available(pod));
    let new_ready = new.iter().filter(|pod| is_available(pod)).count();
    let needed = wanted.saturating_sub(unavailable);
    let dispensable = (new_ready + serving.len())
        .saturating_sub(needed)
        .min(serving.len());
    let leaving = least_useful(serving).into_iter().take(dispensable);
    Plan {
        create,
        delete: useless.into_iter().chain(leaving).map(name).collect(),
    }
}

/// A paused rollout still scales, with what there is.
fn scale_paused(wanted: usize, new: Vec<&Pod>, old: Vec<&Pod>) -> Plan {
    let surplus = (new.len() + old.len()).saturating_sub(wanted);
    delete(least_useful(old).into_iter().take(surplus))
}

/// Surge and unavailable pods; one more and none less unless the strategy says otherwise.
fn limits(strategy: Option<&DeploymentStrategy>, wanted: usize) -> (usize, usize) {
    let rolling = strategy.and_then(|strategy| strategy.rolling_update.as_ref());
    let surge = rolling.and_then(|rolling| rolling.max_surge.as_ref());
    let unavailable = rolling.and_then(|rolling| rolling.max_unavailable.as_ref());
    let surge = surge.map_or(1, |value| resolve(value, wanted).div_ceil(100));
    let unavailable = unavailable.map_or(0, |value| resolve(value, wanted) / 100);
    // Neither: nothing could ever move.
    if surge == 0 && unavailable == 0 {
        return (1, 0);
    }
    (surge, unavailable)
}

/// A number or percentage of pods, in hundredths of a pod.
fn resolve(value: &IntOrString, wanted: usize) -> usize {
    match value {
        IntOrString::Int(number) => usize::try_from(*number).unwrap_or(0).saturating_mul(100),
        IntOrString::String(text) => {
            let percent = text
                .strip_suffix('%')
                .and_then(|number| number.parse::<usize>().ok());
            percent.unwrap_or(0).min(100).saturating_mul(wanted)
        }
    }
}

fn split<'a>(pods: &[&'a Pod], hash: &str) -> (Vec<&'a Pod>, Vec<&'a Pod>) {
    pods.iter()
        .copied()
        .filter(|pod| !is_terminating(pod))
        .partition(|pod| {
            let labels = pod.metadata.labels.as_ref();
            labels
                .and_then(|labels| labels.get(TEMPLATE_HASH))
                .is_some_and(|own| own == hash)
        })
}

fn is_terminating(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_some()
}

/// Ready, or at the end that it was meant to have.
fn is_available(pod: &Pod) -> bool {
    let has_ended = matches!(phase(pod), "Succeeded" | "Failed");
    is_ready(pod) || (has_ended && restart_policy(pod) != RestartPolicy::Always)
}

/// Those first that serve nobody, then the youngest.
fn least_useful(mut pods: Vec<&Pod>) -> Vec<&Pod> {
    pods.sort_by_key(|pod| {
        let age = pod
            .metadata
            .creation_timestamp
            .as_ref()
            .map(|time| std::cmp::Reverse(time.0));
        (is_available(pod), age, pod.metadata.name.clone())
    });
    pods
}

fn delete<'a>(pods: impl IntoIterator<Item = &'a Pod>) -> Plan {
    Plan {
        create: 0,
        delete: pods.into_iter().map(name).collect(),
    }
}

fn name(pod: &Pod) -> ObjectName {
    ObjectName::of(&pod.metadata)
}

#[cfg(test)]
mod tests;
