//! Trying a request until one try is good enough, or no more are allowed. What one try is, `one_try` says.

mod again;
mod dial;
mod hedge;
mod one_try;
mod priorities;

use std::pin::pin;
use std::sync::Arc;

use http::{HeaderName, HeaderValue, Request, Response, StatusCode};
use http_body::Body as _;
use parking_lot::Mutex;

use self::again::{Course, is_timeout};
use self::priorities::Visited;
use super::HttpConnection;
use super::affinity::Aim;
use super::alarm::Alarm;
use super::asked::{self, Timeouts};
use super::completion::Completion;
use super::failure::{Failure, LocalReply};
use super::headers::{ATTEMPT_COUNT, Head, number};
use super::limits::{Exceeded, Limits, Progress};
use super::outgoing::{self, Keep, KeepHead, Outgoing};
use super::retry;
use crate::cluster::Cluster;
use crate::cluster::breaker::{Gauge, Permit};
use crate::cluster::endpoint::Active;
use crate::cluster::stats::ClusterStats;
use crate::config::retry::RetryPolicy;
use crate::upstream::HttpVersion;
use crate::upstream::body::RequestBody;
use crate::upstream::body::client::ClientBody;
use crate::upstream::body::meter::BodyMeter;
use crate::upstream::lease::{Lease, Wanted, is_worthwhile};
use crate::upstream::response::UpstreamBody;

const IS_TIMEOUT_RETRY: HeaderName = HeaderName::from_static("x-envoy-is-timeout-retry");

/// How a request is tried.
pub(super) struct Attempts<'a> {
    pub(super) connection: &'a HttpConnection,
    pub(super) cluster: &'a Arc<Cluster>,
    pub(super) policy: Option<Arc<RetryPolicy>>,
    pub(super) version: HttpVersion,
    /// Which endpoint.
    pub(super) aim: Aim,
    pub(super) timeouts: Timeouts,
    /// Whether a try that took too long goes on beside the next.
    pub(super) hedges: bool,
    /// Where requests are addressed to the endpoint's own host: what is told of the one before.
    pub(super) endpoint_host: Option<HostBefore>,
    pub(super) tells: Tells,
    /// How much of a body is kept for another try.
    pub(super) max_kept_bytes: usize,
    /// What the request's body comes to, where it has one.
    pub(super) meter: Option<Arc<BodyMeter>>,
    /// Whether the request is wanted again when it has been answered.
    pub(super) is_wanted_again: bool,
    /// Whether it may share a connection, as far as the cluster is concerned: what is kept of it depends on that.
    pub(super) may_share: bool,
}

/// What upstreams are told of a host that is replaced.
#[derive(Debug, Clone, Copy)]
pub(super) struct HostBefore {
    /// In `x-envoy-original-host`.
    pub(super) keeps_original: bool,
    /// In `x-forwarded-host`.
    pub(super) appends_forwarded: bool,
}

/// What upstreams are told of tries.
#[derive(Debug, Clone, Copy)]
pub(super) struct Tells {
    /// Which it is.
    pub(super) attempts: bool,
    /// That it follows one that took too long.
    pub(super) timeout_retries: bool,
    /// How long it may take.
    pub(super) expected_time: bool,
}

/// A response, and what must be held until its body has ended. Boxed where it is returned from one future to another, each of
/// which moves it.
pub(super) struct Answered {
    pub(super) response: Response<UpstreamBody>,
    pub(super) borrowed: Borrowed,
    /// The request's body, where it was wanted again and all of it is here.
    pub(super) body_again: Option<ClientBody>,
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
    /// Whether the request can be sent again as it is.
    is_unsent: bool,
}

/// What several tries write into.
type Log<'a> = Mutex<&'a mut Completion>;

/// A connection that was closed while it lay idle is replaced so often, within one try.
const MAX_STALE: u32 = 3;

impl Borrowed {
    /// The connection can carry another request.
    pub(super) fn give_back(self) {
        self.lease.finish(&self.cluster);
    }

    /// The endpoint has reset its stream.
    pub(super) fn count_reset(&self) {
        ClusterStats::count(&self.cluster.stats.resets);
    }

    /// Whose connection it is.
    pub(super) fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// The response has taken longer than its route allows.
    pub(super) fn count_timeout(&self) {
        ClusterStats::count(&self.cluster.stats.request_timeouts);
    }
}

impl Attempts<'_> {
    /// Tries the request.
    pub(super) async fn run(
        &self,
        head: Box<Head>,
        body: ClientBody,
        completion: &mut Completion,
    ) -> Result<Box<Answered>, Failure> {
        let is_idempotent = retry::is_idempotent(&head.method);
        let started = completion.started();
        let keep = self.keep(is_idempotent);
        let (mut request, outgoing) = Outgoing::split(head, body, self.meter.clone(), keep);
        let log = Mutex::new(completion);
        let mut course = Course {
            log: &log,
            started,
            retries: 0,
            tried: vec![],
            visited: Visited::default(),
            is_idempotent,
        };
        ClusterStats::count(&self.cluster.stats.requests);
        self.tell_first(&mut request);
        let answered = if self.hedges && self.timeouts.per_try.is_some() {
            Box::pin(self.run_hedged(request, &outgoing, &mut course)).await
        } else {
            pin!(self.run_in_turn(request, &outgoing, &mut course)).await
        };
        let answered = answered.map_err(|failure| match self.has_bad_body() {
            true => self.bad_body(),
            false => failure,
        });
        answered.map(|mut answered| {
            if self.is_wanted_again {
                answered.body_again = outgoing.body_again();
            }
            answered
        })
    }

    /// Whether, with this one, so many requests are in flight that those to an endpoint may be enough to share a connection.
    pub(super) fn would_share(&self) -> bool {
        let counts = self.cluster.breakers_of(self.aim.priority).counts();
        let in_flight = counts.current(Gauge::Requests).saturating_add(1);
        is_worthwhile(self.cluster.config.sharing, in_flight)
    }

    /// Whether what failed is the client, and nobody else is to blame or to be asked.
    fn has_bad_body(&self) -> bool {
        let is_bad = |body: &Arc<BodyMeter>| {
            body.is_malformed() || body.is_cut_off() || body.unreadable().is_some()
        };
        self.meter.as_ref().is_some_and(is_bad)
    }

    fn bad_body(&self) -> Failure {
        let Some(body) = &self.meter else {
            return Failure::ClientGone;
        };
        if let Some(reason) = body.unreadable() {
            let mut reply = LocalReply::new(StatusCode::BAD_REQUEST, reason);
            reply.body = reason.to_string().into();
            return Failure::Answered(Box::new(reply));
        }
        match body.is_malformed() {
            true => Failure::RequestBody,
            false => Failure::ClientGone,
        }
    }

    /// One try after the other.
    async fn run_in_turn(
        &self,
        mut request: Box<Request<RequestBody>>,
        outgoing: &Outgoing,
        course: &mut Course<'_>,
    ) -> Result<Box<Answered>, Failure> {
        let mut permit = None;
        let wanted = outgoing.wanted();
        loop {
            course.log.lock().attempted();
            let ended = pin!(self.bounded_try((&mut request, wanted), course)).await;
            let again = self.again(&ended, course);
            let after_timeout = is_timeout(&ended);
            let (ended, is_unsent) = match ended {
                Ok(answered) => (Ok(answered), false),
                Err(missed) => (Err(missed.failure), missed.is_unsent),
            };
            let Some(again) = again.filter(|_| is_unsent || outgoing.renew(&mut request)) else {
                outgoing::spare(request);
                return self.last(ended, permit, course);
            };
            if let Ok(answered) = ended {
                answered.discard();
            }
            again.count(&self.cluster.stats);
            permit = Some(again.permit);
            self.note(again.ended_at, course);
            tokio::time::sleep(again.wait).await;
            course.retries += 1;
            self.tell_again(&mut request, course, after_timeout);
        }
    }

    /// Tells the upstream about the first try.
    fn tell_first(&self, request: &mut Request<RequestBody>) {
        if self.tells.attempts {
            let headers = request.headers_mut();
            headers.insert(ATTEMPT_COUNT, number(1));
        }
    }

    /// Tells the upstream about another try.
    fn tell_again(
        &self,
        request: &mut Request<RequestBody>,
        course: &Course<'_>,
        after_timeout: bool,
    ) {
        let headers = request.headers_mut();
        if self.tells.attempts {
            headers.insert(ATTEMPT_COUNT, number(u64::from(course.retries) + 1));
        }
        if self.tells.timeout_retries {
            let is_after_one = if after_timeout { "true" } else { "false" };
            headers.insert(IS_TIMEOUT_RETRY, HeaderValue::from_static(is_after_one));
        }
        if self.tells.expected_time {
            let expected = self
                .timeouts
                .expected(course.started.elapsed(), self.hedges);
            asked::tell_expected(headers, expected);
        }
    }

    /// A request is kept only where it may have to be sent again after it was sent.
    fn keep(&self, is_idempotent: bool) -> Keep {
        let is_http2 = self.version == HttpVersion::Http2;
        let may_resend = self.policy.as_ref().is_some_and(|policy| {
            // Streams of a connection that requests share can be refused as well.
            let has_streams = is_http2 || self.may_share;
            let is_resent = retry::may_resend(&policy.on, is_idempotent, has_streams);
            policy.retries > 0 && (self.hedges || is_resent)
        });
        // What stays in place is sent by one try at a time, as it came, and to whichever endpoint as it is.
        let is_changed = self.hedges || is_http2 || self.endpoint_host.is_some();
        let is_body_kept = may_resend || self.is_wanted_again;
        Keep {
            head: match (may_resend, is_changed) {
                (true, true) => KeepHead::Copy,
                (true, false) => KeepHead::InPlace,
                (false, _) => KeepHead::Nothing,
            },
            max_bytes: is_body_kept.then_some(self.max_kept_bytes),
        }
    }

    fn last(
        &self,
        ended: Result<Box<Answered>, Failure>,
        permit: Option<Permit>,
        course: &Course<'_>,
    ) -> Result<Box<Answered>, Failure> {
        let mut answered = ended?;
        if course.retries > 0 && !self.is_wanting(&answered, course) {
            ClusterStats::count(&self.cluster.stats.retries_succeeded);
        }
        // A retry is in flight until its response has ended.
        answered.borrowed.retry = permit;
        Ok(answered)
    }

    /// Whether the policy would have it tried again.
    fn is_wanting(&self, answered: &Answered, course: &Course<'_>) -> bool {
        self.policy.as_deref().is_some_and(|policy| {
            retry::is_retried(&policy.on, answered.end(), course.is_idempotent)
        })
    }

    /// One try, no longer and no more silent than it may be.
    async fn bounded_try(
        &self,
        request: (&mut Request<RequestBody>, Wanted),
        course: &Course<'_>,
    ) -> Result<Box<Answered>, Missed> {
        let limits = Limits::of_try(self.timeouts.per_try, self.timeouts.per_try_idle);
        // Pinned here: what is moved into a future is in it twice.
        let one = pin!(self.one_try(request, self.apart(course), course.log));
        let mut progress = Progress::begin(course.started, self.meter.as_ref());
        let mut alarm = Alarm::default();
        let exceeded = match pin!(limits.watch(one, &mut progress, &mut alarm)).await {
            Ok(ended) => return ended,
            Err(exceeded) => exceeded,
        };
        let cluster = Arc::clone(self.cluster.name());
        let failure = match exceeded {
            Exceeded::Idle(limit) => Failure::PerTryIdle { cluster, limit },
            Exceeded::Route(limit) | Exceeded::Request(limit) | Exceeded::Stream(limit) => {
                Failure::PerTryTimeout { cluster, limit }
            }
        };
        let stats = &self.cluster.stats;
        ClusterStats::count(match failure {
            Failure::PerTryIdle { .. } => &stats.idle_tries,
            _ => &stats.timeouts,
        });
        course.log.lock().blame_endpoint(self.cluster);
        Err(Missed::sent(failure))
    }
}

impl Missed {
    fn sent(failure: Failure) -> Self {
        Missed {
            failure,
            is_unsent: false,
        }
    }

    fn unsent(failure: Failure) -> Self {
        Missed {
            failure,
            is_unsent: true,
        }
    }
}

impl Answered {
    /// Nobody wants the response: without a body, its connection can still be used.
    pub(super) fn discard(self: Box<Self>) {
        if self.response.body().is_end_stream() {
            self.borrowed.give_back();
        }
    }
}
