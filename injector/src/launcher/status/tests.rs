use serde_json::json;

use super::*;

fn pod() -> Pod {
    serde_json::from_value(json!({
        "metadata": { "name": "books-1", "namespace": "shop" },
        "spec": {
            "initContainers": [
                { "name": "weft-proxy", "image": "weft.dev/proxy:host", "restartPolicy": "Always" },
                { "name": "migrate", "image": "x" },
            ],
            "containers": [{ "name": "books", "image": "x" }],
        },
    }))
    .unwrap()
}

fn container(name: &str, state: ContainerState) -> Container {
    Container {
        id: format!("shop.books-1.{name}"),
        state: state.into(),
        started_at: 100,
        finished_at: if state == ContainerState::Running {
            0
        } else {
            200
        },
        ..Container::default()
    }
}

fn ready(names: &[&str]) -> Progress {
    Progress {
        addresses: vec!["10.96.0.2".to_owned()],
        is_initialized: true,
        ready: names
            .iter()
            .map(|name| ((*name).to_owned(), true))
            .collect(),
        ..Progress::default()
    }
}

fn status(progress: &Progress, containers: &[Container]) -> PodStatus {
    let containers = containers
        .iter()
        .map(|container| (container.id.clone(), container))
        .collect();
    compute(&pod(), progress, &containers, None)
}

fn all_running() -> Vec<Container> {
    vec![
        container("weft-proxy", ContainerState::Running),
        container("migrate", ContainerState::Exited),
        container("books", ContainerState::Running),
    ]
}

fn readiness(status: &PodStatus) -> String {
    condition_of(Some(status), "Ready").unwrap().status.clone()
}

#[test]
fn a_pod_is_ready_when_application_and_sidecar_are() {
    let status = status(&ready(&["weft-proxy", "books"]), &all_running());

    assert_eq!(readiness(&status), "True");
    assert_eq!(status.phase.as_deref(), Some("Running"));
    assert_eq!(status.pod_ip.as_deref(), Some("10.96.0.2"));
}

#[test]
fn a_pod_is_not_ready_without_its_sidecar() {
    let status = status(&ready(&["books"]), &all_running());

    assert_eq!(readiness(&status), "False");
}

#[test]
fn a_pod_on_its_way_out_is_never_ready() {
    let progress = Progress {
        is_ending: true,
        ..ready(&["weft-proxy", "books"])
    };

    assert_eq!(readiness(&status(&progress, &all_running())), "False");
}

#[test]
fn a_container_between_two_runs_tells_how_the_last_one_ended() {
    let mut containers = all_running();
    containers[2] = Container {
        exit_code: 137,
        restarts: 3,
        ..container("books", ContainerState::Restarting)
    };

    let status = status(&ready(&["weft-proxy", "books"]), &containers);

    let books = &status.container_statuses.as_ref().unwrap()[0];
    let waiting = books.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.reason.as_deref(), Some("CrashLoopBackOff"));
    assert_eq!(books.restart_count, 3);
    let last = books
        .last_state
        .as_ref()
        .unwrap()
        .terminated
        .as_ref()
        .unwrap();
    assert_eq!((last.exit_code, last.signal), (137, Some(9)));
    assert_eq!(readiness(&status), "False");
}

#[test]
fn a_failed_step_is_told_with_word_and_sentence() {
    let progress = Progress {
        waiting: Some((
            "PortUnavailable".to_owned(),
            "0.0.0.0:80 is in use".to_owned(),
        )),
        ..Progress::default()
    };

    let status = status(&progress, &[]);

    assert_eq!(status.phase.as_deref(), Some("Pending"));
    assert_eq!(status.reason.as_deref(), Some("PortUnavailable"));
    let books = &status.container_statuses.as_ref().unwrap()[0];
    let waiting = books.state.as_ref().unwrap().waiting.as_ref().unwrap();
    assert_eq!(waiting.message.as_deref(), Some("0.0.0.0:80 is in use"));
}

#[test]
fn a_pod_that_ended_says_how() {
    let progress = Progress {
        end: Some(End::Failed),
        ..ready(&["weft-proxy"])
    };

    let status = status(&progress, &all_running());

    assert_eq!(status.phase.as_deref(), Some("Failed"));
    assert_eq!(readiness(&status), "False");
}

#[test]
fn a_condition_keeps_the_time_of_its_last_change() {
    let progress = ready(&["weft-proxy", "books"]);
    let mut known = status(&progress, &all_running());
    let long_ago = Time(jiff::Timestamp::from_second(1000).unwrap());
    for condition in known.conditions.iter_mut().flatten() {
        condition.last_transition_time = Some(long_ago.clone());
    }
    let containers = all_running();
    let containers = containers
        .iter()
        .map(|container| (container.id.clone(), container))
        .collect();

    let again = compute(&pod(), &progress, &containers, Some(&known));

    assert_eq!(again, known, "nothing changed, so nothing is told");
}
