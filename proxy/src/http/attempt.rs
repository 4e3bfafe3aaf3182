//! Trying a request until one try is good enough, or no more are allowed.
//!
//! One try: the breaker admits it, the balancer picks an endpoint, the pool lends a connection, the request
//! is sent, and the outcome is recorded once.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::{HeaderValue, Request, Response};
use http_body::Body as _;
use hyper::body::Incoming;

use super::HttpConnection;
use super::completion::Completion;
use super::failure::{Failure, Reset};
use super::headers::{self, ATTEMPT_COUNT, Head};
use super::outgoing::{Keep, Outgoing};
use super::retry::{self, TryEnd};
use crate::cluster::breaker::{Gauge, Permit};
use crate::cluster::endpoint::{Active, Endpoint};
use crate::cluster::outlier::Outcome;
use crate::cluster::stats::ClusterStats;
use crate::cluster::{Cluster, Pick, random};
use crate::config::retry::RetryPolicy;
use crate::telemetry::report::ResponseFlags;
use crate::upstream::body::RequestBody;
use crate::upstream::body::client::ClientBody;
use crate::upstream::body::meter::BodyMeter;
use crate::upstream::lease::{Freshness, Lease};
use crate::upstream::{ConnectFailure, HttpVersion};

/// How a request is tried.
pub(super) struct Attempts<'a> {
    pub(super) connection: &'a HttpConnection,
    pub(super) cluster: &'a Arc<Cluster>,
    pub(super) policy: Option<&'a Arc<RetryPolicy>>,
    pub(super) version: HttpVersion,
    /// Whether requests are addressed to the endpoint's own host.
    pub(super) is_rewritten_to_endpoint: bool,
}

/// A response, and what must be held until its body has ended.
pub(super) struct Answered {
    pub(super) response: Response<Incoming>,
    pub(super) borrowed: Borrowed,
}

/// What a request has borrowed: given back when its response has ended, or closed when dropped.
pub(super) struct Borrowed {
    lease: Lease,
    cluster: Arc<Cluster>,
    _request: Permit,
    _active: Active,
    retry: Option<Permit>,
}

/// A try that brought no response.
struct Missed {
    failure: Failure,
    /// The request, where it can be sent again as it is.
    unsent: Option<Request<RequestBody>>,
}

/// A connection that was closed while it lay idle is replaced so often, within one try.
const MAX_STALE: u32 = 3;

impl Borrowed {
    /// The connection can carry another request.
    pub(super) fn give_back(self) {
        self.lease.finish(&self.cluster);
    }
}

impl Attempts<'_> {
    /// Tries the request.
    pub(super) async fn run(
        &self,
        head: Head,
        body: ClientBody,
        meter: Option<Arc<BodyMeter>>,
        completion: &mut Completion,
    ) -> Result<Answered, Failure> {
        let is_idempotent = retry::is_idempotent(&head.method);
        let (mut request, mut outgoing) =
            Outgoing::split(head, body, meter, self.keep(is_idempotent));
        let mut tried = vec![];
        let mut permit = None;
        let mut retries = 0;
        ClusterStats::count(&self.cluster.stats.requests);
        loop {
            completion.attempted();
            request
                .headers_mut()
                .insert(ATTEMPT_COUNT, HeaderValue::from(retries + 1));
            let ended = self.bounded_try(request, &tried, completion).await;
            let again = self.again(&ended, retries, is_idempotent, completion);
            let (ended, unsent) = match ended {
                Ok(answered) => (Ok(answered), None),
                Err(missed) => (Err(missed.failure), missed.unsent),
            };
            let next = again.and_then(|again| Some((again, unsent.or_else(|| outgoing.again())?)));
            let Some((again, next)) = next else {
                return self.last(ended, permit, retries);
            };
            if let Ok(answered) = ended {
                answered.discard();
            }
            request = next;
            permit = Some(again.permit);
            tried.extend(again.avoid);
            tokio::time::sleep(again.wait).await;
            retries += 1;
        }
    }

    /// A copy is kept only where a request may have to be sent again after it was sent.
    fn keep(&self, is_idempotent: bool) -> Keep {
        let is_http2 = self.version == HttpVersion::Http2;
        match self.policy {
            Some(policy)
                if policy.retries > 0 && retry::may_resend(&policy.on, is_idempotent, is_http2) =>
            {
                Keep::Copy
            }
            _ => Keep::Nothing,
        }
    }

    /// Whether, and how, it is tried again.
    fn again(
        &self,
        ended: &Result<Answered, Missed>,
        retries: u32,
        is_idempotent: bool,
        completion: &mut Completion,
    ) -> Option<Again> {
        let policy = self.policy?;
        let end = match ended {
            Ok(answered) => answered.end(),
            Err(missed) => TryEnd::of(&missed.failure),
        };
        if !retry::is_retried(&policy.on, end, is_idempotent) {
            return None;
        }
        if retries >= policy.retries {
            completion.flag(ResponseFlags::UPSTREAM_RETRY_LIMIT);
            return None;
        }
        let Ok(permit) = self.cluster.breakers.admit(Gauge::Retries) else {
            ClusterStats::count(&self.cluster.stats.retries_refused);
            return None;
        };
        ClusterStats::count(&self.cluster.stats.retries);
        Some(Again {
            permit,
            avoid: completion
                .endpoint_address()
                .filter(|_| policy.avoid_previous_endpoints),
            wait: random::with(|random| retry::wait(policy.back_off, retries, random)),
        })
    }

    fn last(
        &self,
        ended: Result<Answered, Failure>,
        permit: Option<Permit>,
        retries: u32,
    ) -> Result<Answered, Failure> {
        let mut answered = ended?;
        if retries > 0 && !answered.response.status().is_server_error() {
            ClusterStats::count(&self.cluster.stats.retries_succeeded);
        }
        // A retry is in flight until its response has ended.
        answered.borrowed.retry = permit;
        Ok(answered)
    }

    async fn bounded_try(
        &self,
        request: Request<RequestBody>,
        tried: &[SocketAddr],
        completion: &mut Completion,
    ) -> Result<Answered, Missed> {
        let Some(limit) = self.policy.and_then(|policy| policy.per_try_timeout) else {
            return self.one_try(request, tried, completion).await;
        };
        let tried = self.one_try(request, tried, completion);
        if let Ok(ended) = tokio::time::timeout(limit, tried).await {
            return ended;
        }
        ClusterStats::count(&self.cluster.stats.timeouts);
        completion.blame_endpoint(self.cluster);
        Err(Missed::sent(Failure::PerTryTimeout {
            cluster: Arc::clone(self.cluster.name()),
            limit,
        }))
    }

    async fn one_try(
        &self,
        mut request: Request<RequestBody>,
        tried: &[SocketAddr],
        completion: &mut Completion,
    ) -> Result<Answered, Missed> {
        let permit = match self.cluster.breakers.admit(Gauge::Requests) {
            Ok(permit) => permit,
            Err(source) => {
                let cluster = Arc::clone(self.cluster.name());
                return Err(Missed::unsent(
                    Failure::Overflow { cluster, source },
                    request,
                ));
            }
        };
        let pick = Pick {
            original_destination: self.connection.original_destination,
            avoid: tried,
            ..Pick::at(Instant::now())
        };
        let endpoint = match self.cluster.pick(pick) {
            Ok(endpoint) => endpoint,
            Err(source) => {
                let cluster = Arc::clone(self.cluster.name());
                return Err(Missed::unsent(
                    Failure::NoEndpoint { cluster, source },
                    request,
                ));
            }
        };
        completion.reached(&endpoint);
        if let (true, Some(host)) = (self.is_rewritten_to_endpoint, &endpoint.hostname) {
            headers::readdress(&mut request, self.version, host);
        }
        let active = endpoint.state.begin();
        let (response, lease) = self.send(request, &endpoint).await?;
        self.cluster.record(
            &endpoint,
            Outcome::of_status(response.status()),
            Instant::now(),
        );
        Ok(Answered {
            response,
            borrowed: Borrowed {
                lease,
                cluster: Arc::clone(self.cluster),
                _request: permit,
                _active: active,
                retry: None,
            },
        })
    }

    /// Sends the request on a connection that turns out to be one; records a failure.
    async fn send(
        &self,
        mut request: Request<RequestBody>,
        endpoint: &Arc<Endpoint>,
    ) -> Result<(Response<Incoming>, Lease), Missed> {
        let mut freshness = Freshness::Any;
        for stale in 0.. {
            let mut lease = match self.lend(endpoint, freshness).await {
                Ok(lease) => lease,
                Err(source) => return Err(self.not_connected(source, endpoint, request)),
            };
            let failure = match lease.send(request).await {
                Ok(response) => return Ok((response, lease)),
                Err(failure) => failure,
            };
            match failure.unsent {
                Some(unsent) if lease.is_reused() && stale < MAX_STALE => {
                    ClusterStats::count(&self.cluster.stats.stale);
                    lease.retire();
                    freshness = Freshness::Fresh;
                    request = *unsent;
                }
                unsent => return Err(self.reset(failure.error, unsent, endpoint)),
            }
        }
        unreachable!("the loop returns at the latest after {MAX_STALE} stale connections")
    }

    async fn lend(
        &self,
        endpoint: &Arc<Endpoint>,
        freshness: Freshness,
    ) -> Result<Lease, ConnectFailure> {
        let upstreams = &self.connection.environment.upstreams;
        upstreams
            .lend(self.cluster, endpoint, self.version, freshness)
            .await
    }

    fn not_connected(
        &self,
        source: ConnectFailure,
        endpoint: &Endpoint,
        request: Request<RequestBody>,
    ) -> Missed {
        // The endpoint is not to blame for a limit of ours.
        if !matches!(
            source,
            ConnectFailure::Overflow(_) | ConnectFailure::NoTls(_)
        ) {
            self.cluster
                .record(endpoint, Outcome::LocalOriginFailure, Instant::now());
        }
        let cluster = Arc::clone(self.cluster.name());
        Missed::unsent(Failure::Connect { cluster, source }, request)
    }

    fn reset(
        &self,
        source: hyper::Error,
        unsent: Option<Box<Request<RequestBody>>>,
        endpoint: &Endpoint,
    ) -> Missed {
        self.cluster
            .record(endpoint, Outcome::LocalOriginFailure, Instant::now());
        Missed {
            failure: Failure::Reset {
                cluster: Arc::clone(self.cluster.name()),
                address: endpoint.address,
                how: Reset::of(&source, unsent.is_some()),
                source,
            },
            unsent: unsent.map(|request| *request),
        }
    }
}

/// One more try.
struct Again {
    permit: Permit,
    avoid: Option<SocketAddr>,
    wait: std::time::Duration,
}

impl Missed {
    fn sent(failure: Failure) -> Self {
        Missed {
            failure,
            unsent: None,
        }
    }

    fn unsent(failure: Failure, request: Request<RequestBody>) -> Self {
        Missed {
            failure,
            unsent: Some(request),
        }
    }
}

impl Answered {
    fn end(&self) -> TryEnd {
        let headers = self.response.headers();
        let grpc_status = || headers.get("grpc-status")?.to_str().ok()?.parse().ok();
        TryEnd::Response {
            status: self.response.status().as_u16(),
            grpc_status: self
                .response
                .body()
                .is_end_stream()
                .then(grpc_status)
                .flatten(),
        }
    }

    /// Nobody wants the response: without a body, its connection can still be used.
    fn discard(self) {
        if self.response.body().is_end_stream() {
            self.borrowed.give_back();
        }
    }
}
