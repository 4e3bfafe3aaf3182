//! The connections of an endpoint that are kept for the next request.
//!
//! Kept in the endpoint's slot, so that they go when the endpoint goes, or when the way connections to it are
//! made changes. Each worker has a shard of its own: its lock is uncontended, and a request and its
//! connection stay on one thread. A connection that shows its client is for requests of that client alone.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::task::JoinSet;

use super::HttpVersion;
use super::consent::Consent;
use super::guise::Guise;
use super::http1::Http1Connection;
use super::http2::Http2Connection;
use super::shard;
use super::shared::SharedConnections;
use crate::clock;
use crate::cluster::Cluster;
use crate::cluster::connections::Need;
use crate::cluster::endpoint::Endpoint;
use crate::cluster::outlier::millis;
use crate::cluster::stats::ClusterStats;
use crate::snapshot::Snapshot;

/// Connections to one endpoint.
#[derive(Debug)]
pub(super) struct Pool {
    shards: Box<[Mutex<Shard>]>,
    /// Those that opaque connections share.
    shared: OnceLock<SharedConnections>,
    consent: Consent,
    /// Until when responses are taken for large ones, on the scale of [`millis`].
    bulk_until: AtomicU64,
}

#[derive(Debug, Default)]
struct Shard {
    /// Idle ones; the last used is taken first.
    #[allow(clippy::vec_box, reason = "leases have them in boxes, too")]
    http1: Vec<Box<Http1Connection>>,
    /// In use or idle.
    http2: Vec<Arc<Http2Connection>>,
    /// Connections being made ahead of need; they end with the pool.
    ahead: Option<JoinSet<()>>,
}

/// How long an endpoint is taken for one that sends large responses, after one.
const BULK_LASTS: Duration = Duration::from_secs(10);
/// No more idle HTTP/1 connections are kept in a shard, and no more of HTTP/2 that are for one client.
const MAX_IDLE: usize = 256;

impl Pool {
    /// That of an endpoint.
    pub(super) fn of(endpoint: &Endpoint) -> &Pool {
        endpoint.connections.get_or_init(|| Pool {
            shards: (0..shard::count()).map(|_| Mutex::default()).collect(),
            shared: OnceLock::new(),
            consent: Consent::default(),
            bulk_until: AtomicU64::new(0),
        })
    }

    /// Those that opaque connections share.
    pub(super) fn shared(&self) -> &SharedConnections {
        self.shared.get_or_init(SharedConnections::new)
    }

    /// An idle connection of this worker.
    pub(super) fn take_http1(&self, guise: Guise) -> Option<Box<Http1Connection>> {
        take(&mut self.own().lock(), guise)
    }

    /// An idle connection of any worker: where no more may be made, a detour is better than a wait.
    pub(super) fn take_http1_anywhere(&self, guise: Guise) -> Option<Box<Http1Connection>> {
        self.shards
            .iter()
            .find_map(|shard| take(&mut shard.lock(), guise))
    }

    /// Closes an idle connection that is of no use to who needs another, for one that is to be made in its place.
    pub(super) fn make_room(&self, guise: Guise) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let other = shard.http1.iter().position(|each| each.guise != guise);
            if let Some(index) = other {
                shard.http1.remove(index);
                return;
            }
        }
    }

    /// Keeps a connection for the next request of this worker.
    pub(super) fn give_back(&self, mut connection: Box<Http1Connection>) {
        connection.idle_since = clock::now();
        let mut shard = self.own().lock();
        if shard.http1.len() >= MAX_IDLE {
            if connection.guise.is_shared() {
                return;
            }
            // Most likely its client is gone.
            shard.http1.remove(0);
        }
        shard.http1.push(connection);
    }

    /// What its peer says to requests of HTTP/1.1 that would share a connection.
    pub(super) fn consent(&self) -> &Consent {
        &self.consent
    }

    /// A response was large.
    pub(super) fn carried_bulk(&self, now: Instant) {
        let until = millis(now + BULK_LASTS);
        self.bulk_until.store(until, Ordering::Relaxed);
    }

    /// Whether a response was large not long ago.
    pub(super) fn carries_bulk(&self, now: Instant) -> bool {
        millis(now) < self.bulk_until.load(Ordering::Relaxed)
    }

    /// Closes a connection that requests of HTTP/1.1 have shared and none does now, for one that is needed alone.
    pub(super) fn close_unused_shared(&self) {
        for shard in &self.shards {
            let mut shard = shard.lock();
            let is_unused = |each: &Arc<Http2Connection>| {
                each.carries() == HttpVersion::Http1 && each.is_made() && each.active() == 0
            };
            if let Some(index) = shard.http2.iter().position(is_unused) {
                shard.http2.remove(index).retire();
                return;
            }
        }
    }

    /// Whether requests of HTTP/1.1 of this worker wait for a connection to be made that they will share.
    pub(super) fn awaits_shared(&self, guise: Guise) -> bool {
        let shard = self.own().lock();
        let is_awaited = |each: &Arc<Http2Connection>| {
            each.is_for(guise, HttpVersion::Http1)
                && !each.is_made()
                && !each.is_over()
                && each.active() > 0
        };
        shard.http2.iter().any(is_awaited)
    }

    /// A connection for requests of this version with room for one more, made or not, and what it is needed for where
    /// it is not.
    pub(super) fn share_http2(
        &self,
        cluster: &Cluster,
        (guise, version): (Guise, HttpVersion),
    ) -> (Arc<Http2Connection>, Need) {
        let now = Instant::now();
        let max_requests = cluster.config.max_requests_per_connection;
        let longest = cluster.config.max_connection_duration;
        let silence = cluster.config.http2.longest_silence;
        let silent_since = silence.and_then(|silence| now.checked_sub(silence));
        let mut shard = self.own().lock();
        shard.http2.retain(|connection| {
            let is_silent = silent_since.is_some_and(|since| connection.is_idle_since(since));
            if is_silent {
                ClusterStats::count(&cluster.stats.connections_idled);
            }
            let is_too_old = connection.is_too_old(now, longest);
            if is_too_old {
                ClusterStats::count(&cluster.stats.connections_aged);
            }
            let is_worn = connection.is_worn(max_requests) && connection.active() == 0;
            if is_worn {
                ClusterStats::count(&cluster.stats.connections_worn);
            }
            let is_spent = is_too_old || is_silent || is_worn;
            let is_gone = is_spent || connection.is_over() || connection.is_closed_by_peer();
            if is_gone {
                // What it carries goes on.
                connection.retire();
            }
            !is_gone
        });
        let found = shard
            .http2
            .iter()
            .find(|each| each.is_for(guise, version) && each.has_room(max_requests))
            .cloned();
        let connection = found.unwrap_or_else(|| {
            if !guise.is_shared() && shard.http2.len() >= MAX_IDLE {
                shard.retire_idle(now);
            }
            let connection = Http2Connection::new(guise, version);
            shard.http2.push(Arc::clone(&connection));
            connection
        });
        let of_use = shard.http2.iter();
        let need = match of_use.filter(|each| each.is_for(guise, version)).count() {
            1 => Need::First,
            _ => Need::Waiting,
        };
        (connection, need)
    }

    /// A connection, to be made, that requests would need if there were `ratio` times as many of them; `awaited` are
    /// those that have not come yet.
    pub(super) fn http2_ahead(
        &self,
        ratio: f64,
        awaited: u32,
        max_requests: Option<u32>,
    ) -> Option<Arc<Http2Connection>> {
        let mut shard = self.own().lock();
        let (mut active, mut capacity) = (0_u32, 0_u32);
        let of_http2 = shard.http2.iter();
        for each in of_http2.filter(|each| each.carries() == HttpVersion::Http2) {
            active += each.active();
            let of_each = each.active().saturating_add(each.room(max_requests));
            capacity = capacity.saturating_add(of_each);
        }
        if f64::from(active + awaited) * ratio <= f64::from(capacity) {
            return None;
        }
        let connection = Http2Connection::new(Guise::default(), HttpVersion::Http2);
        shard.http2.push(Arc::clone(&connection));
        Some(connection)
    }

    /// Runs what makes a connection ahead of need, for as long as the pool is there.
    pub(super) fn run_ahead(&self, make: impl Future<Output = ()> + Send + 'static) {
        let mut shard = self.own().lock();
        let ahead = shard.ahead.get_or_insert_with(JoinSet::new);
        // Those that have ended are forgotten.
        while ahead.try_join_next().is_some() {}
        ahead.spawn(make);
    }

    /// Closes what has not been used for so long, or was closed by its peer; says whether nothing is left.
    fn close_idle(&self, now: Instant, cluster: &Cluster) -> bool {
        let (config, stats) = (&cluster.config, &cluster.stats);
        let since = now.checked_sub(config.idle_timeout);
        let longest = config.max_connection_duration;
        let is_kept = |is_idle: bool, is_too_old: bool| {
            if is_idle {
                ClusterStats::count(&stats.connections_idled);
            } else if is_too_old {
                ClusterStats::count(&stats.connections_aged);
            }
            !is_idle && !is_too_old
        };
        let is_fresh = |each: &Http1Connection| {
            let is_idle = since.is_some_and(|since| each.idle_since < since);
            is_kept(is_idle, each.is_too_old(now, longest))
        };
        let mut is_empty = true;
        for shard in &self.shards {
            let mut shard = shard.lock();
            shard
                .http1
                .retain(|each| !each.is_abandoned() && is_fresh(each));
            shard.http1.iter().for_each(|each| each.rest());
            shard.http2.retain(|each| {
                let is_idle = since.is_some_and(|since| each.is_idle_since(since));
                !each.is_over() && is_kept(is_idle, each.is_too_old(now, longest))
            });
            is_empty &= shard.http1.is_empty() && shard.http2.is_empty();
        }
        is_empty
    }

    fn own(&self) -> &Mutex<Shard> {
        &self.shards[shard::current() % self.shards.len()]
    }
}

impl Shard {
    /// Gives one that nobody uses no more requests.
    fn retire_idle(&mut self, now: Instant) {
        let idle = self.http2.iter().position(|each| each.is_idle_since(now));
        if let Some(index) = idle {
            self.http2.remove(index).retire();
        }
    }
}

fn take(shard: &mut Shard, guise: Guise) -> Option<Box<Http1Connection>> {
    while let Some(index) = shard.http1.iter().rposition(|each| each.guise == guise) {
        let connection = shard.http1.remove(index);
        if !connection.is_closed() {
            return Some(connection);
        }
    }
    None
}

/// Closes what is idle of an endpoint's connections, and gives what is in use no more requests.
pub fn close_all(endpoint: &Endpoint) {
    let Some(pool) = endpoint.connections.get::<Pool>() else {
        return;
    };
    for shard in &pool.shards {
        let mut shard = shard.lock();
        shard.http1.clear();
        shard.ahead = None;
        for connection in shard.http2.drain(..) {
            connection.retire();
        }
    }
}

/// Closes connections that have not been used for as long as their cluster keeps them, or that nobody holds at their
/// other end any more, and forgets original
/// destinations without any. Called now and then.
pub fn close_idle(snapshot: &Snapshot, now: Instant) {
    for cluster in snapshot.clusters.values() {
        let close = |endpoint: &Endpoint| {
            let pool = endpoint.connections.get::<Pool>();
            pool.is_none_or(|pool| pool.close_idle(now, cluster))
        };
        for endpoint in cluster.endpoints() {
            close(&endpoint);
        }
        cluster.forget_unused(close);
    }
}
