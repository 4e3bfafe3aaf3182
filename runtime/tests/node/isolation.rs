//! What a container may not do, and may not see.

use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use weft_proto::weft::node::v1::*;

use crate::runner::Tests;
use crate::support::{Mesh, PATIENCE, script_in, script_of};

pub(crate) fn register(tests: &mut Tests) {
    tests.add("the_checks_find_nothing_that_fails", checks);
    tests.add(
        "a_program_that_only_its_owner_may_reach_runs_in_containers",
        private_program,
    );
    tests.add(
        "root_of_a_container_cannot_change_its_network",
        no_network_changes,
    );
    tests.add("proc_and_sys_are_masked_and_read_only", masked);
    tests.add("dangerous_system_calls_are_refused", system_calls);
    tests.add("the_host_is_out_of_sight", out_of_sight);
    tests.add(
        "the_sidecars_directory_survives_its_restart_only",
        sidecar_state,
    );
    tests.add("limits_are_enforced_where_there_are_cgroups", limits);
}

async fn checks(mesh: Mesh) -> Mesh {
    let findings = tokio::task::spawn_blocking(weft_runtime::check::check)
        .await
        .expect("findings");

    for finding in &findings {
        assert_ne!(
            finding.status,
            weft_runtime::check::Status::Failed,
            "{finding:?}"
        );
        assert_eq!(
            finding.fix.is_none(),
            finding.status == weft_runtime::check::Status::Ok,
            "{finding:?}"
        );
    }
    for name in [
        "kernel",
        "overlay",
        "network",
        "iptables-restore",
        "ip6tables-restore",
        "seccomp",
    ] {
        assert!(
            findings.iter().any(|finding| finding.name == name),
            "{name} in {findings:?}"
        );
    }
    mesh
}

/// A node started from a directory of mode 0700: to the mesh's root another user's, where root started it.
async fn private_program(mut mesh: Mesh) -> Mesh {
    mesh.node.clone().shutdown().await.expect("the node ends");
    let private = mesh.directory.path().join("private");
    std::fs::create_dir(&private).expect("a directory");
    let program = private.join("weft");
    std::fs::copy("/proc/self/exe", &program).expect("a copy");
    std::fs::set_permissions(&private, std::fs::Permissions::from_mode(0o700))
        .expect("permissions");
    let status = tokio::process::Command::new(&program)
        .args(["node", "--detach"])
        .args(mesh.options.to_arguments())
        .status();
    assert!(status.await.expect("a node").success());
    mesh.node = weft_runtime::bootstrap::ensure_node(&mesh.options)
        .await
        .expect("the node");
    mesh.sandbox("one").await;
    let mut request = script_in("one", "c", "");
    request.entrypoint = vec![
        "/bin/sh".into(),
        "-c".into(),
        "test -x /weft && ! (: > /weft) 2>/dev/null && echo read-only".into(),
    ];

    mesh.run(request).await;
    mesh.ended("c").await;

    assert_eq!(mesh.log("c").await, vec!["read-only"]);
    mesh
}

async fn no_network_changes(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;

    let (code, output) = mesh
        .outcome("one", "c", "grep Cap /proc/self/status; ip link set eth0 down && echo changed; ip addr flush dev eth0 && echo changed; exit 0")
        .await;

    assert_eq!(code, 0, "{output}");
    assert!(!output.contains("changed"), "{output}");
    let effective = output
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .expect("capabilities");
    let effective = u64::from_str_radix(effective.trim(), 16).expect("a number");
    // NET_ADMIN 12, NET_RAW 13, SYS_MODULE 16, SYS_PTRACE 19, SYS_ADMIN 21, capabilities(7).
    for forbidden in [12, 13, 16, 19, 21] {
        assert_eq!(
            effective & (1 << forbidden),
            0,
            "capability {forbidden} of {output}"
        );
    }
    mesh
}

async fn masked(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let script = "cat /proc/kcore | head -c 1 | wc -c; cat /proc/keys /proc/timer_list | wc -c; \
        echo x > /proc/sys/kernel/hostname || echo locked; echo b > /proc/sysrq-trigger || echo locked; \
        mkdir /sys/fs/cgroup/x || echo locked; ls /sys/firmware | wc -l; ls /sys/class/net";

    let (_, output) = mesh
        .outcome("one", "c", &format!("({script}) 2>/dev/null"))
        .await;

    let lines: Vec<&str> = output.lines().collect();
    assert_eq!(
        lines[..6],
        ["0", "0", "locked", "locked", "locked", "0"],
        "{output}"
    );
    assert!(
        lines[6..].contains(&"eth0") && !lines[6..].contains(&"weft0"),
        "{output}"
    );
    mesh
}

async fn system_calls(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let script = "unshare -U true && echo made; unshare -m true && echo made; mount -t tmpfs x /tmp && echo made; \
        grep -E 'NoNewPrivs|Seccomp:' /proc/self/status";

    let (_, output) = mesh.outcome("one", "c", script).await;

    assert!(!output.contains("made"), "{output}");
    assert!(
        output.contains("NoNewPrivs:\t1") && output.contains("Seccomp:\t2"),
        "{output}"
    );
    assert!(output.contains("not permitted"), "{output}");
    mesh
}

async fn out_of_sight(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    mesh.busybox("").await;
    let script = "ls -d /proc/[0-9]* | wc -l; cat /proc/self/mounts; ls -A /";
    mesh.run(script_of("busybox:test", "one", "c", script))
        .await;
    mesh.ended("c").await;

    let lines = mesh.log("c").await;

    assert!(lines[0].parse::<u32>().expect("a number") <= 3, "{lines:?}");
    let mounts = lines.join("\n");
    assert!(
        !mounts.contains(" /work") && !mounts.contains("/home") && !mounts.contains("namespaces"),
        "{mounts}"
    );
    let root: Vec<&str> = lines
        .iter()
        .map(String::as_str)
        .filter(|line| !line.contains(' '))
        .skip(1)
        .collect();
    assert_eq!(root, vec!["bin", "dev", "etc", "proc", "sys"]);
    mesh
}

async fn sidecar_state(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let mut request = script_in(
        "one",
        "sidecar",
        "echo run >> /var/lib/weft/runs; cat /var/lib/weft/runs | wc -l; stat -c %u /var/lib/weft; test -x /weft && exec sleep 1000",
    );
    request.user = "1337:1337".into();
    request.restart = RestartPolicy::Always.into();
    let first = mesh.run(request.clone()).await;
    log_of(&mesh, 2).await;

    nix::sys::signal::kill(
        nix::unistd::Pid::from_raw(first.pid),
        nix::sys::signal::Signal::SIGKILL,
    )
    .expect("killed");
    mesh.until("sidecar", |container| {
        container.restarts == 1 && container.pid > 0
    })
    .await;
    assert_eq!(log_of(&mesh, 4).await, vec!["1", "1337", "2", "1337"]);

    mesh.node
        .client
        .clone()
        .remove_sandbox(RemoveSandboxRequest { id: "one".into() })
        .await
        .expect("removed");
    mesh.sandbox("one").await;
    mesh.run(request).await;
    assert_eq!(
        log_of(&mesh, 2).await,
        vec!["1", "1337"],
        "another sandbox, another directory"
    );
    mesh
}

/// Waits until the sidecar has said so much.
async fn log_of(mesh: &Mesh, lines: usize) -> Vec<String> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let log = mesh.log("sidecar").await;
        if log.len() >= lines {
            return log;
        }
        assert!(Instant::now() < deadline, "the sidecar says only {log:?}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn limits(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    let mut request = script_in(
        "one",
        "c",
        "head -c 200000000 /dev/zero | tail -c 200000000 | wc -c",
    );
    request.memory_bytes = 32 << 20;
    request.pids = 64;
    request.cpu_millis = 500;
    mesh.run(request).await;
    let ended = mesh.ended("c").await;

    if nix::unistd::Uid::effective().is_root() {
        let output = mesh.log("c").await.join("\n");
        assert!(
            ended.exit_reason == "OOMKilled" || output.contains("0"),
            "{ended:?} {output}"
        );
        assert!(!output.contains("200000000"), "the limit holds: {output}");
    }
    mesh
}
