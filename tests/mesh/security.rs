//! Who may speak to whom, what can be read on the way, and what an application cannot undo.

use std::io::ErrorKind;
use std::net::TcpListener;

use crate::harness::bookstore::Bookstore;
use crate::harness::command::{Running, peer};
use crate::harness::wait::{eventually, holds};

crate::harness::tests![
    a_plaintext_caller_is_refused_by_a_sidecar,
    a_permissive_policy_lets_plaintext_in_until_it_is_deleted,
    what_crosses_the_bridge_is_encrypted,
    sidecars_of_one_machine_speak_over_local_channels_where_they_may,
    every_workload_has_an_identity_of_its_own,
    the_admin_interface_is_not_reachable_from_other_pods,
    an_application_has_no_privilege_over_its_network,
    an_application_cannot_undo_the_redirection,
    root_in_a_container_is_not_root_on_the_host,
    pods_cannot_reach_services_on_the_hosts_loopback,
    a_pod_sees_neither_the_hosts_processes_nor_its_files,
];

/// From the pod without a sidecar straight to a pod's address: no service address, no certificate.
fn knock(bookstore: &Bookstore, path: &str) -> Result<String, String> {
    knock_at(bookstore, &bookstore.pod_of("books").ipv4, path)
}

fn knock_at(bookstore: &Bookstore, address: &str, path: &str) -> Result<String, String> {
    ask(bookstore, "outsider", &format!("{address}:8080{path}"))
}

/// What wget gets, or its complaint; it can run out of time, but not crash.
fn ask(bookstore: &Bookstore, pod: &str, url: &str) -> Result<String, String> {
    const NO_ANSWER: i32 = 143;
    let line = format!("timeout 5 wget -q -O - http://{url} 2>&1");
    let outcome = bookstore.shell(pod, &line);
    assert!([0, 1, NO_ANSWER].contains(&outcome.status), "{outcome}");
    outcome.check()
}

fn a_plaintext_caller_is_refused_by_a_sidecar(bookstore: &Bookstore) {
    let refusal = knock(bookstore, "/books/dune").expect_err("plaintext is refused");

    assert!(!refusal.contains("Herbert"), "{refusal}");
    let (status, _) = bookstore.get("front", "http://books:8080/books/dune");
    assert_eq!(status, 200, "callers with a certificate are not");
}

fn a_permissive_policy_lets_plaintext_in_until_it_is_deleted(bookstore: &Bookstore) {
    let policy = bookstore.apply(
        "apiVersion: weft.dev/v1alpha1
kind: PeerAuthentication
metadata: {name: books-for-everyone}
spec: {selector: {matchLabels: {app: books}}, mtls: {mode: PERMISSIVE}}
",
    );
    let answer = knock(bookstore, "/books/dune").expect("plaintext is let in");
    assert!(answer.contains("Frank Herbert"), "{answer}");
    let ipv6 = format!("[{}]", bookstore.pod_of("books").ipv6);
    let answer = knock_at(bookstore, &ipv6, "/books/dune").expect("over IPv6, too");
    assert!(answer.contains("Frank Herbert"), "{answer}");
    bookstore
        .load("front", "http://books:8080/books/dune", 50, 2)
        .assert_all_ok();

    drop(policy);

    knock(bookstore, "/books/dune").expect_err("plaintext is refused again");
    knock_at(bookstore, &ipv6, "/books/dune").expect_err("over IPv6, too");
}

/// The outsider's plaintext is the proof that the capture would have shown any other.
fn what_crosses_the_bridge_is_encrypted(bookstore: &Bookstore) {
    const SECRET: &str = "confidential-5f1d0c";
    let capture = capture(bookstore);
    let until_it_shows = |marker: &str| {
        eventually("the capture to show what is sent in plaintext", || {
            let _ = knock(bookstore, &format!("/books/{marker}"));
            let captured = capture.printed();
            holds(contains(&captured, marker.as_bytes()), || {
                format!("no {marker} in {} bytes", captured.len())
            })
        });
    };

    until_it_shows("for-all-to-see-before");
    for _ in 0..5 {
        let (status, body) = bookstore.fetch(&format!("/api/books/{SECRET}"), &[]);
        assert_eq!(status, 200, "{body}");
    }
    until_it_shows("for-all-to-see-after");
    let captured = capture.kill();

    if !has_local_channels() {
        let tls_application_data = [0x17, 0x03, 0x03];
        assert!(contains(&captured, &tls_application_data));
    }
    for readable in [
        SECRET,
        "Frank Herbert",
        "INCR",
        "bookstore.v1",
        "traceparent",
    ] {
        let is_readable = contains(&captured, readable.as_bytes());
        assert!(!is_readable, "{readable:?} can be read on the bridge");
    }
}

/// Whether sidecars of one machine may use them: unless the tests run without.
pub(crate) fn has_local_channels() -> bool {
    std::env::var("WEFT_LOCAL_CHANNELS").as_deref() != Ok("false")
}

fn sidecars_of_one_machine_speak_over_local_channels_where_they_may(bookstore: &Bookstore) {
    // More at a time than there are connections left from before.
    bookstore
        .load("front", "http://books:8080/books/dune", 400, 40)
        .assert_all_ok();

    let taken = bookstore
        .metrics("books")
        .sum("weft_listener_local_channels_total", &[]);
    assert_eq!(taken > 0.0, has_local_channels(), "{taken} channels");
}

/// Everything that crosses the bridge, from inside the mesh's namespace.
fn capture(bookstore: &Bookstore) -> Running {
    let holder = bookstore.json(&["status"])["node"]["holderPid"].to_string();
    let mut command = peer("nsenter");
    command.args(["--target", &holder, "--user", "--net"]);
    command.args(["tcpdump", "-i", "weft0", "-Z", "root", "--immediate-mode"]);
    command.args(["-U", "-s", "0", "-w", "-"]);
    Running::start(&mut command, None)
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

fn every_workload_has_an_identity_of_its_own(bookstore: &Bookstore) {
    let certificates = bookstore.weft(&["certs"]).ok();

    for service in [
        "front",
        "books",
        "reviews-v1",
        "reviews-v2",
        "ratings",
        "stock",
        "redis",
        "static",
    ] {
        let identity = format!("spiffe://cluster.local/ns/default/sa/{service}");
        let is_listed = certificates
            .lines()
            .any(|line| line.split_whitespace().next() == Some(identity.as_str()));
        assert!(is_listed, "{identity} is missing in {certificates}");
    }
    let labels = [
        ("reporter", "destination"),
        (
            "source_principal",
            "spiffe://cluster.local/ns/default/sa/front",
        ),
    ];
    let (_, _) = bookstore.get("front", "http://reviews:8080/reviews/dune");
    let seen: f64 = ["reviews-v1", "reviews-v2"]
        .iter()
        .map(|service| {
            bookstore
                .metrics(service)
                .sum("weft_requests_total", &labels)
        })
        .sum();
    assert!(seen >= 1.0, "the callee sees who is calling");
}

fn the_admin_interface_is_not_reachable_from_other_pods(bookstore: &Bookstore) {
    let own = bookstore.get("front", "http://127.0.0.1:15000/ready");
    assert_eq!(own.0, 200, "in its own pod it is: {}", own.1);
    let front = bookstore.pod_of("front");

    for caller in ["outsider", "static"] {
        for address in [&front.ipv4, &format!("[{}]", front.ipv6)] {
            let url = format!("{address}:15000/config_dump");
            let refusal = ask(bookstore, caller, &url).expect_err("it is refused");
            assert!(!refusal.contains("configs"), "{caller}: {refusal}");
        }
    }
}

fn an_application_has_no_privilege_over_its_network(bookstore: &Bookstore) {
    const NET_ADMIN: u64 = 1 << 12;
    const NET_RAW: u64 = 1 << 13;
    const SYS_ADMIN: u64 = 1 << 21;
    for service in ["static", "redis"] {
        // Of the container's first process, and of a command beside it.
        for process in ["1", "self"] {
            let status = bookstore
                .shell(service, &format!("cat /proc/{process}/status"))
                .ok();
            for set in ["CapEff", "CapPrm", "CapBnd", "CapInh", "CapAmb"] {
                let line = status
                    .lines()
                    .find_map(|line| line.strip_prefix(&format!("{set}:")));
                let bits = u64::from_str_radix(line.expect("the kernel tells").trim(), 16).unwrap();
                assert_eq!(
                    bits & (NET_ADMIN | NET_RAW | SYS_ADMIN),
                    0,
                    "{set} of {process} in {service}: {bits:x}"
                );
            }
        }
    }
}

fn an_application_cannot_undo_the_redirection(bookstore: &Bookstore) {
    for attempt in [
        "ip link set lo down",
        "ip link set eth0 down",
        "ip route del default",
        "ip addr add 10.96.200.200/16 dev eth0",
        "mount -t tmpfs none /mnt",
    ] {
        let outcome = bookstore.shell("static", attempt);
        assert_ne!(outcome.status, 0, "an application may `{attempt}`");
    }
    let (status, _) = bookstore.fetch("/", &[]);
    assert_eq!(status, 200);
}

fn root_in_a_container_is_not_root_on_the_host(bookstore: &Bookstore) {
    let inside = bookstore.shell("static", "id -u").ok();
    assert_eq!(inside.trim(), "0");
    let pod = bookstore.pod_of("static");
    let processes = bookstore.processes();
    let own: Vec<_> = processes
        .iter()
        .filter(|process| process.namespace("net") == Some(pod.network_namespace))
        .collect();
    assert!(own.len() >= 2, "{own:?}");

    for process in own {
        let status = std::fs::read_to_string(format!("/proc/{}/status", process.pid)).unwrap();
        let uids = status
            .lines()
            .find(|line| line.starts_with("Uid:"))
            .unwrap();
        let is_root = uids.split_whitespace().skip(1).any(|uid| uid == "0");
        assert!(!is_root, "{process:?} is root on the host: {uids}");
    }
}

fn pods_cannot_reach_services_on_the_hosts_loopback(bookstore: &Bookstore) {
    let listeners = [
        TcpListener::bind("127.0.0.1:0").unwrap(),
        TcpListener::bind("[::1]:0").unwrap(),
    ];
    for listener in &listeners {
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        for address in [
            "127.0.0.1",
            "localhost",
            "[::1]",
            "10.96.0.1",
            "[fd57:6060::1]",
            "0.0.0.0",
            "127.0.0.6",
            "[::ffff:127.0.0.1]",
        ] {
            for caller in ["static", "outsider"] {
                let answer = ask(bookstore, caller, &format!("{address}:{port}/"));
                answer.expect_err("nobody answers there");
            }
        }
        let accepted = listener.accept().expect_err("nobody may come through");
        assert_eq!(accepted.kind(), ErrorKind::WouldBlock);
    }
}

fn a_pod_sees_neither_the_hosts_processes_nor_its_files(bookstore: &Bookstore) {
    let commands = bookstore
        .shell("static", "cat /proc/[0-9]*/cmdline | tr '\\0' ' '")
        .ok();
    assert!(commands.contains("nginx"), "its own are there: {commands}");
    for foreign in ["weft daemon", "weft proxy", "node-server", " shim "] {
        assert!(!commands.contains(foreign), "{foreign} is seen: {commands}");
    }

    let own = bookstore.folder().to_string_lossy().into_owned();
    for path in [
        own.as_str(),
        "/run/weft",
        "/var/lib/weft",
        "/sys/kernel/debug/tracing",
    ] {
        let outcome = bookstore.shell("static", &format!("ls -A {path}"));
        assert_ne!(outcome.status, 0, "{path} is there: {outcome}");
    }
}
