//! Calls to the node, each with a deadline and a name for its errors.

use std::future::Future;
use std::time::Duration;

use tonic::transport::Channel;
use tonic::{Code, Response, Status, Streaming};
use weft_proto::weft::node::v1::node_client::NodeClient;
use weft_proto::weft::node::v1::{
    ApplyRulesRequest, Container, CreateContainerRequest, CreateSandboxRequest, ExecSyncRequest,
    ExecSyncResponse, Image, InspectImageRequest, ListContainersRequest, ListSandboxesRequest,
    Name, RemoveContainerRequest, RemoveSandboxRequest, Sandbox, SetNamesRequest,
    StartContainerRequest, StopContainerRequest, WatchContainersRequest,
};

use super::failure::Failure;
use crate::rules::Rules;

const DEADLINE: Duration = Duration::from_secs(30);

/// The node, as the launcher uses it.
#[derive(Debug, Clone)]
pub(super) struct Node {
    client: NodeClient<Channel>,
}

impl Node {
    pub(super) fn new(client: NodeClient<Channel>) -> Self {
        Self { client }
    }

    pub(super) async fn create_sandbox(
        &self,
        request: CreateSandboxRequest,
    ) -> Result<Sandbox, Failure> {
        let mut client = self.client.clone();
        let call = client.create_sandbox(request);
        finish("making the sandbox", DEADLINE, call).await
    }

    pub(super) async fn list_sandboxes(&self) -> Result<Vec<Sandbox>, Failure> {
        let mut client = self.client.clone();
        let call = client.list_sandboxes(ListSandboxesRequest {});
        Ok(finish("listing sandboxes", DEADLINE, call).await?.sandboxes)
    }

    pub(super) async fn remove_sandbox(&self, id: String) -> Result<(), Failure> {
        let mut client = self.client.clone();
        let call = client.remove_sandbox(RemoveSandboxRequest { id });
        finish("removing the sandbox", DEADLINE, call)
            .await
            .map(drop)
    }

    pub(super) async fn apply_rules(&self, id: String, rules: Rules) -> Result<(), Failure> {
        let mut client = self.client.clone();
        let call = client.apply_rules(ApplyRulesRequest {
            id,
            ipv4_rules: rules.ipv4,
            ipv6_rules: rules.ipv6,
        });
        finish("applying the rules of the sandbox", DEADLINE, call)
            .await
            .map(drop)
    }

    pub(super) async fn create_container(
        &self,
        request: CreateContainerRequest,
    ) -> Result<Container, Failure> {
        let doing = format!("creating container {}", request.id);
        let mut client = self.client.clone();
        finish(&doing, DEADLINE, client.create_container(request)).await
    }

    pub(super) async fn start_container(&self, id: String) -> Result<Container, Failure> {
        let doing = format!("starting container {id}");
        let mut client = self.client.clone();
        finish(
            &doing,
            DEADLINE,
            client.start_container(StartContainerRequest { id }),
        )
        .await
    }

    pub(super) async fn stop_container(&self, id: String, grace: Duration) -> Result<(), Failure> {
        let doing = format!("stopping container {id}");
        let grace_millis = u32::try_from(grace.as_millis()).unwrap_or(u32::MAX);
        let mut client = self.client.clone();
        let call = client.stop_container(StopContainerRequest { id, grace_millis });
        finish(&doing, grace + DEADLINE, call).await.map(drop)
    }

    pub(super) async fn remove_container(&self, id: String) -> Result<(), Failure> {
        let doing = format!("removing container {id}");
        let mut client = self.client.clone();
        let call = client.remove_container(RemoveContainerRequest { id });
        finish(&doing, DEADLINE, call).await.map(drop)
    }

    pub(super) async fn list_containers(&self) -> Result<Vec<Container>, Failure> {
        let mut client = self.client.clone();
        let call = client.list_containers(ListContainersRequest {});
        Ok(finish("listing containers", DEADLINE, call)
            .await?
            .containers)
    }

    pub(super) async fn watch_containers(&self) -> Result<Streaming<Container>, Failure> {
        let mut client = self.client.clone();
        let call = client.watch_containers(WatchContainersRequest {});
        finish("watching containers", DEADLINE, call).await
    }

    /// Runs a probe's command; the node ends it when its time is over.
    pub(super) async fn exec(
        &self,
        container_id: String,
        command: Vec<String>,
        timeout: Duration,
    ) -> Result<ExecSyncResponse, Failure> {
        let mut client = self.client.clone();
        let call = client.exec_sync(ExecSyncRequest {
            container_id,
            command,
            timeout_millis: u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX),
        });
        finish("running a probe", timeout + DEADLINE, call).await
    }

    pub(super) async fn inspect_image(&self, reference: &str) -> Result<Image, Failure> {
        let mut client = self.client.clone();
        let call = client.inspect_image(InspectImageRequest {
            reference: reference.to_owned(),
        });
        let doing = format!("looking for the image {reference}");
        finish(&doing, DEADLINE, call)
            .await
            .map_err(|failure| match failure {
                Failure::Node { status, .. } if status.code() == Code::NotFound => {
                    Failure::NoImage {
                        image: reference.to_owned(),
                    }
                }
                other => other,
            })
    }

    pub(super) async fn set_names(&self, names: Vec<Name>) -> Result<(), Failure> {
        let mut client = self.client.clone();
        let call = client.set_names(SetNamesRequest { names });
        finish("setting the names of the mesh", DEADLINE, call)
            .await
            .map(drop)
    }
}

async fn finish<T>(
    doing: &str,
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Failure> {
    match tokio::time::timeout(deadline, call).await {
        Ok(Ok(response)) => Ok(response.into_inner()),
        Ok(Err(status)) => Err(Failure::Node {
            doing: doing.to_owned(),
            status: Box::new(status),
        }),
        Err(_) => Err(Failure::NodeSilent {
            doing: doing.to_owned(),
            deadline,
        }),
    }
}
