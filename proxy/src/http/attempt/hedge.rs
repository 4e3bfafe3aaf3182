//! Hedging: a try that takes too long is not given up, and the next one goes beside it. The first good response
//! wins, and the others are dropped.

use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use http::Request;

use super::again::{Apart, Course};
use super::{Answered, Attempts, Log, Missed};
use crate::cluster::breaker::Permit;
use crate::cluster::priorities::Priorities;
use crate::cluster::stats::ClusterStats;
use crate::http::alarm::Alarm;
use crate::http::failure::Failure;
use crate::http::limits::{Limits, Progress};
use crate::http::outgoing::Outgoing;
use crate::upstream::body::RequestBody;
use crate::upstream::lease::Wanted;

/// How one of several tries ended, and the permit it was made with.
type Ended = (Result<Box<Answered>, Missed>, Option<Permit>);

impl Attempts<'_> {
    /// Tries side by side.
    pub(super) async fn run_hedged(
        &self,
        request: Box<Request<RequestBody>>,
        outgoing: &Outgoing,
        course: &mut Course<'_>,
    ) -> Result<Box<Answered>, Failure> {
        let mut running = FuturesUnordered::new();
        let mut alarm = Alarm::default();
        let mut next = Some((request, None, Duration::ZERO));
        let mut may_hedge = true;
        loop {
            if let Some((request, permit, wait)) = next.take() {
                course.log.lock().attempted();
                let not = (course.tried.clone(), course.visited.left());
                running.push(self.delayed_try(request, (permit, wait), not, course.log));
            }
            let limit = self.timeouts.per_try.filter(|_| may_hedge);
            let mut progress = Progress::begin(course.started, self.meter.as_ref());
            let first = pin!(running.next());
            let watched = Limits::of_try(limit, None).watch(first, &mut progress, &mut alarm);
            let ended: Option<Ended> = watched.await.unwrap_or_default();
            let (last, again, after_timeout) = match ended {
                Some((ended, permit)) => {
                    let again = self.again(&ended, course);
                    (Some((ended, permit)), again, false)
                }
                None => {
                    ClusterStats::count(&self.cluster.stats.timeouts);
                    course.log.lock().blame_endpoint(self.cluster);
                    let policy = self.policy.as_deref();
                    let again = policy.and_then(|policy| self.admit_another(policy, None, course));
                    // Without another try the ones that are there have as long as the request has.
                    may_hedge = again.is_some();
                    (None, again, true)
                }
            };
            let again = again.and_then(|again| {
                let mut request = Box::<Request<RequestBody>>::default();
                outgoing.renew(&mut request).then_some((again, request))
            });
            match (again, last) {
                (Some((again, mut request)), last) => {
                    if let Some((Ok(answered), _)) = last {
                        answered.discard();
                    }
                    again.count(&self.cluster.stats);
                    self.note(again.ended_at, course);
                    course.retries += 1;
                    self.tell_again(&mut request, course, after_timeout);
                    next = Some((request, Some(again.permit), again.wait));
                }
                // A failure is not the end while another try is under way.
                (None, Some((Err(_), _)) | None) if !running.is_empty() => {}
                (None, Some((ended, permit))) => {
                    let ended = ended.map_err(|missed| missed.failure);
                    return self.last(ended, permit, course);
                }
                (None, None) => may_hedge = false,
            }
        }
    }

    async fn delayed_try(
        &self,
        mut request: Box<Request<RequestBody>>,
        (permit, wait): (Option<Permit>, Duration),
        (tried, left): (Vec<SocketAddr>, Priorities),
        log: &Log<'_>,
    ) -> Ended {
        tokio::time::sleep(wait).await;
        // What has a permit is a retry.
        let apart = Apart {
            tried: &tried,
            omit: self.omission().filter(|_| permit.is_some()),
            session: self.aim.session.filter(|_| permit.is_none()),
            left,
        };
        let sent = (&mut *request, Wanted::Once);
        (self.one_try(sent, apart, log).await, permit)
    }
}
