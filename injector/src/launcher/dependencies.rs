//! What a pod waits for before its application starts: Compose's `depends_on`.

use k8s_openapi::api::core::v1::Pod;
use serde::Deserialize;

use super::container::annotation;
use super::failure::Failure;
use super::status::{is_ready, phase};
use super::world::State;

/// JSON list of [`Dependency`].
const DEPENDS_ON: &str = "weft.dev/depends-on";
/// The label of a Compose service's pods.
const APP: &str = "app";
const PROJECT: &str = "weft.dev/project";

/// One service that must have come so far.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Dependency {
    service: String,
    condition: Condition,
    #[serde(default = "yes")]
    required: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
enum Condition {
    #[serde(rename = "service_started")]
    Started,
    #[serde(rename = "service_healthy")]
    Healthy,
    #[serde(rename = "service_completed_successfully")]
    Completed,
}

fn yes() -> bool {
    true
}

/// The dependencies of a pod.
pub(super) fn of(pod: &Pod) -> Result<Vec<Dependency>, Failure> {
    let Some(text) = annotation(pod, DEPENDS_ON) else {
        return Ok(Vec::new());
    };
    serde_json::from_str(text).map_err(|error| {
        Failure::Spec(format!(
            "the annotation {DEPENDS_ON} cannot be read: {error}"
        ))
    })
}

impl Dependency {
    /// What is still missing, in a few words; `None` when the condition holds.
    pub(super) fn missing(&self, dependent: &Pod, state: &State) -> Option<String> {
        let pods: Vec<&Pod> = self.pods(dependent, state).collect();
        let service = &self.service;
        if pods.is_empty() {
            return (self.required || self.exists(dependent, state))
                .then(|| format!("{service} to exist"));
        }
        match self.condition {
            Condition::Started => {
                let has_started = pods.iter().any(|pod| phase(pod) != "Pending");
                (!has_started).then(|| format!("{service} to start"))
            }
            Condition::Healthy => {
                let is_healthy = pods.iter().all(|pod| is_ready(pod));
                (!is_healthy).then(|| format!("{service} to be healthy"))
            }
            Condition::Completed => self.missing_success(&pods),
        }
    }

    fn missing_success(&self, pods: &[&Pod]) -> Option<String> {
        let service = &self.service;
        if pods.iter().all(|pod| phase(pod) == "Succeeded") {
            return None;
        }
        if pods.iter().any(|pod| phase(pod) == "Failed") {
            return self
                .required
                .then(|| format!("{service} to succeed: it has failed"));
        }
        Some(format!("{service} to complete"))
    }

    fn pods<'a>(&'a self, dependent: &'a Pod, state: &'a State) -> impl Iterator<Item = &'a Pod> {
        let namespace = &dependent.metadata.namespace;
        let is_of_project = move |pod: &Pod| {
            label(dependent, PROJECT).is_none_or(|project| label(pod, PROJECT) == Some(project))
        };
        state
            .pods
            .values()
            .map(AsRef::as_ref)
            .filter(move |pod| pod.metadata.namespace == *namespace)
            .filter(move |pod| pod.metadata.deletion_timestamp.is_none())
            .filter(move |pod| label(pod, APP) == Some(self.service.as_str()) && is_of_project(pod))
    }

    fn exists(&self, dependent: &Pod, state: &State) -> bool {
        state.deployments.keys().any(|name| {
            name.name == self.service
                && Some(&name.namespace) == dependent.metadata.namespace.as_ref()
        })
    }
}

fn label<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.metadata.labels.as_ref()?.get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(name: &str, service: &str, phase: &str, ready: &str) -> Pod {
        serde_json::from_value(json!({
            "metadata": { "name": name, "namespace": "shop", "labels": { "app": service } },
            "status": { "phase": phase, "conditions": [{ "type": "Ready", "status": ready }] },
        }))
        .unwrap()
    }

    fn dependent(condition: &str, required: bool) -> (Pod, Dependency) {
        let mut pod = pod("front-1", "front", "Pending", "False");
        let list = json!([{ "service": "redis", "condition": condition, "required": required }]);
        pod.metadata.annotations = Some([(DEPENDS_ON.to_owned(), list.to_string())].into());
        let dependency = of(&pod).unwrap().remove(0);
        (pod, dependency)
    }

    fn state(pods: Vec<Pod>) -> State {
        let mut state = State::default();
        pods.into_iter().for_each(|pod| state.put_pod(pod));
        state
    }

    #[test]
    fn healthy_means_that_every_pod_is_ready() {
        let (front, redis) = dependent("service_healthy", true);
        let half = state(vec![
            pod("a", "redis", "Running", "True"),
            pod("b", "redis", "Running", "False"),
        ]);
        let whole = state(vec![pod("a", "redis", "Running", "True")]);

        assert_eq!(
            redis.missing(&front, &half).as_deref(),
            Some("redis to be healthy")
        );
        assert_eq!(redis.missing(&front, &whole), None);
    }

    #[test]
    fn started_does_not_wait_for_readiness() {
        let (front, redis) = dependent("service_started", true);
        let starting = state(vec![pod("a", "redis", "Pending", "False")]);
        let started = state(vec![pod("a", "redis", "Running", "False")]);

        assert!(redis.missing(&front, &starting).is_some());
        assert_eq!(redis.missing(&front, &started), None);
    }

    #[test]
    fn completed_needs_success() {
        let (front, job) = dependent("service_completed_successfully", true);
        let failed = state(vec![pod("a", "redis", "Failed", "False")]);
        let done = state(vec![pod("a", "redis", "Succeeded", "False")]);

        assert!(
            job.missing(&front, &failed)
                .unwrap()
                .contains("it has failed")
        );
        assert_eq!(job.missing(&front, &done), None);
    }

    #[test]
    fn only_a_required_service_must_exist() {
        let (front, required) = dependent("service_started", true);
        let (_, optional) = dependent("service_started", false);
        let nothing = State::default();

        assert_eq!(
            required.missing(&front, &nothing).as_deref(),
            Some("redis to exist")
        );
        assert_eq!(optional.missing(&front, &nothing), None);
    }

    #[test]
    fn pods_of_other_namespaces_do_not_count() {
        let (front, redis) = dependent("service_started", true);
        let mut elsewhere = pod("a", "redis", "Running", "True");
        elsewhere.metadata.namespace = Some("other".to_owned());

        assert!(redis.missing(&front, &state(vec![elsewhere])).is_some());
    }
}
