//! Changes of headers, trailers and queries: the chain's, then those of the routes.

use std::sync::Arc;

use http::uri::PathAndQuery;

use super::Passing;
use super::trailers::WithTrailers;
use crate::config::filter::header_mutation::{HeaderMutationConfig, Mutations, QueryChange};
use crate::config::filter::{FilterKind, FilterOverride, FilterOverrides, HttpFilter, RouteFilter};

/// Changes a request, and its response when it comes.
pub(super) fn request(
    config: &Arc<HeaderMutationConfig>,
    own: Option<&RouteFilter>,
    passing: &mut Passing<'_>,
) {
    for mutations in all(config, own) {
        let headers = &mut passing.head.headers;
        mutations
            .request
            .iter()
            .for_each(|change| change.apply(headers));
        if !mutations.query.is_empty() {
            change_query(&mutations.query, &mut passing.head.path);
        }
        if !mutations.request_trailers.is_empty() {
            let changes = Arc::clone(&mutations.request_trailers);
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
    passing.passage.on_response(move |returning| {
        for (headers, trailers) in changes {
            let response = &mut *returning.response;
            headers
                .iter()
                .for_each(|change| change.apply(response.headers_mut()));
            if !trailers.is_empty() {
                let body = response.body_mut();
                body.filtered(|inner| WithTrailers {
                    inner,
                    changes: trailers,
                });
            }
        }
    });
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
pub(super) fn change_query(changes: &[QueryChange], path: &mut PathAndQuery) {
    let query = path.query().unwrap_or_default();
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let mut parameters: Vec<String> = parameters.map(str::to_owned).collect();
    changes
        .iter()
        .for_each(|change| change.apply(&mut parameters));
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

        change_query(&[QueryChange::Remove("x".into())], &mut path);

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
