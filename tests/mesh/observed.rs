//! What operators see of a running mesh: pods, status, certificates, and what each sidecar really has.

use serde_json::Value;

use crate::harness::bookstore::Bookstore;

crate::harness::tests![
    ps_lists_every_pod_ready_with_a_sidecar,
    ps_wide_shows_addresses_images_and_memory,
    ps_as_json_is_a_document,
    status_tells_of_daemon_node_proxies_and_certificates,
    proxy_status_shows_every_sidecar_synced,
    certs_end_in_the_future,
    proxy_config_shows_routes,
    proxy_config_shows_clusters,
    proxy_config_shows_listeners,
    proxy_config_shows_endpoints,
    proxy_config_shows_secrets_but_no_key,
    resources_are_shown_in_every_format,
    check_says_that_this_machine_can_run_weft,
];

const SERVICES: [&str; 10] = [
    "front",
    "books",
    "reviews-v1",
    "reviews-v2",
    "ratings",
    "stock",
    "redis",
    "static",
    "echo",
    "greeter",
];

fn ps_lists_every_pod_ready_with_a_sidecar(bookstore: &Bookstore) {
    let table = bookstore.weft(&["ps"]).ok();

    for service in SERVICES {
        let lines: Vec<Vec<&str>> = table
            .lines()
            .map(|line| line.split_whitespace().collect::<Vec<_>>())
            .filter(|words| words.get(1) == Some(&service))
            .collect();
        assert_eq!(
            lines.len(),
            if service == "books" { 2 } else { 1 },
            "{service} in\n{table}"
        );
        for words in lines {
            assert_eq!(words[2..6], ["Running", "yes", "ready", "0"], "{table}");
            assert!(words[0].starts_with(&format!("{service}-")), "{table}");
        }
    }
    let outsider = table
        .lines()
        .find(|line| line.starts_with("outsider-"))
        .expect("it is listed");
    assert!(outsider.contains(" none "), "it has no sidecar: {outsider}");
}

fn ps_wide_shows_addresses_images_and_memory(bookstore: &Bookstore) {
    let table = bookstore.weft(&["ps", "-o", "wide"]).ok();

    let front = table
        .lines()
        .find(|line| line.starts_with("front-"))
        .expect("it is listed");
    assert!(front.contains(" 10.96."), "{table}");
    assert!(front.contains("bookstore/services:dev"), "{table}");
    assert!(front.contains("MiB"), "{table}");
}

fn ps_as_json_is_a_document(bookstore: &Bookstore) {
    let pods = bookstore.json(&["ps"]);

    let pods = pods.as_array().expect("a list");
    assert_eq!(
        pods.len(),
        SERVICES.len() + 2,
        "two books, and the outsider"
    );
    let front = pods
        .iter()
        .find(|pod| pod["service"] == "front")
        .expect("it is listed");
    assert_eq!(front["ready"], true);
    assert_eq!(front["sidecar"], "ready");
    assert_eq!(front["restarts"], 0);
    assert!(
        front["sidecarMemoryBytes"]
            .as_u64()
            .is_some_and(|bytes| bytes > 1_000_000),
        "{front}"
    );
}

fn status_tells_of_daemon_node_proxies_and_certificates(bookstore: &Bookstore) {
    let status = bookstore.json(&["status"]);

    let running = SERVICES.len() + 1;
    assert_eq!(
        status["proxies"].as_array().map(Vec::len),
        Some(running),
        "{status}"
    );
    assert!(
        status["pid"].as_i64().is_some_and(|pid| pid > 1),
        "{status}"
    );
    assert!(
        status["node"]["pid"].as_i64().is_some_and(|pid| pid > 1),
        "{status}"
    );
    assert!(
        status["certificates"]["count"]
            .as_u64()
            .is_some_and(|count| count >= 10),
        "{status}"
    );
    let table = bookstore.weft(&["status"]).ok();
    for part in [
        "daemon",
        "api",
        "node",
        "revision",
        "proxies",
        "certificates",
    ] {
        assert!(
            table.lines().any(|line| line.starts_with(part)),
            "{part} is missing in\n{table}"
        );
    }
}

fn proxy_status_shows_every_sidecar_synced(bookstore: &Bookstore) {
    bookstore.until_in_force();

    let table = bookstore.weft(&["proxy-status"]).ok();

    for pod in bookstore
        .pods()
        .iter()
        .filter(|pod| pod.service != "outsider")
    {
        let line = table.lines().find(|line| line.contains(&pod.name));
        assert!(
            line.is_some_and(|line| line.contains("synced")),
            "{} in\n{table}",
            pod.name
        );
    }
}

fn certs_end_in_the_future(bookstore: &Bookstore) {
    let certificates = bookstore.json(&["certs"]);

    let now = jiff_now();
    let certificates = certificates["certificates"]
        .as_array()
        .expect("a list")
        .clone();
    assert!(certificates.len() >= SERVICES.len(), "{certificates:?}");
    for certificate in certificates {
        let end = certificate["notAfter"].as_i64().expect("a time");
        assert!(
            end > now && end < now + 7 * 86_400,
            "short-lived, and not yet ended: {certificate}"
        );
    }
}

fn jiff_now() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    i64::try_from(since.expect("it is after 1970").as_secs()).expect("it fits")
}

fn proxy_config_shows_routes(bookstore: &Bookstore) {
    let _split = bookstore.with(
        &["split", "reviews", "reviews-v1=73", "reviews-v2=27"],
        &["delete", "httproute/reviews"],
    );

    let table = bookstore.weft(&["proxy-config", "routes", "front"]).ok();

    assert!(table.contains("outbound|8080||reviews.default"), "{table}");
    let split = table
        .lines()
        .find(|line| line.contains("73") && line.contains("27"));
    assert!(
        split.is_some(),
        "the weights of the split are missing in\n{table}"
    );
}

fn proxy_config_shows_clusters(bookstore: &Bookstore) {
    let table = bookstore.weft(&["proxy-config", "clusters", "front"]).ok();

    for cluster in [
        "outbound|8080||books.default",
        "outbound|80||static.default",
        "passthrough",
        "inbound",
    ] {
        assert!(
            table
                .lines()
                .any(|line| line.split_whitespace().next() == Some(cluster)),
            "{cluster} in\n{table}"
        );
    }
}

fn proxy_config_shows_listeners(bookstore: &Bookstore) {
    let table = bookstore.weft(&["proxy-config", "listeners", "front"]).ok();

    assert!(
        table.contains("15001") && table.contains("15006"),
        "{table}"
    );
    assert!(
        table.contains(&format!("published|127.0.0.1|{}", bookstore.port)),
        "{table}"
    );
}

fn proxy_config_shows_endpoints(bookstore: &Bookstore) {
    let table = bookstore.weft(&["proxy-config", "endpoints", "front"]).ok();

    for pod in bookstore.pods_of("books") {
        let line = table
            .lines()
            .find(|line| line.contains(&format!("{}:8080", pod.ipv4)));
        assert!(
            line.is_some_and(|line| line.contains("outbound|8080||books.default")),
            "{pod:?} in\n{table}"
        );
    }
}

fn proxy_config_shows_secrets_but_no_key(bookstore: &Bookstore) {
    let table = bookstore.weft(&["proxy-config", "secrets", "front"]).ok();
    let whole = bookstore
        .weft(&["proxy-config", "all", "front", "-o", "json"])
        .ok();

    assert!(
        table.contains("identity") && table.contains("trust-bundle"),
        "{table}"
    );
    let dump: Value = serde_json::from_str(&whole).expect("JSON");
    assert!(dump.is_object() || dump.is_array(), "{whole}");
    assert!(!whole.contains("PRIVATE KEY"), "a key leaves the sidecar");
}

fn resources_are_shown_in_every_format(bookstore: &Bookstore) {
    let table = bookstore.weft(&["get", "services"]).ok();
    assert!(
        table.lines().any(|line| line.starts_with("books ")),
        "{table}"
    );
    let names = bookstore.weft(&["get", "services", "-o", "name"]).ok();
    assert!(names.lines().any(|line| line == "service/books"), "{names}");
    let yaml = bookstore
        .weft(&["get", "service", "books", "-o", "yaml"])
        .ok();
    assert!(
        yaml.contains("kind: Service") && yaml.contains("240.240."),
        "{yaml}"
    );
    assert_eq!(
        bookstore.json(&["get", "service/books"])["metadata"]["name"],
        "books"
    );
    let selected = bookstore
        .weft(&["get", "pods", "-l", "app=books", "-o", "name"])
        .ok();
    assert_eq!(selected.lines().count(), 2, "{selected}");
}

fn check_says_that_this_machine_can_run_weft(bookstore: &Bookstore) {
    let findings = bookstore.weft(&["check"]).ok();

    for subject in ["namespace", "iptables", "cgroup"] {
        assert!(
            findings.to_lowercase().contains(subject),
            "{subject} is missing in\n{findings}"
        );
    }
}
