//! A node that runs nothing: it echoes commands, has a log of three lines, and takes in whatever it is sent.

use std::os::fd::AsFd;
use std::path::Path;
use std::pin::Pin;

use tokio::net::{TcpStream, UnixListener};
use tokio::sync::mpsc;
use tokio_stream::wrappers::{ReceiverStream, UnixListenerStream};
use tokio_stream::{Stream, StreamExt};
use tonic::transport::Server;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::handoff::{self, BrokerReply, NodeRequest};
use weft_proto::weft::node::v1 as wire;
use wire::exec_input::Input;
use wire::exec_output::Output;
use wire::node_server::{Node, NodeServer};

/// The one container there is.
pub(crate) const CONTAINER: &str = "default.web-1.web";
/// Its sandbox.
pub(crate) const SANDBOX: &str = "default.web-1";

type Outgoing<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

struct Fake;

/// Serves the node's two sockets below a directory; connections into the sandbox go to this machine's loopback.
pub(crate) fn serve(directory: &Path) {
    let grpc = UnixListener::bind(directory.join("node.sock")).unwrap();
    tokio::spawn(
        Server::builder()
            .add_service(NodeServer::new(Fake))
            .serve_with_incoming(UnixListenerStream::new(grpc)),
    );
    let handoff = UnixListener::bind(directory.join("handoff.sock")).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = handoff.accept().await {
            let (request, _) = handoff::receive::<NodeRequest>(&mut stream).await.unwrap();
            let NodeRequest::Dial {
                sandbox, address, ..
            } = request;
            let dialled = TcpStream::connect(address).await;
            match dialled {
                Ok(socket) if sandbox == SANDBOX => {
                    let descriptor = Some(socket.as_fd());
                    handoff::send(&mut stream, &BrokerReply::Socket, descriptor)
                        .await
                        .unwrap();
                }
                _ => {
                    let reply = BrokerReply::Failed {
                        errno: 111,
                        reason: format!("no one listens on {address} in {sandbox}"),
                    };
                    handoff::send(&mut stream, &reply, None).await.unwrap();
                }
            }
        }
    });
}

fn image(reference: &str, size_bytes: u64) -> wire::Image {
    wire::Image {
        id: "sha256:abc".to_owned(),
        references: vec![reference.to_owned()],
        size_bytes,
        exposed_ports: vec!["80/tcp".to_owned()],
        ..wire::Image::default()
    }
}

fn line(text: &str) -> wire::ImageProgress {
    wire::ImageProgress {
        progress: Some(wire::image_progress::Progress::Line(text.to_owned())),
    }
}

fn done(image: wire::Image) -> wire::ImageProgress {
    wire::ImageProgress {
        progress: Some(wire::image_progress::Progress::Done(image)),
    }
}

/// Echoes standard input; `exit N` ends with N, and so does the end of the input with 0.
async fn echo(
    mut input: Streaming<wire::ExecInput>,
    output: mpsc::Sender<Result<wire::ExecOutput, Status>>,
    command: Vec<String>,
) {
    let say = |output: Output| {
        Ok(wire::ExecOutput {
            output: Some(output),
        })
    };
    if let [exit, code] = command.as_slice()
        && exit == "exit"
    {
        let _ = output.send(say(Output::Stderr("leaving\n".into()))).await;
        let _ = output
            .send(say(Output::ExitCode(code.parse().unwrap())))
            .await;
        return;
    }
    while let Ok(Some(message)) = input.message().await {
        match message.input {
            Some(Input::Stdin(bytes)) => {
                let _ = output.send(say(Output::Stdout(bytes))).await;
            }
            Some(Input::CloseStdin(_)) => break,
            _ => {}
        }
    }
    let _ = output.send(say(Output::ExitCode(0))).await;
}

macro_rules! unsupported {
    ($($method:ident: $request:ident -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl Node for Fake {
            $(async fn $method(
                &self,
                _: Request<wire::$request>,
            ) -> Result<Response<wire::$response>, Status> {
                Err(Status::unimplemented("the fake node cannot do that"))
            })*

            async fn info(
                &self,
                _: Request<wire::InfoRequest>,
            ) -> Result<Response<wire::InfoResponse>, Status> {
                Ok(Response::new(wire::InfoResponse {
                    version: "fake".to_owned(),
                    pid: 1,
                    ..wire::InfoResponse::default()
                }))
            }

            async fn list_containers(
                &self,
                _: Request<wire::ListContainersRequest>,
            ) -> Result<Response<wire::ListContainersResponse>, Status> {
                let container = wire::Container {
                    id: CONTAINER.to_owned(),
                    resident_bytes: 42,
                    ..wire::Container::default()
                };
                let containers = vec![container];
                Ok(Response::new(wire::ListContainersResponse { containers }))
            }

            type WatchContainersStream = Outgoing<wire::Container>;

            async fn watch_containers(
                &self,
                _: Request<wire::WatchContainersRequest>,
            ) -> Result<Response<Self::WatchContainersStream>, Status> {
                Err(Status::unimplemented("the fake node cannot do that"))
            }

            type LogsStream = Outgoing<wire::LogChunk>;

            async fn logs(
                &self,
                request: Request<wire::LogsRequest>,
            ) -> Result<Response<Self::LogsStream>, Status> {
                let request = request.into_inner();
                if request.id != CONTAINER {
                    return Err(Status::not_found(request.id));
                }
                let lines = ["one", "two", "three"];
                let tail = if request.tail == 0 { 3 } else { request.tail as usize };
                let chunks: Vec<_> = lines[3_usize.saturating_sub(tail)..]
                    .iter()
                    .map(|line| {
                        Ok(wire::LogChunk {
                            time: 1_767_225_600_000_000_001,
                            stderr: false,
                            line: (*line).into(),
                        })
                    })
                    .collect();
                let chunks = tokio_stream::iter(chunks);
                if request.follow {
                    return Ok(Response::new(Box::pin(chunks.chain(tokio_stream::pending()))));
                }
                Ok(Response::new(Box::pin(chunks)))
            }

            type ExecStream = Outgoing<wire::ExecOutput>;

            async fn exec(
                &self,
                request: Request<Streaming<wire::ExecInput>>,
            ) -> Result<Response<Self::ExecStream>, Status> {
                let mut input = request.into_inner();
                let Some(Input::Start(start)) = input.message().await?.and_then(|first| first.input) else {
                    return Err(Status::invalid_argument("the first message must be start"));
                };
                if start.container_id != CONTAINER {
                    return Err(Status::not_found(start.container_id));
                }
                let (sender, receiver) = mpsc::channel(4);
                tokio::spawn(echo(input, sender, start.command));
                Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
            }

            async fn list_images(
                &self,
                _: Request<wire::ListImagesRequest>,
            ) -> Result<Response<wire::ListImagesResponse>, Status> {
                let images = vec![image("example/web:1", 7)];
                Ok(Response::new(wire::ListImagesResponse { images }))
            }

            async fn inspect_image(
                &self,
                request: Request<wire::InspectImageRequest>,
            ) -> Result<Response<wire::Image>, Status> {
                let reference = request.into_inner().reference;
                if reference != "example/web:1" {
                    return Err(Status::not_found(reference));
                }
                Ok(Response::new(image(&reference, 7)))
            }

            type ImportImageStream = Outgoing<wire::ImageProgress>;

            async fn import_image(
                &self,
                request: Request<Streaming<wire::ImportImageRequest>>,
            ) -> Result<Response<Self::ImportImageStream>, Status> {
                use wire::import_image_request::Input;
                let mut input = request.into_inner();
                let (mut reference, mut size) = (String::new(), 0);
                while let Some(message) = input.message().await? {
                    match message.input {
                        Some(Input::Start(start)) => reference = start.reference,
                        Some(Input::Chunk(bytes)) => size += bytes.len() as u64,
                        None => {}
                    }
                }
                let progress = [Ok(line("importing")), Ok(done(image(&reference, size)))];
                Ok(Response::new(Box::pin(tokio_stream::iter(progress))))
            }

            async fn import_program(
                &self,
                request: Request<Streaming<wire::ImportProgramRequest>>,
            ) -> Result<Response<wire::Program>, Status> {
                let mut input = request.into_inner();
                let mut size = 0;
                while let Some(message) = input.message().await? {
                    size += message.chunk.len();
                }
                let digest = format!("sha256:{size}");
                Ok(Response::new(wire::Program { digest }))
            }

            async fn replace_process(
                &self,
                request: Request<wire::ReplaceProcessRequest>,
            ) -> Result<Response<wire::Container>, Status> {
                let request = request.into_inner();
                Ok(Response::new(wire::Container {
                    id: request.container_id,
                    replacements: 1,
                    replacement_failure: format!("no {}", request.program.unwrap_or_default().digest),
                    ..wire::Container::default()
                }))
            }

            type BuildImageStream = Outgoing<wire::ImageProgress>;

            async fn build_image(
                &self,
                request: Request<Streaming<wire::BuildImageRequest>>,
            ) -> Result<Response<Self::BuildImageStream>, Status> {
                use wire::build_image_request::Input;
                let mut input = request.into_inner();
                let Some(Input::Start(start)) = input.message().await?.and_then(|first| first.input) else {
                    return Err(Status::invalid_argument("the first message must be start"));
                };
                while input.message().await?.is_some() {}
                let text = format!("{} {:?} {}", start.dockerfile, start.arguments, start.target);
                let failure = Status::failed_precondition("STEP 2 failed");
                let progress = [Ok(line(&text)), Err(failure)];
                Ok(Response::new(Box::pin(tokio_stream::iter(progress))))
            }
        }
    };
}

unsupported! {
    create_sandbox: CreateSandboxRequest -> Sandbox;
    apply_rules: ApplyRulesRequest -> ApplyRulesResponse;
    list_sandboxes: ListSandboxesRequest -> ListSandboxesResponse;
    remove_sandbox: RemoveSandboxRequest -> RemoveSandboxResponse;
    create_container: CreateContainerRequest -> Container;
    start_container: StartContainerRequest -> Container;
    stop_container: StopContainerRequest -> Container;
    remove_container: RemoveContainerRequest -> RemoveContainerResponse;
    exec_sync: ExecSyncRequest -> ExecSyncResponse;
    remove_image: RemoveImageRequest -> RemoveImageResponse;
    remove_volume: RemoveVolumeRequest -> RemoveVolumeResponse;
    use_program: Program -> UseProgramResponse;
    set_names: SetNamesRequest -> SetNamesResponse;
    shutdown: ShutdownRequest -> ShutdownResponse;
}
