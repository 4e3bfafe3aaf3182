//! The Deployment controller: makes and deletes pods until there are those that are wanted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use rand::seq::IndexedRandom;
use serde_json::json;
use tracing::{debug, info, warn};

use super::Context;
use super::rollout::{self, Count, TEMPLATE_HASH};
use super::world::{ObjectName, State};
use crate::api::{ApiError, Collection, DeleteOptions, Preconditions};
use crate::inject::{Injected, inject};

/// Without vowels and what looks alike, as Kubernetes does it.
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
const SUFFIX_LENGTH: usize = 5;
/// Pods of one Deployment that are being made at once.
const CREATIONS: usize = 8;
/// After a refusal by the API.
const PAUSE: Duration = Duration::from_secs(2);

/// Brings every Deployment where it should be, again at each change.
pub(super) async fn control(context: Arc<Context>) {
    context
        .world
        .until(|state| (state.deployments_synced && state.pods_synced).then_some(()))
        .await;
    let mut changes = context.world.changes();
    let mut controller = Controller {
        context,
        paused: HashMap::new(),
        reported: HashMap::new(),
    };
    loop {
        controller.step().await;
        // With a deadline: pauses end without a change of the world.
        let _ = tokio::time::timeout(PAUSE, changes.changed()).await;
        changes.mark_unchanged();
    }
}

struct Controller {
    context: Arc<Context>,
    /// Deployments that the API refused something for, and until when they wait.
    paused: HashMap<ObjectName, (Instant, String)>,
    reported: HashMap<ObjectName, DeploymentStatus>,
}

impl Controller {
    async fn step(&mut self) {
        let deployments: Vec<Arc<Deployment>> = self
            .context
            .world
            .read(|state| state.deployments.values().cloned().collect());
        for deployment in &deployments {
            self.reconcile(deployment).await;
        }
        self.delete_orphans().await;
        let is_known = |name: &ObjectName| {
            deployments
                .iter()
                .any(|deployment| ObjectName::of(&deployment.metadata) == *name)
        };
        self.reported.retain(|name, _| is_known(name));
        self.paused.retain(|name, _| is_known(name));
    }

    async fn reconcile(&mut self, deployment: &Deployment) {
        let name = ObjectName::of(&deployment.metadata);
        let Some(spec) = &deployment.spec else {
            return;
        };
        if deployment.metadata.deletion_timestamp.is_some() {
            return;
        }
        let hash = rollout::template_hash(&spec.template);
        let pods = self.context.world.read(|state| pods_of(state, deployment));
        let owned: Vec<&Pod> = pods.iter().map(AsRef::as_ref).collect();
        let is_paused = self
            .paused
            .get(&name)
            .is_some_and(|(until, _)| Instant::now() < *until);
        if !is_paused {
            let plan = rollout::plan(spec, &hash, &owned);
            match self.carry_out(deployment, &hash, plan, &pods).await {
                Ok(()) => drop(self.paused.remove(&name)),
                Err(error) => {
                    warn!(deployment = %name, %error, "the API refused a step of the Deployment");
                    self.paused
                        .insert(name.clone(), (Instant::now() + PAUSE, error.to_string()));
                }
            }
        }
        self.report(deployment, rollout::count(&hash, &owned)).await;
    }

    async fn carry_out(
        &self,
        deployment: &Deployment,
        hash: &str,
        plan: rollout::Plan,
        pods: &[Arc<Pod>],
    ) -> Result<(), ApiError> {
        let creating = (0..plan.create).map(|_| self.create(deployment, hash));
        let mut creating = futures_util::stream::iter(creating).buffer_unordered(CREATIONS);
        while let Some(created) = creating.next().await {
            created?;
        }
        for leaving in plan.delete {
            let uid = pods
                .iter()
                .find(|pod| ObjectName::of(&pod.metadata) == leaving)
                .and_then(|pod| pod.metadata.uid.clone());
            self.delete(&leaving, uid).await?;
        }
        Ok(())
    }

    async fn create(&self, deployment: &Deployment, hash: &str) -> Result<(), ApiError> {
        let name = ObjectName::of(&deployment.metadata);
        let pod = self.pod(deployment, hash);
        let collection = Collection::of::<Pod>(&name.namespace);
        let created: Pod = self.context.client.create(&collection, &pod).await?;
        info!(deployment = %name, pod = created.metadata.name.as_deref(), "pod made");
        self.context.world.update(|state| state.put_pod(created));
        Ok(())
    }

    async fn delete(&self, name: &ObjectName, uid: Option<String>) -> Result<(), ApiError> {
        let options = DeleteOptions {
            preconditions: uid.map(|uid| Preconditions { uid }),
            ..DeleteOptions::default()
        };
        let collection = Collection::of::<Pod>(&name.namespace);
        match self
            .context
            .client
            .delete(&collection, &name.name, &options)
            .await
        {
            Ok(answer) => {
                info!(pod = %name, "pod deleted");
                // On its way out, as the watch will say in a moment.
                if let Ok(pod) = serde_json::from_value::<Pod>(answer)
                    && pod.metadata.deletion_timestamp.is_some()
                {
                    self.context.world.update(|state| state.put_pod(pod));
                }
                Ok(())
            }
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Pods whose Deployment is gone.
    async fn delete_orphans(&self) {
        let orphans = self.context.world.read(orphans);
        for (name, uid) in orphans {
            if let Err(error) = self.delete(&name, uid).await {
                debug!(pod = %name, %error, "an orphan could not be deleted");
            }
        }
    }

    /// A pod of a Deployment, sidecar and all.
    fn pod(&self, deployment: &Deployment, hash: &str) -> Pod {
        let owner = &deployment.metadata;
        let template = deployment
            .spec
            .as_ref()
            .map(|spec| spec.template.clone())
            .unwrap_or_default();
        let metadata = template.metadata.unwrap_or_default();
        let mut labels = metadata.labels.unwrap_or_default();
        labels.insert(TEMPLATE_HASH.to_owned(), hash.to_owned());
        let name = owner.name.clone().unwrap_or_default();
        let mut pod = Pod {
            metadata: ObjectMeta {
                name: Some(format!("{name}-{}", suffix())),
                namespace: owner.namespace.clone(),
                labels: Some(labels),
                annotations: metadata.annotations,
                owner_references: Some(vec![OwnerReference {
                    api_version: "apps/v1".to_owned(),
                    kind: "Deployment".to_owned(),
                    name,
                    uid: owner.uid.clone().unwrap_or_default(),
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
        if let Ok(Injected::Added { annotations }) =
            inject(spec, &pod.metadata, &self.context.inject)
        {
            pod.metadata
                .annotations
                .get_or_insert_default()
                .extend(annotations);
        }
        pod
    }

    async fn report(&mut self, deployment: &Deployment, count: Count) {
        let name = ObjectName::of(&deployment.metadata);
        let refusal = self.paused.get(&name).map(|(_, message)| message.as_str());
        let known = self.reported.get(&name).or(deployment.status.as_ref());
        let status = status(deployment, known, count, refusal);
        if known == Some(&status) {
            return;
        }
        let collection = Collection::of::<Deployment>(&name.namespace);
        let patch = json!({ "status": status });
        match self
            .context
            .client
            .patch_status::<Deployment>(&collection, &name.name, &patch)
            .await
        {
            Ok(_) => drop(self.reported.insert(name, status)),
            Err(error) => debug!(deployment = %name, %error, "status not written"),
        }
    }
}

fn pods_of(state: &State, deployment: &Deployment) -> Vec<Arc<Pod>> {
    let pods = state
        .pods
        .values()
        .filter(|pod| rollout::is_owned(pod, deployment));
    pods.cloned().collect()
}

fn orphans(state: &State) -> Vec<(ObjectName, Option<String>)> {
    let exists = |uid: &str| {
        state
            .deployments
            .values()
            .any(|deployment| deployment.metadata.uid.as_deref() == Some(uid))
    };
    state
        .pods
        .values()
        .filter(|pod| pod.metadata.deletion_timestamp.is_none())
        .filter(|pod| {
            let mut owners = pod.metadata.owner_references.iter().flatten();
            owners.any(|owner| owner.kind == "Deployment" && !exists(&owner.uid))
        })
        .map(|pod| (ObjectName::of(&pod.metadata), pod.metadata.uid.clone()))
        .collect()
}

fn suffix() -> String {
    let mut random = rand::rng();
    let letter = || SUFFIX_LETTERS.choose(&mut random).copied().unwrap_or(b'x');
    std::iter::repeat_with(letter)
        .take(SUFFIX_LENGTH)
        .map(char::from)
        .collect()
}

fn status(
    deployment: &Deployment,
    known: Option<&DeploymentStatus>,
    count: Count,
    refusal: Option<&str>,
) -> DeploymentStatus {
    let wanted = deployment.spec.as_ref().map_or(0, rollout::wanted);
    let number = |count: usize| Some(i32::try_from(count).unwrap_or(i32::MAX));
    let is_complete = count.updated == wanted && count.total == wanted && count.ready >= wanted;
    let conditions = vec![
        condition(
            known,
            "Available",
            count.ready >= wanted,
            "MinimumReplicasAvailable",
            "",
        ),
        match refusal {
            Some(message) => condition(known, "Progressing", false, "FailedCreate", message),
            None if is_complete => {
                condition(known, "Progressing", true, "NewReplicaSetAvailable", "")
            }
            None => condition(known, "Progressing", true, "ReplicaSetUpdated", ""),
        },
    ];
    DeploymentStatus {
        observed_generation: deployment.metadata.generation,
        replicas: number(count.total),
        updated_replicas: number(count.updated),
        ready_replicas: number(count.ready),
        available_replicas: number(count.ready),
        unavailable_replicas: number(wanted.saturating_sub(count.ready)),
        conditions: Some(conditions),
        ..DeploymentStatus::default()
    }
}

/// The time of the last transition is kept from the condition that was there.
fn condition(
    known: Option<&DeploymentStatus>,
    kind: &str,
    holds: bool,
    reason: &str,
    message: &str,
) -> DeploymentCondition {
    let holds = if holds { "True" } else { "False" };
    let mut known = known
        .into_iter()
        .flat_map(|status| status.conditions.iter().flatten());
    let before = known.find(|known| known.type_ == kind && known.status == holds);
    let since = before.and_then(|before| before.last_transition_time.clone());
    DeploymentCondition {
        type_: kind.to_owned(),
        status: holds.to_owned(),
        reason: Some(reason.to_owned()),
        message: (!message.is_empty()).then(|| message.to_owned()),
        last_transition_time: since.or_else(|| Some(super::status::now())),
        last_update_time: None,
    }
}
