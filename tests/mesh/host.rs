//! The host keeps its network and its files to itself, while the mesh runs and when it has gone. The last tests: they
//! take the mesh down.

use std::path::PathBuf;

use crate::harness::bookstore::{Bookstore, COMPOSE, EXTRAS};
use crate::harness::host::{self, Network};
use crate::harness::process::Process;
use crate::harness::wait::{eventually, holds};

crate::harness::tests![
    the_hosts_network_is_untouched_while_the_mesh_runs,
    the_hosts_mounts_are_untouched_while_the_mesh_runs,
    one_application_goes_and_the_other_stays,
    nothing_remains_when_the_last_application_is_down,
];

fn the_hosts_network_is_untouched_while_the_mesh_runs(bookstore: &Bookstore) {
    bookstore.network.assert_same(&Network::look());
}

fn the_hosts_mounts_are_untouched_while_the_mesh_runs(bookstore: &Bookstore) {
    assert_eq!(host::mounts_of(bookstore.folder()), [""; 0]);
}

fn one_application_goes_and_the_other_stays(bookstore: &Bookstore) {
    bookstore.weft(&["down", "-f", EXTRAS]).ok();

    let left: Vec<String> = bookstore
        .pods()
        .into_iter()
        .map(|pod| pod.service)
        .collect();
    assert!(
        !left.is_empty()
            && left
                .iter()
                .all(|service| !["echo", "greeter", "outsider"].contains(&service.as_str())),
        "{left:?}"
    );
    bookstore.until_page_is_served();
}

fn nothing_remains_when_the_last_application_is_down(bookstore: &Bookstore) {
    let processes = bookstore.processes();
    assert!(processes.len() > 20, "{processes:?}");

    bookstore.weft(&["down", "-v", "-f", COMPOSE]).ok();

    eventually("every process of the mesh to end", || {
        let left: Vec<&Process> = processes
            .iter()
            .filter(|process| process.is_alive())
            .collect();
        holds(left.is_empty(), || format!("{left:?}"))
    });
    bookstore.network.assert_same(&Network::look());
    assert_eq!(host::mounts_of(bookstore.folder()), [""; 0]);
    let run = bookstore.folder().join("run");
    let left: Vec<PathBuf> = files(&run)
        .into_iter()
        .filter(|path| !path.ends_with("daemon.log") && !path.ends_with("daemon.lock"))
        .collect();
    assert!(left.is_empty(), "{left:?} is left of the sockets");
    let new: Vec<String> = host::places()
        .difference(&bookstore.places)
        .cloned()
        .collect();
    assert!(
        new.iter().all(|path| !path.contains("weft")),
        "{new:?} is left outside the state folder"
    );
    let complaint = bookstore.weft(&["ps"]);
    assert_ne!(complaint.status, 0, "{complaint}");
}

fn files(folder: &std::path::Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.path() {
            path if path.is_dir() => found.extend(files(&path)),
            path => found.push(path),
        }
    }
    found
}

/// For when only some tests were asked for: takes down what still runs.
pub(crate) fn take_down(bookstore: &Bookstore) {
    for file in [EXTRAS, COMPOSE] {
        let outcome = bookstore.weft(&["down", "-v", "-f", file]);
        if outcome.status != 0 {
            eprintln!("taking {file} down: {outcome}");
        }
    }
}
