//! Sandboxes: addresses, reachability, rules, names, connections from outside.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::time::{Duration, Instant};

use tokio::net::UnixListener;
use weft_proto::handoff::{self, BrokerReply, BrokerRequest};
use weft_proto::weft::node::v1::*;

use crate::runner::Tests;
use crate::support::{Mesh, script_of};

const CLOSED: &str = "*filter\n:INPUT DROP [0:0]\n:OUTPUT DROP [0:0]\nCOMMIT\n";

pub(crate) fn register(tests: &mut Tests) {
    tests.add("a_mesh_starts_and_leaves_nothing", |mesh| async { mesh });
    tests.add(
        "sandboxes_reach_each_other_over_both_families",
        reach_each_other,
    );
    tests.add(
        "what_neighbours_remember_stays_true_when_sandboxes_come_and_go",
        neighbours,
    );
    tests.add(
        "closed_rules_let_nothing_in_until_they_are_replaced",
        closed_rules,
    );
    tests.add(
        "rules_that_are_refused_are_explained_and_leave_no_sandbox",
        refused_rules,
    );
    tests.add("a_connection_into_a_sandbox_is_handed_out", handoff);
    tests.add("names_of_the_mesh_resolve_in_a_sandbox", names);
    tests.add("names_outside_the_mesh_are_asked_of_the_broker", broker);
    tests.add("a_sandbox_is_made_quickly", quick);
    tests.add("many_sandboxes_are_made_at_once", many);
}

/// Answers each connection with a word.
async fn server(mesh: &Mesh, sandbox: &str) {
    mesh.busybox("").await;
    let script = "while true; do echo hello | nc -l -p 8080; done";
    mesh.run(script_of(
        "busybox:test",
        sandbox,
        &format!("{sandbox}.server"),
        script,
    ))
    .await;
    mesh.until(&format!("{sandbox}.server"), |container| {
        container.listening_ports.contains(&8080)
    })
    .await;
}

async fn reach_each_other(mesh: Mesh) -> Mesh {
    let one = mesh.sandbox("one").await;
    mesh.sandbox("two").await;
    server(&mesh, "one").await;

    let script = |address: &str| format!("nc -w 5 {address} 8080 </dev/null");
    mesh.run(script_of("busybox:test", "two", "v4", &script(&one.ipv4)))
        .await;
    mesh.ended("v4").await;
    mesh.until("one.server", |container| {
        container.listening_ports.contains(&8080)
    })
    .await;
    mesh.run(script_of("busybox:test", "two", "v6", &script(&one.ipv6)))
        .await;
    mesh.ended("v6").await;

    assert_eq!(mesh.log("v4").await, vec!["hello"]);
    assert_eq!(mesh.log("v6").await, vec!["hello"]);
    mesh
}

/// A hardware address follows from the address: 10.96.1.2 is always at 0a:58:0a:60:01:02.
async fn neighbours(mesh: Mesh) -> Mesh {
    let one = mesh.sandbox("one").await;
    mesh.sandbox("two").await;
    server(&mesh, "one").await;

    let script = format!(
        "nslookup one 10.96.0.1 >/dev/null; nc -w 5 {} 8080 </dev/null >/dev/null; cat /proc/net/arp",
        one.ipv4
    );
    mesh.run(script_of("busybox:test", "two", "arp", &script))
        .await;
    mesh.ended("arp").await;

    let table = mesh.log("arp").await;
    for address in ["10.96.0.1", &one.ipv4] {
        let address: std::net::Ipv4Addr = address.parse().expect("an address");
        let [.., high, low] = address.octets();
        let hardware = format!("0a:58:0a:60:{high:02x}:{low:02x}");
        let is_known =
            |line: &String| line.starts_with(&format!("{address} ")) && line.contains(&hardware);
        assert!(
            table.iter().any(is_known),
            "{address}, {hardware}: {table:?}"
        );
    }
    mesh
}

async fn closed_rules(mesh: Mesh) -> Mesh {
    let one = mesh.sandbox_with_rules("one", CLOSED, CLOSED).await;
    mesh.sandbox("two").await;
    server(&mesh, "one").await;
    let address: SocketAddr = format!("{}:8080", one.ipv4).parse().expect("an address");
    let dial = || mesh.node.dial("two", address, Duration::from_millis(300));

    assert!(dial().await.is_err(), "nothing gets in");
    let open = ApplyRulesRequest {
        id: "one".into(),
        ..ApplyRulesRequest::default()
    };
    mesh.node
        .client
        .clone()
        .apply_rules(open)
        .await
        .expect("new rules");

    dial()
        .await
        .expect("the table that is no longer mentioned is empty");
    mesh
}

async fn refused_rules(mesh: Mesh) -> Mesh {
    let request = CreateSandboxRequest {
        id: "one".into(),
        ipv4_rules: "*filter\n-A INPUT -j NONSENSE\nCOMMIT\n".into(),
        ..CreateSandboxRequest::default()
    };

    let refusal = mesh
        .node
        .client
        .clone()
        .create_sandbox(request)
        .await
        .expect_err("no such target");

    assert_eq!(refusal.code(), tonic::Code::InvalidArgument);
    assert!(refusal.message().contains("NONSENSE"), "{refusal}");
    let sandboxes = mesh
        .node
        .client
        .clone()
        .list_sandboxes(ListSandboxesRequest {})
        .await;
    assert!(sandboxes.expect("a list").into_inner().sandboxes.is_empty());
    mesh.sandbox("one").await;
    mesh
}

async fn handoff(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    server(&mesh, "one").await;

    let loopback: SocketAddr = "127.0.0.1:8080".parse().expect("an address");
    let socket = mesh
        .node
        .dial("one", loopback, Duration::from_secs(5))
        .await
        .expect("a connection");
    let text = tokio::task::spawn_blocking(move || {
        let mut stream = TcpStream::from(socket);
        stream.set_nonblocking(false).expect("blocking");
        stream.write_all(b"\n").expect("write");
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("shutdown");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("read");
        text
    });
    assert_eq!(text.await.expect("read"), "hello\n");

    let nobody: SocketAddr = "127.0.0.1:9".parse().expect("an address");
    let refused = mesh
        .node
        .dial("one", nobody, Duration::from_secs(5))
        .await
        .expect_err("nobody listens");
    assert!(refused.to_string().contains("refused"), "{refused}");
    let unknown = mesh
        .node
        .dial("two", loopback, Duration::from_secs(5))
        .await
        .expect_err("no such sandbox");
    assert!(unknown.to_string().contains("two"), "{unknown}");
    mesh
}

async fn names(mesh: Mesh) -> Mesh {
    mesh.sandbox("one").await;
    mesh.busybox("").await;
    let name = |name: &str, namespace: &str, addresses: &[&str]| Name {
        name: name.into(),
        namespace: namespace.into(),
        addresses: addresses.iter().map(ToString::to_string).collect(),
    };
    let names = vec![
        name("reviews", "default", &["240.240.0.7", "fd57:f0f0::7"]),
        name("ratings", "other", &["240.240.0.8"]),
    ];
    mesh.node
        .client
        .clone()
        .set_names(SetNamesRequest { names })
        .await
        .expect("names");
    let mut request = script_of("busybox:test", "one", "client", "sleep 1000");
    request.dns_search = vec!["default.svc.cluster.local".into()];
    mesh.run(request).await;

    let lookup = async |name: &str| mesh.exec("client", &format!("nslookup {name}")).await;
    let (code, text) = lookup("reviews").await;
    assert!(
        code == 0 && text.contains("240.240.0.7") && text.contains("fd57:f0f0::7"),
        "{text}"
    );
    let (code, text) = lookup("ratings.other.svc.cluster.local").await;
    assert!(code == 0 && text.contains("240.240.0.8"), "{text}");
    let (code, text) = lookup("nobody.default.svc.cluster.local").await;
    assert!(code != 0 && text.contains("NXDOMAIN"), "{text}");
    let (code, text) = lookup("example.com").await;
    assert!(
        code != 0 && text.contains("SERVFAIL"),
        "no broker answers: {text}"
    );
    mesh
}

async fn broker(mesh: Mesh) -> Mesh {
    let socket = &mesh.options.broker_socket;
    fs::create_dir_all(socket.parent().expect("a parent")).expect("a directory");
    let listener = UnixListener::bind(socket).expect("a socket");
    fs::set_permissions(socket, fs::Permissions::from_mode(0o666)).expect("permissions");
    let answering = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (request, _) = handoff::receive::<BrokerRequest>(&mut stream)
                .await
                .expect("a request");
            let BrokerRequest::Resolve { name } = request else {
                panic!("{request:?}")
            };
            let reply = match name.as_str() {
                "example.com." => BrokerReply::Addresses {
                    addresses: vec!["192.0.2.7".parse().expect("an address")],
                    ttl_seconds: 60,
                },
                _ => BrokerReply::NoSuchName,
            };
            handoff::send(&mut stream, &reply, None)
                .await
                .expect("sent");
        }
    });
    mesh.sandbox("one").await;
    mesh.busybox("").await;
    mesh.run(script_of("busybox:test", "one", "client", "sleep 1000"))
        .await;

    let (code, text) = mesh.exec("client", "nslookup -type=a example.com").await;
    assert!(code == 0 && text.contains("192.0.2.7"), "{text}");
    let (code, text) = mesh.exec("client", "nslookup nobody.example.com").await;
    assert!(code != 0 && text.contains("NXDOMAIN"), "{text}");
    answering.abort();
    mesh
}

async fn many(mesh: Mesh) -> Mesh {
    let mesh = std::sync::Arc::new(mesh);
    let started = Instant::now();
    let tasks: Vec<_> = (0..20)
        .map(|number| {
            let mesh = std::sync::Arc::clone(&mesh);
            tokio::spawn(async move {
                let id = format!("pod-{number}");
                let sandbox = mesh.sandbox(&id).await;
                mesh.shell(&id, &format!("{id}.c"), "exec sleep 1000").await;
                sandbox.ipv4
            })
        })
        .collect();
    let mut addresses = std::collections::BTreeSet::new();
    for task in tasks {
        addresses.insert(task.await.expect("a sandbox"));
    }

    println!("     20 pods in {} ms", started.elapsed().as_millis());
    assert_eq!(addresses.len(), 20);
    let running = mesh
        .list()
        .await
        .into_iter()
        .filter(|container| container.state() == ContainerState::Running);
    assert_eq!(running.count(), 20);
    std::sync::Arc::into_inner(mesh).expect("nobody else has it")
}

async fn quick(mesh: Mesh) -> Mesh {
    let rules = "*nat\n-A OUTPUT -p tcp -m owner --uid-owner 1337 -j RETURN\n-A OUTPUT -p tcp -j REDIRECT --to-ports 15001\nCOMMIT\n";
    let mut fastest = Duration::MAX;
    for number in 0..5 {
        let started = Instant::now();
        let sandbox = mesh
            .sandbox_with_rules(&format!("s{number}"), rules, rules)
            .await;
        fastest = fastest.min(started.elapsed());
        assert!(sandbox.ipv4.parse::<IpAddr>().is_ok() && sandbox.network_namespace > 0);
    }
    println!(
        "     fastest sandbox with rules: {} ms",
        fastest.as_millis()
    );
    mesh
}
