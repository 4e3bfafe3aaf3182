//! A control plane's xDS side on a unix socket, over a real store, whose callers are whoever the test says.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};
use weft_control_plane::admission::{self, Intent};
use weft_control_plane::attest::{Attest, Caller, Unattested, Workload};
use weft_control_plane::ca::Authority;
use weft_control_plane::identity::Identity;
use weft_control_plane::kinds::{self, Kind};
use weft_control_plane::mesh::{Mesh, ObjectName, Settings};
use weft_control_plane::store::Store;
use weft_control_plane::translate::Snapshot;
use weft_control_plane::xds::proxies::Proxies;
use weft_control_plane::xds::{Discovery, listen, publish};

/// No test waits longer for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Takes every caller for one pod.
struct As(ObjectName);

impl Attest for As {
    fn attest(&self, mesh: &Mesh, caller: &Caller) -> Result<Workload, Unattested> {
        let pod = mesh.pod(&self.0).ok_or_else(|| match caller {
            Caller::Process { pid, .. } => Unattested::NoPod {
                pid: *pid,
                namespace: 0,
            },
            Caller::Remote(address) => Unattested::NotLocal(address.to_string()),
        })?;
        Ok(Workload {
            pod: self.0.clone(),
            identity: pod.identity("cluster.local").unwrap(),
        })
    }
}

pub(crate) struct Server {
    pub(crate) store: Store,
    pub(crate) proxies: Arc<Proxies>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) home: tempfile::TempDir,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    _stop: DropGuard,
    _tasks: Vec<JoinHandle<()>>,
}

impl Server {
    /// Serves whoever calls as `default/<pod>`.
    pub(crate) async fn start(pod: &str) -> Self {
        Self::start_attesting(Arc::new(As(ObjectName::new("default", pod)))).await
    }

    pub(crate) async fn start_attesting(attest: Arc<dyn Attest>) -> Self {
        Self::start_with(attest).await.0
    }

    /// And what it serves, to be served in other ways.
    pub(crate) async fn start_with(attest: Arc<dyn Attest>) -> (Self, Discovery) {
        let home = tempfile::tempdir().unwrap();
        let store = Store::open(&home.path().join("state.redb")).unwrap();
        admission::initialize(&store).await.unwrap();
        let authority =
            Authority::open(&home.path().join("ca"), "cluster.local", SystemTime::now()).unwrap();
        let proxies = Arc::new(Proxies::default());
        let cancelled = CancellationToken::new();
        let settings = Settings::default();
        let first = publish::compile(&store.snapshot(), &settings, None);
        let (sender, snapshots) = watch::channel(Arc::new(first));

        let publishing = publish::run(store.subscribe(), settings, sender, cancelled.clone());
        let discovery = Discovery::new(
            snapshots.clone(),
            Arc::clone(&attest),
            Arc::clone(&authority),
            Arc::clone(&proxies),
            cancelled.clone(),
        );
        let identity = Identity::new(Arc::clone(&authority), attest, snapshots.clone());
        let listener = listen::bind(home.path()).unwrap();
        let serving = listen::serve(listener, discovery.clone(), identity, cancelled.clone());
        let server = Self {
            store,
            proxies,
            authority,
            home,
            snapshots,
            _tasks: vec![
                tokio::spawn(publishing),
                tokio::spawn(async move { serving.await.unwrap() }),
            ],
            _stop: cancelled.drop_guard(),
        };
        (server, discovery)
    }

    /// The socket that clients connect to.
    pub(crate) fn socket(&self) -> PathBuf {
        self.home.path().join("xds.sock")
    }

    /// Writes an object, as the API would.
    pub(crate) async fn put(&self, kind: &'static Kind, value: Value) {
        admission::write(&self.store, Intent::of_weft(), move |transaction| {
            transaction.put(kind, value);
            Ok(())
        })
        .await
        .unwrap();
    }

    /// `web`, which calls `reviews`, of which there are `reviews-v1` and `reviews-v2`; returns when all of it is
    /// translated.
    pub(crate) async fn put_bookstore(&self) {
        for (name, address) in [("web", 1), ("reviews-v1", 2), ("reviews-v2", 3)] {
            self.put(&kinds::POD, pod(name, address)).await;
        }
        let alias = json!({"weft.dev/alias.reviews": "true"});
        self.put(&kinds::SERVICE, service("reviews", 1, alias))
            .await;
        for (name, address) in [("reviews-v1", 2), ("reviews-v2", 3), ("web", 4)] {
            self.put(
                &kinds::SERVICE,
                service(name, address, json!({"app": name})),
            )
            .await;
        }
        let mut snapshots = self.snapshots.clone();
        let is_whole = |snapshot: &Arc<Snapshot>| snapshot.mesh.services.len() == 4;
        let whole = tokio::time::timeout(DEADLINE, snapshots.wait_for(is_whole));
        whole.await.unwrap().unwrap();
    }

    /// Waits until something is true of the clients.
    pub(crate) async fn until(&self, what: &str, is_true: impl Fn(&Proxies) -> bool) {
        let mut changes = self.proxies.changes();
        let wait = async {
            while !is_true(&self.proxies) {
                changes.changed().await.unwrap();
            }
        };
        let waited = tokio::time::timeout(DEADLINE, wait).await;
        assert!(waited.is_ok(), "never: {what}; {:#?}", self.proxies.list());
    }
}

/// A pod with a sidecar, ready.
pub(crate) fn pod(name: &str, number: u8) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "namespace": "default", "name": name,
            "labels": {"app": name, "weft.dev/alias.reviews": name.starts_with("reviews").to_string()},
        },
        "spec": {
            "serviceAccountName": name,
            "initContainers": [{"name": "weft-proxy", "image": "weft.dev/proxy:host", "restartPolicy": "Always"}],
            "containers": [{"name": "main", "image": "bookstore", "ports": [{"containerPort": 9080, "name": "web"}]}],
        },
        "status": {
            "phase": "Running",
            "podIP": format!("10.96.0.{number}"),
            "podIPs": [{"ip": format!("10.96.0.{number}")}],
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

/// A service of port 80.
pub(crate) fn service(name: &str, number: u8, selector: Value) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"namespace": "default", "name": name},
        "spec": {
            "clusterIP": format!("240.240.0.{number}"),
            "clusterIPs": [format!("240.240.0.{number}"), format!("fd57:f0f0::{number}")],
            "selector": selector,
            "ports": [{"port": 80, "targetPort": 9080}],
        },
    })
}

/// Sends `percent` of the requests to `reviews` to `reviews-v2`.
pub(crate) fn split(percent: u8) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"namespace": "default", "name": "reviews"},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "name": "reviews"}],
            "rules": [{"backendRefs": [
                {"name": "reviews-v1", "port": 80, "weight": 100 - percent},
                {"name": "reviews-v2", "port": 80, "weight": percent},
            ]}],
        },
    })
}
