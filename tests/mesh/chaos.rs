//! What users of the shop notice when parts of the mesh are killed, or its policies change all the time: nothing.

use std::time::Duration;

use crate::harness::bookstore::{Bookstore, COMPOSE};
use crate::harness::load::{Load, Result};
use crate::harness::pod::Pod;
use crate::harness::process::Process;
use crate::harness::undo::Undo;
use crate::harness::wait::{eventually, holds};
use crate::input::compose;

crate::harness::tests![
    // Before a daemon is killed: its successor has no copy of the listening sockets that sidecars hold.
    a_killed_sidecar_at_the_door_comes_back_with_the_published_port,
    fifty_policy_changes_lose_no_request,
    a_rolling_update_behind_a_published_port_loses_no_request,
    a_killed_sidecar_costs_at_most_what_was_in_flight_and_comes_back,
    a_killed_node_server_loses_no_request,
    a_killed_daemon_loses_no_request_and_the_next_one_adopts_what_runs,
    a_killed_application_is_started_again,
    a_newer_sidecar_that_does_not_serve_changes_nothing,
    sidecars_that_are_replaced_under_load_lose_no_request,
];

const PATH: &str = "/api/books/dune";
const CONNECTIONS: usize = 4;

fn load(bookstore: &Bookstore) -> Load {
    Load::start(bookstore.port, PATH, CONNECTIONS)
}

fn assert_nothing_lost(result: &Result) {
    assert!(
        result.failures.is_empty(),
        "{} of {} were lost: {:?}",
        result.failures.len(),
        result.sent,
        result.failures
    );
}

fn fifty_policy_changes_lose_no_request(bookstore: &Bookstore) {
    let undo = ["delete", "httproute/reviews", "--ignore-not-found"];
    let _route = Undo::new(bookstore, &undo, "");
    let load = load(bookstore);

    for change in 1..=50 {
        let shares = [
            format!("reviews-v1={change}"),
            format!("reviews-v2={}", 50 - change),
        ];
        bookstore
            .weft(&["split", "reviews", &shares[0], &shares[1]])
            .ok();
    }
    bookstore.until_in_force();
    load.until_sent(100);

    let result = load.stop();
    assert_nothing_lost(&result);
    assert!(
        result.sent >= 200,
        "there was load while policies changed: {}",
        result.sent
    );
}

/// The old pod and the new one accept from the same socket for a while: neither may leave a connection that it
/// has taken unanswered, whether it is kept or made for one request.
fn a_rolling_update_behind_a_published_port_loses_no_request(bookstore: &Bookstore) {
    let before = bookstore.pod_of("front").name;
    let (_folder, changed) = compose("services: {front: {environment: {EDITION: second}}}\n");
    let _back = Undo::new(bookstore, &["up", "-d", "-f", COMPOSE], "");
    let load = load(bookstore);
    let fresh = Load::start_fresh(bookstore.port, PATH, CONNECTIONS);

    bookstore
        .weft(&["up", "-d", "-f", COMPOSE, "-f", &changed])
        .ok();
    eventually("the old pod to be gone", || {
        let pods = bookstore.pods_of("front");
        let names: Vec<_> = pods.iter().map(|pod| pod.name.as_str()).collect();
        holds(names.len() == 1 && names != [before.as_str()], || {
            format!("{names:?}")
        })
    });
    load.until_sent(100);
    fresh.until_sent(100);

    assert_nothing_lost(&load.stop());
    assert_nothing_lost(&fresh.stop());
}

fn a_killed_daemon_loses_no_request_and_the_next_one_adopts_what_runs(bookstore: &Bookstore) {
    let before = bookstore.pods();
    let processes = bookstore.processes();
    let load = load(bookstore);

    daemon(bookstore).kill();
    load.until_sent(300);
    // Any command starts the next one.
    bookstore.weft(&["ps"]).ok();
    load.until_sent(100);
    bookstore.until_in_force();
    load.until_sent(100);
    assert_nothing_lost(&load.stop());

    assert_eq!(
        bookstore.pods(),
        before,
        "the same pods, with the same times of start and no restart"
    );
    let certificates = bookstore.weft(&["certs"]).ok();
    assert!(certificates.contains("/sa/books"), "{certificates}");
    let survivors = processes
        .iter()
        .filter(|process| process.is_alive())
        .count();
    assert!(
        survivors + 4 >= processes.len(),
        "{survivors} of {} processes live",
        processes.len()
    );
    {
        let _split = bookstore.with(
            &["split", "reviews", "reviews-v1=0", "reviews-v2=1"],
            &["delete", "httproute/reviews"],
        );
        assert_eq!(
            bookstore
                .load("front", "http://reviews:8080/reviews/dune", 100, 2)
                .version("v2"),
            100
        );
    }
    assert!(
        bookstore
            .weft(&["logs", "--tail", "5", "redis"])
            .ok()
            .lines()
            .count()
            <= 5
    );
}

fn a_killed_node_server_loses_no_request(bookstore: &Bookstore) {
    let before = bookstore.pods();
    let killed = node(bookstore);
    let load = load(bookstore);

    killed.kill();
    load.until_sent(300);
    eventually("another node server", || {
        let status = bookstore.weft(&["status", "-o", "json"]).check()?;
        let status: serde_json::Value =
            serde_json::from_str(&status).map_err(|error| error.to_string())?;
        let pid = status["node"]["pid"].as_i64();
        holds(pid.is_some() && pid != Some(i64::from(killed.pid)), || {
            format!("{}", status["node"])
        })
    });

    assert_nothing_lost(&load.stop());
    assert_eq!(
        bookstore
            .exec(
                "front",
                &["/bin/bookstore", "get", "http://books:8080/books/dune"]
            )
            .ok()
            .split(' ')
            .next(),
        Some("200")
    );
    assert_eq!(bookstore.pods(), before);
}

/// Requests in flight through it are lost where they may not be sent twice; these may.
fn a_killed_sidecar_costs_at_most_what_was_in_flight_and_comes_back(bookstore: &Bookstore) {
    let pod = bookstore.pod_of("books");
    let killed = bookstore.sidecar(&pod);
    let load = load(bookstore);

    killed.kill();
    load.until_sent(300);

    let result = load.stop();
    assert!(
        result.failures.len() <= CONNECTIONS,
        "{} were lost: {:?}",
        result.failures.len(),
        result.failures
    );
    until_back(bookstore, &pod, &killed);
}

/// The listening socket of a published port outlives the sidecar that serves it: nobody is turned away.
fn a_killed_sidecar_at_the_door_comes_back_with_the_published_port(bookstore: &Bookstore) {
    let pod = bookstore.pod_of("front");
    let killed = bookstore.sidecar(&pod);
    let load = load(bookstore);

    killed.kill();
    load.until_sent(300);

    let result = load.stop();
    let most = 2 * CONNECTIONS;
    assert!(
        result.failures.len() <= most,
        "{} were lost: {:?}",
        result.failures.len(),
        result.failures
    );
    until_back(bookstore, &pod, &killed);
    bookstore.until_page_is_served();
}

fn a_killed_application_is_started_again(bookstore: &Bookstore) {
    let pod = bookstore.pods_of("books").remove(1);
    let processes = bookstore.processes();
    let application = processes.iter().find(|process| {
        process.command.starts_with("/bin/bookstore books")
            && process.namespace("net") == Some(pod.network_namespace)
    });
    application
        .unwrap_or_else(|| panic!("no application in {pod:?}"))
        .kill();

    eventually("both pods of books to serve again", || {
        let pods = bookstore.pods_of("books");
        let again = pods
            .iter()
            .find(|found| found.name == pod.name)
            .ok_or("the pod is gone")?;
        holds(
            again.restarts > pod.restarts && pods.iter().all(|pod| pod.is_ready),
            || format!("{again:?}"),
        )?;
        let tally = bookstore.load("front", "http://books:8080/books/dune", 100, 4);
        holds(
            tally.served_by.len() == 2 && tally.status("200") == 100,
            || format!("{tally:?}"),
        )
    });
}

fn until_back(bookstore: &Bookstore, pod: &Pod, killed: &Process) {
    eventually("the sidecar to come back", || {
        let pods = bookstore.pods_of(&pod.service);
        let again = pods
            .iter()
            .find(|found| found.name == pod.name)
            .ok_or("the pod is gone")?;
        holds(again.is_ready && again.restarts > pod.restarts, || {
            format!("{again:?}")
        })
    });
    assert_ne!(bookstore.sidecar(pod).pid, killed.pid);
    bookstore.until_in_force();
    std::thread::sleep(Duration::from_millis(100));
    bookstore.until_page_is_served();
}

fn daemon(bookstore: &Bookstore) -> Process {
    part(&bookstore.json(&["status"])["pid"])
}

fn node(bookstore: &Bookstore) -> Process {
    part(&bookstore.json(&["status"])["node"]["pid"])
}

fn part(pid: &serde_json::Value) -> Process {
    let pid = i32::try_from(pid.as_i64().expect("a pid")).expect("a pid");
    Process::of(pid).expect("it runs")
}

fn a_newer_sidecar_that_does_not_serve_changes_nothing(bookstore: &Bookstore) {
    let before = bookstore.pod_of("front");
    let sidecar = bookstore.sidecar(&before);
    let load = load(bookstore);

    // A program, but no sidecar: it complains and ends at once.
    let words = ["restart", "--sidecars", "front", "--program", "/bin/cat"];
    let said = bookstore.weft(&words).fails_with(1);
    load.until_sent(100);

    assert!(
        said.contains("it said last: ") && said.contains("--help' for more"),
        "{said}"
    );
    assert!(said.contains("the older sidecar serves on"), "{said}");
    assert_nothing_lost(&load.stop());
    assert!(sidecar.is_alive());
    assert_eq!(bookstore.pod_of("front"), before);
}

fn sidecars_that_are_replaced_under_load_lose_no_request(bookstore: &Bookstore) {
    let replaced = ["front", "books", "reviews-v1"];
    // Pods of their own again: older sidecars finish what they have begun for a while.
    let _back = Undo::new(bookstore, &["up", "-d", "-f", COMPOSE], "");
    let before = bookstore.pods();
    let kept = load(bookstore);
    let fresh = Load::start_fresh(bookstore.port, PATH, CONNECTIONS);

    for _ in 0..2 {
        let words = [&["restart", "--sidecars"][..], &replaced].concat();
        let said = bookstore.weft(&words).ok();
        for service in replaced {
            let pod = bookstore.pod_of(service).name;
            assert!(said.contains(&format!("{pod} weft/")), "{said}");
        }
        kept.until_sent(100);
        fresh.until_sent(100);
    }

    assert_nothing_lost(&kept.stop());
    assert_nothing_lost(&fresh.stop());
    assert_eq!(bookstore.pods(), before, "no pod was restarted");
    for service in replaced {
        let pod = bookstore.pod_of(service).name;
        bookstore.weft(&["delete", "pod", &pod]).ok();
    }
}
