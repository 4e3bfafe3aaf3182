//! Containers: life and end, logs, restarts, mounts, users.

use std::time::Duration;

use tokio_stream::StreamExt as _;
use weft_proto::weft::node::v1::mount::Source;
use weft_proto::weft::node::v1::*;

use crate::runner::Tests;
use crate::support::{Mesh, PATIENCE, script_in, script_of};

pub(crate) fn register(tests: &mut Tests) {
    tests.add("output_and_exit_code_are_kept", output_and_exit_code);
    tests.add(
        "a_command_that_does_not_exist_is_127_and_one_that_cannot_run_126",
        no_such_command,
    );
    tests.add(
        "a_container_that_ignores_its_signal_is_killed_after_the_grace",
        stop,
    );
    tests.add(
        "a_container_that_always_restarts_restarts_until_it_is_stopped",
        restarts,
    );
    tests.add(
        "success_is_final_where_failures_are_restarted",
        restarts_on_failure,
    );
    tests.add("a_log_that_is_followed_ends_with_its_container", follow);
    tests.add(
        "only_the_last_lines_are_sent_where_a_tail_is_asked_for",
        tail,
    );
    tests.add("a_watch_sees_every_change", watch);
    tests.add("mounts_are_what_was_asked_for", mounts);
    tests.add("a_command_runs_as_the_user_that_was_named", users);
    tests.add(
        "a_first_process_that_is_killed_by_hand_is_started_again",
        killed,
    );
    tests.add(
        "a_container_that_is_started_again_at_once_is_not_taken_for_ended",
        started_again,
    );
    tests.add("a_container_in_use_is_not_removed", removal);
}

async fn output_and_exit_code(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;

    let (code, output) = mesh
        .outcome("one", "c", "echo out; echo err >&2; printf last; exit 7")
        .await;

    assert_eq!(code, 7);
    let mut lines: Vec<&str> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, vec!["err", "last", "out"]);
    mesh
}

async fn no_such_command(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let mut request = script_in("one", "missing", "");
    request.entrypoint = vec!["no-such-command".into()];
    mesh.create(request).await.expect("a container");
    let refusal = mesh
        .start_container("missing")
        .await
        .expect_err("it cannot start");
    assert!(
        refusal.message().contains("127") && refusal.message().contains("no-such-command"),
        "{refusal}"
    );
    assert_eq!(mesh.ended("missing").await.exit_code, 127);

    let mut request = script_in("one", "directory", "");
    request.entrypoint = vec!["/usr".into()];
    mesh.create(request).await.expect("a container");
    mesh.start_container("directory")
        .await
        .expect_err("it cannot start");
    assert_eq!(mesh.ended("directory").await.exit_code, 126);
    mesh
}

async fn stop(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    mesh.shell(
        "one",
        "stubborn",
        "trap '' TERM; echo ready; while true; do sleep 1; done",
    )
    .await;
    mesh.shell(
        "one",
        "polite",
        "trap 'exit 3' TERM; echo ready; while true; do sleep 0.01; done",
    )
    .await;
    while mesh.log("polite").await.is_empty() || mesh.log("stubborn").await.is_empty() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }

    let stubborn = mesh.stop("stubborn", 200).await;
    let polite = mesh.stop("polite", 10_000).await;

    assert_eq!(
        (stubborn.state(), stubborn.exit_code),
        (ContainerState::Exited, 137)
    );
    assert_eq!(
        (polite.state(), polite.exit_code),
        (ContainerState::Exited, 3)
    );
    assert_eq!(
        mesh.stop("polite", 0).await.exit_code,
        3,
        "stopping twice is no error"
    );
    mesh
}

async fn restarts(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let mut request = script_in("one", "c", "echo run; exit 1");
    request.restart = RestartPolicy::Always.into();
    mesh.run(request).await;

    let container = mesh.until("c", |container| container.restarts >= 3).await;
    assert!(container.exit_code == 1, "{container:?}");
    let stopped = mesh.stop("c", 0).await;

    assert_eq!(stopped.state(), ContainerState::Exited);
    assert!(mesh.log("c").await.len() >= 4);
    mesh
}

async fn restarts_on_failure(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let mut request = script_in("one", "c", "echo fine");
    request.restart = RestartPolicy::OnFailure.into();
    mesh.run(request).await;

    let ended = mesh.ended("c").await;

    assert_eq!(
        (ended.restarts, ended.exit_reason.as_str()),
        (0, "Completed")
    );
    mesh
}

async fn follow(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    mesh.shell("one", "c", "for i in 1 2 3; do echo $i; sleep 0.05; done")
        .await;
    let request = LogsRequest {
        id: "c".into(),
        follow: true,
        ..LogsRequest::default()
    };
    let mut stream = mesh
        .node
        .client
        .clone()
        .logs(request)
        .await
        .expect("a log")
        .into_inner();

    let mut lines = Vec::new();
    let read = async {
        while let Some(chunk) = stream.next().await {
            let chunk = chunk.expect("a line");
            assert!(chunk.time > 1_600_000_000_000_000_000, "nanoseconds");
            lines.push(chunk.line);
        }
    };
    tokio::time::timeout(PATIENCE, read)
        .await
        .expect("the stream ends");

    assert_eq!(lines, vec!["1", "2", "3"]);
    mesh
}

async fn tail(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    mesh.outcome("one", "c", "seq 1 1000").await;
    let request = LogsRequest {
        id: "c".into(),
        tail: 2,
        ..LogsRequest::default()
    };
    let mut stream = mesh
        .node
        .client
        .clone()
        .logs(request)
        .await
        .expect("a log")
        .into_inner();

    let mut lines = Vec::new();
    while let Some(chunk) = stream.next().await {
        lines.push(chunk.expect("a line").line);
    }

    assert_eq!(lines, vec!["999", "1000"]);
    mesh
}

async fn watch(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let watch = mesh
        .node
        .client
        .clone()
        .watch_containers(WatchContainersRequest {})
        .await;
    let mut watch = watch.expect("a watch").into_inner();

    mesh.outcome("one", "c", "true").await;
    let remove = RemoveContainerRequest { id: "c".into() };
    mesh.node
        .client
        .clone()
        .remove_container(remove)
        .await
        .expect("removed");

    let mut states = Vec::new();
    while states.last() != Some(&ContainerState::Removed) {
        let next = tokio::time::timeout(PATIENCE, watch.next())
            .await
            .expect("a change");
        states.push(next.expect("a change").expect("a change").state());
    }
    states.dedup();
    let expected = [
        ContainerState::Created,
        ContainerState::Running,
        ContainerState::Exited,
        ContainerState::Removed,
    ];
    // A container as short as this may have ended before anybody could see that it ran.
    let seen: Vec<_> = expected
        .into_iter()
        .filter(|state| states.contains(state))
        .collect();
    assert_eq!(states, seen);
    assert!(states.len() >= 3, "{states:?}");
    mesh
}

async fn mounts(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let shared = mesh.directory.path().join("shared");
    std::fs::create_dir(&shared).expect("a directory");
    std::fs::write(shared.join("file"), "from the host").expect("a file");
    let mount = |target: &str, source| Mount {
        target: target.into(),
        source: Some(source),
        ..Mount::default()
    };
    let mut request = script_in(
        "one",
        "c",
        "cat /host/file /etc/weft/config; touch /host/x 2>/dev/null || echo read-only; echo kept >> /data/file; cat /data/file; \
         stat -c '%a %u' /etc/weft/config /scratch; touch /scratch/x && echo writable",
    );
    request.mounts = vec![
        Mount {
            read_only: true,
            ..mount("/host", Source::HostPath(shared.to_string_lossy().into()))
        },
        Mount {
            mode: 0o400,
            uid: 1337,
            read_only: true,
            ..mount("/etc/weft/config", Source::Content("content".into()))
        },
        Mount {
            mode: 0o1777,
            ..mount("/scratch", Source::TmpfsBytes(1 << 20))
        },
        mount("/data", Source::Volume("data".into())),
    ];
    let mut again = request.clone();
    again.id = "d".into();
    mesh.run(request).await;
    mesh.ended("c").await;
    mesh.run(again).await;
    mesh.ended("d").await;

    let lines = mesh.log("c").await.join("\n");
    assert!(lines.starts_with("from the hostcontent"), "{lines}");
    assert!(
        lines.ends_with("read-only\nkept\n400 1337\n1777 0\nwritable"),
        "{lines}"
    );
    let lines = mesh.log("d").await.join("\n");
    assert!(
        lines.contains("kept\nkept\n"),
        "a volume outlives its container: {lines}"
    );
    mesh
}

async fn users(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let setup = "RUN echo 'redis:x:999:1000::/data:/bin/sh' > /etc/passwd; echo 'redis:x:1000:' > /etc/group; mkdir /data\n";
    mesh.busybox(&format!(
        "RUN mkdir -p /etc\n{setup}USER redis\nWORKDIR /data\n"
    ))
    .await;
    mesh.run(script_of(
        "busybox:test",
        "one",
        "image",
        "id -u; id -g; pwd; echo $HOME; echo again >/dev/stdout",
    ))
    .await;
    let mut request = script_of("busybox:test", "one", "number", "id -u; id -g");
    request.user = "1337:1338".into();
    mesh.run(request).await;
    mesh.ended("image").await;
    mesh.ended("number").await;

    assert_eq!(
        mesh.log("image").await,
        vec!["999", "1000", "/data", "/data", "again"]
    );
    assert_eq!(mesh.log("number").await, vec!["1337", "1338"]);
    mesh
}

async fn killed(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let mut request = script_in("one", "c", "echo run; exec sleep 1000");
    request.restart = RestartPolicy::Always.into();
    let first = mesh.run(request).await;

    let killed = std::time::Instant::now();
    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(first.pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("killed");
    let second = mesh
        .until("c", |container| {
            container.restarts == 1 && container.pid > 0
        })
        .await;

    println!("     back after {} ms", killed.elapsed().as_millis());
    assert_ne!(first.pid, second.pid);
    assert_eq!(
        (second.state(), second.exit_code),
        (ContainerState::Running, 137)
    );
    mesh
}

async fn started_again(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let script = "echo run >> /var/lib/weft/runs; test $(wc -l < /var/lib/weft/runs) -lt 10 || exec sleep 1000";
    let mut request = script_in("one", "c", script);
    request.user = "1337".into();
    let watch = WatchContainersRequest {};
    let watch = mesh.node.client.clone().watch_containers(watch).await;
    let mut watch = watch.expect("a watch").into_inner();
    mesh.run(request).await;

    // Started in the very moment in which its end is known, while its shim is still ending.
    for _ in 1..10 {
        let ended = async {
            while watch
                .next()
                .await
                .expect("a change")
                .expect("a change")
                .state()
                != ContainerState::Exited
            {}
        };
        tokio::time::timeout(PATIENCE, ended)
            .await
            .expect("it ends");
        mesh.start_container("c").await.expect("it starts");
    }
    tokio::time::sleep(Duration::from_millis(200)).await;

    let container = mesh.list().await.remove(0);
    assert_eq!(container.state(), ContainerState::Running, "{container:?}");
    mesh
}

async fn removal(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    mesh.shell("one", "c", "sleep 1000").await;
    let remove = async || {
        let request = RemoveContainerRequest { id: "c".into() };
        mesh.node.client.clone().remove_container(request).await
    };

    assert_eq!(
        remove().await.expect_err("it runs").code(),
        tonic::Code::FailedPrecondition
    );
    mesh.stop("c", 0).await;

    remove().await.expect("removed");
    remove().await.expect("there is none");
    assert_eq!(
        mesh.start_container("c").await.expect_err("gone").code(),
        tonic::Code::NotFound
    );
    mesh
}
