//! How a cluster's endpoints share its requests: the policy, and what is laid over it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::percent::Percent;

/// How an endpoint is chosen.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Balancer {
    /// In turn, by weight.
    RoundRobin,
    /// The least busy of some drawn by weight.
    LeastRequest {
        /// How many are drawn; at least two.
        choice_count: u32,
        /// How much requests in flight count against an endpoint: 0 not at all, 1 in proportion.
        bias: f64,
        /// Among whom.
        among: Among,
    },
    /// At random, all alike.
    Random,
    /// The one of two that is likely to answer first.
    PeakEwma {
        /// How long a latency is remembered.
        decay: Duration,
        /// What is assumed of endpoints that have not answered yet.
        default_latency: Duration,
    },
    /// By the request's hash, on a ring.
    RingHash {
        /// Points on the ring, at least.
        min_size: u64,
        /// And at most.
        max_size: u64,
        /// What points are hashed with.
        function: HashFunction,
    },
    /// By the request's hash, in a table that Maglev fills.
    Maglev {
        /// Places in the table; a prime.
        table_size: u64,
    },
}

impl Balancer {
    /// Envoy's least request.
    pub const LEAST_REQUEST: Balancer = Balancer::LeastRequest {
        choice_count: 2,
        bias: 1.0,
        among: Among::Drawn,
    };

    /// Whether the next choice can be known before there is a request, as it depends on nothing that a request has.
    pub fn is_foreseeable(self) -> bool {
        matches!(
            self,
            Balancer::RoundRobin | Balancer::Random | Balancer::LeastRequest { .. }
        )
    }

    /// Whether the request's hash decides.
    pub fn is_hashing(self) -> bool {
        matches!(self, Balancer::RingHash { .. } | Balancer::Maglev { .. })
    }
}

/// Among whom the least busy is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Among {
    /// Some, drawn at random.
    Drawn,
    /// All.
    All,
}

/// What points on a ring are hashed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HashFunction {
    /// XXH64.
    XxHash,
    /// MurmurHash64A, as libstdc++ has it.
    Murmur2,
}

/// How endpoints are told apart by hashes, and how much one may get.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Hashing {
    /// Whether their names are hashed instead of their addresses.
    pub by_hostname: bool,
    /// In percent of the mean load: beyond it, a request goes to another endpoint.
    pub balance_factor: Option<u32>,
}

/// How a new endpoint gets its share little by little.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SlowStart {
    /// How long that takes.
    pub window: Duration,
    /// 1: evenly; more: sooner.
    pub aggression: f64,
    /// The share it begins with, of 1.
    pub min_weight: f64,
}

/// Whether localities have shares of their own.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Localities {
    /// Endpoints of all localities are alike.
    #[default]
    Pooled,
    /// A locality is chosen by its weight, then one of its endpoints.
    Weighted,
}

/// How much of the requests stays in the proxy's own locality, where the bootstrap names the proxies like it and
/// localities have no shares of their own (Envoy's `ZoneAwareLbConfig`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ZoneRouting {
    /// The share of the requests that it is done for.
    pub enabled: Percent,
    /// A cluster with fewer healthy endpoints is left alone.
    pub min_cluster_size: u64,
    /// A locality with so many healthy endpoints keeps everything, whatever others have to bear.
    pub forced_from: Option<u64>,
    /// What shares are reckoned by.
    pub basis: Basis,
}

impl Default for ZoneRouting {
    /// Envoy's.
    fn default() -> Self {
        ZoneRouting {
            enabled: Percent::ALL,
            min_cluster_size: 6,
            forced_from: None,
            basis: Basis::Count,
        }
    }
}

/// What shares of localities are reckoned by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Basis {
    /// Healthy endpoints.
    Count,
    /// Their weights.
    Weight,
}

/// A value of an endpoint's metadata, to be compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelValue {
    /// As JSON.
    pub text: Arc<str>,
    /// Where it is a list: its elements, each as JSON.
    pub elements: Vec<Arc<str>>,
}

/// What an endpoint is told apart by: its metadata in `envoy.lb`.
pub type Labels = BTreeMap<Arc<str>, LabelValue>;

/// Labels that an endpoint must have, each with a value as JSON; in order of their names.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Criteria {
    pairs: Vec<(Arc<str>, Arc<str>)>,
    instead: Vec<Criteria>,
}

/// What is asked for instead, one after the other, is a label of this name.
const FALLBACK_LIST: &str = "fallback_list";

impl Criteria {
    /// From pairs in any order; of those with the same name the last.
    pub fn new(pairs: impl IntoIterator<Item = (Arc<str>, Arc<str>)>) -> Self {
        let sorted: BTreeMap<_, _> = pairs.into_iter().collect();
        let instead = match sorted.get(FALLBACK_LIST) {
            Some(list) => instead(list, &sorted),
            None => vec![],
        };
        Criteria {
            pairs: sorted.into_iter().collect(),
            instead,
        }
    }

    /// Names and values, in order of names.
    pub fn pairs(&self) -> &[(Arc<str>, Arc<str>)] {
        &self.pairs
    }

    /// Whether nothing is asked for.
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// These, and those of the other in place of these of the same name.
    pub fn merged(&self, other: &Criteria) -> Criteria {
        Criteria::new(self.pairs.iter().chain(&other.pairs).cloned())
    }

    /// Those with the names, where all of them are there.
    pub fn only(&self, names: &[Arc<str>]) -> Option<Criteria> {
        let kept: Vec<_> = self
            .pairs
            .iter()
            .filter(|(name, _)| names.contains(name))
            .cloned()
            .collect();
        (kept.len() == names.len()).then(|| Criteria {
            pairs: kept,
            instead: vec![],
        })
    }

    /// What is asked for in their place, one after the other, where a list says so (Envoy's `fallback_list`).
    pub fn instead(&self) -> &[Criteria] {
        &self.instead
    }
}

/// Of a list of labels as JSON: each of them laid over the others. What is no such list stands for nothing.
fn instead(list: &str, others: &BTreeMap<Arc<str>, Arc<str>>) -> Vec<Criteria> {
    let list: Vec<BTreeMap<String, serde_json::Value>> =
        serde_json::from_str(list).unwrap_or_default();
    let others = others.iter().filter(|(name, _)| ***name != *FALLBACK_LIST);
    let others = others.map(|(name, value)| (Arc::clone(name), Arc::clone(value)));
    list.into_iter()
        .map(|own| {
            let own = own.into_iter().filter(|(name, _)| name != FALLBACK_LIST);
            let own = own.map(|(name, value)| (name.into(), value.to_string().into()));
            Criteria::new(others.clone().chain(own))
        })
        .collect()
}

/// Which endpoints a retry does not go to, while there are others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Omission {
    /// Those that call themselves canaries.
    pub canaries: bool,
    /// Those with all of the labels of one of these.
    pub labels: Vec<Criteria>,
}

impl Omission {
    /// Whether an endpoint with these labels is one of them.
    pub fn covers(&self, labels: &Labels) -> bool {
        let has = |name: &str, value: &str| {
            labels.get(name).is_some_and(|label| {
                let mut elements = label.elements.iter();
                *label.text == *value || elements.any(|element| **element == *value)
            })
        };
        let has_all = |criteria: &Criteria| {
            let mut pairs = criteria.pairs().iter();
            pairs.all(|(name, value)| has(name, value))
        };
        (self.canaries && has("canary", "true")) || self.labels.iter().any(has_all)
    }
}

/// How endpoints are divided by their labels.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct SubsetConfig {
    /// Where no subset is asked for, or it has no endpoints.
    pub fallback: SubsetFallback,
    /// The subset of [`SubsetFallback::Default`].
    pub default: Criteria,
    /// By which labels.
    pub selectors: Vec<SubsetSelector>,
    /// Whether localities keep their weights within a subset.
    pub locality_weight_aware: bool,
    /// Whether a locality's weight follows the share of it that is in the subset.
    pub scale_locality_weight: bool,
    /// Whether any endpoint is used where the one of a subset cannot be.
    pub panic_mode_any: bool,
    /// Whether a label that is a list stands for each of its elements.
    pub list_as_any: bool,
    /// Whether labels that no selector names are left out of what is asked for.
    pub drops_redundant: bool,
    /// Whether what is asked for instead is looked at ([`Criteria::instead`]).
    pub takes_list: bool,
    /// Whether the first endpoint with a value is the only one of its subset, and is used however it is.
    pub is_single: bool,
}

/// What is used instead of a subset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SubsetFallback {
    /// Nothing.
    #[default]
    Nothing,
    /// All endpoints.
    Any,
    /// Those of the default subset.
    Default,
}

/// Labels by which there are subsets.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubsetSelector {
    /// Names, in order.
    pub keys: Vec<Arc<str>>,
    /// What is used instead, where it differs from the cluster's.
    pub fallback: Option<SelectorFallback>,
}

/// What is used instead of a subset of one selector.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SelectorFallback {
    /// As for the whole cluster.
    As(SubsetFallback),
    /// The subset by these labels only.
    Keys(Vec<Arc<str>>),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn criteria_are_in_order_and_the_later_wins() {
        let one = Criteria::new([("b".into(), "1".into()), ("a".into(), "1".into())]);
        let other = Criteria::new([("b".into(), "2".into())]);

        let merged = one.merged(&other);

        let shown: Vec<_> = merged
            .pairs()
            .iter()
            .map(|(a, b)| format!("{a}{b}"))
            .collect();
        assert_eq!(shown, ["a1", "b2"]);
        assert_eq!(merged.only(&["b".into()]), Some(other));
        assert_eq!(merged.only(&["c".into()]), None);
    }

    #[test]
    fn what_is_asked_for_instead_is_laid_over_the_rest() {
        let asked = Criteria::new([
            ("a".into(), "1".into()),
            ("b".into(), "1".into()),
            ("fallback_list".into(), r#"[{"b":2},{"c":"x"}]"#.into()),
        ]);

        let instead: Vec<_> = asked
            .instead()
            .iter()
            .map(|criteria| {
                let pairs = criteria.pairs().iter();
                let pairs = pairs.map(|(name, value)| format!("{name}={value}"));
                pairs.collect::<Vec<_>>().join(" ")
            })
            .collect();

        assert_eq!(instead, ["a=1 b=2", r#"a=1 b=1 c="x""#]);
    }
}
