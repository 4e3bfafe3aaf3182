//! One stream: attests the caller, then carries its session over the transport until either side ends it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use tokio::sync::mpsc;
use tonic::{Status, Streaming};

use crate::attest::Caller;
use crate::translate::resource::ResourceKind;
use crate::translate::{ProxyResources, Snapshot};

use super::Shared;
use super::proxies::{Registration, Rejection};
use super::secrets::Secrets;
use super::session::{Feedback, Push, Session};

mod client;
pub(super) mod transport;

use client::{Client, describe, recognise};
use transport::Transport;

/// A client that connects must speak within this time.
const FIRST_REQUEST: Duration = Duration::from_secs(30);
/// And must take a response within this.
const SENDING: Duration = Duration::from_secs(60);

/// Serves one client to the end of its stream.
pub(super) async fn run<T: Transport>(
    shared: Arc<Shared>,
    caller: Caller,
    mut requests: Streaming<T::Request>,
    responses: mpsc::Sender<Result<T::Response, Status>>,
) {
    let ended = tokio::select! {
        ended = serve::<T>(&shared, &caller, &mut requests, &responses) => ended,
        () = shared.cancelled.cancelled() => Err(Status::unavailable("the control plane is stopping")),
        () = responses.closed() => return,
    };
    if let Err(status) = ended {
        tracing::info!(?caller, code = ?status.code(), reason = status.message(), "xDS stream ended");
        // Where the client no longer listens there is nobody to tell.
        let _ = responses.try_send(Err(status));
    }
}

async fn serve<T: Transport>(
    shared: &Shared,
    caller: &Caller,
    requests: &mut Streaming<T::Request>,
    responses: &mpsc::Sender<Result<T::Response, Status>>,
) -> Result<(), Status> {
    let first = tokio::time::timeout(FIRST_REQUEST, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no request came"))??;
    let Some(first) = first else {
        return Ok(());
    };
    let mut snapshots = shared.snapshots.clone();
    let node = T::node(&first).cloned().unwrap_or_default();
    let client = recognise(shared, &mut snapshots, caller, &node).await?;
    let status = describe(&client, &node, T::PROTOCOL);
    tracing::info!(node = %node.id, pod = %client.pod, "xDS client connected");
    let mut conversation = Conversation {
        shared,
        registration: shared.proxies.connect(status),
        session: Session::new(T::PROTOCOL),
        client,
        resources: None,
        made_from: None,
        secrets: None,
    };
    conversation.take_in::<T>(&first)?;
    loop {
        let snapshot = Arc::clone(&snapshots.borrow_and_update());
        conversation.refresh(&snapshot)?;
        for push in conversation.poll() {
            send(responses, T::encode(&push)).await?;
        }
        tokio::select! {
            request = requests.message() => match request? {
                Some(request) => conversation.take_in::<T>(&request)?,
                None => return Ok(()),
            },
            changed = snapshots.changed() => {
                changed.map_err(|_| Status::unavailable("the control plane is stopping"))?;
            }
            () = tokio::time::sleep(conversation.next_wake()) => {}
        }
    }
}

async fn send<R>(responses: &mpsc::Sender<Result<R, Status>>, response: R) -> Result<(), Status> {
    match tokio::time::timeout(SENDING, responses.send(Ok(response))).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Status::cancelled("the client has gone")),
        Err(_) => Err(Status::deadline_exceeded("the client takes no responses")),
    }
}

/// A session together with what it is about.
struct Conversation<'a> {
    shared: &'a Shared,
    registration: Registration,
    session: Session,
    client: Client,
    resources: Option<ProxyResources>,
    /// The snapshot that they are of.
    made_from: Option<Arc<Snapshot>>,
    secrets: Option<Secrets>,
}

impl Conversation<'_> {
    fn take_in<T: Transport>(&mut self, request: &T::Request) -> Result<(), Status> {
        let feedback = T::take_in(&mut self.session, request)
            .map_err(|abuse| Status::invalid_argument(abuse.to_string()))?;
        match feedback {
            Feedback::Nothing => {}
            Feedback::UnknownType(url) => {
                tracing::debug!(pod = %self.client.pod, url, "a type that is not served");
            }
            Feedback::Acknowledged { kind, revision } => self.registration.update(|status| {
                status.acknowledged.insert(kind, revision);
            }),
            Feedback::Rejected {
                kind,
                revision,
                message,
            } => {
                tracing::warn!(pod = %self.client.pod, ?kind, revision, message, "configuration refused");
                let rejection = Rejection::new(kind, revision, message, Timestamp::now());
                self.registration.update(|status| {
                    status.last_error = Some(rejection.message.clone());
                    status.last_rejection = Some(rejection);
                    status.rejections += 1;
                });
            }
        }
        Ok(())
    }

    /// Takes over what is new. A pod that has gone keeps what it had: its sidecar still has connections to end.
    fn refresh(&mut self, snapshot: &Arc<Snapshot>) -> Result<(), Status> {
        if self.session.wants(ResourceKind::Secret) {
            self.refresh_secrets(SystemTime::now())?;
        }
        let is_known = |known: &Arc<Snapshot>| Arc::ptr_eq(known, snapshot);
        if !self.made_from.as_ref().is_some_and(is_known) {
            let previous = self.resources.as_ref();
            let new = snapshot.resources(&self.client.pod, previous);
            self.resources = new.or_else(|| self.resources.take());
            self.made_from = Some(Arc::clone(snapshot));
        }
        if let (Some(resources), Some(secrets)) = (&self.resources, &self.secrets) {
            self.resources = Some(resources.with_secrets(Arc::clone(&secrets.map)));
        }
        Ok(())
    }

    fn refresh_secrets(&mut self, now: SystemTime) -> Result<(), Status> {
        if self
            .secrets
            .as_ref()
            .is_some_and(|secrets| now < secrets.renew_at)
        {
            return Ok(());
        }
        let authority = &self.shared.authority;
        let secrets = match &self.client.workload {
            Some(workload) => Secrets::issue(authority, &workload.identity, now),
            None => Ok(Secrets::public(authority)),
        };
        let secrets = secrets.map_err(|error| {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "issuing a certificate failed"
            );
            Status::internal("the certificate authority failed; its log says why")
        })?;
        self.secrets = Some(secrets);
        Ok(())
    }

    fn poll(&mut self) -> Vec<Push> {
        let Some(resources) = &self.resources else {
            return Vec::new();
        };
        let pushes = self.session.poll(resources, Instant::now());
        let acknowledged = self.session.acknowledged();
        let is_rejecting = self.session.is_rejecting();
        let sent = pushes.iter().map(|push| push.revision).max();
        self.registration.update(|status| {
            status.revision_sent = sent.or(status.revision_sent);
            status.revision_acknowledged = acknowledged;
            if !is_rejecting {
                status.last_error = None;
            }
        });
        pushes
    }

    /// How long nothing happens by itself.
    fn next_wake(&self) -> Duration {
        const NEVER: Duration = Duration::from_secs(3600);
        let now = Instant::now();
        let answer = self
            .session
            .deadline(now)
            .map_or(NEVER, |deadline| deadline.saturating_duration_since(now));
        let renewal = self.secrets.as_ref().map_or(NEVER, |secrets| {
            secrets
                .renew_at
                .duration_since(SystemTime::now())
                .unwrap_or_default()
        });
        answer.min(renewal).min(NEVER)
    }
}
