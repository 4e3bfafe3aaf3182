//! Whatever is killed, containers go on, and what comes after finds them again.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use weft_proto::weft::node::v1::*;
use weft_runtime::bootstrap::ensure_node;

use crate::runner::Tests;
use crate::support::{Mesh, PATIENCE, is_alive, script_in};

pub(crate) fn register(tests: &mut Tests) {
    tests.add("a_running_node_is_adopted", adoption);
    tests.add(
        "containers_outlive_the_server_and_are_found_again",
        server_killed,
    );
    tests.add(
        "a_container_that_ends_without_a_server_is_known_to_the_next",
        ended_meanwhile,
    );
    tests.add("a_mesh_that_lost_holder_and_server_is_taken_over", orphans);
    tests.add("a_terminated_holder_ends_the_mesh", terminated);
    tests.add(
        "a_killed_shim_takes_its_container_along_and_both_come_back",
        shim_killed,
    );
}

async fn adoption(mesh: Mesh) -> Mesh {
    let again = ensure_node(&mesh.options).await.expect("a node");

    assert!(again.adopted);
    assert_eq!(again.holder_pid, mesh.node.holder_pid);
    mesh
}

/// Kills the server and waits for the next.
async fn kill_server(mesh: &Mesh) {
    let before = mesh.server_pid().await;
    kill(Pid::from_raw(before), Signal::SIGKILL).expect("killed");
    let deadline = Instant::now() + PATIENCE;
    loop {
        let info = mesh.node.client.clone().info(InfoRequest {}).await;
        if info.is_ok_and(|info| info.into_inner().pid != before) {
            return;
        }
        assert!(Instant::now() < deadline, "the server comes back");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn server_killed(mesh: Mesh) -> Mesh {
    let sandbox = mesh.sandbox("one").await;
    let before = mesh
        .shell(
            "one",
            "c",
            "echo one; trap 'echo two' USR1; while true; do sleep 0.05; done",
        )
        .await;

    kill_server(&mesh).await;

    let after = mesh
        .until("c", |container| {
            container.state() == ContainerState::Running
        })
        .await;
    assert_eq!(before.pid, after.pid, "the container went on");
    let sandboxes = mesh
        .node
        .client
        .clone()
        .list_sandboxes(ListSandboxesRequest {})
        .await
        .expect("a list");
    assert_eq!(sandboxes.into_inner().sandboxes, vec![sandbox.clone()]);
    assert_eq!(mesh.exec("c", "hostname").await, (0, "one".into()));
    kill(Pid::from_raw(after.pid), Signal::SIGUSR1).expect("signalled");
    let deadline = Instant::now() + PATIENCE;
    while mesh.log("c").await != ["one", "two"] {
        assert!(Instant::now() < deadline, "the log goes on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let other = mesh.sandbox("two").await;
    assert_ne!(other.ipv4, sandbox.ipv4, "addresses in use are known");
    assert_eq!(mesh.stop("c", 0).await.exit_code, 137);
    mesh
}

async fn orphans(mut mesh: Mesh) -> Mesh {
    let sandbox = mesh.sandbox("one").await;
    let before = mesh.shell("one", "c", "exec sleep 1000").await;
    let server = mesh.server_pid().await;

    kill(Pid::from_raw(mesh.node.holder_pid), Signal::SIGKILL).expect("killed");
    kill(Pid::from_raw(server), Signal::SIGKILL).expect("killed");
    let deadline = Instant::now() + PATIENCE;
    while is_alive(server) || is_alive(mesh.node.holder_pid) {
        assert!(Instant::now() < deadline, "they end");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    mesh.node = ensure_node(&mesh.options).await.expect("a node");

    assert!(!mesh.node.adopted, "another holder");
    let after = mesh.ended_or_running("c").await;
    assert_eq!(
        (after.state(), after.pid),
        (ContainerState::Running, before.pid)
    );
    let sandboxes = mesh
        .node
        .client
        .clone()
        .list_sandboxes(ListSandboxesRequest {})
        .await;
    assert_eq!(
        sandboxes.expect("a list").into_inner().sandboxes,
        vec![sandbox]
    );
    mesh.sandbox("two").await;
    assert_eq!(mesh.outcome("two", "d", "echo on").await, (0, "on".into()));
    mesh
}

async fn terminated(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let container = mesh.shell("one", "c", "exec sleep 1000").await;
    let holder = mesh.node.holder_pid;

    kill(Pid::from_raw(holder), Signal::SIGTERM).expect("signalled");

    let deadline = Instant::now() + PATIENCE;
    while is_alive(holder) || is_alive(container.pid) {
        assert!(Instant::now() < deadline, "the mesh ends");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    mesh.restarted().await
}

async fn ended_meanwhile(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    mesh.shell("one", "c", "sleep 0.3; exit 9").await;

    kill_server(&mesh).await;

    assert_eq!(mesh.ended("c").await.exit_code, 9);
    mesh
}

async fn shim_killed(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let mut request = script_in("one", "c", "exec sleep 1000");
    request.restart = RestartPolicy::Always.into();
    let before = mesh.run(request).await;
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", before.pid)).expect("stat");
    let shim: i32 = stat
        .rsplit_once(") ")
        .expect("stat")
        .1
        .split(' ')
        .nth(1)
        .expect("stat")
        .parse()
        .expect("a pid");

    kill(Pid::from_raw(shim), Signal::SIGKILL).expect("killed");

    let after = mesh
        .until("c", |container| {
            container.pid != before.pid && container.state() == ContainerState::Running
        })
        .await;
    assert_eq!(after.restarts, 1);
    assert!(!is_alive(before.pid), "the first one is gone");
    mesh
}
