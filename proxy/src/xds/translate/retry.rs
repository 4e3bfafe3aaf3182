//! Retry policies.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use weft_proto::envoy::config::route::v3::RetryPolicy as WirePolicy;
use weft_proto::envoy::config::route::v3::retry_policy::retry_host_predicate::ConfigType;
use weft_proto::envoy::config::route::v3::retry_policy::retry_priority::ConfigType as PriorityType;
use weft_proto::envoy::config::route::v3::retry_policy::{
    RateLimitedRetryBackOff, ResetHeader as WireResetHeader, ResetHeaderFormat, RetryBackOff,
    RetryHostPredicate, RetryPriority,
};
use weft_proto::envoy::extensions::retry::host::omit_canary_hosts::v3::OmitCanaryHostsPredicate;
use weft_proto::envoy::extensions::retry::host::omit_host_metadata::v3::OmitHostMetadataConfig;
use weft_proto::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use weft_proto::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;

use super::at::{At, Invalid, duration, enumeration, holds, limit, opened, required, unsupported};
use super::subsets::asked;
use super::text::{header_matches, header_name};
use crate::config::balancing::Omission;
use crate::config::retry::{
    AskedBackOff, BackOff, ResetFormat, ResetHeader, RetryConditions, RetryPolicy, words,
};

/// Envoy's: one retry where a policy doesn't say how many.
const DEFAULT_RETRIES: u32 = 1;
/// Envoy takes shorter bases as this.
const SHORTEST_BASE: Duration = Duration::from_millis(1);
/// Envoy's: what an upstream asks to wait is passed over where it is longer.
const LONGEST_ASKED: Duration = Duration::from_secs(300);

/// When a request is tried again.
pub(super) fn retry_policy(at: &At<'_>, wire: &WirePolicy) -> Result<RetryPolicy, Invalid> {
    let WirePolicy {
        retry_on,
        num_retries,
        per_try_timeout,
        retry_priority,
        retry_host_predicate,
        host_selection_retry_max_attempts,
        retriable_status_codes,
        retry_back_off,
        retriable_headers,
        retriable_request_headers,
        rate_limited_retry_back_off,
        retry_options_predicates,
        per_try_idle_timeout,
        refresh_cluster_on_retry,
    } = wire;
    unsupported!(at; retry_options_predicates, refresh_cluster_on_retry);
    let mut on = conditions(&at.field("retry_on"), retry_on);
    let at_codes = at.field("retriable_status_codes");
    let codes = retriable_status_codes
        .iter()
        .map(|code| u16::try_from(*code).map_err(|_| at_codes.refuse_value(code)))
        .collect::<Result<_, _>>()?;
    // Codes without the condition have no effect, as in Envoy.
    let is_by_code = words(retry_on).any(|word| word == "retriable-status-codes");
    on.status_codes = if is_by_code { codes } else { vec![] };
    let headers = header_matches(&at.field("retriable_headers"), retriable_headers)?;
    if words(retry_on).any(|word| word == "retriable-headers") {
        on.headers = headers;
    }
    let (avoid_previous_endpoints, omits) =
        predicates(&at.field("retry_host_predicate"), retry_host_predicate)?;
    let at_requests = at.field("retriable_request_headers");
    let at_idle = at.field("per_try_idle_timeout");
    let at_asked = at.field("rate_limited_retry_back_off");
    let at_priority = at.field("retry_priority");
    Ok(RetryPolicy {
        on,
        requests: header_matches(&at_requests, retriable_request_headers)?,
        retries: num_retries.unwrap_or(DEFAULT_RETRIES),
        per_try_timeout: limit(&at.field("per_try_timeout"), per_try_timeout.as_ref(), None)?,
        per_try_idle_timeout: limit(&at_idle, per_try_idle_timeout.as_ref(), None)?,
        asked_back_off: rate_limited_retry_back_off
            .as_ref()
            .map(|wire| asked_back_off(&at_asked, wire))
            .transpose()?,
        back_off: match retry_back_off {
            Some(wire) => back_off(&at.field("retry_back_off"), wire)?,
            None => BackOff::default(),
        },
        avoid_previous_endpoints,
        omits,
        leaves_priorities_every: retry_priority
            .as_ref()
            .map(|wire| priority(&at_priority, wire))
            .transpose()?,
        endpoint_selection_attempts: u32::try_from(*host_selection_retry_max_attempts)
            .unwrap_or(0)
            .max(1),
    })
}

/// Words that are not known are passed over, as Envoy does.
fn conditions(at: &At<'_>, retry_on: &str) -> RetryConditions {
    let mut on = RetryConditions::default();
    for word in words(retry_on) {
        if !on.add(word) {
            at.note();
        }
    }
    on
}

fn asked_back_off(at: &At<'_>, wire: &RateLimitedRetryBackOff) -> Result<AskedBackOff, Invalid> {
    let RateLimitedRetryBackOff {
        reset_headers,
        max_interval,
    } = wire;
    let at_headers = at.field("reset_headers");
    if reset_headers.is_empty() {
        return Err(at_headers.refuse("must not be empty"));
    }
    let header = |(index, wire): (usize, &WireResetHeader)| {
        let at = at_headers.index(index);
        let WireResetHeader { name, format } = wire;
        Ok(ResetHeader {
            name: header_name(&at.field("name"), name)?,
            format: match enumeration(&at.field("format"), *format)? {
                ResetHeaderFormat::Seconds => ResetFormat::Seconds,
                ResetHeaderFormat::UnixTimestamp => ResetFormat::UnixTimestamp,
            },
        })
    };
    let max = duration(&at.field("max_interval"), max_interval.as_ref())?;
    Ok(AskedBackOff {
        headers: reset_headers
            .iter()
            .enumerate()
            .map(header)
            .collect::<Result<_, _>>()?,
        max: max.unwrap_or(LONGEST_ASKED),
    })
}

fn back_off(at: &At<'_>, wire: &RetryBackOff) -> Result<BackOff, Invalid> {
    let RetryBackOff {
        base_interval,
        max_interval,
    } = wire;
    let at_base = at.field("base_interval");
    let base = *required(
        &at_base,
        duration(&at_base, base_interval.as_ref())?.as_ref(),
    )?;
    let base = base.max(SHORTEST_BASE);
    let at_max = at.field("max_interval");
    let max = duration(&at_max, max_interval.as_ref())?.unwrap_or(base.saturating_mul(10));
    if max < base {
        return Err(at_max.refuse("shorter than the base interval"));
    }
    Ok(BackOff { base, max })
}

/// After how many tries the priorities of those are left out.
fn priority(at: &At<'_>, wire: &RetryPriority) -> Result<NonZeroU32, Invalid> {
    let RetryPriority { name, config_type } = wire;
    let any = match config_type {
        Some(PriorityType::TypedConfig(any)) if holds::<PreviousPrioritiesConfig>(any) => any,
        Some(_) => return Err(at.field("name").refuse_value(name)),
        None => return Err(at.field("typed_config").refuse("is required")),
    };
    let at = at.field("typed_config");
    let PreviousPrioritiesConfig { update_frequency } = opened(&at, any)?;
    let every = u32::try_from(update_frequency)
        .ok()
        .and_then(NonZeroU32::new);
    every.ok_or_else(|| at.field("update_frequency").refuse("must be at least 1"))
}

/// Whether endpoints that were tried are left out, and which others.
fn predicates(
    at: &At<'_>,
    wire: &[RetryHostPredicate],
) -> Result<(bool, Option<Omission>), Invalid> {
    let mut avoids_previous = false;
    let mut omission = Omission::default();
    for (index, RetryHostPredicate { name, config_type }) in wire.iter().enumerate() {
        let at = at.index(index);
        match config_type {
            None => match name.as_str() {
                "envoy.retry_host_predicates.previous_hosts" => avoids_previous = true,
                "envoy.retry_host_predicates.omit_canary_hosts" => omission.canaries = true,
                _ => return Err(at.field("name").refuse_value(name)),
            },
            Some(ConfigType::TypedConfig(any)) if holds::<PreviousHostsPredicate>(any) => {
                avoids_previous = true;
            }
            Some(ConfigType::TypedConfig(any)) if holds::<OmitCanaryHostsPredicate>(any) => {
                omission.canaries = true;
            }
            Some(ConfigType::TypedConfig(any)) if holds::<OmitHostMetadataConfig>(any) => {
                let at = at.field("typed_config");
                let OmitHostMetadataConfig { metadata_match } = opened(&at, any)?;
                // Without labels it is nobody, as in Envoy.
                let labels = asked(metadata_match.as_ref());
                omission.labels.extend(labels.map(Arc::unwrap_or_clone));
            }
            Some(ConfigType::TypedConfig(_)) => return Err(at.field("name").refuse_value(name)),
        }
    }
    let omits = (omission != Omission::default()).then_some(omission);
    Ok((avoids_previous, omits))
}

#[cfg(test)]
mod tests {
    use super::super::at::Notes;
    use super::*;

    #[test]
    fn the_default_policy_of_the_mesh_is_understood() {
        let notes = Notes::default();
        let wire = WirePolicy {
            retry_on: "connect-failure,refused-stream,reset-before-request,reset-if-idempotent"
                .into(),
            num_retries: Some(2),
            retry_host_predicate: vec![RetryHostPredicate {
                name: "envoy.retry_host_predicates.previous_hosts".into(),
                config_type: None,
            }],
            host_selection_retry_max_attempts: 5,
            ..WirePolicy::default()
        };

        let policy = retry_policy(&At::root(&notes), &wire).expect("valid");

        assert!(policy.on.connect_failure && policy.on.reset_if_idempotent);
        assert!(!policy.on.reset);
        assert_eq!(policy.retries, 2);
        assert!(policy.avoid_previous_endpoints);
        assert_eq!(policy.endpoint_selection_attempts, 5);
        assert!(notes.into_paths().is_empty());
    }

    #[test]
    fn unknown_words_are_noted_and_codes_need_their_word() {
        let notes = Notes::default();
        let wire = WirePolicy {
            retry_on: "5xx, http3-post-connect-failure".into(),
            retriable_status_codes: vec![429],
            ..WirePolicy::default()
        };

        let policy = retry_policy(&At::root(&notes), &wire).expect("valid");

        assert!(policy.on.server_error);
        assert!(policy.on.status_codes.is_empty());
        assert!(notes.into_paths().contains("retry_on"));
    }

    #[test]
    fn priorities_are_left_every_so_many_tries_and_never_every_none() {
        let translated = |update_frequency| {
            let config = PreviousPrioritiesConfig { update_frequency };
            let wire = WirePolicy {
                retry_priority: Some(RetryPriority {
                    name: "envoy.retry_priorities.previous_priorities".into(),
                    config_type: Some(PriorityType::TypedConfig(weft_proto::any::pack(&config))),
                }),
                ..WirePolicy::default()
            };
            let notes = Notes::default();
            retry_policy(&At::root(&notes), &wire).map(|policy| policy.leaves_priorities_every)
        };

        assert_eq!(translated(2).expect("valid"), NonZeroU32::new(2));
        for none in [0, -1] {
            assert_eq!(
                translated(none).expect_err("refused").to_string(),
                "retry_priority.typed_config.update_frequency: must be at least 1"
            );
        }
    }
}
