//! The calls of `weft.node.v1`, each handed to the module that answers it.
//!
//! Calls that change something run in a task of their own: a client that goes away in the middle does not leave
//! half a sandbox behind.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};
use weft_proto::weft::node::v1::node_server::Node;
use weft_proto::weft::node::v1::*;

use super::failure::Failure;
use super::programs::Programs;
use super::{Shared, containers, exec, images, logs, mounts, sandboxes, watch};
use crate::dns::Entry;

/// The service.
pub(crate) struct Service(pub(crate) Arc<Shared>);

type Stream<T> = ReceiverStream<Result<T, Status>>;

impl Service {
    /// Carries something out to its end, whether or not the client waits for it.
    async fn carry_out<T, F>(
        &self,
        work: impl FnOnce(Arc<Shared>) -> F,
    ) -> Result<Response<T>, Status>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Failure>> + Send + 'static,
    {
        let done = tokio::spawn(work(Arc::clone(&self.0)))
            .await
            .map_err(Failure::from)?;
        Ok(Response::new(done?))
    }
}

#[tonic::async_trait]
impl Node for Service {
    type WatchContainersStream = Stream<Container>;
    type LogsStream = Stream<LogChunk>;
    type ExecStream = Stream<ExecOutput>;
    type ImportImageStream = Stream<ImageProgress>;
    type BuildImageStream = Stream<ImageProgress>;

    async fn info(&self, _: Request<InfoRequest>) -> Result<Response<InfoResponse>, Status> {
        let (ipv4, ipv6) = self.0.network.gateway();
        Ok(Response::new(InfoResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id().cast_signed(),
            gateway_ipv4: ipv4.to_string(),
            gateway_ipv6: ipv6.to_string(),
            holder_pid: self.0.boot.holder_pid,
        }))
    }

    async fn create_sandbox(
        &self,
        request: Request<CreateSandboxRequest>,
    ) -> Result<Response<Sandbox>, Status> {
        let request = request.into_inner();
        self.carry_out(|shared| async move { sandboxes::create(&shared, request).await })
            .await
    }

    async fn apply_rules(
        &self,
        request: Request<ApplyRulesRequest>,
    ) -> Result<Response<ApplyRulesResponse>, Status> {
        let request = request.into_inner();
        let work = |shared: Arc<Shared>| async move {
            sandboxes::apply_rules(&shared, request).await?;
            Ok(ApplyRulesResponse {})
        };
        self.carry_out(work).await
    }

    async fn list_sandboxes(
        &self,
        _: Request<ListSandboxesRequest>,
    ) -> Result<Response<ListSandboxesResponse>, Status> {
        let sandboxes = self.0.sandboxes.list();
        Ok(Response::new(ListSandboxesResponse { sandboxes }))
    }

    async fn remove_sandbox(
        &self,
        request: Request<RemoveSandboxRequest>,
    ) -> Result<Response<RemoveSandboxResponse>, Status> {
        let id = request.into_inner().id;
        let work = |shared: Arc<Shared>| async move {
            sandboxes::remove(&shared, &id).await?;
            Ok(RemoveSandboxResponse {})
        };
        self.carry_out(work).await
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Result<Response<Container>, Status> {
        let request = request.into_inner();
        self.carry_out(|shared| async move { containers::create(&shared, request).await })
            .await
    }

    async fn start_container(
        &self,
        request: Request<StartContainerRequest>,
    ) -> Result<Response<Container>, Status> {
        let id = request.into_inner().id;
        self.carry_out(|shared| async move { containers::start(&shared, &id).await })
            .await
    }

    async fn import_program(
        &self,
        request: Request<Streaming<ImportProgramRequest>>,
    ) -> Result<Response<Program>, Status> {
        let digest = images::import_program(&self.0, request.into_inner()).await?;
        Ok(Response::new(Program { digest }))
    }

    async fn use_program(
        &self,
        request: Request<Program>,
    ) -> Result<Response<UseProgramResponse>, Status> {
        let digest = request.into_inner().digest;
        Programs::below(&self.0.options.state_dir).use_for_new(&digest)?;
        Ok(Response::new(UseProgramResponse {}))
    }

    async fn replace_process(
        &self,
        request: Request<ReplaceProcessRequest>,
    ) -> Result<Response<Container>, Status> {
        let ReplaceProcessRequest {
            container_id,
            program,
        } = request.into_inner();
        let digest = program.unwrap_or_default().digest;
        let program = Programs::below(&self.0.options.state_dir).find(&digest)?;
        let work = |shared: Arc<Shared>| async move {
            containers::replace(&shared, &container_id, program).await
        };
        self.carry_out(work).await
    }

    async fn stop_container(
        &self,
        request: Request<StopContainerRequest>,
    ) -> Result<Response<Container>, Status> {
        let StopContainerRequest { id, grace_millis } = request.into_inner();
        let grace = Duration::from_millis(grace_millis.into());
        self.carry_out(|shared| async move { containers::stop(&shared, &id, grace).await })
            .await
    }

    async fn remove_container(
        &self,
        request: Request<RemoveContainerRequest>,
    ) -> Result<Response<RemoveContainerResponse>, Status> {
        let id = request.into_inner().id;
        let work = |shared: Arc<Shared>| async move {
            containers::remove(&shared, &id).await?;
            Ok(RemoveContainerResponse {})
        };
        self.carry_out(work).await
    }

    async fn list_containers(
        &self,
        _: Request<ListContainersRequest>,
    ) -> Result<Response<ListContainersResponse>, Status> {
        let containers = containers::list(&self.0).await?;
        Ok(Response::new(ListContainersResponse { containers }))
    }

    async fn watch_containers(
        &self,
        _: Request<WatchContainersRequest>,
    ) -> Result<Response<Self::WatchContainersStream>, Status> {
        Ok(Response::new(ReceiverStream::new(watch::containers(
            &self.0,
        ))))
    }

    async fn logs(
        &self,
        request: Request<LogsRequest>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let lines = logs::stream(&self.0, request.into_inner())?;
        Ok(Response::new(ReceiverStream::new(lines)))
    }

    async fn exec(
        &self,
        request: Request<Streaming<ExecInput>>,
    ) -> Result<Response<Self::ExecStream>, Status> {
        let output = exec::stream(&self.0, request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(output)))
    }

    async fn exec_sync(
        &self,
        request: Request<ExecSyncRequest>,
    ) -> Result<Response<ExecSyncResponse>, Status> {
        Ok(Response::new(
            exec::sync(&self.0, request.into_inner()).await?,
        ))
    }

    async fn list_images(
        &self,
        _: Request<ListImagesRequest>,
    ) -> Result<Response<ListImagesResponse>, Status> {
        let images = images::list(&self.0).await?;
        Ok(Response::new(ListImagesResponse { images }))
    }

    async fn inspect_image(
        &self,
        request: Request<InspectImageRequest>,
    ) -> Result<Response<Image>, Status> {
        Ok(Response::new(
            images::inspect(&self.0, request.into_inner().reference).await?,
        ))
    }

    async fn import_image(
        &self,
        request: Request<Streaming<ImportImageRequest>>,
    ) -> Result<Response<Self::ImportImageStream>, Status> {
        let progress = images::import(&self.0, request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(progress)))
    }

    async fn build_image(
        &self,
        request: Request<Streaming<BuildImageRequest>>,
    ) -> Result<Response<Self::BuildImageStream>, Status> {
        let progress = images::build(&self.0, request.into_inner()).await?;
        Ok(Response::new(ReceiverStream::new(progress)))
    }

    async fn remove_image(
        &self,
        request: Request<RemoveImageRequest>,
    ) -> Result<Response<RemoveImageResponse>, Status> {
        images::remove(&self.0, request.into_inner().reference).await?;
        Ok(Response::new(RemoveImageResponse {}))
    }

    async fn remove_volume(
        &self,
        request: Request<RemoveVolumeRequest>,
    ) -> Result<Response<RemoveVolumeResponse>, Status> {
        let name = request.into_inner().name;
        let work = |shared: Arc<Shared>| async move {
            tokio::task::spawn_blocking(move || mounts::remove_volume(&shared, &name)).await??;
            Ok(RemoveVolumeResponse {})
        };
        self.carry_out(work).await
    }

    async fn set_names(
        &self,
        request: Request<SetNamesRequest>,
    ) -> Result<Response<SetNamesResponse>, Status> {
        let names = request.into_inner().names;
        let entries = names
            .into_iter()
            .map(entry)
            .collect::<Result<Vec<_>, Failure>>()?;
        let written = self.0.dns.set_names(entries);
        written.map_err(Failure::system("writing the names of the mesh"))?;
        Ok(Response::new(SetNamesResponse {}))
    }

    async fn shutdown(
        &self,
        _: Request<ShutdownRequest>,
    ) -> Result<Response<ShutdownResponse>, Status> {
        let work = |shared: Arc<Shared>| async move {
            super::end(&shared).await?;
            Ok(ShutdownResponse {})
        };
        self.carry_out(work).await
    }
}

fn entry(name: Name) -> Result<Entry, Failure> {
    let parse = |text: &String| {
        text.parse::<IpAddr>().map_err(|_| {
            Failure::invalid(
                "names",
                format!("{text} of {} is not an address", name.name),
            )
        })
    };
    let addresses = name.addresses.iter().map(parse).collect::<Result<_, _>>()?;
    Ok(Entry {
        addresses,
        name: name.name,
        namespace: name.namespace,
    })
}
