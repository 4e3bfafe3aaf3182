//! The conversation with a control plane: a stream of all kinds or of one, opened again whenever it ends.
//!
//! Each response is taken apart, put together with what is in force, published, and only then acknowledged. A bad
//! resource is refused by name and field while the others of its response are taken. Without a control plane what
//! is in force stays so.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::uri::PathAndQuery;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::client::Grpc;
use tonic::metadata::MetadataMap;
use tonic::transport::Channel;
use tonic::{Request, Status, Streaming};
use tonic_prost::ProstCodec;
use tracing::{debug, info, warn};
use weft_proto::envoy::config::core::v3::Node;

use super::backoff::Backoff;
use super::delta::Delta;
use super::dialogue::{Dialogue, Update, Variant};
use super::kind::{Kind, Scope};
use super::metrics::Metrics;
use super::origin::Origin;
use super::state::State;
use super::state_of_the_world::{StateOfTheWorld, Versions};
use super::translate::chain;
use super::transport::{ControlPlane, Target};

/// The first wait after a lost stream, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A stream that was open this long was a good one: the next failure waits as the first did.
const GOOD_STREAM: Duration = Duration::from_secs(10);
/// Requests that may wait to be sent; a server that reads none of so many is gone.
const REQUEST_QUEUE: usize = 256;
/// The largest response.
const MAX_RESPONSE_BYTES: usize = 64 << 20;
/// A refusal tells of so many resources at most.
const MAX_REFUSALS_TOLD: usize = 20;

/// Why a stream ended.
#[derive(Debug, thiserror::Error)]
enum Ended {
    #[error("connecting to the control plane at {0}")]
    Connect(String, #[source] tonic::transport::Error),
    #[error("the control plane ended the stream")]
    Closed,
    #[error("the control plane failed: {}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    #[error("the control plane reads no requests")]
    Stalled,
}

type Requests<D> = mpsc::Sender<<D as Dialogue>::Request>;
type Responses<D> = Streaming<<D as Dialogue>::Response>;

/// The client.
#[derive(Debug)]
pub struct Client {
    control_plane: ControlPlane,
    scope: Scope,
    /// What it is for resources that name it.
    origin: Origin,
    /// Which of its targets is tried first.
    turn: usize,
    /// What was accepted, for the next stream in the state of the world.
    versions: Versions,
    node: Node,
    state: Arc<State>,
    metrics: Metrics,
}

impl Client {
    /// Of a control plane, which is asked for the kinds in the scope, and of named ones for those that come from this
    /// origin. `node` is who we are.
    pub fn new(
        control_plane: ControlPlane,
        scope: Scope,
        origin: Origin,
        node: Node,
        state: Arc<State>,
        metrics: Metrics,
    ) -> Self {
        Self {
            control_plane,
            scope,
            origin,
            turn: 0,
            versions: Versions::new(),
            node,
            state,
            metrics,
        }
    }

    /// Talks until cancelled.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let opened = Instant::now();
            let ended = tokio::select! {
                ended = self.talk() => ended,
                () = cancel.cancelled() => return,
            };
            if opened.elapsed() >= GOOD_STREAM {
                backoff.reset();
            } else {
                // One that accepts connections and no streams is not the one to insist on.
                self.turn = self.turn.wrapping_add(1);
            }
            let wait = backoff.next_wait(&mut rand::rng());
            info!(
                reason = chain(&ended),
                ?wait,
                "no control plane: the last configuration stays in force"
            );
            tokio::select! {
                () = sleep(wait) => {}
                () = cancel.cancelled() => return,
            }
        }
    }

    /// One stream, from its opening to its end.
    async fn talk(&mut self) -> Ended {
        let node = self.node.clone();
        match self.control_plane.variant {
            Variant::Delta => self.talk_in(&mut Delta::new(node)).await,
            Variant::StateOfTheWorld => {
                let versions = std::mem::take(&mut self.versions);
                let mut dialogue = StateOfTheWorld::new(node, versions);
                let ended = self.talk_in(&mut dialogue).await;
                self.versions = dialogue.into_versions();
                ended
            }
        }
    }

    async fn talk_in<D: Dialogue>(&self, dialogue: &mut D) -> Ended {
        let (requests, outgoing) = mpsc::channel(REQUEST_QUEUE);
        // Another server may know what the last one didn't.
        self.state.cache().write().forget_absences();
        // Before the stream is open: many a server begins its answer only when it has something to say.
        // What others take may name what is asked for here.
        let mut elsewhere = self.state.changes();
        if let Err(ended) = self.subscribe(dialogue, &requests) {
            return ended;
        }
        let mut opening = pin!(self.open::<D>(outgoing));
        let opened = loop {
            tokio::select! {
                opened = opening.as_mut() => break opened,
                Ok(()) = elsewhere.changed() => if let Err(ended) = self.subscribe(dialogue, &requests) {
                    return ended;
                },
            }
        };
        match opened {
            Ok((target, mut responses)) => {
                self.metrics.connects.with(&["opened"]).increment();
                let _open = self.metrics.stream();
                info!(%target, kinds = self.scope.word(), "connected to the control plane");
                self.converse(dialogue, &requests, &mut responses, elsewhere)
                    .await
            }
            Err(ended) => {
                self.metrics.connects.with(&["failed"]).increment();
                ended
            }
        }
    }

    async fn converse<D: Dialogue>(
        &self,
        dialogue: &mut D,
        requests: &Requests<D>,
        responses: &mut Responses<D>,
        mut elsewhere: watch::Receiver<u64>,
    ) -> Ended {
        loop {
            let answered = tokio::select! {
                response = responses.message() => match response {
                    Ok(Some(response)) => {
                        self.respond(dialogue, requests, D::read(response), &mut elsewhere)
                    }
                    Ok(None) => Err(Ended::Closed),
                    Err(status) => Err(Ended::Status(Box::new(status))),
                },
                Ok(()) = elsewhere.changed() => self.subscribe(dialogue, requests),
            };
            if let Err(ended) = answered {
                return ended;
            }
        }
    }

    /// Asks for what is wanted and not asked for yet.
    fn subscribe<D: Dialogue>(
        &self,
        dialogue: &mut D,
        requests: &Requests<D>,
    ) -> Result<(), Ended> {
        for kind in self.scope.kinds() {
            let wanted = self.state.wanted(*kind, &self.origin);
            let held = || self.state.cache().read().versions(*kind);
            if let Some(request) = dialogue.subscribe(*kind, &wanted, held) {
                requests.try_send(request).map_err(|_| Ended::Stalled)?;
            }
        }
        Ok(())
    }

    /// Takes a response, answers it, and asks for what it names.
    fn respond<D: Dialogue>(
        &self,
        dialogue: &mut D,
        requests: &Requests<D>,
        update: Update,
        elsewhere: &mut watch::Receiver<u64>,
    ) -> Result<(), Ended> {
        let Update {
            receipt,
            resources,
            removal,
        } = update;
        let kind = Kind::of(&receipt.type_url).filter(|kind| dialogue.has_subscribed(*kind));
        let Some(kind) = kind else {
            self.metrics.response("other", 1);
            let refusal = format!("{:?} was not subscribed to", receipt.type_url);
            let answer = dialogue.answer(receipt, &BTreeSet::new(), Some(refusal));
            return requests.try_send(answer).map_err(|_| Ended::Stalled);
        };
        debug!(
            kind = kind.word(),
            version = receipt.version,
            resources = resources.len(),
            ?removal,
            "response of the control plane"
        );
        let refusals = self.state.take(kind, resources, removal, &self.origin);
        // What was taken here is asked about below.
        elsewhere.mark_unchanged();
        self.metrics.response(kind.word(), refusals.len());
        let refusal = (!refusals.is_empty()).then(|| told(&refusals));
        if let Some(refusal) = &refusal {
            warn!(
                kind = kind.word(),
                refusal, "resources refused; the others are in force"
            );
        }
        let wanted = self.state.wanted(kind, &self.origin);
        let answer = dialogue.answer(receipt, &wanted, refusal);
        requests.try_send(answer).map_err(|_| Ended::Stalled)?;
        self.subscribe(dialogue, requests)
    }

    /// Opens a stream. A server may take its time to begin: that it lives is what pings of the channel tell.
    async fn open<D: Dialogue>(
        &self,
        outgoing: mpsc::Receiver<D::Request>,
    ) -> Result<(Target, Responses<D>), Ended> {
        let (target, channel) = self
            .control_plane
            .connect(self.turn)
            .await
            .map_err(|(target, error)| Ended::Connect(target.to_string(), error))?;
        let mut request = Request::new(ReceiverStream::new(outgoing));
        *request.metadata_mut() = MetadataMap::from_headers(self.control_plane.metadata.clone());
        let responses = stream::<D>(channel, self.scope.path(D::VARIANT), request)
            .await
            .map_err(|status| Ended::Status(Box::new(status)))?;
        Ok((target, responses))
    }
}

/// Calls a method of a discovery service: all of them have the same messages.
async fn stream<D: Dialogue>(
    channel: Channel,
    path: &'static str,
    request: Request<ReceiverStream<D::Request>>,
) -> Result<Responses<D>, Status> {
    let mut service = Grpc::new(channel).max_decoding_message_size(MAX_RESPONSE_BYTES);
    service.ready().await.map_err(|error| {
        Status::unavailable(format!("the channel is not ready: {}", chain(&error)))
    })?;
    let path = PathAndQuery::from_static(path);
    let codec = ProstCodec::<D::Request, D::Response>::default();
    Ok(service.streaming(request, path, codec).await?.into_inner())
}

/// One message of all refusals.
fn told(refusals: &[String]) -> String {
    let mut text = refusals[..refusals.len().min(MAX_REFUSALS_TOLD)].join("; ");
    if refusals.len() > MAX_REFUSALS_TOLD {
        // Writing to a String cannot fail.
        let _ = write!(text, "; and {} more", refusals.len() - MAX_REFUSALS_TOLD);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_very_many_resources_is_cut() {
        let refusals: Vec<_> = (0..25)
            .map(|number| format!("cluster {number}: bad"))
            .collect();

        let text = told(&refusals);

        assert!(
            text.starts_with("cluster 0: bad; cluster 1: bad; "),
            "{text}"
        );
        assert!(text.ends_with("cluster 19: bad; and 5 more"), "{text}");
    }
}
