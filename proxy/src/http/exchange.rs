//! What happens to a request: the file to read first.
//!
//! From top to bottom: one snapshot for all of it; the route; the filters, in order; the cluster; attempts, until
//! one is good enough; filters again on the way back. The response's body carries what is held for the
//! request (the connection, the permits, the report) to its own end. Whatever fails becomes a response in one
//! place, and telemetry is told once, however it ends.

use std::convert::Infallible;
use std::sync::Arc;

use http::{Request, Response, StatusCode};
use http_body::Body as _;
use hyper::body::Incoming;

use super::attempt::{Answered, Attempts};
use super::body::{ResponseBody, Source};
use super::completion::Completion;
use super::failure::Failure;
use super::headers::{self, Head};
use super::limits::Limits;
use super::target::{self, Destination, Kind};
use super::upgrade::Upgrade;
use super::{HttpConnection, Scene, fault, mirror, reply};
use crate::cluster::random;
use crate::config::http::HttpFilter;
use crate::config::route::{HostRewrite, RouteAction};
use crate::snapshot::routes::{RequestFacts, RouteTable, Selected};
use crate::upstream::body::meter::BodyMeter;

/// Answers a request: with the upstream's response, or one of our own.
pub(super) async fn exchange(
    connection: Arc<HttpConnection>,
    request: Request<Incoming>,
) -> Result<Response<ResponseBody>, Infallible> {
    let scene = connection.scene();
    let mut completion = Completion::begin(&connection, &scene.service.config, &request);
    let answer = answer(&connection, &scene, request, &mut completion).await;
    Ok(match answer {
        Ok(response) => completion.carried_by(response),
        Err(failure) => reply::to_failure(&failure, &connection, completion),
    })
}

async fn answer(
    connection: &HttpConnection,
    scene: &Scene,
    mut request: Request<Incoming>,
    completion: &mut Completion,
) -> Result<Response<Source>, Failure> {
    let config = &scene.service.config;
    let upgrade = Upgrade::asked_for(&mut request, &config.upgrades);
    let (mut head, body) = Head::of(request);
    headers::receive(&mut head, connection, config, upgrade.as_ref());
    completion.identify(&mut head, &scene.service);

    let routes = routes(scene)?;
    let selected = select(routes, &head, connection)?;
    completion.routed(selected.route);
    let forward = match &selected.route.action {
        RouteAction::Forward(forward) => forward,
        RouteAction::Redirect(redirect) => {
            return Ok(reply::redirect(redirect, &head, selected, connection));
        }
        RouteAction::Respond(response) => return Ok(reply::direct(response, completion)),
    };
    let destination = target::choose(forward, &head)?;
    completion.bound_for(&destination.cluster);
    filter_request(scene, &head, selected, &destination, connection, completion).await?;

    let cluster = target::cluster(&scene.snapshot, &destination, forward)?;
    target::rewrite(&mut head, routes, selected, &destination, forward)?;
    let kind = upgrade.as_ref().map_or(Kind::Ordinary, |_| Kind::Upgrade);
    let version = target::version(&cluster, completion.protocol(), kind);
    let meter = meter(&body, completion);
    if !forward.mirrors.is_empty() {
        let (protocol, snapshot) = (completion.protocol(), &scene.snapshot);
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
    let limits = Limits::of(config, forward);
    let attempts = attempts.run(head, body, meter.clone(), completion);
    let answered = limits.enforce(attempts, meter.as_ref()).await;
    let mut answered = answered.inspect_err(|failure| {
        // The attempt that was cut short has failed, too.
        if matches!(failure, Failure::Timeout { .. } | Failure::Idle { .. }) {
            completion.blame_endpoint(&cluster);
        }
    })?;

    headers::send_back(&mut answered.response, completion);
    filter_response(&mut answered.response, routes, selected, &destination);
    completion.limited_by(limits, meter.as_ref());
    Ok(finish(answered, upgrade, completion, connection))
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

fn select<'a>(
    routes: &'a RouteTable,
    head: &Head,
    connection: &HttpConnection,
) -> Result<Selected<'a>, Failure> {
    let facts = RequestFacts {
        line: head.line(connection.is_tls),
        headers: &head.headers,
        drawn: random::draw(),
    };
    routes.select(&facts).ok_or_else(|| Failure::NoRoute {
        authority: facts.line.authority.into(),
        path: facts.line.path.into(),
    })
}

/// The filters on the way in, in their configured order.
async fn filter_request(
    scene: &Scene,
    head: &Head,
    selected: Selected<'_>,
    destination: &Destination<'_>,
    connection: &HttpConnection,
    completion: &mut Completion,
) -> Result<(), Failure> {
    for filter in &scene.service.config.filters {
        match filter {
            HttpFilter::Fault(inherited) => {
                let config = fault::closest(inherited, selected, destination);
                let line = head.line(connection.is_tls);
                fault::inject(config, line, &head.headers, completion).await?;
            }
        }
    }
    Ok(())
}

/// The filters on the way back; the innermost part of the configuration goes first, as in Envoy.
fn filter_response(
    response: &mut Response<Incoming>,
    routes: &RouteTable,
    selected: Selected<'_>,
    destination: &Destination<'_>,
) {
    let headers = response.headers_mut();
    if let Some(weighted) = destination.weighted {
        weighted.response_headers.apply(headers);
    }
    selected.route.response_headers.apply(headers);
    selected.host.response_headers.apply(headers);
    routes.config().response_headers.apply(headers);
}

/// Counts the request's body, where it has one.
fn meter(body: &Incoming, completion: &mut Completion) -> Option<Arc<BodyMeter>> {
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
