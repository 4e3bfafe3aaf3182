//! The launcher between an API server and a node of the tests' own: which steps it takes, in which order, and what it
//! tells.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "fakes/api.rs"]
mod api;
#[path = "fakes/node.rs"]
mod node;

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use api::FakeApi;
use node::FakeNode;
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use weft_injector::broker::{Attest, AttestError, Broker, BrokerOptions, Caller, DialPolicy};
use weft_injector::launcher::{self, Options};

const DEPLOYMENT: &str = "/apis/apps/v1/namespaces/shop/deployments/books";

struct Mesh {
    folder: tempfile::TempDir,
    api: FakeApi,
    node: FakeNode,
    launcher: Option<(JoinHandle<()>, CancellationToken)>,
}

struct Nobody;

impl Attest for Nobody {
    fn attest(&self, pid: i32) -> Result<Caller, AttestError> {
        Err(AttestError::Stranger { pid })
    }
}

impl Mesh {
    async fn prepare() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let api = FakeApi::start(folder.path());
        let node = FakeNode::start(folder.path()).await;
        Self {
            folder,
            api,
            node,
            launcher: None,
        }
    }

    async fn start() -> Self {
        let mut mesh = Self::prepare().await;
        mesh.launch().await;
        mesh
    }

    async fn launch(&mut self) {
        let path = self.folder.path();
        let broker = Broker::bind(BrokerOptions {
            socket: path.join("broker.sock"),
            attestor: Arc::new(Nobody),
            dial: DialPolicy::default(),
            has_local_channels: true,
            resolv_conf: "/etc/resolv.conf".into(),
        });
        let options = Options {
            client: self.api.client(),
            node: self.node.client().await,
            handoff: self.node.handoff.clone(),
            pods_dir: path.join("pods"),
            scratch_dir: path.join("scratch"),
            broker: broker.unwrap(),
        };
        let shutdown = CancellationToken::new();
        let until = shutdown.clone();
        let task = tokio::spawn(async move { launcher::run(options, until).await.unwrap() });
        self.launcher = Some((task, shutdown));
    }

    async fn kill(&mut self) {
        let (task, shutdown) = self.launcher.take().unwrap();
        shutdown.cancel();
        tokio::time::timeout(Duration::from_secs(10), task)
            .await
            .unwrap()
            .unwrap();
    }

    fn deploy(&self, replicas: u32, template: Value) {
        self.api.put(
            DEPLOYMENT,
            json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": { "name": "books", "namespace": "shop", "uid": "d1", "generation": 1 },
                "spec": {
                    "replicas": replicas,
                    "selector": { "matchLabels": { "app": "books" } },
                    "template": template,
                },
            }),
        );
    }

    fn pods(&self) -> Vec<Value> {
        self.api.objects("pods")
    }

    async fn until_ready(&self, count: usize) -> Vec<Value> {
        self.api
            .until("ready pods", |api| {
                let ready: Vec<_> = api.objects("pods").into_iter().filter(is_ready).collect();
                (ready.len() == count).then_some(ready)
            })
            .await
    }

    async fn until_reason(&self, reason: &str) -> Value {
        self.api
            .until(reason, |api| {
                let mut pods = api.objects("pods").into_iter();
                pods.find(|pod| pod["status"]["reason"] == json!(reason))
            })
            .await
    }
}

fn template(image: &str) -> Value {
    json!({
        "metadata": { "labels": { "app": "books" } },
        "spec": { "containers": [{
            "name": "books", "image": image, "ports": [{ "containerPort": 8080 }],
        }] },
    })
}

fn is_ready(pod: &Value) -> bool {
    let conditions = pod["status"]["conditions"].as_array();
    conditions.is_some_and(|conditions| {
        conditions
            .iter()
            .any(|one| one["type"] == "Ready" && one["status"] == "True")
    })
}

fn name(pod: &Value) -> &str {
    pod["metadata"]["name"].as_str().unwrap()
}

fn path(pod: &Value) -> String {
    format!("/api/v1/namespaces/shop/pods/{}", name(pod))
}

#[tokio::test]
async fn a_deployment_becomes_pods_step_by_step() {
    let mesh = Mesh::start().await;

    mesh.deploy(1, template("books:1"));
    let pod = mesh.until_ready(1).await.remove(0);

    // Making a container runs nothing of it: that may happen while others start.
    let log = mesh.node.log();
    let steps: Vec<_> = log
        .iter()
        .filter(|line| !line.starts_with("create"))
        .collect();
    let expected = [
        "sandbox closed",
        "start weft-proxy",
        "rules open",
        "start books",
    ];
    assert_eq!(steps, expected);
    assert!(name(&pod).starts_with("books-"));
    assert_eq!(pod["status"]["podIP"], "10.96.0.2");
    assert_eq!(
        pod["metadata"]["annotations"]["weft.dev/network-namespace"],
        "4000000001"
    );
    assert_eq!(pod["spec"]["initContainers"][0]["name"], "weft-proxy");
    mesh.api
        .until("the deployment's status", |api| {
            let status = &api.get(DEPLOYMENT)?["status"];
            (status["readyReplicas"] == json!(1) && status["observedGeneration"] == json!(1))
                .then_some(())
        })
        .await;
}

#[tokio::test]
async fn no_application_starts_before_its_sidecar_is_ready() {
    let mesh = Mesh::prepare().await;
    mesh.node.set_sidecar_ready(false);
    let mut mesh = mesh;
    mesh.launch().await;
    mesh.deploy(1, template("books:1"));
    mesh.api
        .until("the sidecar to run", |_| {
            mesh.node
                .log()
                .contains(&"start weft-proxy".to_owned())
                .then_some(())
        })
        .await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(!mesh.node.log().contains(&"rules open".to_owned()));

    mesh.node.set_sidecar_ready(true);

    mesh.until_ready(1).await;
}

#[tokio::test]
async fn a_deleted_pod_goes_in_reverse_and_out_of_the_api() {
    let mesh = Mesh::start().await;
    mesh.deploy(1, template("books:1"));
    mesh.until_ready(1).await;
    mesh.node.forget_log();

    mesh.api.delete(DEPLOYMENT);

    mesh.api
        .until("no pods", |api| {
            api.objects("pods").is_empty().then_some(())
        })
        .await;
    assert_eq!(
        mesh.node.log(),
        ["stop books", "stop weft-proxy", "remove sandbox"]
    );
}

#[tokio::test]
async fn an_endpoint_is_withdrawn_before_its_pod_is_stopped() {
    let mesh = Mesh::start().await;
    mesh.deploy(1, template("books:1"));
    let pod = mesh.until_ready(1).await.remove(0);
    mesh.node.forget_log();
    // So that it is not replaced under another name while we look.
    mesh.api.remove(DEPLOYMENT);

    let path = path(&pod);
    mesh.api
        .until("the withdrawal", |api| {
            api.get(&path).filter(|pod| !is_ready(pod))
        })
        .await;

    assert!(
        mesh.node.log().is_empty(),
        "stopped too early: {:?}",
        mesh.node.log()
    );
}

#[tokio::test]
async fn a_restarted_launcher_adopts_what_runs() {
    let mut mesh = Mesh::start().await;
    mesh.deploy(2, template("books:1"));
    let before = mesh.until_ready(2).await;
    mesh.kill().await;
    mesh.node.forget_log();

    mesh.launch().await;

    // A new pod shows that the launcher is through with the old ones.
    mesh.deploy(3, template("books:1"));
    let after = mesh.until_ready(3).await;
    for pod in &before {
        assert!(after.iter().any(|other| name(other) == name(pod)));
        let path = format!("PATCH {}/status", path(pod));
        let patches = mesh.api.log().iter().filter(|line| **line == path).count();
        assert!(patches < 10, "it must not seem to start again");
    }
    let starts = mesh
        .node
        .log()
        .iter()
        .filter(|line| *line == "start books")
        .count();
    assert_eq!(starts, 1, "only the new one: {:?}", mesh.node.log());
}

#[tokio::test]
async fn an_adopted_pod_never_seems_unready() {
    let mut mesh = Mesh::start().await;
    mesh.deploy(1, template("books:1"));
    let pod = mesh.until_ready(1).await.remove(0);
    mesh.kill().await;
    let watched = mesh.api.client().watch::<k8s_openapi::api::core::v1::Pod>(
        &weft_injector::api::Collection::of::<k8s_openapi::api::core::v1::Pod>("shop"),
    );
    let mut watched = watched;

    mesh.launch().await;
    mesh.deploy(2, template("books:1"));
    mesh.until_ready(2).await;

    while let Ok(Some(event)) =
        tokio::time::timeout(Duration::from_millis(200), watched.next()).await
    {
        if let weft_injector::api::Event::Applied(seen) = event {
            let seen = serde_json::to_value(seen).unwrap();
            assert!(name(&seen) != name(&pod) || is_ready(&seen), "{seen}");
        }
    }
}

#[tokio::test]
async fn what_is_left_of_deleted_pods_is_removed_and_nothing_else() {
    let mut mesh = Mesh::prepare().await;
    mesh.node
        .add_sandbox("shop.gone-12345", &[("uid", "long-gone")]);
    mesh.node.add_sandbox("somebody-elses", &[]);

    mesh.launch().await;

    mesh.api
        .until("the orphan's removal", |_| {
            (mesh.node.sandboxes() == ["somebody-elses"]).then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_missing_image_is_told_and_everything_undone() {
    let mesh = Mesh::start().await;
    mesh.node.remove_image("books:1");

    mesh.deploy(1, template("books:1"));

    let pod = mesh.until_reason("ErrImageNeverPull").await;
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(message.contains("books:1"), "{message}");
    mesh.api
        .until("the undoing", |_| {
            mesh.node.sandboxes().is_empty().then_some(())
        })
        .await;
    mesh.api
        .until("the annotation to go", |api| {
            let pod = api.get(&path(&pod))?;
            pod["metadata"]["annotations"]["weft.dev/network-namespace"]
                .is_null()
                .then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_failed_launch_is_tried_again() {
    let mesh = Mesh::start().await;
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let mut template = template("books:1");
    template["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(address.port());
    template["spec"]["containers"][0]["ports"][0]["hostIP"] = json!("127.0.0.1");
    mesh.deploy(1, template);
    let pod = mesh.until_reason("PortUnavailable").await;
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(message.contains("already in use"), "{message}");

    drop(taken);

    let pod = mesh.until_ready(1).await.remove(0);
    assert!(pod["status"]["reason"].is_null());
}

#[tokio::test]
async fn a_pod_waits_for_what_it_depends_on() {
    let mesh = Mesh::start().await;
    let mut template = template("books:1");
    let dependency =
        json!([{ "service": "redis", "condition": "service_healthy", "required": true }]);
    template["metadata"]["annotations"] = json!({ "weft.dev/depends-on": dependency.to_string() });
    mesh.deploy(1, template);
    let pod = mesh.until_reason("WaitingForDependency").await;
    assert_eq!(pod["status"]["message"], "waits for redis to exist");
    assert!(!mesh.node.log().contains(&"start books".to_owned()));

    mesh.api.put(
        "/apis/apps/v1/namespaces/shop/deployments/redis",
        json!({
            "metadata": { "name": "redis", "namespace": "shop", "uid": "d2" },
            "spec": { "replicas": 1, "selector": {}, "template": {
                "metadata": { "labels": { "app": "redis" } },
                "spec": { "containers": [{
                    "name": "redis", "image": "books:2",
                    "readinessProbe": { "exec": { "command": ["redis-cli", "ping"] } },
                }] },
            } },
        }),
    );

    mesh.until_ready(2).await;
}

#[tokio::test]
async fn readiness_follows_the_probe() {
    let mesh = Mesh::start().await;
    mesh.node.set_probe(1);
    let mut template = template("books:1");
    template["spec"]["containers"][0]["readinessProbe"] =
        json!({ "exec": { "command": ["check"] }, "periodSeconds": 1, "failureThreshold": 1 });
    mesh.deploy(1, template);
    mesh.until_reason("Unhealthy").await;

    mesh.node.set_probe(0);
    mesh.until_ready(1).await;

    mesh.node.set_probe(1);
    mesh.until_ready(0).await;
}

#[tokio::test]
async fn a_job_ends_with_its_exit_status_and_its_sidecar_ends_too() {
    for (exit_code, phase) in [(0, "Succeeded"), (3, "Failed")] {
        let mesh = Mesh::start().await;
        mesh.node.ends_at_once("books", exit_code);
        let mut template = template("books:1");
        template["metadata"]["annotations"] = json!({ "weft.dev/restart": "never" });

        mesh.deploy(1, template);

        mesh.api
            .until(phase, |api| {
                api.objects("pods")
                    .into_iter()
                    .find(|pod| pod["status"]["phase"] == json!(phase))
            })
            .await;
        mesh.api
            .until("the sidecar's end", |_| {
                mesh.node
                    .log()
                    .contains(&"stop weft-proxy".to_owned())
                    .then_some(())
            })
            .await;
        assert_eq!(mesh.pods().len(), 1, "it is not replaced");
    }
}

#[tokio::test]
async fn a_changed_template_replaces_pods_new_before_old() {
    let mesh = Mesh::start().await;
    mesh.deploy(1, template("books:1"));
    let old = mesh.until_ready(1).await.remove(0);
    mesh.node.forget_log();

    mesh.deploy(1, template("books:2"));

    mesh.api
        .until("the old pod to go", |api| {
            api.get(&path(&old)).is_none().then_some(())
        })
        .await;
    let new = mesh.until_ready(1).await.remove(0);
    assert_eq!(new["spec"]["containers"][0]["image"], "books:2");
    let log = mesh.node.log();
    let started = log.iter().position(|line| line == "start books").unwrap();
    let stopped = log.iter().position(|line| line == "stop books").unwrap();
    assert!(started < stopped, "{log:?}");
}

#[tokio::test]
async fn a_container_that_should_run_is_started_again() {
    let mesh = Mesh::start().await;
    mesh.deploy(1, template("books:1"));
    let pod = mesh.until_ready(1).await.remove(0);
    mesh.node.forget_log();

    mesh.node.end(&format!("shop.{}.books", name(&pod)), 137);

    mesh.until_ready(0).await;
    mesh.until_ready(1).await;
    assert_eq!(mesh.node.log(), ["start books"]);
}

#[tokio::test]
async fn services_are_names_of_the_mesh() {
    let mesh = Mesh::start().await;
    mesh.api.put(
        "/api/v1/namespaces/shop/services/books",
        json!({
            "metadata": { "name": "books", "namespace": "shop" },
            "spec": { "clusterIP": "240.240.0.1", "clusterIPs": ["240.240.0.1"] },
        }),
    );

    mesh.api
        .until("the name", |_| {
            let names = mesh.node.names();
            let found = names
                .iter()
                .any(|name| name.name == "books" && name.addresses == ["240.240.0.1"]);
            found.then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_pod_without_a_sidecar_starts_in_an_open_sandbox() {
    let mesh = Mesh::start().await;
    let mut template = template("books:1");
    template["metadata"]["annotations"] = json!({ "weft.dev/inject": "false" });

    mesh.deploy(1, template);
    mesh.until_ready(1).await;

    assert_eq!(
        mesh.node.log(),
        ["sandbox open", "create books", "start books"]
    );
}

#[tokio::test]
async fn a_pod_of_ones_own_gets_its_sidecar_too() {
    let mesh = Mesh::start().await;
    let mut pod = template("books:1");
    pod["metadata"]["name"] = json!("alone");
    pod["metadata"]["namespace"] = json!("shop");

    mesh.api.put("/api/v1/namespaces/shop/pods/alone", pod);

    let pod = mesh.until_ready(1).await.remove(0);
    assert_eq!(pod["spec"]["initContainers"][0]["name"], "weft-proxy");
    let request = mesh.node.request("weft-proxy").unwrap();
    let bootstrap = request
        .mounts
        .iter()
        .find(|mount| mount.target.ends_with("bootstrap.json"));
    assert!(format!("{:?}", bootstrap.unwrap().source).contains("sidecar~alone.shop"));
}

#[tokio::test]
async fn a_pod_that_can_have_no_sidecar_says_why() {
    let mesh = Mesh::start().await;
    let mut template = template("books:1");
    template["spec"]["containers"][0]["ports"] = json!([{ "containerPort": 15001 }]);

    mesh.deploy(1, template);

    let pod = mesh.until_reason("InjectionRefused").await;
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(message.contains("15001"), "{message}");
}

#[tokio::test]
async fn a_published_port_without_a_sidecar_to_serve_it_is_refused() {
    let mesh = Mesh::start().await;
    let mut template = template("books:1");
    template["metadata"]["annotations"] = json!({ "weft.dev/inject": "false" });
    template["spec"]["containers"][0]["ports"][0]["hostPort"] = json!(18080);

    mesh.deploy(1, template);

    let pod = mesh.until_reason("InvalidSpec").await;
    let message = pod["status"]["message"].as_str().unwrap();
    assert!(message.contains("the pod has no sidecar"), "{message}");
}

#[tokio::test]
async fn a_job_of_kubernetes_runs_to_its_end_and_keeps_its_pod() {
    let mesh = Mesh::start().await;
    mesh.node.ends_at_once("books", 0);
    let job = "/apis/batch/v1/namespaces/shop/jobs/stocktaking";
    let mut template = template("books:1");
    template["spec"]["restartPolicy"] = json!("Never");

    mesh.api.put(
        job,
        json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": { "name": "stocktaking", "namespace": "shop", "uid": "j1" },
            "spec": { "template": template },
        }),
    );

    mesh.api
        .until("the job's completion", |api| {
            let status = &api.get(job)?["status"];
            (status["conditions"][0]["type"] == json!("Complete")).then_some(())
        })
        .await;
    assert_eq!(mesh.pods().len(), 1);
    mesh.api.remove(job);
    mesh.api
        .until("no pods", |api| {
            api.objects("pods").is_empty().then_some(())
        })
        .await;
}
