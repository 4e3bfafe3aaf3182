//! Changes of headers, trailers and queries: the chain's, then those of the routes.

use std::sync::Arc;

use http::HeaderMap;
use http::uri::PathAndQuery;

use super::trailers::WithTrailers;
use super::{Passing, Returning};
use crate::config::filter::header_mutation::{
    Change, HeaderMutationConfig, Mutations, QueryChange,
};
use crate::config::filter::{FilterKind, FilterOverride, FilterOverrides, HttpFilter, RouteFilter};
use crate::http::formatting;
use crate::telemetry::access_log::format::Template;

/// Changes a request, and its response when it comes.
pub(super) fn request(
    config: &Arc<HeaderMutationConfig>,
    own: Option<&RouteFilter>,
    passing: &mut Passing<'_>,
) {
    for mutations in all(config, own) {
        for change in &mutations.request {
            formatting::change_request_by(change, passing.head, passing.completion);
        }
        if !mutations.query.is_empty() {
            let mut path = passing.head.path.clone();
            change_query(&mutations.query, &mut path, |value| {
                formatting::request_text(value, passing.head, passing.completion)
            });
            passing.head.path = path;
        }
        if !mutations.request_trailers.is_empty() {
            let changes = settled(&mutations.request_trailers, |template| {
                formatting::request_text(template, passing.head, passing.completion)
            });
            let body = std::mem::take(passing.body);
            *passing.body = body.filtered(|inner| WithTrailers { inner, changes });
        }
    }
    response(config, own, passing);
}

/// What a filter that was not reached changes of an answer that was given before it.
pub(super) fn skipped(
    filters: &[HttpFilter],
    answered: &str,
    overrides: &FilterOverrides,
    passing: &mut Passing<'_>,
) {
    let position = filters.iter().position(|filter| *filter.name == *answered);
    for filter in filters
        .iter()
        .skip(position.map_or(0, |position| position + 1))
    {
        let FilterKind::HeaderMutation(config) = &filter.kind else {
            continue;
        };
        match overrides.of(&filter.name) {
            Some(FilterOverride::Disabled) => {}
            Some(FilterOverride::Configured(own)) => response(config, Some(own), passing),
            None if filter.is_disabled => {}
            Some(FilterOverride::Enabled) | None => response(config, None, passing),
        }
    }
}

fn response(
    config: &Arc<HeaderMutationConfig>,
    own: Option<&RouteFilter>,
    passing: &mut Passing<'_>,
) {
    let is_changed = |mutations: &&Mutations| {
        !mutations.response.is_empty() || !mutations.response_trailers.is_empty()
    };
    let changes: Vec<_> = all(config, own)
        .filter(is_changed)
        .map(|one| {
            (
                Arc::clone(&one.response),
                Arc::clone(&one.response_trailers),
            )
        })
        .collect();
    if changes.is_empty() {
        return;
    }
    let is_formatted = |(headers, trailers): &(Arc<[Change]>, Arc<[Change]>)| {
        headers.iter().chain(&**trailers).any(Change::is_formatted)
    };
    let request = match changes.iter().any(is_formatted) {
        true => passing.head.headers.clone(),
        false => HeaderMap::new(),
    };
    passing.passage.on_response(move |returning| {
        for (headers, trailers) in changes {
            change_response((&headers, &trailers), &request, returning);
        }
    });
}

fn change_response(
    (headers, trailers): (&[Change], &Arc<[Change]>),
    request: &HeaderMap,
    returning: &mut Returning<'_>,
) {
    let completion = &*returning.completion;
    // What the route has added is known where logs or headers of responses ask for it.
    let request = completion.kept_headers().unwrap_or(request);
    for change in headers {
        let headers = returning.response.headers_mut();
        formatting::change_response_by(change, headers, request, completion);
    }
    if trailers.is_empty() {
        return;
    }
    let response = returning.response.headers();
    let changes = settled(trailers, |template| {
        formatting::response_text(template, (request, response), completion)
    });
    let body = returning.response.body_mut();
    body.filtered(|inner| WithTrailers { inner, changes });
}

/// Changes of trailers, which are made when nothing is known of the exchange any more.
fn settled(changes: &Arc<[Change]>, text: impl Fn(&Template) -> String) -> Arc<[Change]> {
    if !changes.iter().any(Change::is_formatted) {
        return Arc::clone(changes);
    }
    changes.iter().map(|change| change.settled(&text)).collect()
}

/// The chain's changes, then those of the routes: the innermost first, unless it is to have the last word.
fn all<'a>(
    config: &'a HeaderMutationConfig,
    own: Option<&'a RouteFilter>,
) -> impl Iterator<Item = &'a Mutations> {
    let own = match own {
        Some(RouteFilter::HeaderMutation(own)) => &own[..],
        _ => &[],
    };
    let mut of_routes: Vec<&Mutations> = own.iter().map(|mutations| &**mutations).collect();
    if config.innermost_wins {
        of_routes.reverse();
    }
    std::iter::once(&config.mutations).chain(of_routes)
}

/// Carries changes of a query out.
pub(super) fn change_query(
    changes: &[QueryChange],
    path: &mut PathAndQuery,
    text: impl Fn(&Template) -> String,
) {
    let query = path.query().unwrap_or_default();
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let mut parameters: Vec<String> = parameters.map(str::to_owned).collect();
    changes
        .iter()
        .for_each(|change| change.apply(&mut parameters, &text));
    let changed = match parameters.is_empty() {
        true => path.path().to_owned(),
        false => format!("{}?{}", path.path(), parameters.join("&")),
    };
    // A value that is none of a query changes nothing.
    if let Ok(changed) = changed.parse() {
        *path = changed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_loses_its_mark_with_its_last_parameter() {
        let mut path = PathAndQuery::from_static("/a?x=1");

        change_query(&[QueryChange::Remove("x".into())], &mut path, |_| {
            String::new()
        });

        assert_eq!(path, "/a");
    }

    #[test]
    fn the_innermost_part_goes_first_unless_it_is_to_win() {
        let named = |name: &str| Mutations {
            query: vec![QueryChange::Remove(name.into())],
            ..Mutations::default()
        };
        let own =
            RouteFilter::HeaderMutation(vec![Arc::new(named("route")), Arc::new(named("host"))]);
        let order = |innermost_wins| {
            let mutations = Mutations::default();
            let config = HeaderMutationConfig {
                mutations,
                innermost_wins,
            };
            let all: Vec<_> = all(&config, Some(&own)).skip(1).cloned().collect();
            all
        };

        assert_eq!(order(false), [named("route"), named("host")]);
        assert_eq!(order(true), [named("host"), named("route")]);
    }
}
