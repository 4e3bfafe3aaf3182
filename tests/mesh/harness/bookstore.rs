//! The bookstore in a mesh of its own, with a second application beside it (`extras.yaml`), and what tests do to it.

use std::collections::BTreeSet;
use std::net::TcpListener;
use std::ops::Deref;
use std::path::PathBuf;
use std::process::Command;

use super::command::{Outcome, peer, run};
use super::host::{self, Network};
use super::mesh::{Mesh, source};
use super::metrics::Metrics;
use super::otlp::Receiver;
use super::pod::Pod;
use super::process::Process;
use super::tally::Tally;
use super::undo::Undo;
use super::wait::{eventually, holds};

/// The application, relative to the source folder.
pub(crate) const COMPOSE: &str = "examples/bookstore/compose.yaml";
/// What the tests need besides.
pub(crate) const EXTRAS: &str = "tests/mesh/extras.yaml";

/// The running bookstore.
#[derive(Debug)]
pub(crate) struct Bookstore {
    mesh: Mesh,
    /// Where the page is published.
    pub(crate) port: u16,
    pub(crate) receiver: Receiver,
    /// Where the images of Redis and nginx are.
    pub(crate) archives: PathBuf,
    /// The host before the mesh came.
    pub(crate) network: Network,
    pub(crate) places: BTreeSet<String>,
}

impl Deref for Bookstore {
    type Target = Mesh;

    fn deref(&self) -> &Mesh {
        &self.mesh
    }
}

impl Bookstore {
    /// Takes in the images and starts both applications.
    pub(crate) fn start() -> Self {
        let archives = archives();
        let receiver = Receiver::start();
        // Looking at the firewall can load its modules: the second look is the one that counts.
        let _ = Network::look();
        let (network, places) = (Network::look(), host::places());
        let port = free_port();
        let mut mesh = Mesh::new();
        mesh.set("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.endpoint());
        mesh.set("BOOKSTORE_PORT", &port.to_string());
        let bookstore = Self {
            mesh,
            port,
            receiver,
            archives,
            network,
            places,
        };
        bookstore.import_images();
        bookstore.weft(&["up", "-d", "-f", COMPOSE]).ok();
        bookstore.weft(&["up", "-d", "-f", EXTRAS]).ok();
        bookstore.until_page_is_served();
        bookstore
    }

    fn import_images(&self) {
        for name in ["redis", "nginx"] {
            let archive = self.archives.join(format!("{name}.tar"));
            self.weft(&["image", "import", &archive.to_string_lossy()])
                .ok();
        }
        for (tag, folder) in [("services", "image"), ("static", "static")] {
            let tag = format!("bookstore/{tag}:dev");
            let context = format!("examples/bookstore/{folder}");
            self.weft(&["image", "build", "-t", &tag, &context]).ok();
        }
    }

    pub(crate) fn until_page_is_served(&self) {
        eventually("the page to be served", || {
            let (status, body) = self.fetch("/", &[]);
            holds(status == 200, || format!("{status} {body}"))
        });
    }

    /// A request from the host to the published port, with headers (`name: value`): status and body.
    pub(crate) fn fetch(&self, path: &str, headers: &[&str]) -> (u16, String) {
        let mut curl = peer("curl");
        curl.args([
            "--silent",
            "--show-error",
            "--max-time",
            "30",
            "--write-out",
            "\n%{http_code}",
        ]);
        for header in headers {
            curl.args(["--header", header]);
        }
        let outcome = run(curl.arg(format!("http://127.0.0.1:{}{path}", self.port)));
        let (body, status) = outcome.stdout.rsplit_once('\n').unwrap_or_default();
        (
            status.parse().unwrap_or_default(),
            format!("{body}{}", outcome.stderr),
        )
    }

    /// A command in a container of a pod, or of a service's first pod.
    #[track_caller]
    pub(crate) fn exec(&self, pod: &str, words: &[&str]) -> Outcome {
        self.weft(&[&["exec", pod, "--"], words].concat())
    }

    /// A line of shell in one of the containers that have a shell (`static`, `redis`, `outsider`).
    #[track_caller]
    pub(crate) fn shell(&self, pod: &str, line: &str) -> Outcome {
        self.exec(pod, &["/bin/sh", "-c", line])
    }

    /// One request from inside a pod: status and body.
    #[track_caller]
    pub(crate) fn get(&self, from: &str, url: &str) -> (u16, String) {
        let text = self.exec(from, &["/bin/bookstore", "get", url]).ok();
        let (status, body) = text.split_once(' ').unwrap_or_default();
        (status.parse().unwrap_or_default(), body.to_owned())
    }

    /// Many requests from inside a pod, as its application would send them.
    #[track_caller]
    pub(crate) fn load(&self, from: &str, url: &str, requests: u64, connections: u64) -> Tally {
        let (requests, connections) = (requests.to_string(), connections.to_string());
        let words = ["/bin/bookstore", "load", url, &requests, &connections];
        let outcome = self.exec(from, &words);
        assert_eq!(outcome.status, 0, "{outcome}");
        Tally::of(&outcome.stdout, &outcome.stderr)
    }

    /// All pods, by name.
    #[track_caller]
    pub(crate) fn pods(&self) -> Vec<Pod> {
        let list = self.json(&["get", "pods"]);
        let mut pods: Vec<Pod> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .map(Pod::of)
            .collect();
        pods.sort_by(|one, other| one.name.cmp(&other.name));
        pods
    }

    /// The pods of a Compose service.
    #[track_caller]
    pub(crate) fn pods_of(&self, service: &str) -> Vec<Pod> {
        let pods: Vec<Pod> = self
            .pods()
            .into_iter()
            .filter(|pod| pod.service == service)
            .collect();
        assert!(!pods.is_empty(), "{service} has no pod");
        pods
    }

    /// The only, or the first, pod of a Compose service.
    #[track_caller]
    pub(crate) fn pod_of(&self, service: &str) -> Pod {
        self.pods_of(service).remove(0)
    }

    /// What Prometheus would scrape from a pod's sidecar.
    #[track_caller]
    pub(crate) fn metrics(&self, pod: &str) -> Metrics {
        const URL: &str = "http://127.0.0.1:15020/metrics";
        let has_shell = ["static", "redis", "postgres", "mariadb"]
            .iter()
            .any(|name| pod.starts_with(name));
        if has_shell {
            return Metrics::parse(&self.shell(pod, &format!("wget -q -O - {URL}")).ok());
        }
        let (status, body) = self.get(pod, URL);
        assert_eq!(status, 200, "{body}");
        Metrics::parse(&body)
    }

    /// The sidecar of a pod, as the host sees it.
    #[track_caller]
    pub(crate) fn sidecar(&self, pod: &Pod) -> Process {
        let is_sidecar = |process: &Process| {
            process.command.contains(" proxy ")
                && process.namespace("net") == Some(pod.network_namespace)
        };
        let found = Process::all().into_iter().find(is_sidecar);
        found.unwrap_or_else(|| panic!("{pod:?} has no sidecar process"))
    }

    /// Applies resources until the guard is dropped; returns when every sidecar has them.
    #[track_caller]
    pub(crate) fn apply(&self, yaml: &str) -> Undo<'_> {
        let undo = Undo::new(self, &["delete", "--ignore-not-found", "-f", "-"], yaml);
        self.weft_with_input(&["apply", "-f", "-"], yaml).ok();
        self.until_in_force();
        undo
    }

    /// Runs `weft` with these words, and with others when the guard is dropped.
    #[track_caller]
    pub(crate) fn with(&self, words: &[&str], undo: &[&str]) -> Undo<'_> {
        let undo = Undo::new(self, undo, "");
        self.weft(words).ok();
        self.until_in_force();
        undo
    }

    /// Lets the service in a pod misbehave (`fail`, `slow`) until the guard is dropped.
    #[track_caller]
    pub(crate) fn chaos(&self, pod: &str, mode: &str) -> Undo<'_> {
        let undo = Undo::new(
            self,
            &["exec", pod, "--", "/bin/bookstore", "chaos", "off"],
            "",
        );
        self.exec(pod, &["/bin/bookstore", "chaos", mode]).ok();
        undo
    }
}

/// A port of the host's loopback that nobody listens on.
pub(crate) fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("it is bound").port()
}

/// The folder of the image archives: made beforehand by `run-mesh.sh`, or now.
fn archives() -> PathBuf {
    if let Some(folder) = std::env::var_os("WEFT_TEST_ARCHIVES") {
        return PathBuf::from(folder);
    }
    let profile = if cfg!(debug_assertions) {
        "dev"
    } else {
        "release"
    };
    let mut script = Command::new("examples/bookstore/images.sh");
    let printed = run(script.env("PROFILE", profile).current_dir(source())).ok();
    source().join(printed.trim())
}
