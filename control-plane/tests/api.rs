//! The API as its clients see it: over real sockets, resources through their whole life.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use serde_json::{Value, json};

#[path = "api/applying.rs"]
mod applying;
#[path = "api/lives.rs"]
mod lives;
#[path = "support/plane.rs"]
mod plane;
#[path = "api/refusals.rs"]
mod refusals;
#[path = "api/watching.rs"]
mod watching;

use plane::{DEADLINE, Plane, SERVICES, service};

const MERGE: &str = "application/merge-patch+json";
const APPLY: &str = "application/apply-patch+yaml";

/// The lines of a watch, one event each.
struct Watch {
    body: hyper::body::Incoming,
    rest: Vec<u8>,
}

impl Watch {
    async fn start(plane: &Plane, path: &str) -> Self {
        let request = plane.request(Method::GET, path, "application/json", "");
        let response = plane.response(request).await;
        assert_eq!(response.status(), StatusCode::OK);
        Self {
            body: response.into_body(),
            rest: Vec::new(),
        }
    }

    async fn next(&mut self) -> (String, Value) {
        loop {
            if let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.rest.drain(..=end).collect();
                let event: Value = serde_json::from_slice(&line).unwrap();
                let kind = event["type"].as_str().unwrap().to_owned();
                return (kind, event["object"].clone());
            }
            let frame = tokio::time::timeout(DEADLINE, self.body.frame())
                .await
                .unwrap();
            self.rest
                .extend_from_slice(&frame.unwrap().unwrap().into_data().unwrap());
        }
    }
}

fn name(object: &Value) -> &str {
    object["metadata"]["name"].as_str().unwrap()
}

#[tokio::test]
async fn the_owner_needs_no_token_on_the_socket() {
    let plane = Plane::start().await;
    let request = Request::get("/api/v1/pods")
        .header("host", "weft")
        .body(Full::new(Bytes::new()))
        .unwrap();

    let response = plane.response_of_owner(request).await;

    assert_eq!(response.status(), StatusCode::OK);
}

#[tokio::test]
async fn the_socket_and_the_secrets_are_for_the_owner_alone() {
    use std::os::unix::fs::PermissionsExt;
    let plane = Plane::start().await;

    for file in ["weft.sock", "token", "state.redb"] {
        let path = plane.home.path().join(file);
        let mode = std::fs::metadata(path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
}

#[tokio::test]
async fn an_object_lives_from_creation_to_deletion() {
    let plane = Plane::start().await;
    let created = plane.create(SERVICES, service("web")).await;
    assert_eq!(created["metadata"]["generation"], 1);

    let path = format!("{SERVICES}/web");
    let change = json!({"spec": {"ports": [{"port": 81}]}}).to_string();
    let (status, patched) = plane.send(Method::PATCH, &path, MERGE, change).await;
    assert_eq!(status, StatusCode::OK, "{patched}");
    assert_eq!(patched["metadata"]["generation"], 2);
    assert_eq!(patched["spec"]["ports"][0]["targetPort"], 81);
    assert_eq!(patched["metadata"]["uid"], created["metadata"]["uid"]);

    let (status, gone) = plane
        .send(Method::DELETE, &path, "application/json", "")
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(gone["status"], "Success");
    let (status, body) = plane.get(&path).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    assert_eq!(body["reason"], "NotFound");
    assert_eq!(body["message"], r#"services "web" not found"#);
}

#[tokio::test]
async fn everything_is_still_there_after_a_restart() {
    let plane = Plane::start().await;
    let before = plane.create(SERVICES, service("web")).await;
    let home = plane.stop().await;

    let plane = Plane::start_in(home).await;

    let (_, after) = plane.get(&format!("{SERVICES}/web")).await;
    assert_eq!(after, before);
}

#[tokio::test]
async fn every_service_has_addresses_of_its_own() {
    let plane = Plane::start().await;
    let mut addresses = std::collections::BTreeSet::new();
    for number in 0..50 {
        let created = plane
            .create(SERVICES, service(&format!("web-{number}")))
            .await;
        let ips = created["spec"]["clusterIPs"].as_array().unwrap();
        assert_eq!(ips.len(), 2);
        assert!(ips[0].as_str().unwrap().starts_with("240.240."));
        assert!(ips[1].as_str().unwrap().starts_with("fd57:f0f0::"));
        addresses.insert(ips[0].to_string());
    }

    assert_eq!(addresses.len(), 50);
    let taken = json!({
        "metadata": {"name": "thief"},
        "spec": {"clusterIP": serde_json::from_str::<Value>(addresses.first().unwrap()).unwrap(), "ports": [{"port": 80}]},
    });
    let (status, body) = plane.post(SERVICES, &taken).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
}
