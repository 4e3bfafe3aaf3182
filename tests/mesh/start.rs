//! Starts that cannot work out, or are interrupted: a clear word, and nothing stays behind.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;

use crate::harness::bookstore::{Bookstore, COMPOSE, free_port};
use crate::harness::command::{Running, run};
use crate::harness::host;
use crate::harness::mesh::{Mesh, binary};
use crate::harness::process::Process;
use crate::harness::wait::{eventually, holds};
use crate::input::compose;

crate::harness::tests![
    an_image_that_does_not_exist_is_named_and_nothing_stays,
    a_port_that_is_taken_is_named_and_nothing_stays,
    without_a_mesh_every_verb_says_how_to_start_one,
    a_missing_compose_file_is_named,
    check_without_any_program_names_the_packages_to_install,
    interrupting_a_start_undoes_everything,
];

fn an_image_that_does_not_exist_is_named_and_nothing_stays(bookstore: &Bookstore) {
    let before = bookstore.pods();
    let (_folder, path) =
        compose("name: absent\nservices:\n  web:\n    image: localhost:1/no/such-image:7\n");

    let outcome = bookstore.weft(&["up", "-d", "-f", &path]);

    assert!([1, 3].contains(&outcome.status), "{outcome}");
    assert!(
        outcome.stderr.contains("localhost:1/no/such-image:7"),
        "{outcome}"
    );
    assert!(
        outcome.stderr.contains("weft image"),
        "what to do: {outcome}"
    );
    assert_eq!(bookstore.pods(), before);
    bookstore.weft(&["get", "deployment/web"]).fails_with(3);
}

fn a_port_that_is_taken_is_named_and_nothing_stays(bookstore: &Bookstore) {
    let before = bookstore.pods();
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("it is bound").port();
    let (_folder, path) = compose(&format!(
        "name: crowded\nservices:\n  web:\n    image: bookstore/static:dev\n    ports: ['127.0.0.1:{port}:80']\n"
    ));

    let outcome = bookstore.weft(&["up", "-d", "-f", &path]);

    assert_eq!(outcome.status, 1, "{outcome}");
    assert!(outcome.stderr.contains(&port.to_string()), "{outcome}");
    assert!(
        outcome.stderr.contains("in use") || outcome.stderr.contains("taken"),
        "{outcome}"
    );
    eventually("nothing of it to stay", || {
        let pods = bookstore.pods();
        holds(pods == before, || format!("{pods:?}"))
    });
}

fn without_a_mesh_every_verb_says_how_to_start_one(_: &Bookstore) {
    let mesh = Mesh::new();

    for words in [
        &["ps"][..],
        &["status"],
        &["get", "pods"],
        &["exec", "front", "--", "true"],
        &["proxy-status"],
        &["certs"],
    ] {
        let outcome = mesh.weft(words);
        assert_eq!(outcome.status, 1, "{outcome}");
        assert!(outcome.stderr.contains("weft up"), "{outcome}");
    }
    assert_eq!(
        mesh.weft(&["down", "-p", "nothing"]).status,
        0,
        "what is not there is down"
    );
}

fn a_missing_compose_file_is_named(_: &Bookstore) {
    let outcome = Mesh::new().weft(&["up", "-d", "-f", "no/such/compose.yaml"]);

    assert!([1, 3, 4].contains(&outcome.status), "{outcome}");
    assert!(outcome.stderr.contains("no/such/compose.yaml"), "{outcome}");
}

/// Programs are looked for where they are installed, whatever `PATH` says; so this hides them.
fn check_without_any_program_names_the_packages_to_install(_: &Bookstore) {
    let mesh = Mesh::new();
    let with_empty_path = run(mesh.command(binary()).arg("check").env("PATH", "/nowhere"));
    assert_eq!(with_empty_path.status, 0, "{with_empty_path}");
    let line = r#"mount -t tmpfs none /usr/sbin && PATH=/nowhere exec "$0" check"#;

    let mut hidden = mesh.command("unshare");
    hidden.args(["--map-root-user", "--mount", "sh", "-c", line]);
    let outcome = run(hidden.arg(binary()));

    assert_eq!(outcome.status, 1, "{outcome}");
    let told = outcome
        .stderr
        .lines()
        .find(|line| line.starts_with("iptables:"));
    let told = told.unwrap_or_else(|| panic!("no word of iptables: {outcome}"));
    assert!(told.contains("install the package `iptables`"), "{outcome}");
}

/// A mesh that has no images builds them first; it is interrupted as soon as it has pods.
fn interrupting_a_start_undoes_everything(bookstore: &Bookstore) {
    let mut mesh = Mesh::new();
    mesh.set("BOOKSTORE_PORT", &free_port().to_string());
    for name in ["redis", "nginx"] {
        let archive = bookstore.archives.join(format!("{name}.tar"));
        mesh.weft(&["image", "import", &archive.to_string_lossy()])
            .ok();
    }
    let mut up = Running::start(
        mesh.command(binary()).args(["up", "-d", "-f", COMPOSE]),
        None,
    );
    let seen = until_something_runs(&mesh, &mut up);

    Process::of(up.pid())
        .expect("it is under way")
        .signal(Signal::SIGINT);

    let outcome = up.wait(Duration::from_secs(90));
    assert_ne!(outcome.status, 0, "{outcome}");
    eventually("everything to be gone", || {
        let left: Vec<&Process> = seen.iter().filter(|process| process.is_alive()).collect();
        holds(left.is_empty(), || format!("{left:?} after {outcome}"))
    });
    assert_eq!(host::mounts_of(mesh.folder()), [""; 0]);
    bookstore.until_page_is_served();
}

/// Everything that runs for the mesh, when there are containers.
fn until_something_runs(mesh: &Mesh, up: &mut Running) -> Vec<Process> {
    let deadline = Instant::now() + Duration::from_secs(120);
    loop {
        assert!(
            !up.has_ended(),
            "it was over before it could be interrupted"
        );
        assert!(
            Instant::now() < deadline,
            "nothing was started: {}",
            mesh.daemon_log()
        );
        let pods = mesh.weft(&["ps", "-o", "json"]);
        if pods.stdout.contains("\"starting\"") || pods.stdout.contains("\"Running\"") {
            return mesh.processes();
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}
