//! Which requests must present which JSON web tokens.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;
use weft_proto::envoy::config::core::v3::data_source::Specifier;
use weft_proto::envoy::extensions::filters::http::jwt_authn::v3::jwt_provider::JwksSourceSpecifier;
use weft_proto::envoy::extensions::filters::http::jwt_authn::v3::jwt_requirement::RequiresType;
use weft_proto::envoy::extensions::filters::http::jwt_authn::v3::per_route_config::RequirementSpecifier;
use weft_proto::envoy::extensions::filters::http::jwt_authn::v3::requirement_rule::RequirementType;
use weft_proto::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, JwtClaimToHeader, JwtHeader, JwtProvider as WireProvider, JwtRequirement,
    PerRouteConfig, RemoteJwks, RequirementRule,
};

use super::super::at::{At, Invalid, duration, harmless, nonempty, required, unsupported};
use super::super::route_match::route_match;
use super::super::text::{header_name, text_match};
use super::service::http_uri;
use crate::config::filter::jwt_authn::{
    JwtAuthnConfig, JwtOverride, JwtProvider, JwtRule, KeySource, RemoteKeys, Requirement,
    TokenLocation,
};
use crate::config::filter::live::Live;
use crate::config::filter::{FilterOverride, RouteFilter};

/// Envoy's.
const DEFAULT_KEPT: Duration = Duration::from_secs(600);
/// Envoy's.
const DEFAULT_CLOCK_SKEW: u32 = 60;

/// The filter.
pub(super) fn jwt_authn(at: &At<'_>, wire: &JwtAuthentication) -> Result<JwtAuthnConfig, Invalid> {
    let JwtAuthentication {
        providers,
        rules,
        filter_state_rules,
        bypass_cors_preflight,
        requirement_map,
        strip_failure_response,
        stat_prefix,
    } = wire;
    unsupported!(at; filter_state_rules);
    let at_map = at.field("requirement_map");
    let named = requirement_map.iter().map(|(name, wire)| {
        let requirement = requirement(&at_map.key(name), wire, providers)?;
        Ok((Arc::from(name.as_str()), requirement))
    });
    let named: Vec<_> = named.collect::<Result<_, Invalid>>()?;
    let at_rules = at.field("rules");
    let rules = rules
        .iter()
        .enumerate()
        .map(|(index, wire)| rule(&at_rules.index(index), wire, providers, &named));
    let rules = rules.collect::<Result<_, _>>()?;
    let at_providers = at.field("providers");
    let all = providers.iter();
    let all = all.map(|(name, wire)| provider(&at_providers.key(name), name, wire));
    Ok(JwtAuthnConfig {
        providers: all.collect::<Result<_, _>>()?,
        rules,
        named,
        preflight_passes: *bypass_cors_preflight,
        hides_reasons: *strip_failure_response,
        stat_prefix: stat_prefix.as_str().into(),
        live: Live::default(),
    })
}

/// For a part of the routes.
pub(super) fn per_route(at: &At<'_>, wire: &PerRouteConfig) -> Result<FilterOverride, Invalid> {
    let PerRouteConfig {
        requirement_specifier,
    } = wire;
    let at_specifier = at.field("requirement_specifier");
    Ok(
        match required(&at_specifier, requirement_specifier.as_ref())? {
            RequirementSpecifier::Disabled(true) => {
                let own = JwtOverride { requirement: None };
                FilterOverride::Configured(RouteFilter::JwtAuthn(own.into()))
            }
            RequirementSpecifier::Disabled(false) => {
                return Err(at.field("disabled").refuse("must be true"));
            }
            RequirementSpecifier::RequirementName(name) => {
                let requirement = nonempty(&at.field("requirement_name"), name)?;
                let own = JwtOverride {
                    requirement: Some(requirement.into()),
                };
                FilterOverride::Configured(RouteFilter::JwtAuthn(own.into()))
            }
        },
    )
}

fn rule(
    at: &At<'_>,
    wire: &RequirementRule,
    providers: &BTreeMap<String, WireProvider>,
    named: &[(Arc<str>, Requirement)],
) -> Result<JwtRule, Invalid> {
    let RequirementRule {
        r#match,
        requirement_type,
    } = wire;
    let at_match = at.field("match");
    let requirement = match requirement_type {
        None => None,
        Some(RequirementType::Requires(wire)) => {
            Some(requirement(&at.field("requires"), wire, providers)?)
        }
        Some(RequirementType::RequirementName(name)) => {
            let found = named.iter().find(|(named, _)| **named == **name);
            let missing = || at.field("requirement_name").refuse_value(name);
            let (_, requirement) = found.ok_or_else(missing)?;
            Some(requirement.clone())
        }
    };
    Ok(JwtRule {
        matches: route_match(&at_match, required(&at_match, r#match.as_ref())?)?,
        requirement,
    })
}

fn requirement(
    at: &At<'_>,
    wire: &JwtRequirement,
    providers: &BTreeMap<String, WireProvider>,
) -> Result<Requirement, Invalid> {
    let JwtRequirement { requires_type } = wire;
    let position = |at: At<'_>, name: &str| {
        let position = providers.keys().position(|known| known == name);
        position.ok_or_else(|| at.refuse(format_args!("there is no provider {name:?}")))
    };
    let all = |at: At<'_>, wire: &[JwtRequirement]| {
        let at = at.field("requirements");
        let each = wire.iter().enumerate();
        let each = each.map(|(index, wire)| requirement(&at.index(index), wire, providers));
        each.collect::<Result<Vec<_>, _>>()
    };
    let Some(kind) = requires_type else {
        return Ok(Requirement::AllowAll);
    };
    Ok(match kind {
        RequiresType::ProviderName(name) => {
            Requirement::Provider(position(at.field("provider_name"), name)?, None)
        }
        RequiresType::ProviderAndAudiences(wire) => {
            let at = at.field("provider_and_audiences");
            let position = position(at.field("provider_name"), &wire.provider_name)?;
            Requirement::Provider(position, Some(texts(&wire.audiences)))
        }
        RequiresType::RequiresAny(list) => {
            Requirement::Any(all(at.field("requires_any"), &list.requirements)?)
        }
        RequiresType::RequiresAll(list) => {
            Requirement::All(all(at.field("requires_all"), &list.requirements)?)
        }
        RequiresType::AllowMissing(_) => Requirement::AllowMissing,
        RequiresType::AllowMissingOrFailed(_) => Requirement::AllowAll,
        RequiresType::ExtractOnlyWithoutValidation(_) => {
            let at = at.field("extract_only_without_validation");
            return Err(at.refuse("not supported"));
        }
    })
}

fn provider(at: &At<'_>, name: &str, wire: &WireProvider) -> Result<JwtProvider, Invalid> {
    let WireProvider {
        issuer,
        audiences,
        subjects,
        require_expiration,
        max_lifetime,
        forward,
        from_headers,
        from_params,
        from_cookies,
        forward_payload_header,
        pad_forward_payload_header,
        payload_in_metadata,
        normalize_payload_in_metadata,
        header_in_metadata,
        failed_status_in_metadata,
        clock_skew_seconds,
        jwt_cache_config,
        claim_to_headers,
        clear_route_cache,
        jwks_source_specifier,
    } = wire;
    unsupported!(at; normalize_payload_in_metadata);
    // Verifying is cheap enough to be done each time.
    harmless!(at; jwt_cache_config);
    let skew = match clock_skew_seconds {
        0 => DEFAULT_CLOCK_SKEW,
        seconds => *seconds,
    };
    let at_subjects = at.field("subjects");
    let at_claims = at.field("claim_to_headers");
    let claims = claim_to_headers.iter().enumerate();
    let claims = claims.map(|(index, wire)| claim(&at_claims.index(index), wire));
    Ok(JwtProvider {
        name: name.into(),
        issuer: text(issuer),
        audiences: texts(audiences),
        subjects: subjects
            .as_ref()
            .map(|wire| text_match(&at_subjects, wire))
            .transpose()?,
        requires_expiration: *require_expiration,
        max_lifetime: duration(&at.field("max_lifetime"), max_lifetime.as_ref())?,
        clock_skew: Duration::from_secs(skew.into()),
        keys: keys(at, jwks_source_specifier.as_ref())?,
        locations: locations(at, from_headers, from_params, from_cookies)?,
        forwards: *forward,
        payload_header: optional_name(&at.field("forward_payload_header"), forward_payload_header)?,
        pads_payload: *pad_forward_payload_header,
        payload_metadata: text(payload_in_metadata),
        header_metadata: text(header_in_metadata),
        failure_metadata: text(failed_status_in_metadata),
        claim_headers: claims.collect::<Result<_, _>>()?,
        clears_route: *clear_route_cache,
    })
}

fn text(wire: &str) -> Option<Arc<str>> {
    (!wire.is_empty()).then(|| wire.into())
}

fn texts(wire: &[String]) -> Vec<Arc<str>> {
    wire.iter().map(|text| text.as_str().into()).collect()
}

fn optional_name(at: &At<'_>, name: &str) -> Result<Option<HeaderName>, Invalid> {
    match name {
        "" => Ok(None),
        name => header_name(at, name).map(Some),
    }
}

fn claim(at: &At<'_>, wire: &JwtClaimToHeader) -> Result<(HeaderName, Vec<Arc<str>>), Invalid> {
    let JwtClaimToHeader {
        header_name: name,
        claim_name,
        claim_path,
    } = wire;
    let path = match claim_path.is_empty() {
        true => {
            let name = nonempty(&at.field("claim_name"), claim_name)?;
            name.split('.').map(Arc::from).collect()
        }
        false => claim_path
            .iter()
            .map(|segment| segment.key.as_str().into())
            .collect(),
    };
    Ok((header_name(&at.field("header_name"), name)?, path))
}

/// Where it is said; else in `authorization` as a bearer token, or in `access_token`.
fn locations(
    at: &At<'_>,
    headers: &[JwtHeader],
    parameters: &[String],
    cookies: &[String],
) -> Result<Vec<TokenLocation>, Invalid> {
    let mut locations = vec![];
    let at_headers = at.field("from_headers");
    for (index, wire) in headers.iter().enumerate() {
        let JwtHeader { name, value_prefix } = wire;
        let at = at_headers.index(index);
        let name = header_name(&at.field("name"), name)?;
        locations.push(TokenLocation::Header(name, value_prefix.as_str().into()));
    }
    let parameters = parameters.iter().map(|name| name.as_str().into());
    locations.extend(parameters.map(TokenLocation::Parameter));
    let cookies = cookies.iter().map(|name| name.as_str().into());
    locations.extend(cookies.map(TokenLocation::Cookie));
    if locations.is_empty() {
        locations = vec![
            TokenLocation::Header(http::header::AUTHORIZATION, "Bearer ".into()),
            TokenLocation::Parameter("access_token".into()),
        ];
    }
    Ok(locations)
}

fn keys(at: &At<'_>, wire: Option<&JwksSourceSpecifier>) -> Result<KeySource, Invalid> {
    match required(&at.field("jwks_source_specifier"), wire)? {
        JwksSourceSpecifier::LocalJwks(source) => {
            let at = at.field("local_jwks");
            unsupported_watch(&at, source)?;
            let text = match required(&at.field("specifier"), source.specifier.as_ref())? {
                Specifier::InlineString(text) => text.clone(),
                Specifier::InlineBytes(bytes) => String::from_utf8_lossy(bytes).into_owned(),
                Specifier::Filename(name) => {
                    let at = at.field("filename");
                    std::fs::read_to_string(name)
                        .map_err(|error| at.refuse(format_args!("{name}: {error}")))?
                }
                Specifier::EnvironmentVariable(name) => {
                    return Err(at.field("environment_variable").refuse_value(name));
                }
            };
            if serde_json::from_str::<jsonwebtoken::jwk::JwkSet>(&text).is_err() {
                return Err(at.refuse("no JSON web key set"));
            }
            Ok(KeySource::Local(text.into()))
        }
        JwksSourceSpecifier::RemoteJwks(wire) => remote(&at.field("remote_jwks"), wire),
    }
}

fn unsupported_watch(
    at: &At<'_>,
    source: &weft_proto::envoy::config::core::v3::DataSource,
) -> Result<(), Invalid> {
    let watched_directory = &source.watched_directory;
    unsupported!(at; watched_directory);
    Ok(())
}

fn remote(at: &At<'_>, wire: &RemoteJwks) -> Result<KeySource, Invalid> {
    let RemoteJwks {
        http_uri: uri,
        cache_duration,
        async_fetch,
        retry_policy,
    } = wire;
    // Keys are fetched when they are first needed, and a fetch that failed is made anew by the next request.
    harmless!(at; async_fetch, retry_policy);
    let at_uri = at.field("http_uri");
    let (uri, cluster, timeout) = http_uri(&at_uri, required(&at_uri, uri.as_ref())?)?;
    let kept = duration(&at.field("cache_duration"), cache_duration.as_ref())?;
    Ok(KeySource::Remote(RemoteKeys {
        uri,
        cluster: cluster.into(),
        timeout,
        kept: kept.filter(|kept| !kept.is_zero()).unwrap_or(DEFAULT_KEPT),
    }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::super::at::Notes;
    use super::*;

    fn translated(json: serde_json::Value) -> Result<JwtAuthnConfig, Invalid> {
        let notes = Notes::default();
        jwt_authn(&At::root(&notes), &from_json(json).expect("a filter"))
    }

    fn with(rules: serde_json::Value) -> Result<JwtAuthnConfig, Invalid> {
        translated(json!({
            "providers": {"p": {"issuer": "i", "local_jwks": {"inline_string": "{\"keys\":[]}"}}},
            "rules": rules,
        }))
    }

    #[test]
    fn a_token_is_looked_for_where_it_is_usual() {
        let config = with(json!([])).expect("valid");

        let provider = &config.providers[0];
        assert_eq!(provider.locations.len(), 2);
        assert_eq!(provider.clock_skew, Duration::from_secs(60));
        assert!(!provider.forwards);
    }

    #[test]
    fn requirements_name_providers_that_are_there() {
        let requires = |provider: &str| {
            with(json!([{"match": {"prefix": "/"}, "requires": {"provider_name": provider}}]))
        };

        assert_eq!(
            requires("p").expect("valid").rules[0].requirement,
            Some(Requirement::Provider(0, None))
        );
        assert_eq!(
            requires("q").expect_err("refused").to_string(),
            "rules[0].requires.provider_name: there is no provider \"q\""
        );
    }

    #[test]
    fn keys_that_are_none_are_refused() {
        let wire = json!({"providers": {"p": {"local_jwks": {"inline_string": "{}"}}}});

        assert_eq!(
            translated(wire).expect_err("refused").to_string(),
            "providers[\"p\"].local_jwks: no JSON web key set"
        );
    }
}
