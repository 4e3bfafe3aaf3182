//! The HTTP filters of a chain, and what routes say to them.
//!
//! One variant of [`FilterKind`] for each filter, with its configuration in a file of `config/filter/`. A filter
//! that routes can configure has a variant of [`RouteFilter`], too. How one is added is told in
//! `docs/how-to/add-a-filter.md`.

pub mod live;

use std::sync::Arc;

use super::fault::FaultConfig;

/// A filter that every request passes, unless it is switched off.
#[derive(Debug, Clone, PartialEq)]
pub struct HttpFilter {
    /// The name by which routes configure it.
    pub name: Arc<str>,
    /// Whether it is passed only where a route says so.
    pub is_disabled: bool,
    /// What it does.
    pub kind: FilterKind,
}

/// What a filter does.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterKind {
    /// Injects faults; an empty one has effect only where a route says so.
    Fault(Arc<FaultConfig>),
}

/// What a part of the routes says to one filter.
#[derive(Debug, Clone, PartialEq)]
pub enum FilterOverride {
    /// It is not passed.
    Disabled,
    /// It is passed, configured as the chain says.
    Enabled,
    /// It is passed, configured so.
    Configured(RouteFilter),
}

/// A filter's configuration for a part of the routes.
#[derive(Debug, Clone, PartialEq)]
pub enum RouteFilter {
    /// Other faults.
    Fault(Arc<FaultConfig>),
}

/// What a part of the routes says to filters.
///
/// A route's holds what its host says, too, and a weighted cluster's what its route says, so that a request looks
/// in one place: [`FilterOverrides::inherit`] sees to that once, when the routes are taken.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct FilterOverrides {
    by_name: Vec<(Arc<str>, FilterOverride)>,
}

impl FilterOverrides {
    /// Nothing is said.
    pub const fn new() -> Self {
        FilterOverrides { by_name: vec![] }
    }

    /// What is said to a filter.
    pub fn of(&self, filter: &str) -> Option<&FilterOverride> {
        let (_, said) = self.by_name.iter().find(|(name, _)| &**name == filter)?;
        Some(said)
    }

    /// Says something to a filter, in place of what has been said to it.
    pub fn set(&mut self, filter: Arc<str>, said: FilterOverride) {
        self.by_name.retain(|(name, _)| *name != filter);
        self.by_name.push((filter, said));
    }

    /// Adds what the surrounding part of the routes says and this one does not.
    pub fn inherit(&mut self, outer: &FilterOverrides) {
        for (filter, said) in &outer.by_name {
            if self.of(filter).is_none() {
                self.by_name.push((Arc::clone(filter), said.clone()));
            }
        }
    }
}

/// The filters of a chain, each with what lives of its predecessor where that was configured alike.
pub fn carried_over(filters: &[HttpFilter], before: &[HttpFilter]) -> Arc<[HttpFilter]> {
    filters
        .iter()
        .map(|filter| {
            before
                .iter()
                .find(|before| *before == filter)
                .unwrap_or(filter)
                .clone()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_closest_to_the_route_counts() {
        let mut host = FilterOverrides::default();
        host.set("a".into(), FilterOverride::Disabled);
        host.set("b".into(), FilterOverride::Disabled);
        let mut route = FilterOverrides::default();
        route.set("a".into(), FilterOverride::Enabled);

        route.inherit(&host);

        assert_eq!(route.of("a"), Some(&FilterOverride::Enabled));
        assert_eq!(route.of("b"), Some(&FilterOverride::Disabled));
        assert_eq!(route.of("c"), None);
    }

    #[test]
    fn a_filter_that_is_configured_alike_stays_the_same() {
        let filter = || HttpFilter {
            name: "fault".into(),
            is_disabled: false,
            kind: FilterKind::Fault(Arc::default()),
        };
        let before = [filter()];

        let after = carried_over(&[filter()], &before);

        let (FilterKind::Fault(one), FilterKind::Fault(other)) = (&before[0].kind, &after[0].kind);
        assert!(Arc::ptr_eq(one, other));
    }
}
