//! What happens to a request: the file to read first.
//!
//! From top to bottom: one snapshot for all of it; the route; the filters, in order; the cluster; attempts, until
//! one is good enough; the filters again on the way back, in the other direction. The response's body carries what is held for the
//! request (the connection, the permits, the report) to its own end. Whatever fails becomes a response in one
//! place, and telemetry is told once, however it ends.

use std::convert::Infallible;
use std::sync::Arc;

use http::{HeaderMap, Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use super::affinity::{self, Aim};
use super::asked::{self, Timeouts};
use super::attempt::{Answered, Attempts, HostBefore, Tells};
use super::body::{ResponseBody, Source};
use super::completion::Completion;
use super::failure::Failure;
use super::filter::{self, Passage, Passing};
use super::headers::{self, ATTEMPT_COUNT, Head};
use super::internal_redirect::Followed;
use super::limits::Limits;
use super::target::{self, Destination, Kind, Rewriting};
use super::upgrade::Upgrade;
use super::{HttpConnection, Scene, formatting, mirror, path, reply, validity};
use crate::cluster::{Cluster, random};
use crate::config::matching::RequestLine;
use crate::config::retry::RetryPolicy;
use crate::config::route::internal_redirect::InternalRedirects;
use crate::config::route::{Forward, HostRewrite, RouteAction};
use crate::snapshot::routes::{RequestFacts, RouteTable, Selected};
use crate::upstream::HttpVersion;
use crate::upstream::body::client::ClientBody;
use crate::upstream::body::meter::BodyMeter;
use crate::upstream::body::replay::MAX_REPLAYED;

/// Answers a request: with the upstream's response, or one of our own.
pub(super) async fn exchange(
    connection: Arc<HttpConnection>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let scene = connection.scene();
    let mut completion = Completion::begin(&connection, &scene.service.config, &request);
    let mut passage = Passage::default();
    let mut response = answer(&connection, &scene, request, &mut completion, &mut passage).await;
    passage.back(&mut response, &mut completion);
    Ok(completion.carried_by(response))
}

async fn answer(
    connection: &HttpConnection,
    scene: &Scene,
    mut request: Request<Incoming>,
    completion: &mut Completion,
    passage: &mut Passage,
) -> Response<Source> {
    let config = &scene.service.config;
    let objection = validity::objection(&request).map_or(Ok(()), Err);
    let mut upgrade = Upgrade::asked_for(&mut request, &config.upgrades);
    let (mut head, body) = Head::of(request);
    headers::receive(&mut head, connection, config, upgrade.as_ref());
    path::normalize_host(&mut head, config.hosts, connection.downstream.local.port());
    completion.identify(&mut head, &scene.service);

    let routed = objection
        .and_then(|()| path::normalize(&mut head, config.paths))
        .and_then(|()| routes(scene))
        .and_then(|routes| {
            headers::remove_internal(&mut head.headers, &routes.config().internal_headers);
            route(routes, &head, connection, completion)
        });
    let mut routed = match routed {
        Ok(routed) => routed,
        Err(failure) => return reply::to_failure(&failure, connection, completion),
    };
    let mut turn = Turn {
        connection,
        scene,
        completion,
        passage,
        followed: Followed::default(),
    };
    let mut next = (head, ClientBody::Incoming(body));
    loop {
        let (head, body) = next;
        match turn.answer(head, body, upgrade.take(), &mut routed).await {
            Ok(Outcome::Response(response)) => return response,
            Ok(Outcome::Redirected(redirected)) => {
                let Redirected {
                    head,
                    body,
                    routed: target,
                } = *redirected;
                // As in Envoy, the next request passes all filters.
                *turn.passage = Passage::default();
                routed = target;
                next = (head, body);
            }
            Err(failure) => {
                let mut response = reply::to_failure(&failure, connection, turn.completion);
                if failure.is_of_a_try() {
                    routed.tell_attempts(response.headers_mut(), turn.completion);
                }
                // As in Envoy, what a route says of responses holds for those that are made here, too.
                routed.finish(response.headers_mut(), turn.completion);
                return response;
            }
        }
    }
}

/// What has become of a request.
enum Outcome<'a> {
    /// It is answered.
    Response(Response<Source>),
    /// The upstream has sent it elsewhere, and it follows.
    Redirected(Box<Redirected<'a>>),
}

/// A request that follows a redirect of the upstream.
struct Redirected<'a> {
    head: Head,
    body: ClientBody,
    routed: Routed<'a>,
}

/// Where a request goes, as far as that is known.
struct Routed<'a> {
    routes: &'a RouteTable,
    selected: Option<Selected<'a>>,
    /// Where the route leads to a cluster.
    destination: Option<Destination<'a>>,
}

impl Routed<'_> {
    /// Changes the headers of a response; the innermost part of the configuration goes first, as in Envoy, unless
    /// it is to have the last word.
    fn finish(&self, headers: &mut HeaderMap, completion: &Completion) {
        let Some(selected) = self.selected else {
            return;
        };
        let destination = self.destination.as_ref();
        let weighted = destination.and_then(|destination| destination.weighted);
        let config = self.routes.config();
        let all = [
            weighted.map(|weighted| &weighted.response_headers),
            Some(&selected.route.response_headers),
            Some(&selected.host.response_headers),
            Some(&config.response_headers),
        ];
        for mutations in target::in_order(all, config.innermost_wins) {
            formatting::change_response(mutations, headers, completion);
        }
    }

    /// Tells the caller how many tries there were, where that is asked for.
    fn tell_attempts(&self, headers: &mut HeaderMap, completion: &Completion) {
        let is_told = self
            .selected
            .is_some_and(|selected| selected.host.answers_attempts);
        if is_told {
            headers.insert(ATTEMPT_COUNT, completion.attempts().into());
        }
    }
}

/// One request, from its filters on.
struct Turn<'a> {
    connection: &'a HttpConnection,
    scene: &'a Scene,
    completion: &'a mut Completion,
    passage: &'a mut Passage,
    followed: Followed,
}

impl Turn<'_> {
    async fn answer<'a>(
        &mut self,
        mut head: Head,
        mut body: ClientBody,
        upgrade: Option<Upgrade>,
        routed: &mut Routed<'a>,
    ) -> Result<Outcome<'a>, Failure> {
        self.filter(&mut head, &mut body, routed).await?;
        if self.passage.is_rerouted {
            *routed = route(routed.routes, &head, self.connection, self.completion)?;
        }
        let Some(selected) = routed.selected else {
            return Err(no_route(&head));
        };
        match (&selected.route.action, &routed.destination) {
            (RouteAction::Redirect(redirect), _) => {
                let (connection, completion) = (self.connection, &mut *self.completion);
                let mut response =
                    reply::redirect(redirect, &head, selected, connection, completion);
                routed.finish(response.headers_mut(), self.completion);
                Ok(Outcome::Response(response))
            }
            (RouteAction::Respond(response), _) => {
                let mut response = reply::direct(response, self.completion);
                routed.finish(response.headers_mut(), self.completion);
                Ok(Outcome::Response(response))
            }
            (RouteAction::Forward(forward), Some(destination)) => {
                self.forward(
                    head,
                    body,
                    upgrade,
                    routed,
                    (selected, forward, destination),
                )
                .await
            }
            (RouteAction::Forward(_), None) => Err(no_route(&head)),
        }
    }

    async fn filter(
        &mut self,
        head: &mut Head,
        body: &mut ClientBody,
        routed: &Routed<'_>,
    ) -> Result<(), Failure> {
        if self.scene.service.filters.is_empty() {
            return Ok(());
        }
        let mut passing = Passing {
            connection: self.connection,
            scene: self.scene,
            selected: routed.selected,
            destination: routed.destination.as_ref(),
            head,
            body,
            completion: self.completion,
            passage: self.passage,
        };
        filter::pass(&mut passing).await
    }

    async fn forward<'a>(
        &mut self,
        mut head: Head,
        body: ClientBody,
        upgrade: Option<Upgrade>,
        routed: &Routed<'a>,
        (selected, forward, destination): (Selected<'a>, &Forward, &Destination<'_>),
    ) -> Result<Outcome<'a>, Failure> {
        let connection = self.connection;
        let config = &self.scene.service.config;
        let cluster = target::cluster(&self.scene.snapshot, destination, forward)?;
        let asked = self.asked(&mut head, selected, forward);
        self.rewrite(&mut head, routed.routes, (selected, forward, destination))?;
        let kind = upgrade.as_ref().map_or(Kind::Ordinary, |_| Kind::Upgrade);
        let version = target::version(&cluster, self.completion.protocol(), kind);
        let meter = meter(&body, self.completion);
        self.mirror(forward, &head, meter.as_ref());
        let redirects = forward.internal_redirects.as_ref();
        let redirects = redirects.filter(|_| upgrade.is_none());
        let before = redirects.map(|policy| (Arc::clone(policy), head.clone()));
        headers::address(&mut head, version, connection.is_tls)?;

        let limits = Limits::of(config, forward, asked.timeouts.global, asked.stream);
        let per_try_idle = asked.timeouts.per_try_idle;
        let mut attempts = self.attempts(&cluster, selected, forward, asked);
        attempts.version = version;
        attempts.aim = affinity::aim(&forward.aim, &head, connection, self.passage);
        attempts.is_wanted_again = before.is_some();
        let completion = &mut *self.completion;
        let started = completion.started();
        let attempts = attempts.run(head, body, meter.clone(), completion);
        let answered = limits.enforce(attempts, started, meter.as_ref()).await;
        let mut answered = answered.inspect_err(|failure| {
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
        let completion = &mut *self.completion;
        headers::send_back(&mut answered.response, completion, config.router);
        routed.tell_attempts(answered.response.headers_mut(), completion);
        routed.finish(answered.response.headers_mut(), completion);
        completion.limited_by(limits.within_try(per_try_idle), meter.as_ref());
        let response = finish(answered, upgrade, completion, connection);
        Ok(Outcome::Response(response))
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
            is_tls: self.connection.is_tls,
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
            scheme: headers::scheme(self.connection.is_tls),
        };
        let headers = &mut head.headers;
        let policy = asked::policy(headers, line, of_route);
        let hedges = asked::hedges(headers, forward.hedges);
        let respects = config.router.respects_expected_timeout;
        let timeouts = asked::timeouts(headers, forward, policy.as_deref(), is_grpc, respects);
        let chain = config.max_stream_duration;
        let stream = asked::stream_duration(headers, forward.stream_duration, chain);
        let expected = timeouts.expected(std::time::Duration::ZERO, hedges);
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
            max_kept_bytes: forward.max_kept_bytes.unwrap_or(MAX_REPLAYED),
            is_wanted_again: false,
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
        before: Head,
        answered: &mut Answered,
        (routed, from): (&Routed<'a>, Selected<'a>),
    ) -> Option<Redirected<'a>> {
        let response = &answered.response;
        let head = self.followed.next(policy, response, before)?;
        let target = route(routed.routes, &head, self.connection, self.completion).ok()?;
        if !self.followed.may_enter(policy, from, target.selected?) {
            return None;
        }
        let body = match response.status() {
            StatusCode::SEE_OTHER => ClientBody::Empty,
            _ => answered.body_again.take()?,
        };
        self.followed.leave(from);
        Some(Redirected {
            head,
            body,
            routed: target,
        })
    }
}

/// What route and caller ask for.
struct Asked {
    policy: Option<Arc<RetryPolicy>>,
    hedges: bool,
    timeouts: Timeouts,
    /// The longest that the stream may take.
    stream: Option<std::time::Duration>,
}

fn routes(scene: &Scene) -> Result<&RouteTable, Failure> {
    scene
        .service
        .routes
        .as_deref()
        .ok_or_else(|| Failure::NoRoutesYet {
            listener: Arc::clone(&scene.service.config.stat_prefix),
        })
}

/// Chooses the route, and the cluster it leads to.
fn route<'a>(
    routes: &'a RouteTable,
    head: &Head,
    connection: &HttpConnection,
    completion: &mut Completion,
) -> Result<Routed<'a>, Failure> {
    let facts = RequestFacts {
        line: head.line(connection.is_tls),
        headers: &head.headers,
        drawn: random::draw(),
        is_authenticated: connection.client_certificate.is_some(),
        metadata: completion.metadata(),
    };
    let selected = routes.select(&facts);
    let mut destination = None;
    if let Some(selected) = selected {
        completion.routed(selected.route);
        if let RouteAction::Forward(forward) = &selected.route.action {
            let chosen = target::choose(forward, head)?;
            completion.bound_for(&chosen.cluster);
            destination = Some(chosen);
        }
    }
    Ok(Routed {
        routes,
        selected,
        destination,
    })
}

fn no_route(head: &Head) -> Failure {
    Failure::NoRoute {
        authority: head.authority().into(),
        path: head.path().into(),
    }
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
    answered: Answered,
    upgrade: Option<Upgrade>,
    completion: &mut Completion,
    connection: &HttpConnection,
) -> Response<Source> {
    let Answered {
        response, borrowed, ..
    } = answered;
    completion.hold(borrowed);
    match upgrade {
        Some(upgrade) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            upgrade.tunnel(response, completion, connection)
        }
        _ => response.map(Source::Upstream),
    }
}
