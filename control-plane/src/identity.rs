//! The identity service: signs the certificate of whoever the caller is attested to be.

use std::sync::Arc;
use std::time::SystemTime;

use tokio::sync::watch;
use tonic::{Request, Response, Status};
use weft_proto::weft::identity::v1 as wire;
use wire::identity_service_server::IdentityService;

use crate::attest::{self, Attest, Caller, Unattested};
use crate::ca::{self, Authority, CaError};
use crate::translate::Snapshot;

/// Served on the same unix socket as xDS.
pub struct Identity {
    authority: Arc<Authority>,
    attest: Arc<dyn Attest>,
    snapshots: watch::Receiver<Arc<Snapshot>>,
}

impl Identity {
    /// Signs with `authority` for those that `attest` recognises.
    pub fn new(
        authority: Arc<Authority>,
        attest: Arc<dyn Attest>,
        snapshots: watch::Receiver<Arc<Snapshot>>,
    ) -> Self {
        Self {
            authority,
            attest,
            snapshots,
        }
    }
}

#[tonic::async_trait]
impl IdentityService for Identity {
    async fn sign(
        &self,
        request: Request<wire::SignRequest>,
    ) -> Result<Response<wire::SignResponse>, Status> {
        let caller = caller(&request)?;
        let mut snapshots = self.snapshots.clone();
        let workload = attest::attest_patiently(&*self.attest, &mut snapshots, &caller).await?;
        let signed = self
            .authority
            .sign(
                &request.get_ref().csr,
                &workload.identity,
                SystemTime::now(),
            )
            .map_err(|error| refuse(&error))?;
        tracing::info!(pod = %workload.pod, identity = %workload.identity, "certificate signed");
        let bundle = wire::TrustBundle {
            trust_domain: self.authority.trust_domain().to_owned(),
            roots: self
                .authority
                .roots()
                .iter()
                .map(|root| root.to_vec().into())
                .collect(),
        };
        Ok(Response::new(wire::SignResponse {
            chain: signed
                .chain
                .iter()
                .map(|certificate| certificate.to_vec().into())
                .collect(),
            bundles: vec![bundle],
            spiffe_id: signed.identity.to_string(),
            not_after: ca::seconds(signed.not_after),
            renew_at: ca::seconds(signed.renew_at),
        }))
    }
}

/// Who is at the other end of the connection that a call came by.
pub(crate) fn caller<T>(request: &Request<T>) -> Result<Caller, Status> {
    if let Some(caller) = request.extensions().get::<Caller>() {
        return Ok(caller.clone());
    }
    let by_tcp = request.remote_addr().map(Caller::Remote);
    by_tcp.ok_or_else(|| Unattested::NotLocal("an unknown transport".to_owned()).into())
}

fn refuse(error: &CaError) -> Status {
    match error {
        CaError::Request { .. } => Status::invalid_argument(error.to_string()),
        _ => {
            tracing::error!(error = error as &dyn std::error::Error, "signing failed");
            Status::internal("the certificate authority failed; its log says why")
        }
    }
}
