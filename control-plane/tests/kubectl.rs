//! The real kubectl against the API: what it shows, what it writes, what it is refused.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;
use std::process::{Output, Stdio};

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;

#[path = "support/plane.rs"]
mod plane;

use plane::{DEADLINE, DEPLOYMENTS, PODS, Plane, ROUTES, SERVICES, deployment, pod, service};

const WEB: &str = "\
apiVersion: v1
kind: Service
metadata:
  name: web
spec:
  selector: {app: web}
  ports: [{name: http, port: 80}]
---
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - name: web
        image: example/web:1
        env: [{name: A, value: '1'}]
        ports: [{containerPort: 8080}]
";

const ROUTE: &str = "\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata:
  name: web
spec:
  parentRefs: [{group: '', kind: Service, name: web}]
  rules:
  - backendRefs:
    - {name: web, port: 80, weight: 90}
";

/// A kubectl with a home of its own, so that nothing of this machine's is read or left behind.
struct Kubectl {
    plane: Plane,
}

impl Kubectl {
    async fn start() -> Self {
        assert!(
            Path::new("/usr/bin/kubectl").exists() || which("kubectl"),
            "kubectl is missing: apt-get install kubectl, or see `make test-tools`"
        );
        Self {
            plane: Plane::start().await,
        }
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let home = self.plane.home.path();
        let mut command = Command::new("kubectl");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", home)
            .arg(format!(
                "--kubeconfig={}",
                home.join("kubeconfig").display()
            ))
            .arg(format!("--cache-dir={}", home.join("cache").display()))
            .args(arguments)
            .kill_on_drop(true);
        command
    }

    async fn run_with(&self, arguments: &[&str], input: &str) -> Output {
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(input.as_bytes())
            .await
            .unwrap();
        tokio::time::timeout(DEADLINE, child.wait_with_output())
            .await
            .expect("kubectl ends in time")
            .unwrap()
    }

    /// What it prints where it succeeds.
    async fn ok(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run_with(arguments, input).await;
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "kubectl {arguments:?}: {errors}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// What it says where it fails.
    async fn refused(&self, arguments: &[&str], input: &str) -> String {
        let output = self.run_with(arguments, input).await;
        assert!(!output.status.success(), "kubectl {arguments:?} succeeded");
        String::from_utf8(output.stderr).unwrap()
    }
}

fn which(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory| directory.join(program).exists())
}

/// The words of each line.
fn rows(table: &str) -> Vec<Vec<&str>> {
    table
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect()
}

#[tokio::test]
async fn apply_is_idempotent_and_changes_what_differs() {
    let kubectl = Kubectl::start().await;

    let first = kubectl.ok(&["apply", "-f", "-"], WEB).await;
    assert_eq!(first, "service/web created\ndeployment.apps/web created\n");
    let second = kubectl.ok(&["apply", "-f", "-"], WEB).await;
    assert_eq!(
        second,
        "service/web unchanged\ndeployment.apps/web unchanged\n"
    );

    let changed = WEB.replace("example/web:1", "example/web:2").replace(
        "        env: [{name: A, value: '1'}]\n",
        "        env: [{name: B, value: '2'}]\n",
    );
    let third = kubectl.ok(&["apply", "-f", "-"], &changed).await;
    assert_eq!(
        third,
        "service/web unchanged\ndeployment.apps/web configured\n"
    );
    let (_, deployment) = kubectl.plane.get(&format!("{DEPLOYMENTS}/web")).await;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "example/web:2");
    assert_eq!(container["env"], json!([{"name": "B", "value": "2"}]));
}

#[tokio::test]
async fn get_shows_tables_and_whole_objects() {
    let kubectl = Kubectl::start().await;
    kubectl.ok(&["apply", "-f", "-"], WEB).await;
    kubectl.ok(&["apply", "-f", "-"], ROUTE).await;

    let table = kubectl.ok(&["get", "deploy,svc"], "").await;
    let rows = rows(&table);
    assert_eq!(rows[0], ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]);
    assert_eq!(rows[1][..4], ["deployment.apps/web", "0/2", "0", "0"]);
    assert_eq!(rows[3], ["NAME", "TYPE", "CLUSTER-IP", "PORT(S)", "AGE"]);
    assert_eq!(rows[4][..2], ["service/web", "ClusterIP"]);
    let routes = kubectl.ok(&["get", "httproute"], "").await;
    assert_eq!(self::rows(&routes)[1][..4], ["web", "web", "1", "web=90"]);
    let wide = kubectl.ok(&["get", "deploy", "-o", "wide"], "").await;
    assert!(wide.contains("example/web:1"), "{wide}");
    let yaml = kubectl.ok(&["get", "svc", "web", "-o", "yaml"], "").await;
    assert!(yaml.contains("clusterIP: 240.240."), "{yaml}");
    let all = kubectl
        .ok(&["get", "weft,all", "-A", "-o", "name"], "")
        .await;
    assert!(
        all.contains("httproute.gateway.networking.k8s.io/web"),
        "{all}"
    );
    assert!(all.contains("deployment.apps/web"), "{all}");
}

#[tokio::test]
async fn a_bad_policy_is_refused_with_its_field_and_the_reason() {
    let kubectl = Kubectl::start().await;
    kubectl.ok(&["apply", "-f", "-"], WEB).await;

    let typo = ROUTE.replace("backendRefs", "backendRef");
    let message = kubectl.refused(&["apply", "-f", "-"], &typo).await;
    assert!(
        message.contains(
            r#"spec.rules[0].backendRef: Forbidden: unknown field; did you mean "backendRefs"?"#
        ),
        "{message}"
    );
    let dangling = ROUTE.replace("{name: web, port", "{name: wep, port");
    let message = kubectl.refused(&["apply", "-f", "-"], &dangling).await;
    assert!(
        message.contains(r#"The HTTPRoute "web" is invalid"#),
        "{message}"
    );
    assert!(
        message.contains(r#"spec.rules[0].backendRefs[0].name: Not found: Service "wep" in namespace "default"; did you mean "web"?"#),
        "{message}"
    );
    let (_, list) = kubectl.plane.get(ROUTES).await;
    assert_eq!(list["items"], json!([]));
}

#[tokio::test]
async fn a_typo_in_a_workload_is_refused_too() {
    let kubectl = Kubectl::start().await;

    let typo = WEB.replace("        image:", "        imagee: x\n        image:");
    let message = kubectl.refused(&["apply", "-f", "-"], &typo).await;

    assert!(
        message.contains("spec.template.spec.containers[0].imagee"),
        "{message}"
    );
}

#[tokio::test]
async fn server_side_apply_finds_conflicts_between_managers() {
    let kubectl = Kubectl::start().await;
    let apply = ["apply", "--server-side", "-f", "-"];

    let first = kubectl.ok(&apply, WEB).await;
    assert_eq!(
        first,
        "service/web serverside-applied\ndeployment.apps/web serverside-applied\n"
    );
    kubectl
        .ok(&["scale", "deploy/web", "--replicas=5"], "")
        .await;
    let message = kubectl.refused(&apply, WEB).await;
    assert!(message.contains(".spec.replicas"), "{message}");
    kubectl
        .ok(
            &["apply", "--server-side", "--force-conflicts", "-f", "-"],
            WEB,
        )
        .await;

    let (_, deployment) = kubectl.plane.get(&format!("{DEPLOYMENTS}/web")).await;
    assert_eq!(deployment["spec"]["replicas"], 2);
}

#[tokio::test]
async fn client_side_apply_gives_way_to_server_side_apply() {
    let kubectl = Kubectl::start().await;
    kubectl.ok(&["apply", "-f", "-"], WEB).await;

    kubectl
        .ok(&["apply", "--server-side", "-f", "-"], WEB)
        .await;
    let without = WEB.replace("        env: [{name: A, value: '1'}]\n", "");
    kubectl
        .ok(&["apply", "--server-side", "-f", "-"], &without)
        .await;

    let (_, deployment) = kubectl.plane.get(&format!("{DEPLOYMENTS}/web")).await;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert!(container["env"].is_null(), "{container}");
}

#[tokio::test]
async fn a_watch_shows_changes_as_they_happen() {
    let kubectl = Kubectl::start().await;
    kubectl.plane.create(PODS, pod("web-1", "web")).await;
    let mut child = kubectl
        .command(&["get", "pods", "-w"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut next = async || {
        let line = tokio::time::timeout(DEADLINE, lines.next_line()).await;
        line.unwrap().unwrap().unwrap()
    };
    assert!(next().await.starts_with("NAME"));
    assert!(next().await.contains("Pending"));

    let status = json!({"status": {"phase": "Running"}}).to_string();
    let path = format!("{PODS}/web-1/status");
    kubectl
        .plane
        .send(
            http::Method::PATCH,
            &path,
            "application/merge-patch+json",
            status,
        )
        .await;

    let line = next().await;
    assert!(line.contains("Running"), "{line}");
    child.kill().await.unwrap();
}

#[tokio::test]
async fn delete_waits_until_the_object_is_gone() {
    let kubectl = Kubectl::start().await;
    kubectl.ok(&["apply", "-f", "-"], WEB).await;

    let gone = kubectl.ok(&["delete", "deploy/web", "svc/web"], "").await;
    assert_eq!(
        gone,
        "deployment.apps \"web\" deleted\nservice \"web\" deleted\n"
    );
    let message = kubectl.refused(&["get", "svc", "web"], "").await;
    assert_eq!(
        message,
        "Error from server (NotFound): services \"web\" not found\n"
    );

    kubectl.plane.create(PODS, pod("web-1", "web")).await;
    kubectl
        .ok(
            &["delete", "pod", "web-1", "--force", "--grace-period=0"],
            "",
        )
        .await;
    assert_eq!(kubectl.ok(&["get", "pods", "-o", "name"], "").await, "");
    kubectl.plane.create(SERVICES, service("one")).await;
    kubectl.plane.create(DEPLOYMENTS, deployment("one")).await;
    let foreground = ["delete", "deploy", "one", "--cascade=foreground"];
    kubectl.ok(&foreground, "").await;
    kubectl.ok(&["delete", "svc", "--all"], "").await;
}

#[tokio::test]
async fn patch_label_annotate_and_set_image_work() {
    let kubectl = Kubectl::start().await;
    kubectl.ok(&["apply", "-f", "-"], WEB).await;

    kubectl.ok(&["label", "svc/web", "tier=front"], "").await;
    kubectl.ok(&["annotate", "svc/web", "a=b"], "").await;
    kubectl
        .ok(&["set", "image", "deploy/web", "web=example/web:3"], "")
        .await;
    kubectl
        .ok(
            &[
                "patch",
                "svc/web",
                "--type=json",
                "-p",
                r#"[{"op": "replace", "path": "/spec/ports/0/port", "value": 81}]"#,
            ],
            "",
        )
        .await;
    kubectl
        .ok(&["patch", "deploy/web", "-p", r#"{"spec": {"template": {"spec": {"containers": [{"name": "web", "env": [{"name": "C", "value": "3"}]}]}}}}"#], "")
        .await;

    let (_, service) = kubectl.plane.get(&format!("{SERVICES}/web")).await;
    assert_eq!(service["metadata"]["labels"]["tier"], "front");
    assert_eq!(service["metadata"]["annotations"]["a"], "b");
    assert_eq!(service["spec"]["ports"][0]["port"], 81);
    let (_, deployment) = kubectl.plane.get(&format!("{DEPLOYMENTS}/web")).await;
    let container = &deployment["spec"]["template"]["spec"]["containers"][0];
    assert_eq!(container["image"], "example/web:3");
    assert_eq!(container["env"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn explain_reads_the_schemas() {
    let kubectl = Kubectl::start().await;

    let text = kubectl
        .ok(
            &["explain", "backendtrafficpolicy.spec.loadBalancer.type"],
            "",
        )
        .await;
    assert!(
        text.contains("LeastRequest\n    RoundRobin\n    Random\n"),
        "{text}"
    );
    let text = kubectl
        .ok(&["explain", "deployment.spec.replicas"], "")
        .await;
    assert!(text.contains("<integer>"), "{text}");
}

#[tokio::test]
async fn dry_run_and_diff_change_nothing() {
    let kubectl = Kubectl::start().await;
    kubectl
        .ok(&["apply", "--dry-run=server", "-f", "-"], WEB)
        .await;
    assert_eq!(kubectl.ok(&["get", "svc", "-o", "name"], "").await, "");
    kubectl.ok(&["apply", "-f", "-"], WEB).await;

    let changed = WEB.replace("replicas: 2", "replicas: 3");
    let diff = kubectl.run_with(&["diff", "-f", "-"], &changed).await;

    assert_eq!(diff.status.code(), Some(1));
    let text = String::from_utf8_lossy(&diff.stdout).into_owned();
    assert!(
        text.contains("-  replicas: 2") && text.contains("+  replicas: 3"),
        "{text}"
    );
}

#[tokio::test]
async fn describe_shows_pods_services_and_policies() {
    let kubectl = Kubectl::start().await;
    kubectl.ok(&["apply", "-f", "-"], WEB).await;
    kubectl.ok(&["apply", "-f", "-"], ROUTE).await;
    kubectl.plane.create(PODS, pod("web-1", "web")).await;

    for (what, expected) in [
        ("pod/web-1", "example/app:1"),
        ("svc/web", "240.240."),
        ("httproute/web", "Weight:"),
        ("deploy/web", "example/web:1"),
        ("ns/default", "Active"),
    ] {
        let text = kubectl.ok(&["describe", what], "").await;
        assert!(text.contains(expected), "{what}: {text}");
    }
}

#[tokio::test]
async fn the_api_is_discovered() {
    let kubectl = Kubectl::start().await;

    let kinds = kubectl.ok(&["api-resources"], "").await;
    for kind in ["deployments", "httproutes", "backendtrafficpolicies", "btp"] {
        assert!(kinds.contains(kind), "{kinds}");
    }
    let version: Value =
        serde_json::from_str(&kubectl.ok(&["version", "-o", "json"], "").await).unwrap();
    assert_eq!(version["serverVersion"]["major"], "1");
}
