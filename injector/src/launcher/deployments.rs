//! The Deployment controller: makes and deletes pods until there are those that are wanted.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use k8s_openapi::api::apps::v1::{Deployment, DeploymentStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tracing::{debug, warn};

use super::Context;
use super::rollout::{self, Count, TEMPLATE_HASH};
use super::template::{self, Owner};
use super::world::{ObjectName, State};
use crate::api::{ApiError, Collection};

mod status;

use status::status;

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
        let template = deployment.spec.as_ref().map(|spec| &spec.template);
        let Some(template) = template else {
            return Ok(());
        };
        let owner = Owner::of(deployment);
        let labels = [(TEMPLATE_HASH, hash)];
        let creating =
            (0..plan.create).map(|_| template::create(&self.context, &owner, template, &labels));
        let mut creating = futures_util::stream::iter(creating).buffer_unordered(CREATIONS);
        while let Some(created) = creating.next().await {
            created?;
        }
        for leaving in plan.delete {
            let uid = pods
                .iter()
                .find(|pod| ObjectName::of(&pod.metadata) == leaving)
                .and_then(|pod| pod.metadata.uid.clone());
            template::delete(&self.context, &leaving, uid).await?;
        }
        Ok(())
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
        .filter(|pod| template::is_owned(pod, &deployment.metadata));
    pods.cloned().collect()
}
