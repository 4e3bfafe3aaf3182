//! The wait for a connection of HTTP/1.1 where no more may be made.

use std::time::Duration;

use tokio::time::Instant;

use crate::cluster::Cluster;
use crate::cluster::breaker::{Gauge, Overflow};
use crate::cluster::connections::{ConnectionPermit, Need};
use crate::cluster::endpoint::Endpoint;
use crate::upstream::ConnectFailure;
use crate::upstream::guise::Guise;
use crate::upstream::http1::Http1Connection;
use crate::upstream::pool::Pool;

/// What a wait for a connection ends with.
pub(super) enum Waited {
    Connection(Box<Http1Connection>),
    Permit(ConnectionPermit),
}

/// As many connections as may be are made: waits until one is free or one more may be made.
pub(super) async fn wait_for_http1(
    cluster: &Cluster,
    endpoint: &Endpoint,
    guise: Guise,
) -> Result<Waited, ConnectFailure> {
    let pool = Pool::of(endpoint);
    let limit: Duration = cluster.config.connect_timeout;
    let deadline = Instant::now() + limit;
    loop {
        let freed = cluster.breakers.counts().freed();
        let mut freed = std::pin::pin!(freed);
        // Before looking: what is freed while we look must wake us.
        freed.as_mut().enable();
        while let Some(mut connection) = pool.take_http1_anywhere(guise) {
            if !connection.is_abandoned() {
                connection.begin();
                return Ok(Waited::Connection(connection));
            }
        }
        if let Ok(permit) = cluster.admit_connection(endpoint, Need::Waiting) {
            return Ok(Waited::Permit(permit));
        }
        pool.close_unused_shared();
        if !guise.is_shared() {
            pool.make_room(guise);
        }
        if tokio::time::timeout_at(deadline, freed).await.is_err() {
            return Err(Overflow(Gauge::Connections).into());
        }
    }
}
