//! What happens to a request: the file to read first.
//!
//! From top to bottom: one snapshot for all of it; the route; the filters, in order; the cluster; attempts, until
//! one is good enough; the filters again on the way back, in the other direction. The response's body carries what is held for the
//! request (the connection, the permits, the report) to its own end. Whatever fails becomes a response in one
//! place, and telemetry is told once, however it ends.

mod forward;
mod routed;

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;

use http::{Request, Response};

use self::routed::{Routed, no_route, route, routes};
use super::body::{ResponseBody, Source};
use super::completion::Completion;
use super::failure::Failure;
use super::filter::{self, Passage, Passing};
use super::headers::{self, Head};
use super::internal_redirect::Followed;
use super::reply::Reply;
use super::upgrade::{self, Upgrade};
use super::{HttpConnection, Scene, decoration, forwarding, path, validity};
use crate::config::route::RouteAction;
use crate::telemetry::managers::HttpEvent;
use crate::upstream::body::client::ClientBody;

/// Answers a request: with the upstream's response, or one of our own.
///
/// Futures are pinned where they are made, here and on the way to the upstream: what is awaited as a value is moved
/// first, with all the room for what comes of it. For the same reason what is large is boxed, or behind a reference.
pub(super) async fn exchange(
    connection: &Arc<HttpConnection>,
    request: Box<Request<ClientBody>>,
) -> Result<Box<Response<ResponseBody>>, Infallible> {
    let scene = connection.scene();
    let mut completion = Completion::begin(connection, &scene.service.config, &request);
    let mut passage = Passage::default();
    let arrived = arrive(connection, &scene, request, &mut completion);
    let mut response = match arrived {
        Ok(arrived) => {
            let turn = Turn {
                connection,
                scene: &scene,
                completion: &mut completion,
                passage: &mut passage,
                followed: Followed::default(),
            };
            pin!(answer(turn, arrived)).await
        }
        Err(failure) => {
            let replies = scene.service.config.local_replies.as_deref();
            let reply = Reply::to_failure(&failure, connection, &mut completion);
            reply.sent(replies, &mut completion)
        }
    };
    passage.back(&mut response, &mut completion);
    decoration::send_back(response.headers_mut(), &mut completion);
    forwarding::send_back(&mut response, &scene.service.config.forwarding, &completion);
    Ok(completion.carried_by(response))
}

/// A request that is to be answered as its route says.
struct Arrived<'a> {
    head: Box<Head>,
    body: ClientBody,
    upgrade: Option<Upgrade>,
    routed: Routed<'a>,
}

/// What is done to a request before anything is waited for.
fn arrive<'a>(
    connection: &HttpConnection,
    scene: &'a Scene,
    mut request: Box<Request<ClientBody>>,
    completion: &mut Completion,
) -> Result<Arrived<'a>, Failure> {
    let config = &scene.service.config;
    validity::complete(&mut request, &config.http1);
    let objection = validity::objection(&request, &config.http1)
        .or_else(|| validity::too_many_headers(&request, connection.spoken, config.max_headers))
        .or_else(|| validity::too_large(&request, connection.spoken, config.max_header_bytes))
        .or_else(|| validity::underscored(&mut request, config.underscored_names))
        .map_or(Ok(()), Err);
    let mut upgrade = Upgrade::asked_for(&mut request, &config.http1.ignored_upgrades);
    let (mut head, body) = Head::of(request);
    let client = headers::receive(&mut head, connection, config, upgrade.as_ref());
    completion.sent_by(client);
    path::normalize_host(&mut head, config.hosts, connection.downstream.local.port());
    completion.identify(&mut head, &scene.service);

    objection?;
    path::normalize(&mut head, config.paths)?;
    let routes = routes(scene)?;
    headers::remove_internal(&mut head.headers, &routes.config().internal_headers);
    let routed = route(routes, &head, connection, completion)?;
    let overload = &connection.environment.overload;
    if config.heeds_overload && overload.refuses_request(routed.is_urgent()) {
        return Err(Failure::Overloaded);
    }
    // Without a route the answer is that there is none.
    if routed.selected.is_some() {
        let allowed = (&*config.upgrades, routed.upgrades());
        let was_asked_for = upgrade.is_some();
        upgrade = upgrade::admit(upgrade.take(), &mut head.headers, allowed)
            .inspect_err(|_| completion.count(HttpEvent::UpgradeRefused))?;
        match upgrade.is_some() {
            true => completion.upgraded(),
            false if was_asked_for => completion.count(HttpEvent::UpgradeRefused),
            false => {}
        }
    }
    let selected = routed.selected;
    let decorator = selected.and_then(|selected| selected.route.decorator.as_deref());
    decoration::receive(&mut head.headers, decorator, completion);
    Ok(Arrived {
        head,
        body,
        upgrade,
        routed,
    })
}

async fn answer(mut turn: Turn<'_>, arrived: Arrived<'_>) -> Response<Source> {
    let Arrived {
        head,
        body,
        mut upgrade,
        mut routed,
    } = arrived;
    let agreement = upgrade.as_ref().and_then(Upgrade::agreement);
    let mut next = (head, body);
    loop {
        let (head, body) = next;
        let outcome = pin!(turn.answer(head, body, upgrade.take(), &mut routed)).await;
        match outcome {
            Ok(Outcome::Response(response)) => return upgrade::answered(response, agreement),
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
                let mut reply = Reply::to_failure(&failure, turn.connection, turn.completion);
                if failure.is_of_a_try() {
                    routed.tell_attempts(&mut reply.headers, turn.completion);
                }
                return upgrade::answered(turn.sent(reply, &routed), agreement);
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
    head: Box<Head>,
    body: ClientBody,
    routed: Routed<'a>,
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
        mut head: Box<Head>,
        mut body: ClientBody,
        upgrade: Option<Upgrade>,
        routed: &mut Routed<'a>,
    ) -> Result<Outcome<'a>, Failure> {
        self.filter(&mut head, &mut body, routed).await?;
        self.completion.count(HttpEvent::Routed);
        if self.passage.is_rerouted {
            *routed = route(routed.routes, &head, self.connection, self.completion)?;
        }
        let Some(selected) = routed.selected else {
            return Err(no_route(&head));
        };
        match (&selected.route.action, &routed.destination) {
            (RouteAction::Redirect(redirect), _) => {
                self.completion.count(HttpEvent::DirectResponse);
                let reply = Reply::redirect(redirect, &head, selected, self.completion);
                Ok(Outcome::Response(self.sent(reply, routed)))
            }
            (RouteAction::Respond(response), _) => {
                self.completion.count(HttpEvent::DirectResponse);
                let reply = Reply::direct(response, &head, self.completion);
                Ok(Outcome::Response(self.sent(reply, routed)))
            }
            (RouteAction::Forward(forward), Some(destination)) => {
                let route = (selected, &**forward, destination);
                pin!(self.forward(head, body, upgrade, routed, route)).await
            }
            (RouteAction::Forward(_), None) => Err(no_route(&head)),
        }
    }

    /// Sends an answer of the proxy's own: as in Envoy, what a route says of responses holds for it, too.
    fn sent(&mut self, mut reply: Reply, routed: &Routed<'_>) -> Response<Source> {
        let replies = self.scene.service.config.local_replies.as_deref();
        self.completion.status(reply.status);
        routed.finish(&mut reply.headers, self.completion);
        reply.sent(replies, self.completion)
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
        let passed = filter::pass(&mut passing).await;
        self.completion.filtered(head);
        passed
    }
}
