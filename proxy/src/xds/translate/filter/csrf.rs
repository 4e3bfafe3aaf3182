//! Policies for requests that change something.

use std::sync::Arc;

use weft_proto::envoy::extensions::filters::http::csrf::v3::CsrfPolicy as WirePolicy;

use super::super::at::{At, Invalid, required};
use super::super::share::runtime_fraction;
use super::super::text::text_match;
use crate::config::filter::csrf::{CsrfConfig, CsrfPolicy};
use crate::config::filter::live::Live;
use crate::config::percent::Percent;

/// The filter, as a chain lists it.
pub(super) fn csrf(at: &At<'_>, wire: &WirePolicy) -> Result<CsrfConfig, Invalid> {
    Ok(CsrfConfig {
        policy: Arc::new(policy(at, wire)?),
        live: Live::default(),
    })
}

/// As a filter's configuration for a part of the routes.
pub(super) fn policy(at: &At<'_>, wire: &WirePolicy) -> Result<CsrfPolicy, Invalid> {
    let WirePolicy {
        filter_enabled,
        shadow_enabled,
        additional_origins,
    } = wire;
    let at_enabled = at.field("filter_enabled");
    let at_shadow = at.field("shadow_enabled");
    let at_origins = at.field("additional_origins");
    let origins = additional_origins.iter().enumerate();
    Ok(CsrfPolicy {
        enabled: runtime_fraction(&at_enabled, required(&at_enabled, filter_enabled.as_ref())?)?,
        shadow: shadow_enabled
            .as_ref()
            .map_or(Ok(Percent::ZERO), |wire| runtime_fraction(&at_shadow, wire))?,
        origins: origins
            .map(|(index, wire)| text_match(&at_origins.index(index), wire))
            .collect::<Result<_, _>>()?,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_proto::json::from_json;

    use super::super::super::at::Notes;
    use super::*;

    fn translated(json: Value) -> Result<CsrfPolicy, Invalid> {
        let wire: WirePolicy = from_json(json).expect("a policy");
        policy(&At::root(&Notes::default()), &wire)
    }

    #[test]
    fn a_policy_says_for_how_many_requests_it_holds() {
        let policy = translated(json!({"filter_enabled": {"default_value": {"numerator": 50}}}));
        let policy = policy.expect("valid");

        assert_eq!(Some(policy.enabled), Percent::from_percentage(50.0));
        assert_eq!(policy.shadow, Percent::ZERO);
        assert_eq!(
            translated(json!({})).expect_err("refused").to_string(),
            "filter_enabled: missing"
        );
        let without_test =
            json!({"filter_enabled": {"default_value": {}}, "additional_origins": [{}]});
        let error = translated(without_test).expect_err("refused");
        assert!(error.path().starts_with("additional_origins[0]"), "{error}");
    }
}
