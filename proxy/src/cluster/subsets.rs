//! Subsets: endpoints divided by their labels, so that a request is sent only to those it asks for.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::arrangement::Arrangement;
use super::arrangement::plan::Plan;
use super::endpoint::Endpoint;
use super::members::Member;
use crate::config::balancing::{
    Criteria, Labels, Localities, SelectorFallback, SubsetConfig, SubsetFallback, SubsetSelector,
};

/// All subsets of a cluster.
#[derive(Debug)]
pub struct Subsets {
    config: Arc<SubsetConfig>,
    by_labels: HashMap<Box<Pairs>, Arrangement>,
    /// Where each subset has one endpoint only.
    single: HashMap<Box<Pairs>, Arc<Endpoint>>,
    default: Option<Arrangement>,
}

type Pairs = [(Arc<str>, Arc<str>)];

/// Where a request that asks for a subset goes.
pub enum Found<'a> {
    /// To these.
    Subset(&'a Arrangement),
    /// To these in its place.
    Default(&'a Arrangement),
    /// To this one.
    Endpoint(&'a Arc<Endpoint>),
    /// To any.
    Any,
    /// Nowhere.
    Nowhere,
}

impl Subsets {
    /// Divides endpoints, each into as many subsets as selectors name its labels.
    pub fn new(config: &Arc<SubsetConfig>, members: &[Member], plan: &mut Plan<'_>) -> Self {
        let mut divided: HashMap<Box<Pairs>, Vec<usize>> = HashMap::new();
        for (index, member) in members.iter().enumerate() {
            let mut seen = HashSet::new();
            for selector in &config.selectors {
                for pairs in combinations(selector, &member.endpoint.labels, config.list_as_any) {
                    if seen.insert(pairs.clone()) {
                        divided.entry(pairs).or_default().push(index);
                    }
                }
            }
        }
        let single = match config.is_single {
            true => divided
                .drain()
                .filter_map(|(pairs, indices)| {
                    let first = members.get(*indices.first()?)?;
                    Some((pairs, Arc::clone(&first.endpoint)))
                })
                .collect(),
            false => HashMap::new(),
        };
        let by_labels = divided
            .into_iter()
            .map(|(pairs, indices)| {
                let chosen: Vec<_> = indices
                    .iter()
                    .map(|index| members[*index].clone())
                    .collect();
                let arrangement = arranged(config, &scope(&pairs), &chosen, members, plan);
                (pairs, arrangement)
            })
            .collect();
        let default =
            (config.fallback == SubsetFallback::Default || has_default(config)).then(|| {
                let is_in = |member: &&Member| {
                    matches(
                        config.default.pairs(),
                        &member.endpoint.labels,
                        config.list_as_any,
                    )
                };
                let chosen: Vec<_> = members.iter().filter(is_in).cloned().collect();
                arranged(config, "default", &chosen, members, plan)
            });
        Subsets {
            config: Arc::clone(config),
            by_labels,
            single,
            default,
        }
    }

    /// The subset that is asked for, or what is used in its place.
    pub fn find(&self, asked: Option<&Criteria>) -> Found<'_> {
        let Some(asked) = asked.filter(|asked| !asked.is_empty()) else {
            return self.fallback(self.config.fallback);
        };
        if let Some(subset) = self.by_labels.get(asked.pairs()) {
            return Found::Subset(subset);
        }
        if let Some(endpoint) = self.single.get(asked.pairs()) {
            return Found::Endpoint(endpoint);
        }
        if let Some(fewer) = self.without_redundant(asked) {
            return self.find(Some(&fewer));
        }
        let names = asked.pairs().iter().map(|(name, _)| name);
        let selector = self
            .config
            .selectors
            .iter()
            .find(|selector| selector.keys.iter().eq(names.clone()));
        match selector.and_then(|selector| selector.fallback.as_ref()) {
            Some(SelectorFallback::As(fallback)) => self.fallback(*fallback),
            // Translation has seen to it that these keys are fewer: this ends.
            Some(SelectorFallback::Keys(keys)) => match asked.only(keys) {
                Some(fewer) => self.find(Some(&fewer)),
                None => Found::Nowhere,
            },
            None => self.fallback(self.config.fallback),
        }
    }

    /// What is asked for instead of it, one after the other, where that is looked at.
    pub fn instead<'a>(&self, asked: Option<&'a Criteria>) -> &'a [Criteria] {
        match asked {
            Some(asked) if self.config.takes_list => asked.instead(),
            _ => &[],
        }
    }

    /// What a selector names of what is asked for, where that is not all; of the selector that names most, or the
    /// first of those.
    fn without_redundant(&self, asked: &Criteria) -> Option<Criteria> {
        if !self.config.drops_redundant {
            return None;
        }
        let named = self.config.selectors.iter().rev();
        let named = named.filter_map(|selector| asked.only(&selector.keys));
        named
            .max_by_key(|fewer| fewer.pairs().len())
            .filter(|fewer| fewer.pairs().len() < asked.pairs().len())
    }

    /// Whether any endpoint is used where the one of a subset cannot be. As in Envoy, not where there is no fallback.
    pub fn may_use_any(&self) -> bool {
        self.config.panic_mode_any && self.config.fallback != SubsetFallback::Nothing
    }

    /// How many there are that another has not.
    pub fn beyond(&self, other: Option<&Subsets>) -> usize {
        let Some(other) = other else {
            return self.len();
        };
        let by_labels = self.by_labels.keys();
        let by_labels = by_labels.filter(|pairs| !other.by_labels.contains_key(*pairs));
        let single = self.single.keys();
        by_labels.count()
            + single
                .filter(|pairs| !other.single.contains_key(*pairs))
                .count()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.by_labels.len() + self.single.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn fallback(&self, fallback: SubsetFallback) -> Found<'_> {
        match (fallback, &self.default) {
            (SubsetFallback::Any, _) => Found::Any,
            (SubsetFallback::Default, Some(default)) if !default.is_empty() => {
                Found::Default(default)
            }
            (SubsetFallback::Default | SubsetFallback::Nothing, _) => Found::Nowhere,
        }
    }
}

fn has_default(config: &SubsetConfig) -> bool {
    let default = SelectorFallback::As(SubsetFallback::Default);
    let mut fallbacks = config.selectors.iter().map(|selector| &selector.fallback);
    fallbacks.any(|fallback| fallback.as_ref() == Some(&default))
}

fn scope(pairs: &Pairs) -> String {
    let texts: Vec<_> = pairs
        .iter()
        .map(|(name, value)| format!("{name:?}={value}"))
        .collect();
    texts.join(",")
}

fn arranged(
    config: &SubsetConfig,
    scope: &str,
    chosen: &[Member],
    all: &[Member],
    plan: &mut Plan<'_>,
) -> Arrangement {
    let scales = config
        .scale_locality_weight
        .then(|| scales(chosen, all, plan.places.len()));
    let localities = match config.locality_weight_aware {
        true => plan.localities,
        false => Localities::Pooled,
    };
    let mut plan = Plan {
        config: plan.config,
        places: plan.places,
        policy: plan.policy,
        localities,
        scales: scales.as_deref(),
        turns: plan.turns,
        scope: scope.into(),
        now: plan.now,
        near: plan.near,
    };
    Arrangement::new(chosen, &mut plan)
}

/// How much of each locality is in a subset.
fn scales(chosen: &[Member], all: &[Member], places: usize) -> Vec<f64> {
    let count = |members: &[Member], place| -> u32 {
        let there = members.iter().filter(|member| member.place == place);
        there.map(|_| 1).sum()
    };
    (0..places)
        .map(|place| f64::from(count(chosen, place)) / f64::from(count(all, place).max(1)))
        .collect()
}

/// The values of a selector's labels; several where a label is a list.
fn combinations(selector: &SubsetSelector, labels: &Labels, list_as_any: bool) -> Vec<Box<Pairs>> {
    let mut found: Vec<Vec<(Arc<str>, Arc<str>)>> = vec![vec![]];
    for key in &selector.keys {
        let Some(value) = labels.get(key) else {
            return vec![];
        };
        let values: &[Arc<str>] = match list_as_any && !value.elements.is_empty() {
            true => &value.elements,
            false => std::slice::from_ref(&value.text),
        };
        found = found
            .iter()
            .flat_map(|pairs| {
                values.iter().map(|value| {
                    let mut pairs = pairs.clone();
                    pairs.push((Arc::clone(key), Arc::clone(value)));
                    pairs
                })
            })
            .take(MAX_COMBINATIONS)
            .collect();
    }
    found.into_iter().map(Vec::into_boxed_slice).collect()
}

/// An endpoint is in no more subsets of one selector.
const MAX_COMBINATIONS: usize = 1024;

fn matches(wanted: &Pairs, labels: &Labels, list_as_any: bool) -> bool {
    wanted.iter().all(|(name, value)| {
        labels.get(name).is_some_and(|label| {
            label.text == *value || (list_as_any && label.elements.contains(value))
        })
    })
}
