//! Bad input: a clear word, the right exit status, and nothing changed.

use crate::harness::bookstore::Bookstore;
use crate::harness::mesh::Mesh;

crate::harness::tests![
    a_typo_in_a_compose_file_is_shown_where_it_is,
    what_compose_knows_and_weft_does_not_is_refused_by_name,
    a_policy_for_a_service_that_does_not_exist_is_refused_and_changes_nothing,
    a_field_that_does_not_exist_is_refused_by_name,
    malformed_yaml_is_shown_where_it_breaks,
    a_split_of_an_unknown_service_is_refused,
    what_does_not_exist_is_said_not_to_exist,
    wrong_usage_ends_with_2,
];

/// A folder with a Compose file of this text, and its path.
pub(crate) fn compose(text: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("compose.yaml");
    std::fs::write(&path, text).expect("it is ours");
    let path = path.to_string_lossy().into_owned();
    (folder, path)
}

fn a_typo_in_a_compose_file_is_shown_where_it_is(_: &Bookstore) {
    let (_folder, path) =
        compose("services:\n  web:\n    image: bookstore/static:dev\n    comand: [nginx]\n");

    let complaint = Mesh::new().weft(&["up", "-d", "-f", &path]).fails_with(4);

    assert!(
        complaint.contains(&format!("{path}:4:5")),
        "path, line and column: {complaint}"
    );
    assert!(
        complaint.contains("comand: [nginx]"),
        "the line itself: {complaint}"
    );
    assert!(
        complaint.contains("`command`") || complaint.contains("\"command\""),
        "the nearest key: {complaint}"
    );
}

fn what_compose_knows_and_weft_does_not_is_refused_by_name(_: &Bookstore) {
    let (_folder, path) =
        compose("services:\n  web:\n    image: bookstore/static:dev\n    privileged: true\n");

    let complaint = Mesh::new().weft(&["up", "-d", "-f", &path]).fails_with(4);

    assert!(
        complaint.contains("privileged") && complaint.contains(":4:"),
        "{complaint}"
    );
}

const ROUTE: &str = "apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: bad}
spec:
  parentRefs: [{group: '', kind: Service, name: reviews, port: 8080}]
  rules:
    - backendRefs: [{name: reviews-v1, port: 8080}]
";

/// Applying it is refused with this in the complaint, and changes nothing.
fn is_refused(bookstore: &Bookstore, yaml: &str, words: &[&str]) {
    let revision = bookstore.json(&["status"])["revision"].clone();

    let complaint = bookstore
        .weft_with_input(&["apply", "-f", "-"], yaml)
        .fails_with(4);

    for word in words {
        assert!(
            complaint.contains(word),
            "{word:?} is missing in {complaint}"
        );
    }
    assert_eq!(bookstore.json(&["status"])["revision"], revision);
    bookstore.weft(&["get", "httproute/bad"]).fails_with(3);
}

fn a_policy_for_a_service_that_does_not_exist_is_refused_and_changes_nothing(
    bookstore: &Bookstore,
) {
    is_refused(
        bookstore,
        &ROUTE.replace("reviews-v1", "reviews-v9"),
        &["reviews-v9"],
    );
    is_refused(
        bookstore,
        &ROUTE.replace("name: reviews,", "name: opinions,"),
        &["opinions"],
    );
    let policy = "apiVersion: weft.dev/v1alpha1
kind: BackendTrafficPolicy
metadata: {name: bad}
spec: {targetRefs: [{group: '', kind: Service, name: opinions}], circuitBreaker: {maxParallelRequests: 1}}
";
    is_refused(bookstore, policy, &["opinions"]);
}

fn a_field_that_does_not_exist_is_refused_by_name(bookstore: &Bookstore) {
    is_refused(
        bookstore,
        &ROUTE.replace("backendRefs", "backendRef"),
        &["backendRef"],
    );
    is_refused(
        bookstore,
        &ROUTE.replace("port: 8080}]\n  rules", "port: 99999}]\n  rules"),
        &["port"],
    );
    is_refused(
        bookstore,
        &ROUTE.replace("kind: HTTPRoute", "kind: HTTPRout"),
        &["HTTPRout"],
    );
}

fn malformed_yaml_is_shown_where_it_breaks(bookstore: &Bookstore) {
    is_refused(
        bookstore,
        "kind: HTTPRoute\nmetadata: {name: bad\nspec: [\n",
        &["line"],
    );
}

fn a_split_of_an_unknown_service_is_refused(bookstore: &Bookstore) {
    let complaint = bookstore
        .weft(&["split", "opinions", "reviews-v1=1"])
        .fails_with(4);
    assert!(complaint.contains("opinions"), "{complaint}");
    let complaint = bookstore
        .weft(&["split", "reviews", "reviews-v9=1"])
        .fails_with(4);
    assert!(complaint.contains("reviews-v9"), "{complaint}");
    bookstore
        .weft(&["split", "reviews", "reviews-v1=most"])
        .fails_with(2);
    bookstore.weft(&["get", "httproute/reviews"]).fails_with(3);
}

fn what_does_not_exist_is_said_not_to_exist(bookstore: &Bookstore) {
    for words in [
        &["exec", "no-such-pod", "--", "true"][..],
        &["logs", "no-such-pod"],
        &["get", "pod/no-such-pod"],
        &["get", "no-such-kind"],
        &["delete", "httproute/no-such-route"],
        &["proxy-config", "routes", "no-such-pod"],
        &["image", "inspect", "no-such-image"],
    ] {
        let complaint = bookstore.weft(words).fails_with(3);
        assert!(complaint.contains("no-such-"), "{words:?}: {complaint}");
    }
}

fn wrong_usage_ends_with_2(bookstore: &Bookstore) {
    for words in [
        &["ups"][..],
        &["ps", "--no-such-flag"],
        &["split", "reviews"],
        &["fault", "books"],
        &["fault", "books", "--abort", "99"],
    ] {
        bookstore.weft(words).fails_with(2);
    }
    let complaint = bookstore.weft(&["statsu"]).fails_with(2);
    assert!(
        complaint.contains("status"),
        "the nearest verb: {complaint}"
    );
}
