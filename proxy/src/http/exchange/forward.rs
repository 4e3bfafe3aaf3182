//! The part of an exchange that has to do with the upstream: what it is asked, and what becomes of its answer.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::header::LOCATION;
use http::{Method, Response, StatusCode};
use http_body::Body as _;

use super::routed::{Routed, route};
use super::{Outcome, Redirected, Turn};
use crate::cluster::Cluster;
use crate::cluster::stats::ClusterStats;
use crate::config::matching::RequestLine;
use crate::config::retry::RetryPolicy;
use crate::config::route::internal_redirect::InternalRedirects;
use crate::config::route::{Forward, HostRewrite};
use crate::config::upgrade::Termination;
use crate::http::affinity::{self, Aim};
use crate::http::asked::{self, Asking, Timeouts};
use crate::http::attempt::{Answered, Attempts, HostBefore, Tells};
use crate::http::body::Source;
use crate::http::completion::Completion;
use crate::http::expectation;
use crate::http::failure::Failure;
use crate::http::headers::{self, Head};
use crate::http::limits::{Limits, Progress};
use crate::http::target::{self, Destination, Rewriting};
use crate::http::upgrade::{Upgrade, terminate};
use crate::http::{HttpConnection, mirror};
use crate::snapshot::routes::{RouteTable, Selected};
use crate::telemetry::managers::HttpEvent;
use crate::upstream::HttpVersion;
use crate::upstream::body::RequestBody;
use crate::upstream::body::client::ClientBody;
use crate::upstream::body::meter::BodyMeter;

impl Turn<'_> {
    /// Sends a request to the cluster of its route.
    pub(super) async fn forward<'a>(
        &mut self,
        mut head: Box<Head>,
        body: ClientBody,
        mut upgrade: Option<Upgrade>,
        routed: &Routed<'a>,
        (selected, forward, destination): (Selected<'a>, &Forward, &Destination<'_>),
    ) -> Result<Outcome<'a>, Failure> {
        let connection = self.connection;
        let config = &self.scene.service.config;
        let cluster = target::cluster(&self.scene.snapshot, destination, forward)?;
        let asked = self.asked(&mut head, selected, forward);
        self.rewrite(&mut head, routed.routes, (selected, forward, destination))?;
        if forward.path.is_some() {
            self.completion.rewritten(&head.path);
        }
        self.completion.changed(&head);
        if let Some(termination) = forward.upgrades.termination()
            && let Some(tunnel) = Tunnel::of(&head, &mut upgrade, termination)
        {
            let route = (selected, forward, &cluster, destination);
            let ended = self.end_tunnel(&head, body, (tunnel, termination), route, asked);
            let mut response = Box::pin(ended).await?;
            routed.finish(response.headers_mut(), self.completion);
            return Ok(Outcome::Response(response));
        }
        let version = target::version(&cluster, self.completion.protocol());
        let meter = meter(&body, self.completion);
        self.mirror(forward, &head, meter.as_ref());
        let redirects = forward.internal_redirects.as_ref();
        let redirects = redirects.filter(|_| upgrade.is_none());
        let before = redirects.map(|policy| (Arc::clone(policy), head.clone()));
        if config.forwarding.scheme_matches_upstream {
            head.scheme = headers::scheme(cluster.config.transport.is_tls());
        }
        headers::address(&mut head, version)?;
        if version == HttpVersion::Http1 && cluster.config.http1.sends_absolute_url {
            head.uri = headers::absolute(&head)?;
        }
        if let Some(upgrade) = &upgrade {
            upgrade.shape(&mut head, version)?;
        }
        let body = match config.proxies_continue {
            true => expectation::pass_on(&mut head, body, version),
            false => body,
        };

        let limits = Limits::of(config, forward, asked.timeouts.global, asked.stream);
        let per_try_idle = asked.timeouts.per_try_idle;
        let mut attempts = self.attempts(&cluster, selected, forward, asked);
        attempts.version = version;
        attempts.aim = self.aim(forward, &head);
        attempts.aim.narrow(destination);
        attempts.may_share = attempts.would_share();
        attempts.is_wanted_again = before.is_some();
        attempts.meter.clone_from(&meter);
        let completion = &mut *self.completion;
        let mut progress = Progress::begin(completion.started(), meter.as_ref());
        let mut alarm = connection.lend_alarm();
        let answered = {
            let attempts = pin!(attempts.run(head, body, completion));
            pin!(limits.watch(attempts, &mut progress, &mut alarm)).await
        };
        connection.take_alarm_back(alarm);
        let answered = answered.unwrap_or_else(|exceeded| Err(limits.failure(exceeded, &progress)));
        let mut answered = answered.inspect_err(|failure| {
            count(&cluster, Err(failure));
            // The attempt that was cut short has failed, too.
            if matches!(failure, Failure::Timeout { .. } | Failure::Idle { .. }) {
                completion.blame_endpoint(&cluster);
            }
        })?;

        if let Some((policy, head)) = before
            && let Some(next) = self.follow(&policy, head, &mut answered, (routed, selected))
        {
            answered.discard();
            return Ok(Outcome::Redirected(Box::new(next)));
        }
        let status = match &upgrade {
            Some(upgrade) => upgrade.counted(&answered.response, version),
            None => Some(answered.response.status()),
        };
        count(&cluster, Ok(status));
        let completion = &mut *self.completion;
        let mut router = config.router;
        router.suppresses_envoy_headers |= upgrade.is_some();
        headers::send_back(&mut answered.response, completion, router);
        routed.tell_attempts(answered.response.headers_mut(), completion);
        routed.finish(answered.response.headers_mut(), completion);
        completion.limited_by(limits.within_try(per_try_idle), &progress);
        let response = finish(
            answered,
            (upgrade, version),
            limits,
            (completion, connection),
        )?;
        Ok(Outcome::Response(response))
    }

    /// A tunnel that ends here: the cluster is connected to, and the client is told so.
    async fn end_tunnel(
        &mut self,
        head: &Head,
        body: ClientBody,
        (tunnel, termination): (Tunnel, Termination),
        (selected, forward, cluster, destination): (
            Selected<'_>,
            &Forward,
            &Arc<Cluster>,
            &Destination<'_>,
        ),
        asked: Asked,
    ) -> Result<Response<Source>, Failure> {
        let config = &self.scene.service.config;
        let limits = Limits::of(config, forward, None, asked.stream);
        let mut attempts = self.attempts(cluster, selected, forward, asked);
        attempts.aim = self.aim(forward, head);
        attempts.aim.narrow(destination);
        let completion = &mut *self.completion;
        let dialled = attempts.dial(head, termination, completion).await;
        let status = dialled.as_ref().map(|_| Some(StatusCode::OK));
        count(cluster, status);
        let dialled = dialled?;
        match tunnel {
            Tunnel::Connect(upgrade) => {
                let told = (completion, self.connection);
                Ok(terminate::terminate(upgrade, dialled, limits, told))
            }
            Tunnel::Post => {
                let meter = meter(&body, completion);
                let progress = Progress::begin(completion.started(), meter.as_ref());
                completion.limited_by(limits, &progress);
                let body = match meter {
                    None => RequestBody::Empty,
                    Some(meter) => RequestBody::Once {
                        incoming: body,
                        meter,
                    },
                };
                Ok(terminate::pour(dialled, body))
            }
        }
    }

    fn aim(&mut self, forward: &Forward, head: &Head) -> Aim {
        let client = self.completion.client();
        affinity::aim(&forward.aim, head, (self.connection, client), self.passage)
    }

    fn rewrite(
        &self,
        head: &mut Head,
        routes: &RouteTable,
        (selected, forward, destination): (Selected<'_>, &Forward, &Destination<'_>),
    ) -> Result<(), Failure> {
        let rewriting = Rewriting {
            routes,
            selected,
            destination,
            forward,
            completion: self.completion,
            router: self.scene.service.config.router,
        };
        rewriting.apply(head)
    }

    /// What route and caller ask for; the upstream is told how long it has.
    fn asked(&self, head: &mut Head, selected: Selected<'_>, forward: &Forward) -> Asked {
        let config = &self.scene.service.config;
        let is_grpc = self.completion.is_grpc();
        let of_route = forward.retry.as_ref().or(selected.host.retry.as_ref());
        let line = RequestLine {
            method: head.method.as_str(),
            path: head.path.as_str(),
            authority: headers::text(head.authority.as_ref()),
            scheme: head.scheme,
        };
        let headers = &mut head.headers;
        let asking = Asking::of(headers);
        let policy = asked::policy((headers, asking), line, of_route);
        let hedges = asked::hedges((headers, asking), forward.hedges);
        let respects = config.router.respects_expected_timeout;
        let told = (&mut *headers, asking);
        let timeouts = asked::timeouts(told, forward, policy.as_deref(), is_grpc, respects);
        let chain = config.max_stream_duration;
        let stream = asked::stream_duration((headers, is_grpc), forward.stream_duration, chain);
        let expected = timeouts.expected(Duration::ZERO, hedges);
        if !config.router.suppresses_envoy_headers {
            asked::tell_expected(headers, expected);
        }
        if let (true, Some(_), None, Some(expected)) = (
            is_grpc,
            forward.grpc_timeout,
            forward.stream_duration,
            expected,
        ) {
            asked::tell_grpc(headers, expected);
        }
        Asked {
            policy,
            hedges,
            timeouts,
            stream,
        }
    }

    fn attempts<'b>(
        &self,
        cluster: &'b Arc<Cluster>,
        selected: Selected<'_>,
        forward: &Forward,
        asked: Asked,
    ) -> Attempts<'b>
    where
        Self: 'b,
    {
        let says = !self.scene.service.config.router.suppresses_envoy_headers;
        let is_to_endpoint = forward.host == Some(HostRewrite::Endpoint);
        Attempts {
            connection: self.connection,
            cluster,
            policy: asked.policy,
            version: HttpVersion::Http1,
            aim: Aim::default(),
            timeouts: asked.timeouts,
            hedges: asked.hedges,
            endpoint_host: is_to_endpoint.then_some(HostBefore {
                keeps_original: says,
                appends_forwarded: forward.appends_forwarded_host,
            }),
            tells: Tells {
                attempts: selected.host.tells_attempts,
                timeout_retries: selected.host.tells_timeout_retries,
                expected_time: says,
            },
            max_kept_bytes: forward
                .max_kept_bytes
                .unwrap_or(self.scene.service.config.buffer_bytes),
            meter: None,
            is_wanted_again: false,
            may_share: false,
        }
    }

    fn mirror(&self, forward: &Forward, head: &Head, meter: Option<&Arc<BodyMeter>>) {
        if !forward.mirrors.is_empty() {
            mirror::send_copies(
                &forward.mirrors,
                &self.scene.snapshot,
                head,
                self.completion.protocol(),
                meter,
                self.connection,
            );
        }
    }

    /// The request that a redirect of the upstream asks for, where it is followed here.
    fn follow<'a>(
        &mut self,
        policy: &InternalRedirects,
        before: Box<Head>,
        answered: &mut Answered,
        (routed, from): (&Routed<'a>, Selected<'a>),
    ) -> Option<Redirected<'a>> {
        let response = &answered.response;
        if !policy.statuses.contains(&response.status()) {
            return None;
        }
        let stats = &answered.borrowed.cluster().stats;
        if !response.headers().contains_key(LOCATION) {
            return self.not_followed(stats, None);
        }
        let head = match self.followed.next(policy, response, *before) {
            Ok(head) => Box::new(head),
            Err(event) => return self.not_followed(stats, Some(event)),
        };
        let target = route(routed.routes, &head, self.connection, self.completion).ok();
        let Some((target, selected)) = target.and_then(|target| {
            let selected = target.selected?;
            Some((target, selected))
        }) else {
            return self.not_followed(stats, Some(HttpEvent::RedirectNoRoute));
        };
        if !self.followed.may_enter(policy, from, selected) {
            return self.not_followed(stats, Some(HttpEvent::RedirectPredicate));
        }
        let body = match response.status() {
            StatusCode::SEE_OTHER => ClientBody::Empty,
            _ => match answered.body_again.take() {
                Some(body) => body,
                None => return self.not_followed(stats, None),
            },
        };
        ClusterStats::count(&stats.redirects_followed);
        self.completion.count_next();
        self.followed.leave(from);
        Some(Redirected {
            head,
            body,
            routed: target,
        })
    }

    /// A redirect of the upstream is left to the caller.
    fn not_followed<T>(&self, stats: &ClusterStats, event: Option<HttpEvent>) -> Option<T> {
        ClusterStats::count(&stats.redirects_not_followed);
        if let Some(event) = event {
            self.completion.count(event);
        }
        None
    }
}

/// Counts a response by its status, as Envoy does: also one that is made in the upstream's place, and none that is a
/// redirect which is followed.
fn count(cluster: &Cluster, answered: Result<Option<StatusCode>, &Failure>) {
    let stats = &cluster.stats;
    if matches!(answered, Err(Failure::Timeout { .. })) {
        ClusterStats::count(&stats.request_timeouts);
    }
    let status = answered.unwrap_or_else(|failure| failure.is_of_a_try().then(|| failure.status()));
    if let Some(status) = status {
        stats.responses.count(status);
    }
}

/// A tunnel that ends here.
enum Tunnel {
    Connect(Upgrade),
    Post,
}

impl Tunnel {
    fn of(head: &Head, upgrade: &mut Option<Upgrade>, termination: Termination) -> Option<Self> {
        match upgrade {
            Some(_) => upgrade
                .take_if(|upgrade| upgrade.is_connect())
                .map(Tunnel::Connect),
            None => {
                let is_tunnel = termination.takes_post && head.method == Method::POST;
                is_tunnel.then_some(Tunnel::Post)
            }
        }
    }
}

/// What route and caller ask for.
struct Asked {
    policy: Option<Arc<RetryPolicy>>,
    hedges: bool,
    timeouts: Timeouts,
    /// The longest that the stream may take.
    stream: Option<Duration>,
}

/// Counts the request's body, where it has one.
fn meter(body: &ClientBody, completion: &mut Completion) -> Option<Arc<BodyMeter>> {
    if body.is_end_stream() {
        return None;
    }
    let meter = Arc::new(BodyMeter::default());
    completion.metered(Arc::clone(&meter));
    Some(meter)
}

/// Hands what is held for the request to whoever sees its end: the body, or the tunnel.
fn finish(
    answered: Box<Answered>,
    (upgrade, version): (Option<Upgrade>, HttpVersion),
    limits: Limits,
    (completion, connection): (&mut Completion, &HttpConnection),
) -> Result<Response<Source>, Failure> {
    let Answered {
        response, borrowed, ..
    } = *answered;
    let Some(upgrade) = upgrade else {
        completion.hold(borrowed);
        return Ok(response.map(Source::Upstream));
    };
    if upgrade.is_agreed(&response, version) {
        completion.hold(borrowed);
        return Ok(upgrade.join(response, limits, completion, connection));
    }
    match upgrade.mistakable(&response) {
        Some(failure) => Err(failure),
        None => {
            completion.hold(borrowed);
            Ok(response.map(Source::Upstream))
        }
    }
}
