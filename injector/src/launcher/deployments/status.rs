//! What is told about a Deployment.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentCondition, DeploymentStatus};

use crate::launcher::rollout::{self, Count};
use crate::launcher::status::now;

/// The status of a Deployment; `known` is the one that was told before, `refusal` what the API said no to.
pub(super) fn status(
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
        last_transition_time: since.or_else(|| Some(now())),
        last_update_time: None,
    }
}
