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

use super::attempt::{Answered, Attempts};
use super::body::{ResponseBody, Source};
use super::completion::Completion;
use super::failure::Failure;
use super::filter::{self, Passage, Passing};
use super::headers::{self, Head};
use super::limits::Limits;
use super::target::{self, Destination, Kind};
use super::upgrade::Upgrade;
use super::{HttpConnection, Scene, mirror, reply};
use crate::cluster::random;
use crate::config::route::{Forward, HostRewrite, RouteAction};
use crate::snapshot::routes::{RequestFacts, RouteTable, Selected};
use crate::upstream::body::client::ClientBody;
use crate::upstream::body::meter::BodyMeter;

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
    let upgrade = Upgrade::asked_for(&mut request, &config.upgrades);
    let (mut head, body) = Head::of(request);
    headers::receive(&mut head, connection, config, upgrade.as_ref());
    completion.identify(&mut head, &scene.service);

    let routed = routes(scene).and_then(|routes| route(routes, &head, connection, completion));
    let mut routed = match routed {
        Ok(routed) => routed,
        Err(failure) => return reply::to_failure(&failure, connection, completion),
    };
    let mut turn = Turn {
        connection,
        scene,
        completion,
        passage,
    };
    let answer = turn.answer(head, body, upgrade, &mut routed).await;
    answer.unwrap_or_else(|failure| {
        let mut response = reply::to_failure(&failure, connection, turn.completion);
        // As in Envoy, what a route says of responses holds for those that are made here, too.
        routed.finish(response.headers_mut());
        response
    })
}

/// Where a request goes, as far as that is known.
struct Routed<'a> {
    routes: &'a RouteTable,
    selected: Option<Selected<'a>>,
    /// Where the route leads to a cluster.
    destination: Option<Destination<'a>>,
}

impl Routed<'_> {
    /// Changes the headers of a response; the innermost part of the configuration goes first, as in Envoy.
    fn finish(&self, headers: &mut HeaderMap) {
        let (Some(selected), Some(destination)) = (self.selected, &self.destination) else {
            return;
        };
        if let Some(weighted) = destination.weighted {
            weighted.response_headers.apply(headers);
        }
        selected.route.response_headers.apply(headers);
        selected.host.response_headers.apply(headers);
        self.routes.config().response_headers.apply(headers);
    }
}

/// One request, from its filters on.
struct Turn<'a> {
    connection: &'a HttpConnection,
    scene: &'a Scene,
    completion: &'a mut Completion,
    passage: &'a mut Passage,
}

impl Turn<'_> {
    async fn answer<'a>(
        &mut self,
        mut head: Head,
        body: Incoming,
        upgrade: Option<Upgrade>,
        routed: &mut Routed<'a>,
    ) -> Result<Response<Source>, Failure> {
        let mut body = ClientBody::Incoming(body);
        self.filter(&mut head, &mut body, routed).await?;
        if self.passage.is_rerouted {
            *routed = route(routed.routes, &head, self.connection, self.completion)?;
        }
        let Some(selected) = routed.selected else {
            return Err(no_route(&head));
        };
        match (&selected.route.action, &routed.destination) {
            (RouteAction::Redirect(redirect), _) => {
                Ok(reply::redirect(redirect, &head, selected, self.connection))
            }
            (RouteAction::Respond(response), _) => Ok(reply::direct(response, self.completion)),
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

    async fn forward(
        &mut self,
        mut head: Head,
        body: ClientBody,
        upgrade: Option<Upgrade>,
        routed: &Routed<'_>,
        (selected, forward, destination): (Selected<'_>, &Forward, &Destination<'_>),
    ) -> Result<Response<Source>, Failure> {
        let (connection, completion) = (self.connection, &mut *self.completion);
        let snapshot = &self.scene.snapshot;
        let cluster = target::cluster(snapshot, destination, forward)?;
        target::rewrite(&mut head, routed.routes, selected, destination, forward)?;
        let kind = upgrade.as_ref().map_or(Kind::Ordinary, |_| Kind::Upgrade);
        let version = target::version(&cluster, completion.protocol(), kind);
        let meter = meter(&body, completion);
        if !forward.mirrors.is_empty() {
            let protocol = completion.protocol();
            mirror::send_copies(
                &forward.mirrors,
                snapshot,
                &head,
                protocol,
                meter.as_ref(),
                connection,
            );
        }
        headers::address(&mut head, version, connection.is_tls)?;

        let attempts = Attempts {
            connection,
            cluster: &cluster,
            policy: forward.retry.as_ref().or(selected.host.retry.as_ref()),
            version,
            is_rewritten_to_endpoint: forward.host == Some(HostRewrite::Endpoint),
        };
        let limits = Limits::of(&self.scene.service.config, forward);
        let attempts = attempts.run(head, body, meter.clone(), completion);
        let answered = limits.enforce(attempts, meter.as_ref()).await;
        let mut answered = answered.inspect_err(|failure| {
            // The attempt that was cut short has failed, too.
            if matches!(failure, Failure::Timeout { .. } | Failure::Idle { .. }) {
                completion.blame_endpoint(&cluster);
            }
        })?;

        headers::send_back(&mut answered.response, completion);
        routed.finish(answered.response.headers_mut());
        completion.limited_by(limits, meter.as_ref());
        Ok(finish(answered, upgrade, completion, connection))
    }
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
    let Answered { response, borrowed } = answered;
    completion.hold(borrowed);
    match upgrade {
        Some(upgrade) if response.status() == StatusCode::SWITCHING_PROTOCOLS => {
            upgrade.tunnel(response, completion, connection)
        }
        _ => response.map(Source::Upstream),
    }
}
