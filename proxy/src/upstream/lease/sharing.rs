//! Requests of HTTP/1.1 that share a connection of HTTP/2 between two sidecars.

use std::sync::Arc;

use http::header::{EXPECT, HOST, UPGRADE};
use http::uri::{Authority, PathAndQuery};
use http::{Method, Request, Response};
use http_body::Body;

use super::{Connection, Freshness};
use crate::clock;
use crate::cluster::Cluster;
use crate::cluster::endpoint::Endpoint;
use crate::config::cluster::{Sharing, Thresholds};
use crate::config::http1::Http1Options;
use crate::http2::shared;
use crate::present;
use crate::upstream::body::RequestBody;
use crate::upstream::guise::Guise;
use crate::upstream::pool::Pool;
use crate::upstream::response::UpstreamBody;
use crate::upstream::shared::is_to_sidecar;
use crate::upstream::{ConnectFailure, HttpVersion, Upstreams, shard};

impl Upstreams {
    /// A place on a connection that requests of HTTP/1.1 share, or one of their own where the peer wants none of that.
    pub(super) async fn lend_shared(
        &self,
        cluster: &Arc<Cluster>,
        endpoint: &Arc<Endpoint>,
        freshness: Freshness,
        guise: Guise,
    ) -> Result<(Connection, bool), ConnectFailure> {
        let pool = Pool::of(endpoint);
        // While one is being made, nobody waits who need not.
        if freshness == Freshness::Any
            && pool.awaits_shared(guise)
            && let Some(connection) = self.idle_http1(cluster, endpoint, guise)
        {
            return Ok((connection, true));
        }
        let consent = pool.consent();
        let wanted = (guise, HttpVersion::Http1);
        match self.lend_http2(cluster, endpoint, wanted).await {
            Ok(lent) => {
                consent.agree();
                return Ok(lent);
            }
            // Some say so by ending the handshake.
            Err(ConnectFailure::Declined { .. } | ConnectFailure::Tls { .. }) => {
                consent.decline(clock::now());
            }
            // One that is alone needs none of what there are too many of, where it lies ready.
            Err(ConnectFailure::Overflow(_)) => {}
            Err(failure) => return Err(failure),
        }
        self.lend_http1(cluster, endpoint, freshness, guise).await
    }
}

/// So many requests in flight for each worker are many: to write them together saves more than HTTP/2 costs.
const MANY: usize = 4;

/// Whether so many requests in flight are to share a connection, rather than have one each.
pub fn is_worthwhile(sharing: Sharing, in_flight: u32) -> bool {
    match sharing {
        Sharing::Never => false,
        Sharing::WhenBusy => in_flight as usize >= MANY * shard::count(),
        Sharing::Always => true,
    }
}

/// Bodies from here on, in bytes, are bulk: frames cost more than to write them together saves.
const BULK: u64 = 256 * 1024;

/// Whether a request to an endpoint is to share a connection now.
pub fn is_to_share(cluster: &Cluster, endpoint: &Endpoint, request: &Request<RequestBody>) -> bool {
    let sharing = cluster.config.sharing;
    let is_bulk = || {
        let of_responses = || Pool::of(endpoint).carries_bulk(clock::now());
        sharing == Sharing::WhenBusy && (is_bulk(request.body()) || of_responses())
    };
    is_worthwhile(sharing, endpoint.state.active()) && !is_bulk() && may_be_shared(request)
}

/// What is to be known of a response for requests that come after it.
pub fn weigh(cluster: &Cluster, endpoint: &Endpoint, response: &Response<UpstreamBody>) {
    if cluster.config.sharing == Sharing::WhenBusy && is_bulk(response.body()) {
        Pool::of(endpoint).carried_bulk(clock::now());
    }
}

fn is_bulk(body: &impl Body) -> bool {
    body.size_hint().lower() >= BULK
}

/// Whether requests of HTTP/1.1 may share a connection to it.
pub(super) fn requests_may_share(cluster: &Cluster, endpoint: &Endpoint, guise: Guise) -> bool {
    let config = &cluster.config;
    // A sidecar sends what it was sent; whoever wants it said in another way is no sidecar.
    let is_usual = config.http1 == Http1Options::default();
    // Who limits connections of HTTP/1.1 limits how many requests its application has at once.
    let usual_limit = Thresholds::default().max_connections;
    let is_limited = config.breakers.max_connections < usual_limit
        || config.urgent_breakers.max_connections < usual_limit
        || config.max_connections_per_endpoint.is_some();
    // One that is soon worn is not worth its handshake.
    let is_lasting = config.max_requests_per_connection.is_none();
    let consent = || Pool::of(endpoint).consent();
    is_usual
        && !is_limited
        && is_lasting
        && is_to_sidecar(cluster, endpoint, guise)
        && consent().may_ask(clock::now())
}

/// Whether a request of HTTP/1.1 can be said as one of HTTP/2, and the same be made of it again: not one that asks for
/// another protocol, or to be asked for its body first, whose host or path has no place there, or that is large.
fn may_be_shared(request: &Request<RequestBody>) -> bool {
    let headers = request.headers();
    let is_plain = !present::has(headers, &UPGRADE) && !present::has(headers, &EXPECT);
    let path = request.uri().path_and_query().map(PathAndQuery::as_str);
    let size = path.map_or(0, str::len) + shared::size(headers);
    is_plain
        && size <= shared::MAX_HEAD
        && request.uri().authority().is_none()
        && path.is_some_and(|path| path.starts_with('/'))
        && request.method() != Method::CONNECT
        && headers
            .get(HOST)
            .is_some_and(|host| Authority::try_from(host.as_bytes()).is_ok())
}
