//! A node of one's own: containers that do nothing but be in a state, and a hand-off socket to one HTTP server.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use http::{Response, StatusCode};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream, UnixListener};
use tokio::sync::broadcast;
use tokio_stream::wrappers::{BroadcastStream, UnixListenerStream};
use tonic::transport::{Channel, Endpoint, Server};
use tonic::{Request, Response as Answer, Status, Streaming};
use weft_proto::handoff::{self, BrokerReply, NodeRequest};
use weft_proto::weft::node::v1::node_client::NodeClient;
use weft_proto::weft::node::v1::node_server::{Node, NodeServer};
use weft_proto::weft::node::v1::*;

type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[derive(Clone)]
pub(crate) struct FakeNode {
    inner: Arc<Inner>,
    socket: PathBuf,
    pub(crate) handoff: PathBuf,
}

struct Inner {
    state: Mutex<State>,
    changes: broadcast::Sender<Container>,
}

#[derive(Default)]
struct State {
    sandboxes: BTreeMap<String, Sandbox>,
    containers: BTreeMap<String, Container>,
    requests: BTreeMap<String, CreateContainerRequest>,
    names: Vec<Name>,
    made: u64,
    /// What was asked, in order.
    log: Vec<String>,
    images: BTreeSet<String>,
    /// Containers (by the last part of their id) that end at once, with this code.
    ending: BTreeMap<String, i32>,
    /// Exit code of every probe.
    probe: i32,
    is_sidecar_ready: bool,
}

impl FakeNode {
    pub(crate) async fn start(folder: &Path) -> Self {
        let node = Self {
            inner: Arc::new(Inner {
                state: Mutex::new(State {
                    is_sidecar_ready: true,
                    images: ["books:1", "books:2"].map(str::to_owned).into(),
                    ..State::default()
                }),
                changes: broadcast::Sender::new(4096),
            }),
            socket: folder.join("node.sock"),
            handoff: folder.join("handoff.sock"),
        };
        let incoming = UnixListenerStream::new(UnixListener::bind(&node.socket).unwrap());
        let service = NodeServer::from_arc(Arc::clone(&node.inner));
        tokio::spawn(
            Server::builder()
                .add_service(service)
                .serve_with_incoming(incoming),
        );
        let http = node.serve_http().await;
        node.serve_handoff(http);
        node
    }

    pub(crate) async fn client(&self) -> NodeClient<Channel> {
        let endpoint = Endpoint::from_shared(format!("unix:{}", self.socket.display())).unwrap();
        NodeClient::new(endpoint.connect().await.unwrap())
    }

    pub(crate) fn log(&self) -> Vec<String> {
        self.inner.state.lock().log.clone()
    }

    pub(crate) fn forget_log(&self) {
        self.inner.state.lock().log.clear();
    }

    pub(crate) fn names(&self) -> Vec<Name> {
        self.inner.state.lock().names.clone()
    }

    pub(crate) fn set_sidecar_ready(&self, is_ready: bool) {
        self.inner.state.lock().is_sidecar_ready = is_ready;
    }

    pub(crate) fn set_probe(&self, exit_code: i32) {
        self.inner.state.lock().probe = exit_code;
    }

    pub(crate) fn ends_at_once(&self, container: &str, exit_code: i32) {
        self.inner
            .state
            .lock()
            .ending
            .insert(container.to_owned(), exit_code);
    }

    pub(crate) fn remove_image(&self, image: &str) {
        self.inner.state.lock().images.remove(image);
    }

    pub(crate) fn add_sandbox(&self, id: &str, labels: &[(&str, &str)]) {
        let labels = labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        let sandbox = Sandbox {
            id: id.to_owned(),
            labels: labels.collect(),
            ..Sandbox::default()
        };
        self.inner
            .state
            .lock()
            .sandboxes
            .insert(id.to_owned(), sandbox);
    }

    pub(crate) fn sandboxes(&self) -> Vec<String> {
        self.inner.state.lock().sandboxes.keys().cloned().collect()
    }

    pub(crate) fn request(&self, container: &str) -> Option<CreateContainerRequest> {
        let state = self.inner.state.lock();
        let mut requests = state.requests.iter();
        requests
            .find(|(id, _)| id.ends_with(container))
            .map(|(_, request)| request.clone())
    }

    /// As if its process had ended.
    pub(crate) fn end(&self, id: &str, exit_code: i32) {
        self.inner.end(id, exit_code);
    }

    /// Health of every sidecar.
    async fn serve_http(&self) -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let inner = Arc::clone(&self.inner);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let inner = Arc::clone(&inner);
                let service = service_fn(move |_| {
                    let mut response = Response::new(Full::new(Bytes::new()));
                    if !inner.state.lock().is_sidecar_ready {
                        *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
                    }
                    async move { Ok::<_, Infallible>(response) }
                });
                let http = hyper::server::conn::http1::Builder::new();
                tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
            }
        });
        address
    }

    fn serve_handoff(&self, http: SocketAddr) {
        let listener = UnixListener::bind(&self.handoff).unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                tokio::spawn(async move {
                    let request = handoff::receive::<NodeRequest>(&mut stream).await;
                    if request.is_ok() {
                        let dialled = TcpStream::connect(http).await.unwrap();
                        let socket = Some(dialled.as_fd());
                        let _ = handoff::send(&mut stream, &BrokerReply::Socket, socket).await;
                    }
                });
            }
        });
    }
}

impl Inner {
    fn log(&self, line: String) {
        self.state.lock().log.push(line);
    }

    fn change(&self, id: &str, change: impl FnOnce(&mut Container)) -> Result<Container, Status> {
        let mut state = self.state.lock();
        let container = state
            .containers
            .get_mut(id)
            .ok_or_else(|| Status::not_found(id.to_owned()))?;
        change(container);
        let changed = container.clone();
        let _ = self.changes.send(changed.clone());
        Ok(changed)
    }

    fn end(&self, id: &str, exit_code: i32) {
        let ended = self.change(id, |container| {
            container.set_state(ContainerState::Exited);
            container.exit_code = exit_code;
            container.finished_at = 200;
        });
        ended.unwrap();
    }
}

fn last(id: &str) -> &str {
    id.rsplit('.').next().unwrap_or(id)
}

#[tonic::async_trait]
impl Node for Inner {
    type WatchContainersStream = Events<Container>;
    type LogsStream = Events<LogChunk>;
    type ExecStream = Events<ExecOutput>;
    type ImportImageStream = Events<ImageProgress>;
    type BuildImageStream = Events<ImageProgress>;

    async fn info(&self, _: Request<InfoRequest>) -> Result<Answer<InfoResponse>, Status> {
        let pid = i32::try_from(std::process::id()).unwrap();
        Ok(Answer::new(InfoResponse {
            version: "fake".to_owned(),
            pid,
            gateway_ipv4: "10.96.0.1".to_owned(),
            gateway_ipv6: "fd57:6060::1".to_owned(),
            holder_pid: pid,
        }))
    }

    async fn create_sandbox(
        &self,
        request: Request<CreateSandboxRequest>,
    ) -> Result<Answer<Sandbox>, Status> {
        let request = request.into_inner();
        let is_closed = request.ipv4_rules.contains(":OUTPUT DROP");
        self.log(format!(
            "sandbox {}",
            if is_closed { "closed" } else { "open" }
        ));
        let mut state = self.state.lock();
        if state.sandboxes.contains_key(&request.id) {
            return Err(Status::already_exists(request.id));
        }
        state.made += 1;
        let sandbox = Sandbox {
            id: request.id.clone(),
            ipv4: format!("10.96.0.{}", state.made + 1),
            ipv6: format!("fd57:6060::{}", state.made + 1),
            network_namespace: 4_000_000_000 + state.made,
            labels: request.labels,
        };
        state.sandboxes.insert(request.id, sandbox.clone());
        Ok(Answer::new(sandbox))
    }

    async fn apply_rules(
        &self,
        request: Request<ApplyRulesRequest>,
    ) -> Result<Answer<ApplyRulesResponse>, Status> {
        let is_open = request.into_inner().ipv4_rules.contains("REDIRECT");
        self.log(format!("rules {}", if is_open { "open" } else { "closed" }));
        Ok(Answer::new(ApplyRulesResponse {}))
    }

    async fn list_sandboxes(
        &self,
        _: Request<ListSandboxesRequest>,
    ) -> Result<Answer<ListSandboxesResponse>, Status> {
        let sandboxes = self.state.lock().sandboxes.values().cloned().collect();
        Ok(Answer::new(ListSandboxesResponse { sandboxes }))
    }

    async fn remove_sandbox(
        &self,
        request: Request<RemoveSandboxRequest>,
    ) -> Result<Answer<RemoveSandboxResponse>, Status> {
        let id = request.into_inner().id;
        self.log("remove sandbox".to_owned());
        let mut state = self.state.lock();
        state.sandboxes.remove(&id);
        let (removed, kept) = std::mem::take(&mut state.containers)
            .into_iter()
            .partition(|(_, one)| one.sandbox_id == id);
        state.containers = kept;
        let removed: BTreeMap<String, Container> = removed;
        for mut container in removed.into_values() {
            container.set_state(ContainerState::Removed);
            let _ = self.changes.send(container);
        }
        Ok(Answer::new(RemoveSandboxResponse {}))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Answer<Container>, Status> {
        let request = request.into_inner();
        self.log(format!("create {}", last(&request.id)));
        let container = Container {
            id: request.id.clone(),
            sandbox_id: request.sandbox_id.clone(),
            image: request.image.clone(),
            state: ContainerState::Created.into(),
            created_at: 100,
            listening_ports: vec![8080],
            ..Container::default()
        };
        let mut state = self.state.lock();
        state
            .containers
            .insert(request.id.clone(), container.clone());
        state.requests.insert(request.id.clone(), request);
        let _ = self.changes.send(container.clone());
        Ok(Answer::new(container))
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Result<Answer<Container>, Status> {
        let id = request.into_inner().id;
        self.log(format!("start {}", last(&id)));
        let started = self.change(&id, |container| {
            container.set_state(ContainerState::Running);
            container.started_at = 150;
            container.pid += 1;
        })?;
        let ending = self.state.lock().ending.get(last(&id)).copied();
        if let Some(exit_code) = ending {
            self.end(&id, exit_code);
        }
        Ok(Answer::new(started))
    }

    async fn stop_container(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Result<Answer<Container>, Status> {
        let id = request.into_inner().id;
        self.log(format!("stop {}", last(&id)));
        let stopped = self.change(&id, |container| {
            container.set_state(ContainerState::Exited);
            container.exit_code = 143;
            container.finished_at = 200;
        })?;
        Ok(Answer::new(stopped))
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Result<Answer<RemoveContainerResponse>, Status> {
        let id = request.into_inner().id;
        self.log(format!("remove {}", last(&id)));
        let _ = self.change(&id, |container| {
            container.set_state(ContainerState::Removed)
        });
        self.state.lock().containers.remove(&id);
        Ok(Answer::new(RemoveContainerResponse {}))
    }

    async fn list_containers(
        &self,
        _: Request<ListContainersRequest>,
    ) -> Result<Answer<ListContainersResponse>, Status> {
        let containers = self.state.lock().containers.values().cloned().collect();
        Ok(Answer::new(ListContainersResponse { containers }))
    }

    async fn watch_containers(
        &self,
        _: Request<WatchContainersRequest>,
    ) -> Result<Answer<Self::WatchContainersStream>, Status> {
        let state = self.state.lock();
        let known: Vec<_> = state.containers.values().cloned().map(Ok).collect();
        let changes = BroadcastStream::new(self.changes.subscribe());
        let changes = changes.filter_map(|change| async move { change.ok().map(Ok) });
        Ok(Answer::new(Box::pin(
            futures_util::stream::iter(known).chain(changes),
        )))
    }

    async fn exec_sync(
        &self,
        _: Request<ExecSyncRequest>,
    ) -> Result<Answer<ExecSyncResponse>, Status> {
        let exit_code = self.state.lock().probe;
        Ok(Answer::new(ExecSyncResponse {
            exit_code,
            ..ExecSyncResponse::default()
        }))
    }

    async fn inspect_image(
        &self,
        request: Request<InspectImageRequest>,
    ) -> Result<Answer<Image>, Status> {
        let reference = request.into_inner().reference;
        if self.state.lock().images.contains(&reference) {
            return Ok(Answer::new(Image::default()));
        }
        Err(Status::not_found(reference))
    }

    async fn set_names(
        &self,
        request: Request<SetNamesRequest>,
    ) -> Result<Answer<SetNamesResponse>, Status> {
        self.state.lock().names = request.into_inner().names;
        Ok(Answer::new(SetNamesResponse {}))
    }

    async fn logs(&self, _: Request<LogsRequest>) -> Result<Answer<Self::LogsStream>, Status> {
        Err(Status::unimplemented("logs"))
    }

    async fn exec(
        &self,
        _: Request<Streaming<ExecInput>>,
    ) -> Result<Answer<Self::ExecStream>, Status> {
        Err(Status::unimplemented("exec"))
    }

    async fn list_images(
        &self,
        _: Request<ListImagesRequest>,
    ) -> Result<Answer<ListImagesResponse>, Status> {
        Err(Status::unimplemented("list_images"))
    }

    async fn import_image(
        &self,
        _: Request<Streaming<ImportImageRequest>>,
    ) -> Result<Answer<Self::ImportImageStream>, Status> {
        Err(Status::unimplemented("import_image"))
    }

    async fn build_image(
        &self,
        _: Request<Streaming<BuildImageRequest>>,
    ) -> Result<Answer<Self::BuildImageStream>, Status> {
        Err(Status::unimplemented("build_image"))
    }

    async fn remove_image(
        &self,
        _: Request<RemoveImageRequest>,
    ) -> Result<Answer<RemoveImageResponse>, Status> {
        Err(Status::unimplemented("remove_image"))
    }

    async fn remove_volume(
        &self,
        _: Request<RemoveVolumeRequest>,
    ) -> Result<Answer<RemoveVolumeResponse>, Status> {
        Err(Status::unimplemented("remove_volume"))
    }

    async fn import_program(
        &self,
        _: Request<Streaming<ImportProgramRequest>>,
    ) -> Result<Answer<Program>, Status> {
        Err(Status::unimplemented("import_program"))
    }

    async fn use_program(&self, _: Request<Program>) -> Result<Answer<UseProgramResponse>, Status> {
        Err(Status::unimplemented("use_program"))
    }

    async fn replace_process(
        &self,
        _: Request<ReplaceProcessRequest>,
    ) -> Result<Answer<Container>, Status> {
        Err(Status::unimplemented("replace_process"))
    }

    async fn shutdown(
        &self,
        _: Request<ShutdownRequest>,
    ) -> Result<Answer<ShutdownResponse>, Status> {
        Err(Status::unimplemented("shutdown"))
    }
}
