//! The API client against a server of the tests' own.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "fakes/api.rs"]
mod api;

use std::time::Duration;

use api::FakeApi;
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};
use weft_injector::api::{Client, Collection, DeleteOptions, Event, Patch, Watch};

fn pod(name: &str) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": name, "namespace": "shop" } })
}

fn path(name: &str) -> String {
    format!("/api/v1/namespaces/shop/pods/{name}")
}

fn pods() -> Collection {
    Collection::of::<Pod>("shop")
}

async fn next(watch: &mut Watch<Pod>) -> Event<Pod> {
    tokio::time::timeout(Duration::from_secs(20), watch.next())
        .await
        .unwrap()
        .unwrap()
}

fn summary(event: &Event<Pod>) -> String {
    match event {
        Event::Applied(pod) => format!("applied {}", pod.metadata.name.as_deref().unwrap()),
        Event::Deleted(pod) => format!("deleted {}", pod.metadata.name.as_deref().unwrap()),
        Event::Synced => "synced".to_owned(),
    }
}

#[tokio::test]
async fn objects_are_made_read_changed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let api = FakeApi::start(folder.path());
    let client = api.client();

    let made: Pod = client
        .create(&pods(), &serde_json::from_value(pod("a")).unwrap())
        .await
        .unwrap();
    assert!(made.metadata.uid.is_some());
    let patch = json!({ "metadata": { "labels": { "app": "books" } } });
    client
        .patch::<Pod>(&pods(), "a", Patch::Merge, &patch)
        .await
        .unwrap();
    let status = json!({ "status": { "phase": "Running" } });
    client
        .patch_status::<Pod>(&pods(), "a", &status)
        .await
        .unwrap();
    let read: Pod = client.get(&pods(), "a").await.unwrap();
    assert_eq!(read.metadata.labels.unwrap()["app"], "books");
    assert_eq!(read.status.unwrap().phase.as_deref(), Some("Running"));
    assert_eq!(
        client.list::<Pod>(&pods(), "").await.unwrap().items.len(),
        1
    );

    let now = DeleteOptions {
        grace_period_seconds: Some(0),
        ..DeleteOptions::default()
    };
    client.delete(&pods(), "a", &now).await.unwrap();
    let error = client.get::<Pod>(&pods(), "a").await.unwrap_err();
    assert!(error.is_not_found());
    assert_eq!(error.reason(), Some("NotFound"));
}

#[tokio::test]
async fn an_object_that_exists_is_a_conflict() {
    let folder = tempfile::tempdir().unwrap();
    let api = FakeApi::start(folder.path());
    api.put(&path("a"), pod("a"));

    let pod: Pod = serde_json::from_value(pod("a")).unwrap();
    let error = api.client().create(&pods(), &pod).await.unwrap_err();

    assert!(error.is_conflict());
}

#[tokio::test]
async fn a_daemon_that_does_not_run_is_named() {
    let client = Client::unix("/nonexistent/weft.sock");

    let error = client.get::<Pod>(&pods(), "a").await.unwrap_err();

    assert!(error.to_string().contains("/nonexistent/weft.sock"));
    assert!(error.is_transient());
}

#[tokio::test]
async fn a_watch_tells_what_there_is_and_then_each_change() {
    let folder = tempfile::tempdir().unwrap();
    let api = FakeApi::start(folder.path());
    api.put(&path("a"), pod("a"));

    let mut watch = api.client().watch::<Pod>(&pods());
    assert_eq!(summary(&next(&mut watch).await), "applied a");
    assert_eq!(summary(&next(&mut watch).await), "synced");
    api.put(&path("b"), pod("b"));
    api.remove(&path("a"));

    assert_eq!(summary(&next(&mut watch).await), "applied b");
    assert_eq!(summary(&next(&mut watch).await), "deleted a");
}

#[tokio::test]
async fn a_watch_whose_history_is_gone_lists_again_and_misses_no_deletion() {
    let folder = tempfile::tempdir().unwrap();
    let api = FakeApi::start(folder.path());
    api.put(&path("a"), pod("a"));
    api.forget_history(3);

    let mut watch = api.client().watch::<Pod>(&pods());
    assert_eq!(summary(&next(&mut watch).await), "applied a");
    api.remove(&path("a"));

    let mut seen = Vec::new();
    while !seen.contains(&"deleted a".to_owned()) {
        seen.push(summary(&next(&mut watch).await));
    }
    assert!(api.lists() >= 2);
}
