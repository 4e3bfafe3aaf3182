//! Mirrored requests: copies, sent elsewhere while the original goes its way. Nobody waits for them, and
//! nobody sees their answers.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderValue, Response, StatusCode};
use http_body_util::BodyExt;

use super::HttpConnection;
use super::headers::{self, Head};
use super::outgoing;
use super::target;
use crate::cluster::breaker::Gauge;
use crate::cluster::endpoint::Endpoint;
use crate::cluster::outlier::Outcome;
use crate::cluster::stats::ClusterStats;
use crate::cluster::{Cluster, Pick};
use crate::config::route::Mirror;
use crate::random;
use crate::snapshot::Snapshot;
use crate::snapshot::routes::split_port;
use crate::telemetry::report::Protocol;
use crate::upstream::HttpVersion;
use crate::upstream::body::RequestBody;
use crate::upstream::body::meter::BodyMeter;
use crate::upstream::environment::Environment;
use crate::upstream::guise::Guise;
use crate::upstream::lease::{Freshness, Lease, Terms, Wanted};
use crate::upstream::response::UpstreamBody;

/// No copy takes longer.
const PATIENCE: Duration = Duration::from_secs(30);

/// A copy on its way.
struct Copy {
    environment: Arc<Environment>,
    cluster: Arc<Cluster>,
    original_destination: Option<std::net::SocketAddr>,
    head: Head,
    body: RequestBody,
    version: HttpVersion,
}

/// Sends copies of a request where its route says so. Each is an open connection of the process's drain.
pub(super) fn send_copies(
    mirrors: &[Mirror],
    snapshot: &Snapshot,
    head: &Head,
    protocol: Protocol,
    body: Option<&Arc<BodyMeter>>,
    connection: &HttpConnection,
) {
    for mirror in mirrors {
        let name = target::named(&mirror.cluster, &head.headers);
        let Some(cluster) = snapshot.clusters.get(&name) else {
            continue;
        };
        if !mirror.share.covers(random::draw()) {
            continue;
        }
        let version = target::version(cluster, protocol);
        let mut head = shadow(head, mirror);
        if headers::address(&mut head, version).is_err() {
            continue;
        }
        let copy = Copy {
            environment: Arc::clone(&connection.environment),
            cluster: Arc::clone(cluster),
            original_destination: connection.original_destination,
            head,
            body: body.map_or(RequestBody::Empty, |body| RequestBody::Copy(body.copy())),
            version,
        };
        let token = connection.environment.drain.token();
        tokio::spawn(async move {
            let _token = token;
            if !copy.send().await {
                tracing::debug!("a mirrored request was not answered");
            }
        });
    }
}

/// As Envoy does: whoever gets the copy can tell it by its host.
fn shadow(head: &Head, mirror: &Mirror) -> Head {
    let mut head = head.clone();
    for change in &mirror.headers.request {
        change.apply(&mut head.headers);
    }
    match &mirror.host {
        Some(host) => head.authority = Some(host.clone()),
        None if mirror.keeps_host => {}
        None => {
            let host = match split_port(head.authority()) {
                Some((host, port)) => format!("{host}-shadow:{port}"),
                None => format!("{}-shadow", head.authority()),
            };
            head.authority = HeaderValue::try_from(host).ok();
        }
    }
    head
}

impl Copy {
    /// Says whether it was answered; the answer is read to its end, so that the connection can be used again.
    async fn send(self) -> bool {
        let cluster = Arc::clone(&self.cluster);
        let deadline = tokio::time::Instant::now() + PATIENCE;
        match self.exchange(deadline).await {
            Ok(is_whole) => is_whole,
            Err(Unanswered(status)) => {
                cluster.stats.responses.count(status);
                false
            }
        }
    }

    /// Says whether the answer was whole.
    async fn exchange(self, deadline: tokio::time::Instant) -> Result<bool, Unanswered> {
        let _permit = self.cluster.breakers.admit(Gauge::Requests)?;
        let pick = Pick {
            original_destination: self.original_destination,
            ..Pick::at(Instant::now())
        };
        let endpoint = self.cluster.pick(pick)?;
        ClusterStats::count(&self.cluster.stats.requests);
        let _active = endpoint.state.begin();
        let cluster = Arc::clone(&self.cluster);
        let asked = tokio::time::timeout_at(deadline, self.ask(&endpoint)).await;
        let asked = asked.unwrap_or(Err(Unanswered(StatusCode::GATEWAY_TIMEOUT)));
        let (response, lease) = asked.inspect_err(|_| {
            cluster.record(&endpoint, Outcome::LocalOriginFailure, Instant::now());
        })?;
        let outcome = Outcome::of_status(response.status());
        cluster.record(&endpoint, outcome, Instant::now());
        cluster.stats.responses.count(response.status());
        let read = tokio::time::timeout_at(deadline, drained(response.into_body())).await;
        let is_whole = matches!(read, Ok(true));
        if is_whole {
            lease.finish(&cluster);
        }
        Ok(is_whole)
    }

    async fn ask(
        self,
        endpoint: &Arc<Endpoint>,
    ) -> Result<(Response<UpstreamBody>, Lease), Unanswered> {
        let upstreams = &self.environment.upstreams;
        let guise = Guise::own(&self.cluster.config);
        let terms = Terms::alone(self.version, Freshness::Any, guise);
        let mut lease = upstreams.lend(&self.cluster, endpoint, terms).await?;
        ClusterStats::count(&self.cluster.stats.tries);
        let mut request = outgoing::request(Box::new(self.head), self.body);
        match lease.send(&mut request, Wanted::Once).await {
            Ok(response) => Ok((response, lease)),
            Err(_) => Err(Unanswered(StatusCode::SERVICE_UNAVAILABLE)),
        }
    }
}

/// Nobody has answered; counted by this status, as Envoy does.
struct Unanswered(StatusCode);

impl<E: std::error::Error> From<E> for Unanswered {
    fn from(_: E) -> Self {
        Unanswered(StatusCode::SERVICE_UNAVAILABLE)
    }
}

async fn drained(mut body: UpstreamBody) -> bool {
    while let Some(frame) = body.frame().await {
        if frame.is_err() {
            return false;
        }
    }
    true
}
