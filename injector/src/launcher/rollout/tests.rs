use serde_json::json;

use super::*;

fn spec(replicas: i32) -> DeploymentSpec {
    DeploymentSpec {
        replicas: Some(replicas),
        ..DeploymentSpec::default()
    }
}

fn pod(name: &str, hash: &str, ready: bool) -> Pod {
    let ready = if ready { "True" } else { "False" };
    serde_json::from_value(json!({
        "metadata": { "name": name, "namespace": "shop", "labels": { TEMPLATE_HASH: hash } },
        "status": { "phase": "Running", "conditions": [{ "type": "Ready", "status": ready }] },
    }))
    .unwrap()
}

fn plan_of(spec: &DeploymentSpec, pods: &[Pod]) -> (usize, Vec<String>) {
    let pods: Vec<&Pod> = pods.iter().collect();
    let plan = plan(spec, "new", &pods);
    (
        plan.create,
        plan.delete.into_iter().map(|name| name.name).collect(),
    )
}

#[test]
fn a_new_deployment_makes_all_its_pods_at_once() {
    assert_eq!(plan_of(&spec(3), &[]), (3, vec![]));
}

#[test]
fn nothing_happens_when_everything_is_there() {
    assert_eq!(plan_of(&spec(1), &[pod("a", "new", true)]), (0, vec![]));
}

#[test]
fn scaling_down_takes_the_pod_that_is_not_ready() {
    let pods = [
        pod("a", "new", true),
        pod("b", "new", false),
        pod("c", "new", true),
    ];

    assert_eq!(plan_of(&spec(2), &pods), (0, vec!["b".to_owned()]));
}

#[test]
fn a_changed_template_makes_a_new_pod_before_an_old_one_goes() {
    let pods = [pod("a", "old", true), pod("b", "old", true)];
    assert_eq!(plan_of(&spec(2), &pods), (1, vec![]));

    let pods = [
        pod("a", "old", true),
        pod("b", "old", true),
        pod("c", "new", false),
    ];
    assert_eq!(
        plan_of(&spec(2), &pods),
        (0, vec![]),
        "the new pod is not ready yet"
    );

    let pods = [
        pod("a", "old", true),
        pod("b", "old", true),
        pod("c", "new", true),
    ];
    assert_eq!(plan_of(&spec(2), &pods), (0, vec!["a".to_owned()]));

    let pods = [pod("b", "old", true), pod("c", "new", true)];
    assert_eq!(plan_of(&spec(2), &pods), (1, vec![]));
}

#[test]
fn old_pods_that_never_became_ready_do_not_block_a_rollout() {
    let pods = [pod("a", "old", false)];

    assert_eq!(plan_of(&spec(1), &pods), (1, vec!["a".to_owned()]));
}

#[test]
fn pods_on_their_way_out_count_for_nothing() {
    let mut leaving = pod("a", "new", true);
    leaving.metadata.deletion_timestamp = Some(
        "2026-01-01T00:00:00Z"
            .parse::<jiff::Timestamp>()
            .unwrap()
            .into(),
    );

    assert_eq!(plan_of(&spec(1), &[leaving]), (1, vec![]));
}

#[test]
fn a_pod_that_was_meant_to_end_is_not_replaced() {
    let mut ended = pod("a", "new", false);
    ended.status.as_mut().unwrap().phase = Some("Succeeded".to_owned());
    ended.metadata.annotations = Some([("weft.dev/restart".to_owned(), "never".to_owned())].into());

    assert_eq!(plan_of(&spec(1), &[ended]), (0, vec![]));
}

#[test]
fn zero_replicas_leave_nothing() {
    let pods = [pod("a", "old", true), pod("b", "new", true)];

    assert_eq!(plan_of(&spec(0), &pods).1.len(), 2);
}

#[test]
fn recreation_waits_until_the_old_pods_are_gone() {
    let mut spec = spec(1);
    spec.strategy = Some(DeploymentStrategy {
        type_: Some("Recreate".to_owned()),
        rolling_update: None,
    });
    let mut old = pod("a", "old", true);
    assert_eq!(
        plan_of(&spec, std::slice::from_ref(&old)),
        (0, vec!["a".to_owned()])
    );

    old.metadata.deletion_timestamp = Some(
        "2026-01-01T00:00:00Z"
            .parse::<jiff::Timestamp>()
            .unwrap()
            .into(),
    );
    assert_eq!(plan_of(&spec, &[old]), (0, vec![]));
    assert_eq!(plan_of(&spec, &[]), (1, vec![]));
}

#[test]
fn a_paused_rollout_only_scales() {
    let mut spec = spec(1);
    spec.paused = Some(true);
    let pods = [pod("a", "old", true), pod("b", "old", true)];

    assert_eq!(plan_of(&spec, &pods).0, 0);
    assert_eq!(plan_of(&spec, &pods).1.len(), 1);
}

#[test]
fn every_rollout_ends_whatever_the_strategy() {
    for (surge, unavailable) in [("0%", "0%"), ("25%", "25%"), ("100%", "0%"), ("0%", "100%")] {
        let spec: DeploymentSpec = serde_json::from_value(json!({
            "replicas": 4,
            "selector": {},
            "template": {},
            "strategy": { "rollingUpdate": { "maxSurge": surge, "maxUnavailable": unavailable } },
        }))
        .unwrap();
        let mut pods: Vec<Pod> = (0..4)
            .map(|index| pod(&format!("old-{index}"), "old", true))
            .collect();
        let mut made = 0;
        for _ in 0..20 {
            let (create, delete) = plan_of(&spec, &pods);
            pods.retain(|pod| !delete.contains(pod.metadata.name.as_ref().unwrap()));
            for _ in 0..create {
                made += 1;
                pods.push(pod(&format!("new-{made}"), "new", true));
            }
            assert!(pods.len() <= 8, "never more than the surge");
        }
        let hashes: Vec<_> = pods
            .iter()
            .map(|pod| &pod.metadata.labels.as_ref().unwrap()[TEMPLATE_HASH])
            .collect();
        assert_eq!(hashes, ["new"; 4], "{surge} {unavailable}");
    }
}

#[test]
fn the_hash_follows_the_template() {
    let template = |image: &str| -> PodTemplateSpec {
        serde_json::from_value(
            json!({ "spec": { "containers": [{ "name": "a", "image": image }] } }),
        )
        .unwrap()
    };

    assert_eq!(template_hash(&template("x")), template_hash(&template("x")));
    assert_ne!(template_hash(&template("x")), template_hash(&template("y")));
    assert_eq!(template_hash(&template("x")).len(), 10);
}
