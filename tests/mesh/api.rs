//! The API as the real `kubectl` uses it.

use std::process::Command;

use serde_json::{Value, json};

use crate::harness::bookstore::Bookstore;
use crate::harness::command::{Outcome, Running, peer, run, run_with_input};
use crate::harness::wait::{eventually, holds};

crate::harness::tests![
    kubectl_lists_what_runs,
    kubectl_applies_gets_and_deletes_a_route,
    kubectl_applies_gets_and_deletes_every_kind_of_policy,
    kubectl_watches_changes,
    kubectl_is_let_in_with_the_token_and_refused_without,
    kubectl_is_told_what_is_wrong_with_a_policy,
    kubectl_explains_a_policy_from_its_schema,
    the_token_is_for_its_owner_alone,
];

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: by-kubectl}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews, port: 8080}]
  rules:
    - backendRefs: [{name: reviews-v2, port: 8080}]
";
const POLICIES: [(&str, &str); 3] = [
    (
        "backendtrafficpolicies.weft.dev",
        "apiVersion: weft.dev/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: by-kubectl}
spec:
  targetRefs: [{group: '', kind: Service, name: stock}]
  loadBalancer: {type: RoundRobin}
",
    ),
    (
        "peerauthentications.weft.dev",
        "apiVersion: weft.dev/v1alpha1
kind: PeerAuthentication
metadata: {name: by-kubectl}
spec: {selector: {matchLabels: {app: stock}}, mtls: {mode: STRICT}}
",
    ),
    (
        "telemetries.weft.dev",
        "apiVersion: weft.dev/v1alpha1
kind: Telemetry
metadata: {name: by-kubectl}
spec: {targetRefs: [{group: '', kind: Service, name: stock}], tracing: {randomSamplingPercentage: 1}}
",
    ),
];

/// As weft itself says that it is to be used.
fn kubectl(bookstore: &Bookstore) -> Command {
    let mut kubectl = bare_kubectl(bookstore);
    kubectl
        .arg("--kubeconfig")
        .arg(bookstore.folder().join("home/kubeconfig"));
    kubectl
}

/// Without any configuration, so that it is told everything by flags.
fn kubectl_by_flags(bookstore: &Bookstore, token: &str) -> Command {
    let server = format!("https://{}", address(bookstore));
    let mut kubectl = bare_kubectl(bookstore);
    kubectl.args([
        "--kubeconfig",
        "/dev/null",
        "--server",
        &server,
        "--token",
        token,
    ]);
    kubectl
        .arg("--certificate-authority")
        .arg(bookstore.folder().join("home/api.crt"));
    kubectl
}

fn address(bookstore: &Bookstore) -> String {
    let status = bookstore.json(&["status"]);
    status["apiAddress"]
        .as_str()
        .expect("an address")
        .to_owned()
}

fn bare_kubectl(bookstore: &Bookstore) -> Command {
    let mut kubectl = peer("kubectl");
    kubectl
        .env("HOME", bookstore.folder())
        .arg("--cache-dir")
        .arg(bookstore.folder().join("kubectl"));
    kubectl
}

fn ask(bookstore: &Bookstore, words: &[&str]) -> Outcome {
    run(kubectl(bookstore).args(words))
}

fn send(bookstore: &Bookstore, words: &[&str], yaml: &str) -> Outcome {
    run_with_input(kubectl(bookstore).args(words), yaml)
}

fn kubectl_lists_what_runs(bookstore: &Bookstore) {
    let pods = ask(bookstore, &["get", "pods", "-o", "name"]).ok();
    assert_eq!(pods.lines().count(), bookstore.pods().len(), "{pods}");
    let table = ask(bookstore, &["get", "deployments,services"]).ok();
    assert!(
        table.contains("books") && table.contains("240.240."),
        "{table}"
    );
    let kinds = ask(bookstore, &["api-resources"]).ok();
    for kind in [
        "httproutes",
        "backendtrafficpolicies",
        "peerauthentications",
        "telemetries",
        "deployments",
    ] {
        assert!(kinds.contains(kind), "{kind} is missing in\n{kinds}");
    }
}

fn kubectl_applies_gets_and_deletes_a_route(bookstore: &Bookstore) {
    let applied = send(bookstore, &["apply", "-f", "-"], ROUTE).ok();
    assert!(applied.contains("by-kubectl created"), "{applied}");
    bookstore.until_in_force();
    assert_eq!(
        bookstore
            .load("front", "http://reviews:8080/reviews/dune", 100, 2)
            .version("v2"),
        100
    );
    let again = send(bookstore, &["apply", "-f", "-"], ROUTE).ok();
    assert!(again.contains("unchanged"), "{again}");

    let changed = send(
        bookstore,
        &["apply", "--server-side", "--force-conflicts", "-f", "-"],
        &ROUTE.replace("reviews-v2", "reviews-v1"),
    )
    .ok();
    assert!(changed.contains("by-kubectl"), "{changed}");
    bookstore.until_in_force();
    assert_eq!(
        bookstore
            .load("front", "http://reviews:8080/reviews/dune", 100, 2)
            .version("v1"),
        100
    );

    let yaml = ask(bookstore, &["get", "httproute", "by-kubectl", "-o", "yaml"]).ok();
    assert!(yaml.contains("name: reviews-v1"), "{yaml}");
    ask(bookstore, &["delete", "httproute", "by-kubectl"]).ok();
    bookstore.until_in_force();
    let gone = ask(bookstore, &["get", "httproute", "by-kubectl"]).fails_with(1);
    assert!(gone.contains("NotFound"), "{gone}");
}

fn kubectl_applies_gets_and_deletes_every_kind_of_policy(bookstore: &Bookstore) {
    for (kind, yaml) in POLICIES {
        let applied = send(bookstore, &["apply", "-f", "-"], yaml).ok();
        assert!(applied.contains("created"), "{kind}: {applied}");
        let table = ask(bookstore, &["get", kind]).ok();
        assert!(table.contains("by-kubectl"), "{kind}: {table}");
        let object = ask(bookstore, &["get", kind, "by-kubectl", "-o", "json"]).ok();
        let object: Value = serde_json::from_str(&object).expect("JSON");
        assert!(
            object["metadata"]["uid"].is_string()
                && object["metadata"]["resourceVersion"].is_string(),
            "{object}"
        );
        let deleted = ask(bookstore, &["delete", kind, "by-kubectl"]).ok();
        assert!(deleted.contains("deleted"), "{kind}: {deleted}");
    }
}

fn kubectl_watches_changes(bookstore: &Bookstore) {
    let first = bookstore.apply(&ROUTE.replace("by-kubectl", "there-before"));
    let mut watch = kubectl(bookstore);
    watch.args([
        "get",
        "httproutes",
        "--watch",
        "--output-watch-events",
        "--no-headers",
        "--request-timeout",
        "60s",
    ]);
    let watching = Running::start(&mut watch, None);
    let until = |word: &str, name: &str| {
        eventually("the watch to tell", || {
            let told = String::from_utf8_lossy(&watching.printed()).into_owned();
            let is_it = |line: &str| line.starts_with(word) && line.contains(name);
            holds(told.lines().any(is_it), || {
                format!("no {word} {name} in {told:?}")
            })
        });
    };
    until("ADDED", "there-before");

    // Two routes of one service would be in each other's way.
    let other = ROUTE
        .replace("name: reviews, port: 8080", "name: books, port: 8080")
        .replace("reviews-v2", "books");
    send(bookstore, &["apply", "-f", "-"], &other).ok();
    until("ADDED", "by-kubectl");
    ask(
        bookstore,
        &["label", "httproute", "by-kubectl", "tried=yes"],
    )
    .ok();
    until("MODIFIED", "by-kubectl");
    ask(bookstore, &["delete", "httproute", "by-kubectl"]).ok();
    until("DELETED", "by-kubectl");
    drop(first);
    until("DELETED", "there-before");
    watching.kill();
}

fn kubectl_is_let_in_with_the_token_and_refused_without(bookstore: &Bookstore) {
    let token = std::fs::read_to_string(bookstore.folder().join("home/token"));
    let token = token.expect("the token is there");
    let services = run(kubectl_by_flags(bookstore, token.trim()).args(["get", "services"])).ok();
    assert!(services.contains("books"), "{services}");

    let refused = run(kubectl_by_flags(bookstore, "wrong").args(["get", "pods"])).fails_with(1);
    assert!(
        refused.contains("Unauthorized") || refused.contains("logged in"),
        "{refused}"
    );
    // kubectl without a token asks for a name and a password, so this is for curl.
    for scheme in ["http", "https"] {
        let url = format!("{scheme}://{}/api/v1/pods", address(bookstore));
        let answer = run(peer("curl").args(["--insecure", "--silent", &url])).ok();
        let status: Value = serde_json::from_str(&answer).expect("JSON");
        assert_eq!(
            (&status["kind"], &status["code"]),
            (&json!("Status"), &json!(401))
        );
    }
}

fn kubectl_is_told_what_is_wrong_with_a_policy(bookstore: &Bookstore) {
    let dangling = send(
        bookstore,
        &["apply", "-f", "-"],
        &ROUTE.replace("reviews-v2", "no-such-service"),
    )
    .fails_with(1);
    assert!(dangling.contains("no-such-service"), "{dangling}");

    let unknown = send(
        bookstore,
        &["apply", "--validate=false", "-f", "-"],
        &ROUTE.replace("backendRefs", "backendReferences"),
    );
    let unknown = unknown.fails_with(1);
    assert!(unknown.contains("backendReferences"), "{unknown}");

    let gone = ask(bookstore, &["get", "httproute", "by-kubectl"]).fails_with(1);
    assert!(gone.contains("NotFound"), "nothing was stored: {gone}");
}

fn kubectl_explains_a_policy_from_its_schema(bookstore: &Bookstore) {
    let text = ask(
        bookstore,
        &["explain", "backendtrafficpolicy.spec.circuitBreaker"],
    )
    .ok();

    assert!(text.contains("maxParallelRequests"), "{text}");
}

fn the_token_is_for_its_owner_alone(bookstore: &Bookstore) {
    use std::os::unix::fs::PermissionsExt;

    for file in ["token", "kubeconfig", "api.key"] {
        let metadata = std::fs::metadata(bookstore.folder().join("home").join(file));
        let mode = metadata.expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}
