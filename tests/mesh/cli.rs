//! What people type: exit statuses, logs, scaling, starting twice. And the reference against the program itself.

use std::collections::BTreeSet;

use crate::harness::bookstore::{Bookstore, COMPOSE};
use crate::harness::command::run;
use crate::harness::mesh::{binary, source};
use crate::harness::wait::{eventually, holds};
use crate::input::compose;

crate::harness::tests![
    up_a_second_time_changes_nothing,
    up_of_a_service_starts_what_it_depends_on_and_leaves_the_rest,
    a_service_is_scaled_by_editing_its_replicas,
    a_health_check_taken_out_of_the_file_goes,
    exec_ends_with_the_status_of_its_command,
    exec_passes_on_standard_input,
    exec_with_a_terminal_ends_when_its_command_does,
    a_reader_that_goes_away_is_no_failure_and_a_full_disk_is,
    names_are_printed_one_to_a_line,
    what_was_probably_meant_is_suggested,
    logs_are_those_of_the_services_named,
    config_prints_the_resolved_application,
    a_split_prints_the_route_it_writes,
    a_dry_run_changes_nothing,
    images_are_listed,
    the_reference_lists_every_verb_and_every_flag,
    top_shows_who_was_called_and_how_it_went,
];

fn up_a_second_time_changes_nothing(bookstore: &Bookstore) {
    let versions = || {
        let deployments = bookstore.json(&["get", "deployments"]);
        let items = deployments["items"].as_array().cloned().unwrap_or_default();
        items
            .iter()
            .map(|item| item["metadata"]["generation"].to_string())
            .collect::<Vec<_>>()
    };
    let before = (bookstore.pods(), versions());

    bookstore.weft(&["up", "-d", "-f", COMPOSE]).ok();

    assert_eq!((bookstore.pods(), versions()), before);
}

fn up_of_a_service_starts_what_it_depends_on_and_leaves_the_rest(bookstore: &Bookstore) {
    let image = "image: bookstore/static:dev";
    let (_folder, path) = compose(&format!(
        "name: partly\nservices:\n  page: {{{image}, depends_on: [store]}}\n  store: {{{image}}}\n  other: {{{image}}}\n"
    ));
    let running = || {
        let pods = bookstore.pods().into_iter();
        pods.filter(|pod| ["page", "store", "other"].contains(&pod.service.as_str()))
            .collect::<Vec<_>>()
    };

    let _undo = bookstore.with(
        &["up", "-d", "-f", &path, "page"],
        &["down", "-p", "partly"],
    );

    let first = running();
    let services: Vec<&str> = first.iter().map(|pod| pod.service.as_str()).collect();
    assert_eq!(services, ["page", "store"]);

    bookstore.weft(&["up", "-d", "-f", &path, "other"]).ok();

    let second = running();
    assert_eq!(second.len(), 3, "{second:?}");
    assert!(
        first.iter().all(|pod| second.contains(pod)),
        "what ran goes on running: {first:?}, {second:?}"
    );

    let complaint = bookstore
        .weft(&["up", "-d", "-f", &path, "stoer"])
        .fails_with(3);
    assert!(complaint.contains("\"store\""), "{complaint}");
    assert_eq!(running(), second);
}

fn a_service_is_scaled_by_editing_its_replicas(bookstore: &Bookstore) {
    let before = bookstore.pods();
    let folder = tempfile::tempdir().expect("a folder");
    let edited = folder.path().join("more.yaml");
    std::fs::write(&edited, "services: {books: {deploy: {replicas: 4}}}\n").expect("it is ours");
    let url = "http://books:8080/books/dune";

    bookstore
        .weft(&["up", "-d", "-f", COMPOSE, "-f", &edited.to_string_lossy()])
        .ok();

    assert_eq!(bookstore.pods_of("books").len(), 4);
    eventually("all four to be used", || {
        let tally = bookstore.load("front", url, 200, 8);
        holds(
            tally.served_by.len() == 4 && tally.status("200") == 200,
            || format!("{tally:?}"),
        )
    });
    let kept = bookstore
        .pods()
        .into_iter()
        .filter(|pod| before.contains(pod))
        .count();
    assert_eq!(kept, before.len(), "what ran goes on running");

    bookstore.weft(&["up", "-d", "-f", COMPOSE]).ok();

    eventually("two of them to go", || {
        let count = bookstore.pods_of("books").len();
        holds(count == 2, || format!("{count} pods"))
    });
    bookstore.until_in_force();
    bookstore.load("front", url, 200, 8).assert_all_ok();
}

fn a_health_check_taken_out_of_the_file_goes(bookstore: &Bookstore) {
    let without = "name: checked\nservices:\n  checked:\n    image: bookstore/static:dev\n";
    let check = "    healthcheck: {test: ['CMD', 'ls', '/'], interval: 1s, retries: 4}\n";
    let (_with, with) = compose(&format!("{without}{check}"));
    let (_without, without) = compose(without);
    let probe = || {
        let deployment = bookstore.json(&["get", "deployment/checked"]);
        deployment["spec"]["template"]["spec"]["containers"][0]["readinessProbe"].clone()
    };
    let _undo = bookstore.with(&["up", "-d", "-f", &with], &["down", "-p", "checked"]);
    assert_eq!(probe()["failureThreshold"], 4, "{}", probe());

    bookstore.weft(&["up", "-d", "-f", &without]).ok();

    assert!(probe().is_null(), "{}", probe());
}

fn exec_ends_with_the_status_of_its_command(bookstore: &Bookstore) {
    assert_eq!(bookstore.shell("static", "exit 0").status, 0);
    assert_eq!(bookstore.shell("static", "exit 7").status, 7);
    assert_eq!(bookstore.shell("static", "kill -9 $$").status, 137);
    let outcome = bookstore.shell("static", "echo to-stdout; echo to-stderr >&2");
    assert_eq!(
        (outcome.stdout.trim(), outcome.stderr.trim()),
        ("to-stdout", "to-stderr")
    );
    bookstore
        .exec("static", &["/bin/no-such-program"])
        .fails_with(127);
    let named = bookstore.pods_of("books").remove(1).name;
    assert_eq!(
        bookstore
            .exec(&named, &["/bin/bookstore", "chaos", "off"])
            .status,
        0
    );
}

fn exec_passes_on_standard_input(bookstore: &Bookstore) {
    let text = "line\n".repeat(20_000);

    let outcome = bookstore.weft_with_input(
        &["exec", "-i", "static", "--", "/bin/busybox", "wc", "-c"],
        &text,
    );

    assert_eq!(outcome.ok().trim(), text.len().to_string());
}

/// Standard input stays open and silent: the command must not wait for one more key.
fn exec_with_a_terminal_ends_when_its_command_does(bookstore: &Bookstore) {
    let folder = tempfile::tempdir().expect("a folder");
    let line = format!(
        "mkfifo silent && exec script -qec \"{} exec -it static sh -c 'tty; exit 5'\" /dev/null <>silent",
        binary().display()
    );

    let outcome = run(bookstore
        .command("bash")
        .args(["-c", &line])
        .current_dir(folder.path()));

    assert_eq!(outcome.status, 5, "{outcome}");
    assert!(outcome.stdout.contains("/dev/pts/"), "{outcome}");
}

fn a_reader_that_goes_away_is_no_failure_and_a_full_disk_is(bookstore: &Bookstore) {
    let shell = |line: &str| {
        run(bookstore
            .command("bash")
            .args(["-o", "pipefail", "-c", line]))
    };

    for line in [
        "weft ps | true",
        "weft get pods -o json | true",
        "weft logs | head -1",
        "weft exec static -- /bin/busybox seq 100000 | head -1",
    ] {
        let outcome = shell(line);
        assert_eq!(
            (outcome.status, outcome.stderr.as_str()),
            (0, ""),
            "{outcome}"
        );
    }

    let full = shell("weft ps > /dev/full").fails_with(1);
    assert!(full.contains("No space left"), "{full}");
}

fn names_are_printed_one_to_a_line(bookstore: &Bookstore) {
    let lines = |words: &[&str]| -> Vec<String> {
        let printed = bookstore.weft(&[words, &["-o", "name"]].concat()).ok();
        printed.lines().map(str::to_owned).collect()
    };

    for (words, name) in [
        (&["certs"][..], "spiffe://cluster.local/ns/default/sa/books"),
        (&["image", "ls"], "bookstore/static:dev"),
        (&["get", "services,deployments"], "deployment.apps/books"),
        (
            &["proxy-config", "clusters", "front"],
            "outbound|8080||books.default",
        ),
    ] {
        let lines = lines(words);
        assert!(
            lines.iter().any(|line| line == name),
            "{words:?}: {lines:?}"
        );
    }
}

fn what_was_probably_meant_is_suggested(bookstore: &Bookstore) {
    for (words, meant) in [
        (&["logs", "frnt"][..], "\"front\""),
        (&["exec", "boks", "true"], "\"books\""),
        (&["get", "httproute"], ""),
        (&["get", "htproutes"], "\"httproutes\""),
    ] {
        let outcome = bookstore.weft(words);
        assert!(outcome.stderr.contains(meant), "{outcome}");
        assert_eq!(
            outcome.status,
            if meant.is_empty() { 0 } else { 3 },
            "{outcome}"
        );
    }
    bookstore
        .weft(&["fault", "no-such-service", "--clear"])
        .fails_with(3);
    bookstore
        .weft(&["split", "reviews", "reviews-v1=1", "reviews-v1=2"])
        .fails_with(2);
}

fn logs_are_those_of_the_services_named(bookstore: &Bookstore) {
    let redis = bookstore.weft(&["logs", "redis"]).ok();
    assert!(redis.contains("Ready to accept connections"), "{redis}");
    let tail = bookstore.weft(&["logs", "--tail", "1", "redis"]).ok();
    assert_eq!(tail.lines().count(), 1, "{tail}");
    let proxy = bookstore.weft(&["logs", "--proxy", "front"]).ok();
    assert!(
        !proxy.is_empty(),
        "a sidecar says something when it starts, or of requests"
    );
    let stranger = bookstore.weft(&["logs", "no-such-service"]).fails_with(3);
    assert!(stranger.contains("no-such-service"), "{stranger}");
}

fn config_prints_the_resolved_application(bookstore: &Bookstore) {
    let services = bookstore
        .weft(&["config", "-f", COMPOSE, "--services"])
        .ok();
    let services: BTreeSet<&str> = services.lines().collect();
    let expected = [
        "books",
        "front",
        "ratings",
        "redis",
        "reviews-v1",
        "reviews-v2",
        "static",
        "stock",
    ];
    assert_eq!(services, BTreeSet::from(expected));
    let yaml = bookstore.weft(&["config", "-f", COMPOSE]).ok();
    assert!(
        yaml.contains(&bookstore.port.to_string()),
        "variables are filled in: {yaml}"
    );
    assert!(!yaml.contains("${") && !yaml.contains("<<"), "{yaml}");
    let manifests = bookstore.weft(&["config", "-f", COMPOSE, "-o", "k8s"]).ok();
    for kind in ["kind: Deployment", "kind: Service", "kind: ServiceAccount"] {
        assert!(
            manifests.contains(kind),
            "{kind} is missing in\n{manifests}"
        );
    }
}

fn a_split_prints_the_route_it_writes(bookstore: &Bookstore) {
    let yaml = bookstore
        .weft(&[
            "split",
            "reviews",
            "reviews-v1=9",
            "reviews-v2=1",
            "--dry-run",
        ])
        .ok();

    assert!(
        yaml.contains("kind: HTTPRoute") && yaml.contains("weight: 9"),
        "{yaml}"
    );
}

fn a_dry_run_changes_nothing(bookstore: &Bookstore) {
    let before = bookstore.json(&["status"])["revision"].clone();

    bookstore
        .weft(&[
            "split",
            "reviews",
            "reviews-v1=1",
            "reviews-v2=1",
            "--dry-run",
        ])
        .ok();
    bookstore
        .weft(&["fault", "books", "--abort", "500", "--dry-run"])
        .ok();

    assert_eq!(bookstore.json(&["status"])["revision"], before);
    bookstore.weft(&["get", "httproute/reviews"]).fails_with(3);
    bookstore
        .load("front", "http://books:8080/books/dune", 20, 2)
        .assert_all_ok();
}

fn images_are_listed(bookstore: &Bookstore) {
    let images = bookstore.weft(&["image", "ls"]).ok();

    for image in [
        "bookstore/services:dev",
        "bookstore/static:dev",
        "bookstore/redis:12",
        "bookstore/nginx:12",
    ] {
        assert!(images.contains(image), "{image} is missing in\n{images}");
    }
    let facts = bookstore
        .weft(&["image", "inspect", "bookstore/redis:12"])
        .ok();
    assert!(facts.contains("6379"), "{facts}");
}

fn top_shows_who_was_called_and_how_it_went(bookstore: &Bookstore) {
    let row = || {
        let rows = bookstore.json(&["top", "--no-stream", "stock"]);
        rows.as_array()
            .and_then(|rows| rows.first().cloned())
            .unwrap_or_default()
    };
    let before = row()["requests"].as_f64().unwrap_or_default();
    bookstore
        .load("front", "http://books:8080/books/dune", 20, 2)
        .assert_all_ok();

    eventually("the calls to be shown", || {
        let row = row();
        let counted = row["requests"].as_f64().unwrap_or_default() - before;
        holds(counted >= 20.0, || row.to_string())
    });
    assert!(row()["p99Seconds"].as_f64().is_some_and(|time| time > 0.0));
    let table = bookstore.weft(&["top", "--no-stream"]).ok();
    assert!(table.starts_with("SERVICE"), "{table}");
    bookstore
        .weft(&["top", "--no-stream", "nobody"])
        .fails_with(3);
}

fn the_reference_lists_every_verb_and_every_flag(bookstore: &Bookstore) {
    let reference =
        std::fs::read_to_string(source().join("docs/reference/cli.md")).expect("the reference");
    let help = |words: &[&str]| {
        run(bookstore
            .command(binary())
            .args(words)
            .arg("--help")
            .env("COLUMNS", "200"))
        .ok()
    };
    let verbs: BTreeSet<String> = verbs(&help(&[]));

    let sections: Vec<(&str, &str)> = reference
        .split("\n## `weft ")
        .skip(1)
        .map(|section| section.split_once('`').expect("a heading"))
        .collect();
    let described: BTreeSet<String> = sections
        .iter()
        .map(|(verb, _)| (*verb).to_owned())
        .collect();
    assert_eq!(described, verbs, "the reference and `weft --help`");

    let global = flags(&help(&["version"]));
    let listed = flags(reference.split("\n## `weft ").next().unwrap_or_default());
    assert_eq!(listed, global, "the global flags");
    for (verb, text) in sections {
        let mut known = help(&[verb]);
        for action in verbs_of_verb(&known) {
            known.push_str(&help(&[verb, &action]));
        }
        let own: BTreeSet<String> = flags(&known).difference(&global).cloned().collect();
        let mentioned: BTreeSet<String> = flags(text).difference(&global).cloned().collect();
        assert_eq!(mentioned, own, "the flags of `weft {verb}`");
    }
}

fn verbs_of_verb(help: &str) -> Vec<String> {
    if help.contains("\nCommands:") {
        verbs(help).into_iter().collect()
    } else {
        Vec::new()
    }
}

/// The first words of the lines under `Commands:`.
fn verbs(help: &str) -> BTreeSet<String> {
    let list = help.split("\nCommands:\n").nth(1).unwrap_or_default();
    let lines = list.lines().take_while(|line| !line.trim().is_empty());
    let indented = lines.filter(|line| line.starts_with("  ") && !line.starts_with("   "));
    indented
        .filter_map(|line| line.split_whitespace().next())
        .map(str::to_owned)
        .collect()
}

/// Every `--flag` of a text.
fn flags(text: &str) -> BTreeSet<String> {
    let letters = |word: &str| {
        let end = word
            .find(|letter: char| !letter.is_ascii_lowercase() && letter != '-')
            .unwrap_or(word.len());
        word[..end].to_owned()
    };
    let words = text.split("--").skip(1).map(letters);
    words
        .filter(|word| {
            word.len() > 1 && word.starts_with(|letter: char| letter.is_ascii_lowercase())
        })
        .collect()
}
