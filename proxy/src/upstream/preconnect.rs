//! Connections made ahead of need, so that the next requests do not wait for one: to the endpoint of a request (Envoy's
//! `per_upstream_preconnect_ratio`), and to those that will be chosen next (`predictive_preconnect_ratio`).
//!
//! `lease` asks at each request. The tasks belong to the endpoint's pool; circuit breakers bound how many there are,
//! and one that they refuse is no failure. Ratios are of all workers together for HTTP/1; for HTTP/2 that of an endpoint is
//! of each worker.

use std::sync::Arc;
use std::time::Instant;

use super::guise::Guise;
use super::http2::Http2Connection;
use super::pool::Pool;
use super::{ConnectFailure, HttpVersion, Upstreams};
use crate::cluster::Cluster;
use crate::cluster::breaker::Gauge;
use crate::cluster::connections::{ConnectionPermit, Need};
use crate::cluster::endpoint::{Endpoint, Standing};
use crate::cluster::outlier::Outcome;

/// No more are begun for one request, as in Envoy.
const MAX_AT_ONCE: usize = 3;
/// So many streams a connection of HTTP/2 is taken to carry, where a whole cluster is looked at.
const STREAMS_OF_HTTP2: f64 = 100.0;

impl Upstreams {
    /// Begins the connections that the cluster wants to have beyond those that are needed now. The request that asks
    /// is counted in already, and so is the connection it has or makes.
    pub(super) fn preconnect(
        &self,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        version: HttpVersion,
        guise: Guise,
    ) {
        let Some(ratio) = cluster.config.preconnect_ratio else {
            return;
        };
        // A connection that shows its client is of no use to another.
        if !guise.is_shared() {
            return;
        }
        for _ in 0..MAX_AT_ONCE {
            if !self.connect_ahead(cluster, endpoint, version, Wish { ratio, awaited: 0 }) {
                return;
            }
        }
    }

    /// Begins connections to the endpoints that will be chosen next, where the cluster wants to have more than there
    /// are. The request that asks is counted in already, and has no connection yet.
    pub(super) fn preconnect_next(
        &self,
        cluster: &Arc<Cluster>,
        version: HttpVersion,
        guise: Guise,
    ) {
        let Some(ratio) = cluster.config.predictive_preconnect_ratio else {
            return;
        };
        if !guise.is_shared() {
            return;
        }
        let counts = cluster.breakers.counts();
        let of_each = match version {
            HttpVersion::Http1 => 1.0,
            HttpVersion::Http2 => STREAMS_OF_HTTP2,
        };
        for _ in 0..MAX_AT_ONCE {
            let wanted = f64::from(counts.current(Gauge::Requests)) * ratio;
            if wanted <= f64::from(counts.current(Gauge::Connections)) * of_each {
                return;
            }
            let Some(next) = cluster.peek(Instant::now()) else {
                return;
            };
            if !self.connect_ahead(cluster, &next, version, Wish { ratio, awaited: 1 }) {
                return;
            }
        }
    }

    /// Begins one connection, where it is wanted and may be; says whether.
    fn connect_ahead(
        &self,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        version: HttpVersion,
        wish: Wish,
    ) -> bool {
        if endpoint.standing(Instant::now()) != Standing::Healthy {
            return false;
        }
        let Some(ahead) = self.ahead(cluster, endpoint, version, wish) else {
            return false;
        };
        Pool::of(endpoint).run_ahead(ahead.make());
        true
    }

    fn ahead(
        &self,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        version: HttpVersion,
        Wish { ratio, awaited }: Wish,
    ) -> Option<Ahead> {
        let shared = match version {
            HttpVersion::Http1 => {
                let wanted = f64::from(endpoint.state.active() + awaited) * ratio;
                if wanted <= f64::from(endpoint.state.connections()) {
                    return None;
                }
                None
            }
            HttpVersion::Http2 => {
                let max_requests = cluster.config.max_requests_per_connection;
                Some(Pool::of(endpoint).http2_ahead(ratio, awaited, max_requests)?)
            }
        };
        let permit = cluster.admit_connection(endpoint, Need::Opaque);
        let permit = permit.inspect_err(|_| {
            if let Some(shared) = &shared {
                shared.retire();
            }
        });
        Some(Ahead {
            upstreams: self.clone(),
            cluster: Arc::clone(cluster),
            endpoint: Arc::clone(endpoint),
            permit: permit.ok()?,
            shared,
        })
    }
}

/// How many connections an endpoint should have.
#[derive(Debug, Clone, Copy)]
struct Wish {
    /// For each stream.
    ratio: f64,
    /// Streams that are counted though they have not come yet.
    awaited: u32,
}

/// A connection to be made ahead of need.
struct Ahead {
    upstreams: Upstreams,
    cluster: Arc<Cluster>,
    endpoint: Arc<Endpoint>,
    permit: ConnectionPermit,
    /// Where requests find it in HTTP/2.
    shared: Option<Arc<Http2Connection>>,
}

impl Ahead {
    async fn make(self) {
        let (cluster, endpoint) = (Arc::clone(&self.cluster), Arc::clone(&self.endpoint));
        let Err(failure) = self.made().await else {
            return;
        };
        tracing::debug!(cluster = %cluster.name(), error = super::explain(&failure), "no connection made ahead");
        // The endpoint is not to blame for a limit of ours.
        if !matches!(
            failure,
            ConnectFailure::Overflow(_) | ConnectFailure::NoTls(_)
        ) {
            cluster.record(&endpoint, Outcome::LocalOriginFailure, Instant::now());
        }
    }

    async fn made(self) -> Result<(), ConnectFailure> {
        let (cluster, endpoint) = (&self.cluster, &self.endpoint);
        match self.shared {
            None => {
                let made =
                    self.upstreams
                        .make_http1(cluster, endpoint, self.permit, Guise::default());
                Pool::of(endpoint).give_back(made.await?);
                cluster.breakers.counts().connection_freed();
            }
            Some(shared) => {
                let admit = || Ok(self.permit);
                let made = self.upstreams.make_http2(cluster, endpoint, &shared, admit);
                made.await?;
            }
        }
        Ok(())
    }
}
