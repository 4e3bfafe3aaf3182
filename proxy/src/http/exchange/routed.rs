//! Where a request goes by the routes, and what its route says of responses.

use std::sync::Arc;

use http::HeaderMap;

use crate::config::affinity::Priority;
use crate::config::route::RouteAction;
use crate::config::upgrade::RouteUpgrades;
use crate::http::completion::Completion;
use crate::http::failure::Failure;
use crate::http::headers::{ATTEMPT_COUNT, Head, number};
use crate::http::target::{self, Destination};
use crate::http::{HttpConnection, Scene, formatting};
use crate::random;
use crate::snapshot::routes::{RequestFacts, RouteTable, Selected};

/// Where a request goes, as far as that is known.
pub(super) struct Routed<'a> {
    pub(super) routes: &'a RouteTable,
    pub(super) selected: Option<Selected<'a>>,
    /// Where the route leads to a cluster.
    pub(super) destination: Option<Destination<'a>>,
}

impl Routed<'_> {
    /// Changes the headers of a response; the innermost part of the configuration goes first, as in Envoy, unless
    /// it is to have the last word.
    pub(super) fn finish(&self, headers: &mut HeaderMap, completion: &Completion) {
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

    /// Whether its route's requests go before others.
    pub(super) fn is_urgent(&self) -> bool {
        let action = self.selected.map(|selected| &selected.route.action);
        matches!(action, Some(RouteAction::Forward(forward)) if forward.aim.priority == Priority::High)
    }

    /// What the route says of upgrades.
    pub(super) fn upgrades(&self) -> Option<&RouteUpgrades> {
        match &self.selected?.route.action {
            RouteAction::Forward(forward) => Some(&forward.upgrades),
            RouteAction::Redirect(_) | RouteAction::Respond(_) => None,
        }
    }

    /// Tells the caller how many tries there were, where that is asked for.
    pub(super) fn tell_attempts(&self, headers: &mut HeaderMap, completion: &Completion) {
        let is_told = self
            .selected
            .is_some_and(|selected| selected.host.answers_attempts);
        if is_told {
            headers.insert(ATTEMPT_COUNT, number(completion.attempts().into()));
        }
    }
}

pub(super) fn routes(scene: &Scene) -> Result<&RouteTable, Failure> {
    scene
        .service
        .routes
        .as_deref()
        .ok_or_else(|| Failure::NoRoutesYet {
            listener: Arc::clone(&scene.service.config.stat_prefix),
        })
}

/// Chooses the route, and the cluster it leads to.
pub(super) fn route<'a>(
    routes: &'a RouteTable,
    head: &Head,
    connection: &HttpConnection,
    completion: &mut Completion,
) -> Result<Routed<'a>, Failure> {
    let facts = RequestFacts {
        line: head.line(),
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

pub(super) fn no_route(head: &Head) -> Failure {
    Failure::NoRoute {
        authority: head.authority().into(),
        path: head.path().into(),
    }
}
