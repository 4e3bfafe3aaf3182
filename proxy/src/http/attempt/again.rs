//! Whether another try follows one that has ended, when, and where not to.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::HeaderMap;

use super::priorities::Visited;
use super::{Answered, Attempts, Log, Missed};
use crate::cluster::Session;
use crate::cluster::breaker::{Gauge, Permit};
use crate::cluster::priorities::Priorities;
use crate::cluster::stats::ClusterStats;
use crate::config::balancing::Omission;
use crate::config::retry::RetryPolicy;
use crate::http::failure::Failure;
use crate::http::retry::{self, TryEnd};
use crate::random;
use crate::telemetry::report::ResponseFlags;

/// The tries of a request so far.
pub(super) struct Course<'a> {
    pub(super) log: &'a Log<'a>,
    pub(super) started: Instant,
    pub(super) retries: u32,
    /// Endpoints that the next try does not go to.
    pub(super) tried: Vec<SocketAddr>,
    pub(super) visited: Visited,
    pub(super) is_idempotent: bool,
}

/// Endpoints that a try does not go to, while there are others.
#[derive(Debug, Clone, Copy)]
pub(super) struct Apart<'a> {
    pub(super) tried: &'a [SocketAddr],
    pub(super) omit: Option<&'a Omission>,
    /// Where its session is: a try that follows another goes elsewhere.
    pub(super) session: Option<Session>,
    pub(super) left: Priorities,
}

/// One more try.
pub(super) struct Again {
    pub(super) permit: Permit,
    /// The endpoint of the one before.
    pub(super) ended_at: Option<SocketAddr>,
    pub(super) wait: Duration,
    /// Whether the upstream has asked for just that wait.
    pub(super) is_asked_for: bool,
}

impl Attempts<'_> {
    /// Endpoints that the next try does not go to.
    pub(super) fn apart<'a>(&'a self, course: &'a Course<'_>) -> Apart<'a> {
        Apart {
            tried: &course.tried,
            omit: self.omission().filter(|_| course.retries > 0),
            session: self.aim.session.filter(|_| course.retries == 0),
            left: course.visited.left(),
        }
    }

    /// Keeps what the policy wants to know of a try that another follows.
    pub(super) fn note(&self, ended_at: Option<SocketAddr>, course: &mut Course<'_>) {
        let (Some(endpoint), Some(policy)) = (ended_at, self.policy.as_deref()) else {
            return;
        };
        if policy.avoid_previous_endpoints {
            course.tried.push(endpoint);
        }
        if let Some(every) = policy.leaves_priorities_every {
            course.visited.add(endpoint, every, self.cluster);
        }
    }

    /// Endpoints that no retry goes to.
    pub(super) fn omission(&self) -> Option<&Omission> {
        self.policy.as_ref()?.omits.as_ref()
    }

    /// Whether, and how, it is tried again.
    pub(super) fn again(
        &self,
        ended: &Result<Box<Answered>, Missed>,
        course: &Course<'_>,
    ) -> Option<Again> {
        match ended {
            Ok(answered) => {
                let headers = answered.response.headers();
                self.after(answered.end(), Some(headers), course)
            }
            Err(missed) => self.after(TryEnd::of(&missed.failure), None, course),
        }
    }

    /// Whether, and how, another try follows one that ended so.
    pub(super) fn after(
        &self,
        end: TryEnd<'_>,
        headers: Option<&HeaderMap>,
        course: &Course<'_>,
    ) -> Option<Again> {
        let policy = self.policy.as_deref()?;
        if !retry::is_retried(&policy.on, end, course.is_idempotent) || self.has_bad_body() {
            return None;
        }
        self.admit_another(policy, headers, course)
    }

    /// Another try, as far as policy and budget allow.
    pub(super) fn admit_another(
        &self,
        policy: &RetryPolicy,
        headers: Option<&HeaderMap>,
        course: &Course<'_>,
    ) -> Option<Again> {
        let mut log = course.log.lock();
        if course.retries >= policy.retries {
            log.flag(ResponseFlags::UPSTREAM_RETRY_LIMIT);
            ClusterStats::count(&self.cluster.stats.retries_beyond);
            return None;
        }
        let Ok(permit) = self
            .cluster
            .breakers_of(self.aim.priority)
            .admit(Gauge::Retries)
        else {
            ClusterStats::count(&self.cluster.stats.retries_refused);
            log.flag(ResponseFlags::UPSTREAM_OVERFLOW);
            return None;
        };
        let asked = asked_wait(policy, headers);
        Some(Again {
            permit,
            ended_at: log.endpoint_address(),
            is_asked_for: asked.is_some(),
            wait: asked.unwrap_or_else(|| own_wait(policy, course.retries)),
        })
    }
}

impl Answered {
    pub(super) fn end(&self) -> TryEnd<'_> {
        TryEnd::Response {
            status: self.response.status().as_u16(),
            headers: self.response.headers(),
        }
    }
}

/// Whether a try took too long.
pub(super) fn is_timeout(ended: &Result<Box<Answered>, Missed>) -> bool {
    let failure = ended.as_ref().err().map(|missed| &missed.failure);
    matches!(
        failure,
        Some(Failure::PerTryTimeout { .. } | Failure::PerTryIdle { .. })
    )
}

/// How long the upstream asks to wait before another try.
fn asked_wait(policy: &RetryPolicy, headers: Option<&HeaderMap>) -> Option<Duration> {
    let (config, headers) = policy.asked_back_off.as_ref().zip(headers)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    random::with(|random| retry::asked_wait(config, headers, now.unwrap_or_default(), random))
}

/// How long the policy says to wait.
fn own_wait(policy: &RetryPolicy, retries: u32) -> Duration {
    random::with(|random| retry::wait(policy.back_off, retries, random))
}

impl Again {
    /// Counts it: it is made.
    pub(super) fn count(&self, stats: &ClusterStats) {
        ClusterStats::count(&stats.retries);
        ClusterStats::count(match self.is_asked_for {
            true => &stats.waits_of_upstream,
            false => &stats.waits_of_policy,
        });
    }
}
