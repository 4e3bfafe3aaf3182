//! The conversation with a control plane: a delta ADS stream, opened again whenever it ends.
//!
//! Each response is taken apart, put together with what is in force, published, and only then acknowledged. A bad
//! resource is refused by name and field while the others of its response are taken. Without a control plane the
//! last configuration stays in force; it is kept on disk, too, and is the first one after a restart.

use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Streaming;
use tracing::{debug, info, warn};
use weft_proto::envoy::config::core::v3::Node;
use weft_proto::envoy::service::discovery::v3::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use weft_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::assembly::Assembly;
use super::backoff::Backoff;
use super::cache::{Cache, SharedCache};
use super::kind::Kind;
use super::metrics::Metrics;
use super::store::{Store, StoreError};
use super::stream::{self, Stream};
use super::translate::chain;
use super::transport::{self, Target};
use crate::config::Configuration;

/// What is in force, for the data plane.
#[derive(Debug, Clone, Default)]
pub struct Published {
    /// Everything.
    pub configuration: Arc<Configuration>,
    /// Whether it is a whole one: all that the control plane names at first has arrived, or was on disk.
    pub is_complete: bool,
}

/// What a client starts from.
#[derive(Debug)]
pub struct Setup {
    /// Where the control plane is.
    pub target: Target,
    /// Who we are.
    pub node: Node,
    /// What the bootstrap has.
    pub statics: Configuration,
    /// Where the last good configuration is kept; none: nowhere.
    pub store: Option<Store>,
    /// Names that the bootstrap has taken are in it.
    pub cache: SharedCache,
    /// What is counted.
    pub metrics: Metrics,
}

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
/// The last good configuration is written no more often.
const STORE_INTERVAL: Duration = Duration::from_secs(1);
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

/// The client.
#[derive(Debug)]
pub struct Client {
    target: Target,
    node: Node,
    store: Option<Store>,
    cache: SharedCache,
    assembly: Assembly,
    metrics: Metrics,
    published: watch::Sender<Published>,
    /// Kinds of which a first response has arrived, or that were on disk.
    arrived: std::collections::BTreeSet<Kind>,
    again_at: Option<Instant>,
    store_at: Option<Instant>,
}

impl Client {
    /// Starts from what is on disk, which is published at once.
    pub fn new(setup: Setup) -> (Self, watch::Receiver<Published>) {
        let Setup {
            target,
            node,
            statics,
            store,
            cache,
            metrics,
        } = setup;
        let first = Published {
            configuration: Arc::new(statics.clone()),
            is_complete: false,
        };
        let (published, receiver) = watch::channel(first);
        let mut client = Self {
            target,
            node,
            store,
            cache,
            assembly: Assembly::new(statics),
            metrics,
            published,
            arrived: Default::default(),
            again_at: None,
            store_at: None,
        };
        client.take_stored();
        (client, receiver)
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
        self.save().await;
    }

    /// One stream, from its opening to its end.
    async fn talk(&mut self) -> Ended {
        match self.open().await {
            Ok((requests, mut responses)) => {
                let mut stream = Stream::new(self.node.clone());
                self.converse(&mut stream, &requests, &mut responses).await
            }
            Err(ended) => {
                self.metrics.connects.with(&["failed"]).increment();
                ended
            }
        }
    }

    async fn open(
        &mut self,
    ) -> Result<
        (
            mpsc::Sender<DeltaDiscoveryRequest>,
            Streaming<DeltaDiscoveryResponse>,
        ),
        Ended,
    > {
        let channel = transport::connect(&self.target)
            .await
            .map_err(|error| Ended::Connect(self.target.to_string(), error))?;
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

    async fn converse(
        &mut self,
        stream: &mut Stream,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
        responses: &mut Streaming<DeltaDiscoveryResponse>,
    ) -> Ended {
        self.metrics.connects.with(&["opened"]).increment();
        self.metrics.connected.set(1);
        info!(target = %self.target, "connected to the control plane");
        // Another server may know what this one didn't.
        self.cache.write().forget_absences();
        if self.subscribe(stream, requests).is_err() {
            return Ended::Stalled;
        }
        loop {
            let response = tokio::select! {
                response = responses.message() => response,
                () = until(self.again_at) => {
                    self.publish();
                    continue;
                }
                () = until(self.store_at) => {
                    self.save().await;
                    continue;
                }
            };
            match response {
                Ok(Some(response)) => {
                    if self.respond(stream, requests, response).is_err() {
                        return Ended::Stalled;
                    }
                }
                Ok(None) => return Ended::Closed,
                Err(status) => return Ended::Status(Box::new(status)),
            }
        }
    }

    /// Asks for what is wanted and not asked for yet.
    fn subscribe(
        &mut self,
        stream: &mut Stream,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
    ) -> Result<(), Ended> {
        for kind in Kind::ALL {
            let wanted = self.cache.read().wanted(kind);
            if !kind.is_wildcard() {
                self.cache.write().keep_wanted(kind, &wanted);
            }
            let request = stream.subscribe(kind, &wanted, || self.cache.read().versions(kind));
            if let Some(request) = request {
                requests.try_send(request).map_err(|_| Ended::Stalled)?;
            }
        }
        Ok(())
    }

    /// Takes a response, publishes what it makes, answers it, and asks for what it names.
    fn respond(
        &mut self,
        stream: &mut Stream,
        requests: &mpsc::Sender<DeltaDiscoveryRequest>,
        response: DeltaDiscoveryResponse,
    ) -> Result<(), Ended> {
        let DeltaDiscoveryResponse {
            system_version_info,
            resources,
            type_url,
            nonce,
            removed_resources,
            control_plane: _,
            removed_resource_names,
            resource_errors: _,
        } = response;
        let Some(kind) = Kind::of(&type_url) else {
            self.metrics.response("other", 1);
            let refusal = format!("{type_url:?} was not subscribed to");
            return requests
                .try_send(stream::answer(&type_url, nonce, Some(refusal)))
                .map_err(|_| Ended::Stalled);
        };
        debug!(
            kind = kind.word(),
            version = system_version_info,
            changed = resources.len(),
            removed = removed_resources.len(),
            "response of the control plane"
        );
        let refusals = {
            let mut cache = self.cache.write();
            let removed_names = removed_resource_names.into_iter().map(|name| name.name);
            for name in removed_resources.into_iter().chain(removed_names) {
                cache.remove(kind, &name);
            }
            take_all(&mut cache, kind, resources)
        };
        self.arrived.insert(kind);
        self.publish();
        self.store_at.get_or_insert(Instant::now() + STORE_INTERVAL);
        self.metrics.response(kind.word(), refusals.len());
        let refusal = (!refusals.is_empty()).then(|| told(&refusals));
        if let Some(refusal) = &refusal {
            warn!(
                kind = kind.word(),
                refusal, "resources refused; the others are in force"
            );
        }
        requests
            .try_send(stream.answer(kind, nonce, refusal))
            .map_err(|_| Ended::Stalled)?;
        self.subscribe(stream, requests)
    }

    /// Puts together what there is, and publishes it where it differs.
    fn publish(&mut self) {
        let assembled = {
            let cache = self.cache.read();
            for kind in Kind::ALL {
                self.metrics.in_force(kind, cache.in_force(kind).count());
            }
            self.assembly.assemble(&cache, Instant::now())
        };
        self.again_at = assembled.again_at;
        self.metrics
            .waiting
            .set(i64::try_from(assembled.waiting.len()).unwrap_or(i64::MAX));
        let has_begun = [Kind::Cluster, Kind::Listener]
            .iter()
            .all(|kind| self.arrived.contains(kind));
        let is_whole = has_begun && assembled.waiting.is_empty();
        let has_changed = self.published.send_if_modified(|published| {
            let is_new = *published.configuration != assembled.configuration;
            let becomes_complete = is_whole && !published.is_complete;
            if is_new {
                published.configuration = Arc::new(assembled.configuration);
            }
            published.is_complete |= is_whole;
            is_new || becomes_complete
        });
        if has_changed {
            self.metrics.updates.increment();
        }
    }

    /// Waits for the next attempt; what waits for others does not wait longer for want of a stream.
    async fn idle(&mut self, deadline: Instant) {
        loop {
            tokio::select! {
                () = sleep_until(deadline) => return,
                () = until(self.again_at) => self.publish(),
                () = until(self.store_at) => self.save().await,
            }
        }
    }

    fn take_stored(&mut self) {
        let Some(store) = &self.store else { return };
        match store.load(&self.node.id) {
            Ok(Some(stored)) => {
                let taken = self.cache.write().take_stored(stored, SystemTime::now());
                info!(
                    resources = taken,
                    "serving the configuration that was in force last"
                );
                if taken > 0 {
                    self.arrived.extend(Kind::ALL);
                    self.publish();
                }
            }
            Ok(None) => {}
            Err(error) => {
                warn!(
                    error = chain(&error),
                    "the last good configuration is not used"
                );
            }
        }
    }

    async fn save(&mut self) {
        if self.store_at.take().is_none() {
            return;
        }
        let Some(store) = self.store.clone() else {
            return;
        };
        let stored = self.cache.read().to_stored(&self.node.id);
        let saved: Result<Result<(), StoreError>, _> =
            tokio::task::spawn_blocking(move || store.save(&stored)).await;
        if let Ok(Err(error)) = saved {
            self.metrics.store_failures.increment();
            warn!(
                error = chain(&error),
                "the last good configuration is not kept"
            );
        }
    }
}

/// Takes each resource for itself; tells of those that were refused, by name.
fn take_all(
    cache: &mut Cache,
    kind: Kind,
    resources: Vec<weft_proto::envoy::service::discovery::v3::Resource>,
) -> Vec<String> {
    let now = SystemTime::now();
    resources
        .into_iter()
        .filter_map(|resource| {
            let name = resource.name.clone();
            let refusal = cache.take(kind, resource, now).err()?;
            Some(format!("{} {name}: {refusal}", kind.word()))
        })
        .collect()
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

/// Until then, or for ever.
async fn until(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant).await,
        None => std::future::pending().await,
    }
}
