//! Lists and watches.

use http::{Method, StatusCode};
use serde_json::json;

use super::plane::{Plane, SERVICES, service};
use super::{MERGE, Watch, name};

#[tokio::test]
async fn a_watch_sees_what_happens_after_a_list() {
    let plane = Plane::start().await;
    plane.create(SERVICES, service("old")).await;
    let (_, list) = plane.get(SERVICES).await;
    let version = list["metadata"]["resourceVersion"].as_str().unwrap();
    let mut watch = Watch::start(
        &plane,
        &format!("{SERVICES}?watch=1&resourceVersion={version}"),
    )
    .await;

    plane.create(SERVICES, service("new")).await;
    plane
        .send(
            Method::DELETE,
            &format!("{SERVICES}/old"),
            "application/json",
            "",
        )
        .await;

    let (event, object) = watch.next().await;
    assert_eq!((event.as_str(), name(&object)), ("ADDED", "new"));
    let (event, object) = watch.next().await;
    assert_eq!((event.as_str(), name(&object)), ("DELETED", "old"));
}

#[tokio::test]
async fn a_watch_by_labels_tells_of_objects_that_cease_to_match() {
    let plane = Plane::start().await;
    let mut object = service("web");
    object["metadata"]["labels"] = json!({"tier": "front"});
    plane.create(SERVICES, object).await;
    let mut watch = Watch::start(
        &plane,
        &format!("{SERVICES}?watch=1&labelSelector=tier%3Dfront"),
    )
    .await;
    assert_eq!(watch.next().await.0, "ADDED");

    let change = json!({"metadata": {"labels": {"tier": "back"}}}).to_string();
    plane
        .send(Method::PATCH, &format!("{SERVICES}/web"), MERGE, change)
        .await;

    assert_eq!(watch.next().await.0, "DELETED");
}

#[tokio::test]
async fn an_informer_is_told_where_the_beginning_ends() {
    let plane = Plane::start().await;
    plane.create(SERVICES, service("web")).await;
    let path = format!(
        "{SERVICES}?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    );

    let mut watch = Watch::start(&plane, &path).await;

    assert_eq!(watch.next().await.0, "ADDED");
    let (event, bookmark) = watch.next().await;
    assert_eq!(event, "BOOKMARK");
    assert_eq!(
        bookmark["metadata"]["annotations"]["k8s.io/initial-events-end"],
        "true"
    );
}

#[tokio::test]
async fn a_watch_from_before_a_restart_starts_over() {
    let plane = Plane::start().await;
    plane.create(SERVICES, service("web")).await;
    let plane = Plane::start_in(plane.stop().await).await;

    let (status, body) = plane
        .get(&format!("{SERVICES}?watch=1&resourceVersion=1"))
        .await;

    assert_eq!(status, StatusCode::GONE);
    assert_eq!(body["reason"], "Expired");
}

#[tokio::test]
async fn a_list_comes_in_pages() {
    let plane = Plane::start().await;
    for number in 0..5 {
        plane
            .create(SERVICES, service(&format!("web-{number}")))
            .await;
    }

    let mut names = Vec::new();
    let mut next = String::new();
    loop {
        let (_, page) = plane
            .get(&format!("{SERVICES}?limit=2&continue={next}"))
            .await;
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        names.extend(items.iter().map(|item| name(item).to_owned()));
        match page["metadata"]["continue"].as_str() {
            Some(token) => token.clone_into(&mut next),
            None => break,
        }
    }

    assert_eq!(names, ["web-0", "web-1", "web-2", "web-3", "web-4"]);
}
