//! A mesh for one test, and the few things that every test does with it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use tokio_stream::StreamExt as _;
use weft_proto::weft::node::v1::image_progress::Progress;
use weft_proto::weft::node::v1::*;
use weft_runtime::bootstrap::{Node, NodeOptions, ensure_node};

/// No wait takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A node with directories of its own.
pub(crate) struct Mesh {
    pub(crate) node: Node,
    pub(crate) options: NodeOptions,
    pub(crate) directory: tempfile::TempDir,
    before: Traces,
}

/// What a mesh may not leave on the host.
#[derive(Debug, PartialEq, Eq)]
struct Traces {
    mounts: String,
    links: Vec<String>,
}

impl Traces {
    fn now() -> Traces {
        let names = |place: &str| {
            let entries = fs::read_dir(place).into_iter().flatten().flatten();
            let mut names: Vec<String> = entries
                .map(|entry| entry.file_name().to_string_lossy().into_owned())
                .collect();
            names.sort();
            names
        };
        Traces {
            mounts: fs::read_to_string("/proc/self/mounts").expect("mounts"),
            links: names("/sys/class/net"),
        }
    }
}

/// An ended process that nobody has waited for yet counts as gone.
pub(crate) fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| !rest.starts_with(['Z', 'X']))
}

/// The directories of cgroups that the node writes down for itself.
fn cgroups(value: &serde_json::Value) -> Vec<PathBuf> {
    match value {
        serde_json::Value::String(text) if text.starts_with("/sys/fs/cgroup") => vec![text.into()],
        serde_json::Value::Array(values) => values.iter().flat_map(cgroups).collect(),
        serde_json::Value::Object(values) => values.values().flat_map(cgroups).collect(),
        _ => Vec::new(),
    }
}

impl Mesh {
    pub(crate) async fn start() -> Mesh {
        let before = Traces::now();
        let directory = tempfile::Builder::new()
            .prefix("weft-node")
            .tempdir_in("/var/tmp")
            .expect("a directory");
        fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o711))
            .expect("permissions");
        let options = NodeOptions {
            state_dir: directory.path().join("home/node"),
            runtime_dir: directory.path().join("run/node"),
            broker_socket: directory.path().join("run/pods/broker.sock"),
        };
        let node = start_node(&options).await;
        Mesh {
            node,
            options,
            directory,
            before,
        }
    }

    /// A new node in the directories of one that has ended.
    pub(crate) async fn restarted(mut self) -> Mesh {
        self.node = start_node(&self.options).await;
        self
    }

    /// Ends the mesh; nothing of it may remain.
    pub(crate) async fn end(self) {
        let processes = self.processes();
        assert!(!processes.is_empty(), "the node has processes");
        let boot = fs::read(self.options.runtime_dir.join("boot.json")).expect("boot.json");
        let cgroups = cgroups(&serde_json::from_slice(&boot).expect("boot.json"));
        self.node.clone().shutdown().await.expect("the node ends");
        let left = || {
            let left: Vec<_> = processes.iter().filter(|pid| is_alive(**pid)).collect();
            let names: Vec<_> = fs::read_dir(&self.options.runtime_dir)
                .into_iter()
                .flatten()
                .flatten()
                .map(|entry| entry.file_name())
                .collect();
            let groups: Vec<_> = cgroups.iter().filter(|group| group.exists()).collect();
            let traces = Traces::now();
            (left.is_empty() && names.is_empty() && groups.is_empty() && traces == self.before)
                .then_some(())
                .ok_or_else(|| {
                    format!(
                        "processes {left:?}, files {names:?}, cgroups {groups:?}, {traces:?} instead of {:?}",
                        self.before
                    )
                })
        };
        let deadline = Instant::now() + PATIENCE;
        while let Err(remains) = left() {
            assert!(Instant::now() < deadline, "the mesh leaves {remains}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let containers = self.options.state_dir.join("containers");
        let names: Vec<_> = fs::read_dir(containers)
            .into_iter()
            .flatten()
            .flatten()
            .collect();
        assert!(names.is_empty(), "containers are left: {names:?}");
    }

    /// Everything that runs in the mesh's user namespace.
    fn processes(&self) -> Vec<i32> {
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/user")).ok();
        let own = namespace(self.node.holder_pid);
        fs::read_dir("/proc")
            .expect("proc")
            .flatten()
            .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
            .filter(|pid| own.is_some() && namespace(*pid) == own)
            .collect()
    }

    /// Kills what a failed test leaves running.
    fn kill(&self) {
        for pid in self.processes() {
            let _ = nix::sys::signal::kill(
                nix::unistd::Pid::from_raw(pid),
                nix::sys::signal::Signal::SIGKILL,
            );
        }
    }

    /// The pid of the server, which is not the holder.
    pub(crate) async fn server_pid(&self) -> i32 {
        self.node
            .client
            .clone()
            .info(InfoRequest {})
            .await
            .expect("info")
            .into_inner()
            .pid
    }

    pub(crate) async fn sandbox(&self, id: &str) -> Sandbox {
        self.sandbox_with_rules(id, "", "").await
    }

    pub(crate) async fn sandbox_with_rules(&self, id: &str, ipv4: &str, ipv6: &str) -> Sandbox {
        let request = CreateSandboxRequest {
            id: id.into(),
            hostname: id.into(),
            ipv4_rules: ipv4.into(),
            ipv6_rules: ipv6.into(),
            labels: BTreeMap::from([("namespace".to_owned(), "default".to_owned())]),
        };
        self.node
            .client
            .clone()
            .create_sandbox(request)
            .await
            .expect("a sandbox")
            .into_inner()
    }

    pub(crate) async fn create(
        &self,
        request: CreateContainerRequest,
    ) -> Result<Container, tonic::Status> {
        Ok(self
            .node
            .client
            .clone()
            .create_container(request)
            .await?
            .into_inner())
    }

    pub(crate) async fn start_container(&self, id: &str) -> Result<Container, tonic::Status> {
        let request = StartContainerRequest { id: id.into() };
        Ok(self
            .node
            .client
            .clone()
            .start_container(request)
            .await?
            .into_inner())
    }

    /// Makes and starts a container of the host's programs that runs a shell script.
    pub(crate) async fn shell(&self, sandbox: &str, id: &str, script: &str) -> Container {
        self.run(script_in(sandbox, id, script)).await
    }

    pub(crate) async fn run(&self, request: CreateContainerRequest) -> Container {
        let id = request.id.clone();
        self.create(request).await.expect("a container");
        self.start_container(&id).await.expect("it starts")
    }

    pub(crate) async fn stop(&self, id: &str, grace_millis: u32) -> Container {
        let request = StopContainerRequest {
            id: id.into(),
            grace_millis,
        };
        self.node
            .client
            .clone()
            .stop_container(request)
            .await
            .expect("it stops")
            .into_inner()
    }

    pub(crate) async fn list(&self) -> Vec<Container> {
        let answer = self
            .node
            .client
            .clone()
            .list_containers(ListContainersRequest {})
            .await;
        answer.expect("a list").into_inner().containers
    }

    /// Waits until a container is as it should be.
    pub(crate) async fn until(&self, id: &str, what: impl Fn(&Container) -> bool) -> Container {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let found = self
                .list()
                .await
                .into_iter()
                .find(|container| container.id == id);
            match found {
                Some(container) if what(&container) => return container,
                other => assert!(Instant::now() < deadline, "container {id} stays {other:?}"),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The container as it is, once the node knows it.
    pub(crate) async fn ended_or_running(&self, id: &str) -> Container {
        let is_known = |container: &Container| container.state() != ContainerState::Created;
        self.until(id, is_known).await
    }

    pub(crate) async fn ended(&self, id: &str) -> Container {
        self.until(id, |container| container.state() == ContainerState::Exited)
            .await
    }

    /// All lines of a container's log.
    pub(crate) async fn log(&self, id: &str) -> Vec<String> {
        let request = LogsRequest {
            id: id.into(),
            ..LogsRequest::default()
        };
        let mut stream = self
            .node
            .client
            .clone()
            .logs(request)
            .await
            .expect("a log")
            .into_inner();
        let mut lines = Vec::new();
        while let Some(chunk) = stream.next().await {
            lines.push(String::from_utf8_lossy(&chunk.expect("a line").line).into_owned());
        }
        lines
    }

    /// Runs a script in a new container to its end; exit code and output.
    pub(crate) async fn outcome(&self, sandbox: &str, id: &str, script: &str) -> (i32, String) {
        self.shell(sandbox, id, script).await;
        let ended = self.ended(id).await;
        (ended.exit_code, self.log(id).await.join("\n"))
    }

    /// Runs a command in a container to its end; exit code and output.
    pub(crate) async fn exec(&self, id: &str, script: &str) -> (i32, String) {
        let request = ExecSyncRequest {
            container_id: id.into(),
            command: shell_command(script),
            timeout_millis: 10_000,
        };
        let answer = self
            .node
            .client
            .clone()
            .exec_sync(request)
            .await
            .expect("it runs")
            .into_inner();
        assert!(!answer.timed_out, "{script} ends");
        (
            answer.exit_code,
            String::from_utf8_lossy(&answer.output)
                .trim_end()
                .to_owned(),
        )
    }

    /// An image with busybox in it, made by the node itself.
    pub(crate) async fn busybox(&self, extra: &str) -> Image {
        let dockerfile = format!(
            "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n{extra}"
        );
        self.build("busybox:test", &dockerfile)
            .await
            .expect("an image")
    }

    pub(crate) async fn build(
        &self,
        reference: &str,
        dockerfile: &str,
    ) -> Result<Image, tonic::Status> {
        let mut context = tar::Builder::new(Vec::new());
        let mut add = |name: &str, content: &[u8], mode: u32| {
            let mut header = tar::Header::new_gnu();
            header.set_size(content.len() as u64);
            header.set_mode(mode);
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(1);
            header.set_cksum();
            context
                .append_data(&mut header, name, content)
                .expect("an entry");
        };
        let busybox = fs::read("/usr/bin/busybox").or_else(|_| fs::read("/bin/busybox"));
        add(
            "busybox",
            &busybox.expect("busybox: `apt-get install busybox-static`"),
            0o755,
        );
        add("Dockerfile", dockerfile.as_bytes(), 0o644);
        let context = context.into_inner().expect("a context");
        let start = BuildStart {
            reference: reference.into(),
            ..BuildStart::default()
        };
        let mut inputs = vec![build_image_request::Input::Start(start)];
        inputs.extend(
            context
                .chunks(64 * 1024)
                .map(|chunk| build_image_request::Input::Chunk(chunk.to_vec().into())),
        );
        let inputs = inputs
            .into_iter()
            .map(|input| BuildImageRequest { input: Some(input) });
        let mut progress = self
            .node
            .client
            .clone()
            .build_image(tokio_stream::iter(inputs))
            .await?
            .into_inner();
        let mut lines = Vec::new();
        while let Some(message) = progress.next().await {
            match message
                .map_err(|status| {
                    tonic::Status::new(
                        status.code(),
                        format!("{}\n{}", status.message(), lines.join("\n")),
                    )
                })?
                .progress
            {
                Some(Progress::Done(image)) => return Ok(image),
                Some(Progress::Line(line)) => lines.push(line),
                None => {}
            }
        }
        Err(tonic::Status::internal("the build ended without an image"))
    }
}

async fn start_node(options: &NodeOptions) -> Node {
    match ensure_node(options).await {
        Ok(node) => {
            assert!(!node.adopted, "a new mesh is started, not adopted");
            node
        }
        Err(error) => {
            let log = fs::read_to_string(options.state_dir.join("node.log")).unwrap_or_default();
            panic!("no node: {error:?}\n{log}");
        }
    }
}

impl Drop for Mesh {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let log =
                fs::read_to_string(self.options.state_dir.join("node.log")).unwrap_or_default();
            println!("the node's log:\n{log}");
            self.kill();
        }
    }
}

pub(crate) fn shell_command(script: &str) -> Vec<String> {
    ["/bin/sh", "-c", script].map(str::to_owned).into()
}

pub(crate) fn script_in(sandbox: &str, id: &str, script: &str) -> CreateContainerRequest {
    CreateContainerRequest {
        id: id.into(),
        sandbox_id: sandbox.into(),
        host_programs: true,
        entrypoint: shell_command(script),
        ..CreateContainerRequest::default()
    }
}

/// The same of an image.
pub(crate) fn script_of(
    image: &str,
    sandbox: &str,
    id: &str,
    script: &str,
) -> CreateContainerRequest {
    CreateContainerRequest {
        image: image.into(),
        host_programs: false,
        ..script_in(sandbox, id, script)
    }
}
