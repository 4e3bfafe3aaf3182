//! The conversation with a control plane: a delta ADS stream, opened again whenever it ends.
//!
//! Each response is taken apart, put together with what is in force, published, and only then acknowledged. A bad
//! resource is refused by name and field while the others of its response are taken. Without a control plane what
//! is in force stays so.

use std::fmt::Write;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::{debug, info, warn};
use weft_proto::envoy::config::core::v3::Node;
use weft_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::backoff::Backoff;
use super::kind::Kind;
use super::metrics::Metrics;
use super::state::State;
use super::stream::{self, Stream};
use super::translate::chain;
use super::transport::{self, Target};

/// The first wait after a lost stream, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// A stream that was open this long was a good one: the next failure waits as the first did.
const GOOD_STREAM: Duration = Duration::from_secs(10);
/// How long a server may take to begin a stream.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);
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
    #[error("the control plane did not open the stream within {} seconds", OPEN_TIMEOUT.as_secs())]
    Silent,
    #[error("the control plane ended the stream")]
    Closed,
    #[error("the control plane failed: {}: {}", .0.code(), .0.message())]
    Status(Box<tonic::Status>),
    #[error("the control plane reads no requests")]
    Stalled,
}

type Requests = mpsc::Sender<DeltaDiscoveryRequest>;
type Responses = Streaming<DeltaDiscoveryResponse>;

/// The client.
#[derive(Debug)]
pub struct Client {
    target: Target,
    node: Node,
    state: State,
    metrics: Metrics,
}

impl Client {
    /// Of a control plane. `node` is who we are.
    pub fn new(target: Target, node: Node, state: State, metrics: Metrics) -> Self {
        Self {
            target,
            node,
            state,
            metrics,
        }
    }

    /// Talks until cancelled; then keeps what is in force on disk.
    pub async fn run(mut self, cancel: CancellationToken) {
        let mut backoff = Backoff::new(BACKOFF.0, BACKOFF.1);
        loop {
            let opened = Instant::now();
            let ended = tokio::select! {
                ended = self.talk() => ended,
                () = cancel.cancelled() => break,
            };
            self.metrics.connected.set(0);
            if opened.elapsed() >= GOOD_STREAM {
                backoff.reset();
            }
            let wait = backoff.next_wait(&mut rand::rng());
            info!(
                reason = chain(&ended),
                ?wait,
                "no control plane: the last configuration stays in force"
            );
            tokio::select! {
                () = self.idle(Instant::now() + wait) => {}
                () = cancel.cancelled() => break,
            }
        }
        self.state.save().await;
    }

    /// One stream, from its opening to its end.
    async fn talk(&mut self) -> Ended {
        let opened = tokio::select! {
            opened = open(&self.target) => opened,
            // What waits for others does not wait longer for want of a stream.
            () = tend_for_ever(&mut self.state) => return Ended::Silent,
        };
        match opened {
            Ok((requests, mut responses)) => {
                self.metrics.connects.with(&["opened"]).increment();
                self.metrics.connected.set(1);
                info!(target = %self.target, "connected to the control plane");
                self.converse(&requests, &mut responses).await
            }
            Err(ended) => {
                self.metrics.connects.with(&["failed"]).increment();
                ended
            }
        }
    }

    async fn converse(&mut self, requests: &Requests, responses: &mut Responses) -> Ended {
        let mut stream = Stream::new(self.node.clone());
        // Another server may know what this one didn't.
        self.state.cache().write().forget_absences();
        if let Err(ended) = self.subscribe(&mut stream, requests) {
            return ended;
        }
        loop {
            let response = tokio::select! {
                response = responses.message() => response,
                () = self.state.tend() => continue,
            };
            let answered = match response {
                Ok(Some(response)) => self.respond(&mut stream, requests, response),
                Ok(None) => Err(Ended::Closed),
                Err(status) => Err(Ended::Status(Box::new(status))),
            };
            if let Err(ended) = answered {
                return ended;
            }
        }
    }

    /// Asks for what is wanted and not asked for yet.
    fn subscribe(&mut self, stream: &mut Stream, requests: &Requests) -> Result<(), Ended> {
        for kind in Kind::ALL {
            let wanted = self.state.wanted(kind);
            let held = || self.state.cache().read().versions(kind);
            if let Some(request) = stream.subscribe(kind, &wanted, held) {
                requests.try_send(request).map_err(|_| Ended::Stalled)?;
            }
        }
        Ok(())
    }

    /// Takes a response, answers it, and asks for what it names.
    fn respond(
        &mut self,
        stream: &mut Stream,
        requests: &Requests,
        response: DeltaDiscoveryResponse,
    ) -> Result<(), Ended> {
        let DeltaDiscoveryResponse {
            system_version_info,
            resources,
            type_url,
            nonce,
            mut removed_resources,
            control_plane: _,
            removed_resource_names,
            resource_errors: _,
        } = response;
        let Some(kind) = Kind::of(&type_url) else {
            self.metrics.response("other", 1);
            let refusal = format!("{type_url:?} was not subscribed to");
            let answer = stream::answer(&type_url, nonce, Some(refusal));
            return requests.try_send(answer).map_err(|_| Ended::Stalled);
        };
        removed_resources.extend(removed_resource_names.into_iter().map(|name| name.name));
        debug!(
            kind = kind.word(),
            version = system_version_info,
            changed = resources.len(),
            removed = removed_resources.len(),
            "response of the control plane"
        );
        let refusals = self.state.take(kind, resources, &removed_resources);
        self.metrics.response(kind.word(), refusals.len());
        let refusal = (!refusals.is_empty()).then(|| told(&refusals));
        if let Some(refusal) = &refusal {
            warn!(
                kind = kind.word(),
                refusal, "resources refused; the others are in force"
            );
        }
        let answer = stream::answer(kind.type_url(), nonce, refusal);
        requests.try_send(answer).map_err(|_| Ended::Stalled)?;
        self.subscribe(stream, requests)
    }

    /// Waits for the next attempt.
    async fn idle(&mut self, deadline: Instant) {
        tokio::select! {
            () = sleep_until(deadline) => {}
            () = tend_for_ever(&mut self.state) => {}
        }
    }
}

async fn tend_for_ever(state: &mut State) {
    loop {
        state.tend().await;
    }
}

async fn open(target: &Target) -> Result<(Requests, Responses), Ended> {
    let channel = transport::connect(target)
        .await
        .map_err(|error| Ended::Connect(target.to_string(), error))?;
    let mut client = AggregatedDiscoveryServiceClient::new(channel)
        .max_decoding_message_size(MAX_RESPONSE_BYTES);
    let (requests, outgoing) = mpsc::channel(REQUEST_QUEUE);
    let opening = client.delta_aggregated_resources(ReceiverStream::new(outgoing));
    let responses = timeout(OPEN_TIMEOUT, opening)
        .await
        .map_err(|_| Ended::Silent)?
        .map_err(|status| Ended::Status(Box::new(status)))?
        .into_inner();
    Ok((requests, responses))
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
