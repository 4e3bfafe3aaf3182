//! Tells the API how the pod is, whenever that changes.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodStatus};
use serde_json::json;
use tracing::debug;

use super::PodTask;
use crate::api::Collection;
use crate::launcher::status::{compute, phase};

/// Small steps come in bursts; what matters to others is told at once.
const SETTLED: Duration = Duration::from_millis(30);

impl PodTask {
    /// Never returns.
    pub(super) async fn keep_reporting(&self) {
        let mut changes = self.context.world.changes();
        let mut progress = self.progress.subscribe();
        loop {
            tokio::select! {
                _ = changes.changed() => {}
                _ = progress.changed() => {}
            }
            if !self.is_urgent().await {
                tokio::time::sleep(SETTLED).await;
            }
            changes.mark_unchanged();
            progress.mark_unchanged();
            self.report().await;
        }
    }

    /// Writes the status if it differs from what was told before.
    pub(super) async fn report(&self) {
        // Held across the call, so that a newer status is never overtaken by an older one.
        let mut told = self.told.lock().await;
        let Some((pod, status)) = self.status(told.as_ref()) else {
            return;
        };
        if told.as_ref().or(pod.status.as_ref()) == Some(&status) {
            return;
        }
        let collection = Collection::of::<Pod>(&self.name.namespace);
        let patch = json!({ "status": explicit(&status) });
        match self
            .context
            .client
            .patch_status::<Pod>(&collection, &self.name.name, &patch)
            .await
        {
            Ok(pod) => {
                *told = Some(status);
                self.context.world.update(|state| state.put_pod(pod));
            }
            Err(error) => debug!(%error, "the status was not written"),
        }
    }

    /// The pod and its status as it is now; none while nothing is to be told.
    fn status(&self, told: Option<&PodStatus>) -> Option<(std::sync::Arc<Pod>, PodStatus)> {
        let progress = self.progress.borrow().clone();
        if progress.is_quiet {
            return None;
        }
        self.context.world.read(|state| {
            let pod = state.pod(&self.name, &self.uid)?;
            let prefix = format!("{}.", self.name.sandbox());
            let containers: BTreeMap<_, _> = state
                .containers
                .range(prefix.clone()..)
                .take_while(|(id, _)| id.starts_with(&prefix))
                .map(|(id, container)| (id.clone(), container.as_ref()))
                .collect();
            let known = told.or(pod.status.as_ref());
            Some((pod.clone(), compute(pod, &progress, &containers, known)))
        })
    }

    /// Whether others wait for the change: phase or readiness.
    async fn is_urgent(&self) -> bool {
        let told = self.told.lock().await;
        let Some((_, status)) = self.status(told.as_ref()) else {
            return false;
        };
        let view = |status: PodStatus| {
            let pod = Pod {
                status: Some(status),
                ..Pod::default()
            };
            (
                phase(&pod).to_owned(),
                crate::launcher::status::is_ready(&pod),
            )
        };
        told.clone().is_none_or(|told| view(told) != view(status))
    }
}

/// In a merge patch a field that is left out stays as it was: what is gone must be null.
fn explicit(status: &PodStatus) -> serde_json::Value {
    let mut value = json!(status);
    for field in ["reason", "message", "podIP"] {
        if value.get(field).is_none() {
            value[field] = serde_json::Value::Null;
        }
    }
    value
}
