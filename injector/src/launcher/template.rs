//! Pods made from a template, for Deployments and Jobs: named, owned, with their sidecar; and deleted again.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::{Metadata, Resource};
use rand::seq::IndexedRandom;
use tracing::{debug, info};

use super::Context;
use super::world::{ObjectName, State};
use crate::api::{ApiError, Collection, DeleteOptions, Preconditions};
use crate::inject::{InjectOptions, Injected, inject};

/// Without vowels and what looks alike, as Kubernetes does it.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// Kinds whose pods go with them.
const OWNERS: [&str; 2] = ["Deployment", "Job"];
/// After a refusal by the API.
const PAUSE: Duration = Duration::from_secs(2);

/// What pods are made for.
pub(super) struct Owner<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: &'a ObjectMeta,
}

impl<'a> Owner<'a> {
    pub(super) fn of<K: Resource + Metadata<Ty = ObjectMeta>>(object: &'a K) -> Self {
        Self {
            api_version: K::API_VERSION,
            kind: K::KIND,
            metadata: object.metadata(),
        }
    }
}

/// Whether a pod was made for the object with that metadata.
pub(super) fn is_owned(pod: &Pod, owner: &ObjectMeta) -> bool {
    let uid = owner.uid.as_deref();
    let mut owners = pod.metadata.owner_references.iter().flatten();
    uid.is_some()
        && pod.metadata.namespace == owner.namespace
        && owners.any(|owner| Some(owner.uid.as_str()) == uid)
}

/// Makes a pod.
pub(super) async fn create(
    context: &Context,
    owner: &Owner<'_>,
    template: &PodTemplateSpec,
    labels: &[(&str, &str)],
) -> Result<(), ApiError> {
    let pod = pod(owner, template, labels, &context.inject);
    let namespace = owner.metadata.namespace.as_deref().unwrap_or_default();
    let collection = Collection::of::<Pod>(namespace);
    let created: Pod = context.client.create(&collection, &pod).await?;
    info!(pod = %ObjectName::of(&created.metadata), "pod made");
    context.world.update(|state| state.put_pod(created));
    Ok(())
}

/// Deletes a pod, if it is still the one of that uid.
pub(super) async fn delete(
    context: &Context,
    name: &ObjectName,
    uid: Option<String>,
) -> Result<(), ApiError> {
    let options = DeleteOptions {
        preconditions: uid.map(|uid| Preconditions { uid }),
        ..DeleteOptions::default()
    };
    let collection = Collection::of::<Pod>(&name.namespace);
    let deleted = context.client.delete(&collection, &name.name, &options);
    match deleted.await {
        Ok(answer) => {
            info!(pod = %name, "pod deleted");
            // On its way out, as the watch will say in a moment.
            if let Ok(pod) = serde_json::from_value::<Pod>(answer)
                && pod.metadata.deletion_timestamp.is_some()
            {
                context.world.update(|state| state.put_pod(pod));
            }
            Ok(())
        }
        Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Deletes pods whose owner is gone, for as long as the launcher runs.
pub(super) async fn delete_orphans(context: Arc<Context>) {
    loop {
        let found = context.world.until(|state| {
            let orphans = orphans(state);
            (!orphans.is_empty()).then_some(orphans)
        });
        for (name, uid) in found.await {
            if let Err(error) = delete(&context, &name, uid).await {
                debug!(pod = %name, %error, "an orphan could not be deleted");
                tokio::time::sleep(PAUSE).await;
            }
        }
        // Where the answer was not the pod on its way out, the watch must tell first.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn orphans(state: &State) -> Vec<(ObjectName, Option<String>)> {
    if !(state.deployments_synced && state.jobs_synced && state.pods_synced) {
        return Vec::new();
    }
    let deployments = state.deployments.values().map(|object| &object.metadata);
    let jobs = state.jobs.values().map(|object| &object.metadata);
    let owners: HashSet<&str> = deployments
        .chain(jobs)
        .filter_map(|owner| owner.uid.as_deref())
        .collect();
    let is_orphan = |pod: &Pod| {
        let mut references = pod.metadata.owner_references.iter().flatten();
        references.any(|owner| {
            OWNERS.contains(&owner.kind.as_str()) && !owners.contains(owner.uid.as_str())
        })
    };
    state
        .pods
        .values()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none() && is_orphan(pod))
        .map(|pod| (ObjectName::of(&pod.metadata), pod.metadata.uid.clone()))
        .collect()
}

/// A pod of a template, sidecar and all.
fn pod(
    owner: &Owner<'_>,
    template: &PodTemplateSpec,
    labels: &[(&str, &str)],
    options: &InjectOptions,
) -> Pod {
    let template = template.clone();
    let metadata = template.metadata.unwrap_or_default();
    let mut all_labels = metadata.labels.unwrap_or_default();
    let added = labels.iter();
    all_labels.extend(added.map(|(key, value)| ((*key).to_owned(), (*value).to_owned())));
    let name = owner.metadata.name.clone().unwrap_or_default();
    let mut pod = Pod {
        metadata: ObjectMeta {
            name: Some(format!("{name}-{}", suffix())),
            namespace: owner.metadata.namespace.clone(),
            labels: Some(all_labels),
            annotations: metadata.annotations,
            owner_references: Some(vec![OwnerReference {
                api_version: owner.api_version.to_owned(),
                kind: owner.kind.to_owned(),
                name,
                uid: owner.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            }]),
            ..ObjectMeta::default()
        },
        spec: template.spec,
        status: None,
    };
    let spec = pod.spec.get_or_insert_default();
    // A pod that can have no sidecar is made all the same: its status then says why it does not start.
    if let Ok(Injected::Added { annotations }) = inject(spec, &pod.metadata, options) {
        let all = pod.metadata.annotations.get_or_insert_default();
        all.extend(annotations);
    }
    pod
}

fn suffix() -> String {
    let mut random = rand::rng();
    let letter = || SUFFIX_LETTERS.choose(&mut random).copied().unwrap_or(b'x');
    std::iter::repeat_with(letter)
        .take(SUFFIX_LENGTH)
        .map(char::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::apps::v1::Deployment;
    use serde_json::json;

    use super::*;

    fn deployment(uid: &str) -> Deployment {
        serde_json::from_value(json!({
            "metadata": { "name": "books", "namespace": "shop", "uid": uid },
        }))
        .unwrap()
    }

    fn made(owner: &Deployment) -> Pod {
        let template = serde_json::from_value(json!({
            "metadata": { "labels": { "app": "books" } },
            "spec": { "containers": [{ "name": "books", "image": "x" }] },
        }));
        let options = InjectOptions::host("/run/weft/pods".into());
        pod(
            &Owner::of(owner),
            &template.unwrap(),
            &[("hash", "1")],
            &options,
        )
    }

    #[test]
    fn a_pod_is_named_labelled_owned_and_injected() {
        let owner = deployment("d1");
        let pod = made(&owner);

        let name = pod.metadata.name.as_deref().unwrap();
        assert_eq!(name.strip_prefix("books-").unwrap().len(), SUFFIX_LENGTH);
        let labels = pod.metadata.labels.as_ref().unwrap();
        assert_eq!(
            (labels["app"].as_str(), labels["hash"].as_str()),
            ("books", "1")
        );
        assert!(is_owned(&pod, &owner.metadata));
        assert!(!is_owned(&pod, &deployment("d2").metadata));
        assert!(crate::inject::is_injected(pod.spec.as_ref().unwrap()));
    }

    #[test]
    fn only_pods_whose_owner_is_known_to_be_gone_are_orphans() {
        let owner = deployment("d1");
        let mut state = State::default();
        state.put_pod(made(&owner));
        assert!(orphans(&state).is_empty(), "nothing is known yet");

        (
            state.deployments_synced,
            state.jobs_synced,
            state.pods_synced,
        ) = (true, true, true);
        assert_eq!(orphans(&state).len(), 1);
        let name = ObjectName::of(&owner.metadata);
        state.deployments.insert(name, Arc::new(owner));
        assert!(orphans(&state).is_empty());
    }
}
