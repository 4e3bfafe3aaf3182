//! The endpoint for the next request: by where the connection was going, by session, by labels, or by turn.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use super::arrangement::Arrangement;
use super::balancer::Draw;
use super::breaker::Gauge;
use super::endpoint::{Endpoint, Standing};
use super::priorities::Priorities;
use super::stats::ClusterStats;
use super::subsets::{Found, Subsets};
use super::{Cluster, NoEndpoint, Pick, Session};
use crate::config::balancing::Criteria;
use crate::config::cluster::Discovery;
use crate::random;

impl Cluster {
    /// The endpoint for the next request.
    pub fn pick(&self, pick: Pick<'_>) -> Result<Arc<Endpoint>, NoEndpoint> {
        let picked = self.picked(pick);
        if picked.is_err() && !matches!(picked, Err(NoEndpoint::Dropped)) {
            ClusterStats::count(&self.stats.none_healthy);
        }
        picked
    }

    fn picked(&self, pick: Pick<'_>) -> Result<Arc<Endpoint>, NoEndpoint> {
        if self.config.discovery == Discovery::OriginalDestination {
            return self.original(pick);
        }
        if self.is_dropped() {
            return Err(NoEndpoint::Dropped);
        }
        if let Some(session) = pick.session {
            match self.at_session(session, pick.now) {
                Some(endpoint) => return Ok(Arc::clone(endpoint)),
                None if session.is_strict => return Err(NoEndpoint::SessionLost),
                None => {}
            }
        }
        let picture = self.picture.load();
        let draw = Draw {
            hash: pick.hash.filter(|_| self.config.balancer.is_hashing()),
            avoid: pick.avoid,
            omit: pick.omit,
            left: pick.left,
            active: self.breakers.counts().current(Gauge::Requests),
            now: pick.now,
        };
        if let Some(ahead) = &picture.ahead
            && let Some(endpoint) = ahead.take(&draw)
        {
            return Ok(endpoint);
        }
        let Some(subsets) = &picture.subsets else {
            return self.chosen(&picture.all, &draw);
        };
        let among = (&picture.all, subsets);
        match subsets.instead(pick.subset) {
            [] => self.narrowed(among, pick.subset, &draw),
            instead => instead
                .iter()
                .find_map(|asked| self.narrowed(among, Some(asked), &draw).ok())
                .ok_or(NoEndpoint::NoSubset),
        }
    }

    /// The priority of an endpoint that was picked, while it is one of the cluster's.
    pub fn priority_at(&self, address: SocketAddr) -> Option<u32> {
        self.members.priority_at(address)
    }

    /// Whether any endpoint can be used of other priorities than these.
    pub fn has_other_priorities(&self, than: Priorities) -> bool {
        self.picture.load().all.has_others(than)
    }

    /// The endpoint for what is asked of its labels.
    fn narrowed(
        &self,
        (all, subsets): (&Arrangement, &Subsets),
        asked: Option<&Criteria>,
        draw: &Draw<'_>,
    ) -> Result<Arc<Endpoint>, NoEndpoint> {
        let stats = &self.stats.subsets;
        let (chosen, counter) = match subsets.find(asked) {
            Found::Endpoint(endpoint) => (Ok(Arc::clone(endpoint)), &stats.selected),
            Found::Subset(subset) => (self.chosen(subset, draw), &stats.selected),
            Found::Default(subset) => (self.chosen(subset, draw), &stats.fallback),
            Found::Any => (self.chosen(all, draw), &stats.fallback),
            Found::Nowhere => (Err(NoEndpoint::NoSubset), &stats.fallback),
        };
        let (chosen, counter) = match chosen {
            Err(_) if subsets.may_use_any() => (self.chosen(all, draw), &stats.fallback_panic),
            chosen => (chosen, counter),
        };
        if chosen.is_ok() {
            ClusterStats::count(counter);
        }
        chosen
    }

    /// Whether this is one of those that the control plane wants refused.
    fn is_dropped(&self) -> bool {
        let drops = &self.members.policy().drops;
        let is_dropped = drops.iter().any(|(_, share)| share.covers(random::draw()));
        if is_dropped {
            ClusterStats::count(&self.stats.dropped);
        }
        is_dropped
    }

    fn chosen(
        &self,
        arrangement: &Arrangement,
        draw: &Draw<'_>,
    ) -> Result<Arc<Endpoint>, NoEndpoint> {
        if arrangement.panics() {
            ClusterStats::count(&self.stats.panics);
        }
        if arrangement.is_empty() {
            return Err(NoEndpoint::Empty);
        }
        let endpoint = random::with(|random| arrangement.choose(draw, random).cloned());
        endpoint.ok_or(NoEndpoint::Unhealthy)
    }

    fn original(&self, pick: Pick<'_>) -> Result<Arc<Endpoint>, NoEndpoint> {
        let mut address = pick
            .original_destination
            .ok_or(NoEndpoint::NoOriginalDestination)?;
        if let Some(port) = self.config.original.port {
            address.set_port(port);
        }
        Ok(self.originals.endpoint(address, &self.transports))
    }

    fn at_session(&self, session: Session, now: Instant) -> Option<&Arc<Endpoint>> {
        let allowed = self.config.override_standings;
        let endpoint = self.members.at(session.address)?;
        let is_allowed = match endpoint.standing(now) {
            Standing::Healthy => allowed.healthy,
            Standing::Degraded => allowed.degraded,
            Standing::Unhealthy => allowed.unhealthy,
            Standing::Draining => allowed.draining,
        };
        is_allowed.then_some(endpoint)
    }
}
