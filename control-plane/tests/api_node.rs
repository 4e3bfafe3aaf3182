//! What the API passes on to the node: logs, commands, connections into pods, images.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::io::Write as _;
use std::process::Stdio;

use http::{Method, StatusCode};
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::process::Command;

#[path = "support/node.rs"]
mod node;
#[path = "support/plane.rs"]
mod plane;

use plane::{DEADLINE, PODS, Plane, pod};

async fn with_pod() -> Plane {
    let home = tempfile::tempdir().unwrap();
    node::serve(home.path());
    let plane = Plane::start_in(home).await;
    plane.create(PODS, pod("web-1", "web")).await;
    plane.create(PODS, pod("web-2", "web")).await;
    plane
}

async fn text(plane: &Plane, method: Method, path: &str, body: &str) -> (StatusCode, String) {
    let request = plane.request(method, path, "application/x-tar", body.to_owned());
    let response = plane.response(request).await;
    let status = response.status();
    let body = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(body.to_vec()).unwrap())
}

/// Is kubectl too old to run commands in pods? Before 1.31 it does not speak WebSocket.
fn skipped_for_want_of_kubectl(test: &str) -> bool {
    let output = std::process::Command::new("kubectl")
        .args(["version", "--client", "--output=json"])
        .output()
        .expect("kubectl is missing: apt-get install kubernetes-client");
    let version: Value = serde_json::from_slice(&output.stdout).unwrap();
    let version = version["clientVersion"]["gitVersion"].as_str().unwrap();
    let minor = version.split('.').nth(1).unwrap();
    if minor.parse::<u32>().unwrap() >= 31 {
        return false;
    }
    assert!(
        std::env::var_os("WEFT_TEST_SKIP").is_none_or(|skip| skip != "never"),
        "kubectl is {version}: 1.31 is needed (scripts/setup.sh --test builds it where there is Go)"
    );
    // Not by a macro, whose output is only shown of tests that fail.
    let mut stderr = std::io::stderr();
    writeln!(
        stderr,
        "skipped: {test}: kubectl is {version}, 1.31 is needed"
    )
    .unwrap();
    true
}

/// Runs the real kubectl, whose home is the control plane's own.
async fn kubectl(plane: &Plane, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let home = plane.home.path();
    let mut child = Command::new("kubectl")
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap_or_default())
        .env("HOME", home)
        .arg(format!(
            "--kubeconfig={}",
            home.join("kubeconfig").display()
        ))
        .arg(format!("--cache-dir={}", home.join("cache").display()))
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("kubectl is missing: apt-get install kubectl");
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(input.as_bytes()).await.unwrap();
    drop(stdin);
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output())
        .await
        .expect("kubectl ends in time")
        .unwrap();
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
    (
        output.status.code(),
        text(output.stdout),
        text(output.stderr),
    )
}

#[tokio::test]
async fn a_log_is_shown_as_a_whole_or_by_its_end() {
    let plane = with_pod().await;
    let log = format!("{PODS}/web-1/log");

    assert_eq!(
        text(&plane, Method::GET, &log, "").await.1,
        "one\ntwo\nthree\n"
    );
    let end = format!("{log}?tailLines=1&timestamps=true");
    assert_eq!(
        text(&plane, Method::GET, &end, "").await.1,
        "2026-01-01T00:00:00.000000001Z three\n"
    );
    let short = format!("{log}?limitBytes=5");
    assert_eq!(text(&plane, Method::GET, &short, "").await.1, "one\nt");
    let none = format!("{log}?tailLines=0");
    assert_eq!(text(&plane, Method::GET, &none, "").await.1, "");
    let (code, out, _) = kubectl(&plane, &["logs", "web-1", "--tail=2"], "").await;
    assert_eq!((code, out.as_str()), (Some(0), "two\nthree\n"));
}

#[tokio::test]
async fn a_followed_log_ends_with_the_daemon() {
    let plane = with_pod().await;
    let path = format!("{PODS}/web-1/log?follow=true");
    let response = plane
        .response(plane.request(Method::GET, &path, "application/json", ""))
        .await;

    plane.shutdown.cancel();

    let body = tokio::time::timeout(DEADLINE, response.into_body().collect()).await;
    assert!(body.unwrap().unwrap().to_bytes().ends_with(b"three\n"));
}

#[tokio::test]
async fn a_container_that_is_not_there_is_named() {
    let plane = with_pod().await;

    let (status, body) = plane.get(&format!("{PODS}/web-1/log?container=nope")).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
    assert_eq!(
        body["message"],
        "container nope is not valid for pod web-1: it has [web]"
    );
    let (status, _) = plane.get(&format!("{PODS}/web-2/log")).await;
    assert_eq!(
        status,
        StatusCode::NOT_FOUND,
        "the node knows only the first pod"
    );
    let (status, _) = plane.get(&format!("{PODS}/web-3/log")).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn kubectl_runs_commands_with_input_output_and_exit_code() {
    if skipped_for_want_of_kubectl("kubectl_runs_commands_with_input_output_and_exit_code") {
        return;
    }
    let plane = with_pod().await;

    let (code, out, errors) =
        kubectl(&plane, &["exec", "-i", "web-1", "--", "cat"], "hello\n").await;
    assert_eq!((code, out.as_str()), (Some(0), "hello\n"), "{errors}");
    let (code, _, errors) = kubectl(&plane, &["exec", "web-1", "--", "exit", "7"], "").await;
    assert_eq!(code, Some(7));
    assert!(errors.starts_with("leaving\n"), "{errors}");
    let (code, out, errors) = kubectl(&plane, &["exec", "web-1", "--", "cat"], "unread").await;
    assert_eq!((code, out.as_str()), (Some(0), ""), "{errors}");
    let (code, _, errors) = kubectl(&plane, &["exec", "web-2", "--", "cat"], "").await;
    assert_eq!(code, Some(1));
    assert!(errors.contains("not found"), "{errors}");
}

#[tokio::test]
async fn a_large_input_comes_back_whole() {
    if skipped_for_want_of_kubectl("a_large_input_comes_back_whole") {
        return;
    }
    let plane = with_pod().await;
    let large = "0123456789abcdef".repeat(64 * 1024);

    let (code, out, _) = kubectl(&plane, &["exec", "-i", "web-1", "--", "cat"], &large).await;

    assert_eq!(code, Some(0));
    assert!(
        out == large,
        "{} of {} bytes came back",
        out.len(),
        large.len()
    );
}

#[tokio::test]
async fn requests_are_passed_on_into_the_pod_without_the_token() {
    let plane = with_pod().await;
    let inside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = inside.local_addr().unwrap().port();
    let served = tokio::spawn(async move {
        let (mut stream, _) = inside.accept().await.unwrap();
        let mut request = vec![0; 4096];
        let read = stream.read(&mut request).await.unwrap();
        stream
            .write_all(b"HTTP/1.1 418 Teapot\r\ncontent-length: 5\r\nx-a: b\r\n\r\nhello")
            .await
            .unwrap();
        String::from_utf8_lossy(&request[..read]).into_owned()
    });

    let path = format!("{PODS}/web-1:{port}/proxy/stats/all?format=json");
    let (status, body) = text(&plane, Method::GET, &path, "").await;

    assert_eq!((status.as_u16(), body.as_str()), (418, "hello"));
    let request = served.await.unwrap().to_lowercase();
    assert!(
        request.starts_with("get /stats/all?format=json http/1.1\r\n"),
        "{request}"
    );
    assert!(!request.contains(&plane.token), "{request}");
    let (status, body) = plane.get(&format!("{PODS}/web-1:{port}/proxy/")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE, "{body}");
}

#[tokio::test]
async fn images_are_listed_inspected_and_taken_in() {
    let plane = with_pod().await;

    let (_, list) = plane.get("/weft/v1/images").await;
    assert_eq!(list["images"][0]["references"][0], "example/web:1");
    let (_, one) = plane.get("/weft/v1/images/example%2Fweb:1").await;
    assert_eq!(one["exposedPorts"][0], "80/tcp");
    let (status, _) = plane.get("/weft/v1/images/example%2Fnone").await;
    assert_eq!(status, StatusCode::NOT_FOUND);

    let archive = "x".repeat(5_000_000);
    let path = "/weft/v1/images/import?reference=a%2Fb:1";
    let (status, lines) = text(&plane, Method::POST, path, &archive).await;
    assert_eq!(status, StatusCode::OK);
    let lines: Vec<Value> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(lines[0]["line"], "importing");
    assert_eq!(lines[1]["done"]["references"][0], "a/b:1");
    assert_eq!(lines[1]["done"]["sizeBytes"], 5_000_000);
}

#[tokio::test]
async fn a_build_that_fails_says_so_at_its_end() {
    let plane = with_pod().await;
    let path = "/weft/v1/images/build?reference=a&dockerfile=D&target=t&arg=A%3D1";

    let (status, lines) = text(&plane, Method::POST, path, "context").await;

    assert_eq!(status, StatusCode::OK);
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines[0], r#"{"line":"D {\"A\": \"1\"} t"}"#);
    assert_eq!(lines[1], r#"{"error":"STEP 2 failed"}"#);
}

#[tokio::test]
async fn a_program_is_taken_in_and_put_in_the_place_of_a_sidecars() {
    let plane = with_pod().await;

    let program = "x".repeat(3_000_000);
    let (status, line) = text(&plane, Method::POST, "/weft/v1/programs", &program).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(line, "{\"done\":{\"digest\":\"sha256:3000000\"}}\n");
    let path = "/weft/v1/containers/default.web-1.weft-proxy/replace";
    let (status, container) = plane
        .post(path, &serde_json::json!({"program": "sha256:0"}))
        .await;
    assert_eq!(status, StatusCode::OK, "{container}");
    assert_eq!(container["container"], "weft-proxy");
    assert_eq!(container["replacements"], 1);
    assert_eq!(container["replacementFailure"], "no sha256:0");

    let (status, _) = plane.post(path, &serde_json::json!({})).await;
    assert_eq!(status, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn the_status_tells_of_the_node() {
    let plane = with_pod().await;

    let (_, status) = plane.get("/weft/v1/status").await;

    assert_eq!(status["node"]["version"], "fake");
    assert_eq!(status["proxies"], serde_json::json!([]));
    let (_, containers) = plane.get("/weft/v1/containers").await;
    assert_eq!(containers[0]["pod"], "web-1");
    assert_eq!(containers[0]["container"], "web");
    assert_eq!(containers[0]["residentBytes"], 42);
}

#[tokio::test]
async fn every_get_of_the_reference_is_answered() {
    let plane = with_pod().await;
    let reference = include_str!("../../docs/reference/api.md");
    let paths = reference
        .split('`')
        .filter_map(|code| code.strip_prefix("GET "))
        .map(|path| path.replace("NUMBER", "1").replace("limit=N", "limit=1"));
    let mut count = 0;
    for path in paths.filter(|path| !path.is_empty()) {
        let (status, body) = plane.get(&path).await;
        assert_eq!(status, StatusCode::OK, "{path}: {body}");
        count += 1;
    }
    assert!(count >= 8, "only {count} paths were found in the reference");
}
