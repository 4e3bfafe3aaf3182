//! Endpoints divided by their metadata: `lb_subset_config`, and the policy that replaces it.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use weft_proto::envoy::config::cluster::v3::cluster::LbSubsetConfig;
use weft_proto::envoy::config::cluster::v3::cluster::lb_subset_config as older;
use weft_proto::envoy::config::core::v3::Metadata;
use weft_proto::envoy::extensions::load_balancing_policies::subset::v3::{Subset, subset as newer};

use super::at::{At, Invalid, enumeration};
use crate::config::balancing::{
    Criteria, LabelValue, Labels, SelectorFallback, SubsetConfig, SubsetFallback, SubsetSelector,
};

/// Envoy's key of what endpoints are told apart by.
const LB: &str = "envoy.lb";

/// From the older field. Without selectors there are no subsets.
pub(super) fn older_subsets(
    at: &At<'_>,
    wire: &LbSubsetConfig,
) -> Result<Option<SubsetConfig>, Invalid> {
    let LbSubsetConfig {
        fallback_policy,
        default_subset,
        subset_selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
    } = wire;
    use older::{
        LbSubsetFallbackPolicy as Fallback, LbSubsetMetadataFallbackPolicy as MetadataFallback,
    };
    let fallback = match enumeration(&at.field("fallback_policy"), *fallback_policy)? {
        Fallback::NoFallback => SubsetFallback::Nothing,
        Fallback::AnyEndpoint => SubsetFallback::Any,
        Fallback::DefaultSubset => SubsetFallback::Default,
    };
    let at_selectors = at.field("subset_selectors");
    let mut selectors = Vec::new();
    let mut is_single = false;
    for (index, wire) in subset_selectors.iter().enumerate() {
        let older::LbSubsetSelector {
            keys,
            fallback_policy,
            fallback_keys_subset,
            single_host_per_subset,
        } = wire;
        let at = at_selectors.index(index);
        if *single_host_per_subset && (keys.len() != 1 || subset_selectors.len() != 1) {
            return Err(at
                .field("single_host_per_subset")
                .refuse("this takes a single selector with a single key"));
        }
        is_single |= *single_host_per_subset;
        // Both messages have the same numbers.
        selectors.push(selector(&at, keys, *fallback_policy, fallback_keys_subset)?);
    }
    let takes_list = match enumeration(
        &at.field("metadata_fallback_policy"),
        *metadata_fallback_policy,
    )? {
        MetadataFallback::MetadataNoFallback => false,
        MetadataFallback::FallbackList => true,
    };
    Ok((!selectors.is_empty()).then(|| SubsetConfig {
        fallback,
        default: criteria(default_subset.as_ref()),
        selectors,
        locality_weight_aware: *locality_weight_aware,
        scale_locality_weight: *scale_locality_weight,
        panic_mode_any: *panic_mode_any,
        list_as_any: *list_as_any,
        drops_redundant: false,
        takes_list,
        is_single,
    }))
}

/// From the policy; the one within is the caller's.
pub(super) fn subsets(at: &At<'_>, wire: &Subset) -> Result<Option<SubsetConfig>, Invalid> {
    let Subset {
        fallback_policy,
        default_subset,
        subset_selectors,
        locality_weight_aware,
        scale_locality_weight,
        panic_mode_any,
        list_as_any,
        metadata_fallback_policy,
        subset_lb_policy: _,
        allow_redundant_keys,
    } = wire;
    let selectors = subset_selectors
        .iter()
        .map(|wire| {
            let newer::LbSubsetSelector {
                keys,
                fallback_policy,
                fallback_keys_subset,
                single_host_per_subset,
            } = wire;
            older::LbSubsetSelector {
                keys: keys.clone(),
                fallback_policy: *fallback_policy,
                fallback_keys_subset: fallback_keys_subset.clone(),
                single_host_per_subset: *single_host_per_subset,
            }
        })
        .collect();
    let older = older_subsets(
        at,
        &LbSubsetConfig {
            fallback_policy: *fallback_policy,
            default_subset: default_subset.clone(),
            subset_selectors: selectors,
            locality_weight_aware: *locality_weight_aware,
            scale_locality_weight: *scale_locality_weight,
            panic_mode_any: *panic_mode_any,
            list_as_any: *list_as_any,
            metadata_fallback_policy: *metadata_fallback_policy,
        },
    )?;
    Ok(older.map(|older| SubsetConfig {
        drops_redundant: *allow_redundant_keys,
        ..older
    }))
}

fn selector(
    at: &At<'_>,
    keys: &[String],
    fallback: i32,
    fewer: &[String],
) -> Result<SubsetSelector, Invalid> {
    use older::lb_subset_selector::LbSubsetSelectorFallbackPolicy as Fallback;
    let keys = sorted(keys);
    if keys.is_empty() {
        return Err(at.field("keys").refuse("must not be empty"));
    }
    let fallback = match enumeration(&at.field("fallback_policy"), fallback)? {
        Fallback::NotDefined => None,
        Fallback::NoFallback => Some(SelectorFallback::As(SubsetFallback::Nothing)),
        Fallback::AnyEndpoint => Some(SelectorFallback::As(SubsetFallback::Any)),
        Fallback::DefaultSubset => Some(SelectorFallback::As(SubsetFallback::Default)),
        Fallback::KeysSubset => {
            let fewer = sorted(fewer);
            let is_part = fewer.iter().all(|key| keys.contains(key));
            if fewer.is_empty() || !is_part || fewer.len() >= keys.len() {
                return Err(at
                    .field("fallback_keys_subset")
                    .refuse("must be some of the keys, and not all of them"));
            }
            Some(SelectorFallback::Keys(fewer))
        }
    };
    Ok(SubsetSelector { keys, fallback })
}

fn sorted(keys: &[String]) -> Vec<Arc<str>> {
    let mut keys: Vec<Arc<str>> = keys.iter().map(|key| key.as_str().into()).collect();
    keys.sort();
    keys.dedup();
    keys
}

fn criteria(wire: Option<&Struct>) -> Criteria {
    let fields = wire.into_iter().flat_map(|wire| &wire.fields);
    Criteria::new(fields.map(|(name, value)| (name.as_str().into(), json(value).into())))
}

/// What a route asks of endpoints; none where it asks nothing.
pub(super) fn asked(wire: Option<&Metadata>) -> Option<Arc<Criteria>> {
    let criteria = criteria(wire?.filter_metadata.get(LB));
    (!criteria.is_empty()).then(|| Arc::new(criteria))
}

/// What an endpoint is told apart by.
pub(super) fn labels(wire: Option<&Metadata>) -> Arc<Labels> {
    let fields = wire.and_then(|metadata| metadata.filter_metadata.get(LB));
    let labels: BTreeMap<_, _> = fields
        .into_iter()
        .flat_map(|fields| &fields.fields)
        .map(|(name, value)| (Arc::from(name.as_str()), label(value)))
        .collect();
    Arc::new(labels)
}

fn label(value: &Value) -> LabelValue {
    let elements = match &value.kind {
        Some(Kind::ListValue(list)) => list.values.iter().map(|each| json(each).into()).collect(),
        _ => vec![],
    };
    LabelValue {
        text: json(value).into(),
        elements,
    }
}

/// The same values have the same text.
fn json(value: &Value) -> String {
    match &value.kind {
        None | Some(Kind::NullValue(_)) => "null".to_owned(),
        Some(Kind::NumberValue(number)) => number.to_string(),
        Some(Kind::StringValue(text)) => serde_json::Value::from(text.as_str()).to_string(),
        Some(Kind::BoolValue(is_true)) => is_true.to_string(),
        Some(Kind::StructValue(fields)) => {
            let fields: Vec<_> = fields
                .fields
                .iter()
                .map(|(name, value)| format!("{name:?}:{}", json(value)))
                .collect();
            format!("{{{}}}", fields.join(","))
        }
        Some(Kind::ListValue(list)) => {
            let values: Vec<_> = list.values.iter().map(json).collect();
            format!("[{}]", values.join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::at::Notes;
    use super::*;

    fn selecting(keys: &[&str], fallback: i32, fewer: &[&str]) -> Result<SubsetConfig, String> {
        let texts = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect();
        let wire = LbSubsetConfig {
            subset_selectors: vec![older::LbSubsetSelector {
                keys: texts(keys),
                fallback_policy: fallback,
                fallback_keys_subset: texts(fewer),
                single_host_per_subset: false,
            }],
            ..LbSubsetConfig::default()
        };
        let notes = Notes::default();
        let found = older_subsets(&At::root(&notes).field("lb_subset_config"), &wire);
        found
            .map(|found| found.expect("subsets"))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn keys_are_in_order_and_fewer_of_them_may_be_the_fallback() {
        let found = selecting(&["version", "stage"], 4, &["stage"]).expect("valid");

        let selector = &found.selectors[0];
        assert_eq!(selector.keys, ["stage".into(), "version".into()]);
        assert_eq!(
            selector.fallback,
            Some(SelectorFallback::Keys(vec!["stage".into()]))
        );
    }

    #[test]
    fn a_fallback_to_no_fewer_keys_is_refused() {
        let error = selecting(&["a"], 4, &["a"]).expect_err("refused");

        assert!(
            error.starts_with("lb_subset_config.subset_selectors[0].fallback_keys_subset"),
            "{error}"
        );
        assert!(selecting(&["a", "b"], 4, &["c"]).is_err());
    }
}
