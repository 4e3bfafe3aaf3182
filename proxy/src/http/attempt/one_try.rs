//! One try: the breaker admits it, the balancer picks an endpoint, the pool lends a connection, the request is sent,
//! and the outcome is recorded once.

use std::pin::pin;
use std::sync::Arc;
use std::time::Instant;

use http::header::{HeaderName, UPGRADE};
use http::{Request, Response};

use super::again::Apart;
use super::{Answered, Attempts, Borrowed, Log, MAX_STALE, Missed};
use crate::clock;
use crate::cluster::Pick;
use crate::cluster::breaker::Gauge;
use crate::cluster::endpoint::Endpoint;
use crate::cluster::outlier::Outcome;
use crate::cluster::stats::ClusterStats;
use crate::http::failure::{Failure, Reset};
use crate::http::{headers, validity};
use crate::present;
use crate::upstream::ConnectFailure;
use crate::upstream::body::RequestBody;
use crate::upstream::error::ExchangeError;
use crate::upstream::guise::Guise;
use crate::upstream::lease::{Freshness, Lease, Terms, Wanted, is_to_share, weigh};
use crate::upstream::response::UpstreamBody;

/// What an endpoint says that wants to be spared.
const DEGRADED: HeaderName = HeaderName::from_static("x-envoy-degraded");

impl Attempts<'_> {
    pub(super) async fn one_try(
        &self,
        (request, wanted): (&mut Request<RequestBody>, Wanted),
        apart: Apart<'_>,
        log: &Log<'_>,
    ) -> Result<Box<Answered>, Missed> {
        let permit = match self
            .cluster
            .breakers_of(self.aim.priority)
            .admit(Gauge::Requests)
        {
            Ok(permit) => permit,
            Err(source) => {
                let cluster = Arc::clone(self.cluster.name());
                return Err(Missed::unsent(Failure::Overflow { cluster, source }));
            }
        };
        let begun = clock::now();
        let pick = Pick {
            original_destination: self
                .cluster
                .original_destination(request.headers(), self.connection.original_destination),
            avoid: apart.tried,
            omit: apart.omit,
            left: apart.left,
            hash: self.aim.hash,
            subset: self.aim.subset.as_deref(),
            session: apart.session,
            ..Pick::at(begun)
        };
        let endpoint = match self.cluster.pick(pick) {
            Ok(endpoint) => endpoint,
            Err(source) => {
                let cluster = Arc::clone(self.cluster.name());
                return Err(Missed::unsent(Failure::NoEndpoint { cluster, source }));
            }
        };
        log.lock().reached(&endpoint);
        if let (Some(before), Some(host)) = (self.endpoint_host, &endpoint.hostname) {
            headers::readdress(request, self.version, host, before);
        }
        let active = endpoint.state.begin();
        let (response, lease) = pin!(self.send((request, wanted), &endpoint, log)).await?;
        let now = clock::now();
        let latency = now.saturating_duration_since(begun);
        self.cluster.record_latency(&endpoint, latency, now);
        let outcome = Outcome::of_status(response.status());
        self.cluster.record(&endpoint, outcome, now);
        if self.cluster.heeds_degradation() && present::has(response.headers(), &DEGRADED) {
            self.cluster.record_degraded(&endpoint, now);
        }
        Ok(Box::new(Answered {
            response,
            borrowed: Borrowed {
                lease,
                cluster: Arc::clone(self.cluster),
                _request: permit,
                _active: active,
                retry: None,
            },
            body_again: None,
        }))
    }

    /// Sends the request on a connection that turns out to be one; records a failure.
    async fn send(
        &self,
        (request, wanted): (&mut Request<RequestBody>, Wanted),
        endpoint: &Arc<Endpoint>,
        log: &Log<'_>,
    ) -> Result<(Response<UpstreamBody>, Lease), Missed> {
        let may_share = self.may_share && is_to_share(self.cluster, endpoint, request);
        let mut freshness = Freshness::Any;
        for stale in 0.. {
            let lent = pin!(self.lend(endpoint, freshness, may_share)).await;
            let mut lease = match lent {
                Ok(lease) => lease,
                Err(source) => return Err(self.not_connected(source, endpoint)),
            };
            log.lock().connected(&lease);
            if stale == 0 {
                ClusterStats::count(&self.cluster.stats.tries);
            }
            let may_switch = present::has(request.headers(), &UPGRADE);
            let spare = match may_switch {
                true => None,
                false => lease.spare(request),
            };
            let sent = pin!(lease.send(request, wanted)).await;
            let failure = match sent {
                Ok(response) => {
                    weigh(self.cluster, endpoint, &response);
                    if let Some(spare) = spare {
                        spare.spared();
                    }
                    let max_headers = self.cluster.config.bounds.max_headers;
                    if validity::has_too_many_headers(&response, max_headers) {
                        return Err(self.malformed("it has too many headers", endpoint));
                    }
                    return match validity::misframed(&response, may_switch) {
                        Some(what) => Err(self.malformed(what, endpoint)),
                        None => Ok((response, lease)),
                    };
                }
                Err(failure) => failure,
            };
            let is_whole =
                failure.is_unsent || spare.is_some_and(|spare| spare.restore(request, &failure));
            if !is_whole || !lease.is_reused() || stale >= MAX_STALE {
                return Err(self.reset(failure.error, is_whole, endpoint));
            }
            ClusterStats::count(&self.cluster.stats.stale);
            lease.retire();
            freshness = Freshness::Fresh;
        }
        unreachable!("the loop returns at the latest after {MAX_STALE} stale connections")
    }

    async fn lend(
        &self,
        endpoint: &Arc<Endpoint>,
        freshness: Freshness,
        may_share: bool,
    ) -> Result<Lease, ConnectFailure> {
        let upstreams = &self.connection.environment.upstreams;
        let guise = Guise::of(
            &self.cluster.config,
            self.connection.ends(),
            self.aim.source,
        );
        let terms = Terms {
            version: self.version,
            freshness,
            guise,
            may_share,
        };
        pin!(upstreams.lend(self.cluster, endpoint, terms)).await
    }

    fn not_connected(&self, source: ConnectFailure, endpoint: &Endpoint) -> Missed {
        // The endpoint is not to blame for a limit of ours.
        if !matches!(
            source,
            ConnectFailure::Overflow(_) | ConnectFailure::NoTls(_)
        ) {
            self.cluster
                .record(endpoint, Outcome::LocalOriginFailure, Instant::now());
        }
        let cluster = Arc::clone(self.cluster.name());
        Missed::unsent(Failure::Connect { cluster, source })
    }

    fn malformed(&self, what: &'static str, endpoint: &Endpoint) -> Missed {
        ClusterStats::count(&self.cluster.stats.protocol_errors);
        self.cluster.record_lost(endpoint, Instant::now());
        Missed::sent(Failure::Malformed {
            cluster: Arc::clone(self.cluster.name()),
            address: endpoint.address,
            what,
        })
    }

    fn reset(&self, source: ExchangeError, is_unsent: bool, endpoint: &Endpoint) -> Missed {
        if !self.has_bad_body() {
            self.cluster.record_lost(endpoint, Instant::now());
        }
        let how = Reset::of(&source, is_unsent);
        if matches!(how, Reset::Stream | Reset::Refused) {
            ClusterStats::count(&self.cluster.stats.resets);
        }
        if matches!(how, Reset::Protocol) {
            ClusterStats::count(&self.cluster.stats.protocol_errors);
        }
        Missed {
            failure: Failure::Reset {
                cluster: Arc::clone(self.cluster.name()),
                address: endpoint.address,
                how,
                source,
            },
            is_unsent,
        }
    }
}
