//! Who may do what, of requests and of connections.

use std::ops::Range;

use weft_proto::envoy::config::rbac::v3::permission::Rule as WirePermission;
use weft_proto::envoy::config::rbac::v3::principal::Identifier;
use weft_proto::envoy::config::rbac::v3::rbac::Action as WireAction;
use weft_proto::envoy::config::rbac::v3::{
    MetadataSource, Permission, Policy as WirePolicy, Principal, Rbac as WireRules, SourcedMetadata,
};
use weft_proto::envoy::extensions::filters::http::rbac::v3::{Rbac, RbacPerRoute};
use weft_proto::envoy::r#type::matcher::v3::{PathMatcher, path_matcher};
use weft_proto::envoy::r#type::v3::Int32Range;

use super::super::address::network;
use super::super::at::{At, Invalid, enumeration, required, unsupported};
use super::super::text::{header_match, text_match};
use super::value::metadata_match;
use crate::config::filter::live::Live;
use crate::config::filter::rbac::{Action, Policy, RbacConfig, Rule, Rules};

/// Of requests.
pub(super) fn rbac(at: &At<'_>, wire: &Rbac) -> Result<RbacConfig, Invalid> {
    let Rbac {
        rules: enforced,
        shadow_rules,
        shadow_rules_stat_prefix,
        rules_stat_prefix,
        track_per_rule_stats,
    } = wire;
    Ok(RbacConfig {
        rules: optional_rules(&at.field("rules"), enforced.as_ref())?,
        shadow: optional_rules(&at.field("shadow_rules"), shadow_rules.as_ref())?,
        stat_prefix: rules_stat_prefix.as_str().into(),
        shadow_stat_prefix: shadow_rules_stat_prefix.as_str().into(),
        counts_policies: *track_per_rule_stats,
        live: Live::default(),
    })
}

/// For a part of the routes; without rules everything is allowed there.
pub(super) fn per_route(at: &At<'_>, wire: &RbacPerRoute) -> Result<RbacConfig, Invalid> {
    let RbacPerRoute { rbac: wire } = wire;
    wire.as_ref().map_or(Ok(RbacConfig::default()), |wire| {
        rbac(&at.field("rbac"), wire)
    })
}

pub(super) fn optional_rules(
    at: &At<'_>,
    wire: Option<&WireRules>,
) -> Result<Option<Rules>, Invalid> {
    wire.map(|wire| rules(at, wire)).transpose()
}

fn rules(at: &At<'_>, wire: &WireRules) -> Result<Rules, Invalid> {
    let WireRules {
        action,
        policies,
        audit_logging_options,
    } = wire;
    unsupported!(at; audit_logging_options);
    let action = match enumeration(&at.field("action"), *action)? {
        WireAction::Allow => Action::Allow,
        WireAction::Deny => Action::Deny,
        WireAction::Log => Action::Log,
    };
    let at = at.field("policies");
    let policies = policies
        .iter()
        .map(|(name, wire)| policy(&at.key(name), name, wire))
        .collect::<Result<_, _>>()?;
    Ok(Rules { action, policies })
}

fn policy(at: &At<'_>, name: &str, wire: &WirePolicy) -> Result<Policy, Invalid> {
    let WirePolicy {
        permissions: allowed,
        principals: callers,
    } = wire;
    let must_not_be_empty = |name: &'static str| at.field(name).refuse("must not be empty");
    if allowed.is_empty() {
        return Err(must_not_be_empty("permissions"));
    }
    if callers.is_empty() {
        return Err(must_not_be_empty("principals"));
    }
    Ok(Policy {
        name: name.into(),
        permissions: permissions(&at.field("permissions"), allowed)?,
        principals: principals(&at.field("principals"), callers)?,
    })
}

fn permissions(at: &At<'_>, wire: &[Permission]) -> Result<Vec<Rule>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, wire)| permission(&at.index(index), wire))
        .collect()
}

fn permission(at: &At<'_>, wire: &Permission) -> Result<Rule, Invalid> {
    let Permission { rule } = wire;
    Ok(match required(&at.field("rule"), rule.as_ref())? {
        WirePermission::Any(_) => Rule::Any,
        WirePermission::AndRules(set) => Rule::All(permissions(
            &at.field("and_rules").field("rules"),
            &set.rules,
        )?),
        WirePermission::OrRules(set) => Rule::OneOf(permissions(
            &at.field("or_rules").field("rules"),
            &set.rules,
        )?),
        WirePermission::NotRule(rule) => {
            Rule::Not(Box::new(permission(&at.field("not_rule"), rule)?))
        }
        WirePermission::Header(header) => Rule::Header(header_match(&at.field("header"), header)?),
        WirePermission::UrlPath(wire) => Rule::Path(path(&at.field("url_path"), wire)?),
        WirePermission::DestinationIp(range) => {
            Rule::DestinationIp(network(&at.field("destination_ip"), range)?)
        }
        WirePermission::DestinationPort(port) => {
            Rule::DestinationPorts(*port..port.saturating_add(1))
        }
        WirePermission::DestinationPortRange(range) => {
            Rule::DestinationPorts(ports(&at.field("destination_port_range"), *range)?)
        }
        WirePermission::RequestedServerName(text) => {
            Rule::ServerName(text_match(&at.field("requested_server_name"), text)?)
        }
        WirePermission::Metadata(matcher) => {
            Rule::Metadata(metadata_match(&at.field("metadata"), matcher)?)
        }
        WirePermission::SourcedMetadata(wire) => sourced(&at.field("sourced_metadata"), wire)?,
        WirePermission::Matcher(extension) => {
            return Err(at.field("matcher").refuse_value(&extension.name));
        }
        WirePermission::UriTemplate(extension) => {
            return Err(at.field("uri_template").refuse_value(&extension.name));
        }
    })
}

fn principals(at: &At<'_>, wire: &[Principal]) -> Result<Vec<Rule>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, wire)| principal(&at.index(index), wire))
        .collect()
}

fn principal(at: &At<'_>, wire: &Principal) -> Result<Rule, Invalid> {
    let Principal { identifier } = wire;
    Ok(
        match required(&at.field("identifier"), identifier.as_ref())? {
            Identifier::Any(_) => Rule::Any,
            Identifier::AndIds(set) => {
                Rule::All(principals(&at.field("and_ids").field("ids"), &set.ids)?)
            }
            Identifier::OrIds(set) => {
                Rule::OneOf(principals(&at.field("or_ids").field("ids"), &set.ids)?)
            }
            Identifier::NotId(id) => Rule::Not(Box::new(principal(&at.field("not_id"), id)?)),
            Identifier::Authenticated(wire) => match &wire.principal_name {
                None => Rule::Authenticated,
                Some(name) => {
                    let at = at.field("authenticated");
                    Rule::Principal(text_match(&at.field("principal_name"), name)?)
                }
            },
            Identifier::SourceIp(range) => Rule::PeerIp(network(&at.field("source_ip"), range)?),
            Identifier::DirectRemoteIp(range) => {
                Rule::DirectIp(network(&at.field("direct_remote_ip"), range)?)
            }
            Identifier::RemoteIp(range) => Rule::ClientIp(network(&at.field("remote_ip"), range)?),
            Identifier::Header(header) => Rule::Header(header_match(&at.field("header"), header)?),
            Identifier::UrlPath(wire) => Rule::Path(path(&at.field("url_path"), wire)?),
            Identifier::Metadata(matcher) => {
                Rule::Metadata(metadata_match(&at.field("metadata"), matcher)?)
            }
            Identifier::SourcedMetadata(wire) => sourced(&at.field("sourced_metadata"), wire)?,
            Identifier::FilterState(wire) => {
                return Err(at.field("filter_state").refuse_value(&wire.key));
            }
            Identifier::Custom(extension) => {
                return Err(at.field("custom").refuse_value(&extension.name));
            }
        },
    )
}

fn sourced(at: &At<'_>, wire: &SourcedMetadata) -> Result<Rule, Invalid> {
    let SourcedMetadata {
        metadata_matcher,
        metadata_source,
    } = wire;
    let at_matcher = at.field("metadata_matcher");
    let matcher = metadata_match(
        &at_matcher,
        required(&at_matcher, metadata_matcher.as_ref())?,
    )?;
    Ok(
        match enumeration(&at.field("metadata_source"), *metadata_source)? {
            MetadataSource::Dynamic => Rule::Metadata(matcher),
            MetadataSource::Route => Rule::RouteMetadata(matcher),
        },
    )
}

fn path(at: &At<'_>, wire: &PathMatcher) -> Result<crate::config::matching::TextMatch, Invalid> {
    let PathMatcher { rule } = wire;
    match required(&at.field("rule"), rule.as_ref())? {
        path_matcher::Rule::Path(text) => text_match(&at.field("path"), text),
    }
}

fn ports(at: &At<'_>, wire: Int32Range) -> Result<Range<u32>, Invalid> {
    let Int32Range { start, end } = wire;
    match (u32::try_from(start), u32::try_from(end)) {
        (Ok(start), Ok(end)) if start < end && end <= 65_536 => Ok(start..end),
        _ => Err(at.refuse(format_args!("{start} to {end} is no range of ports"))),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::json::from_json;

    use super::super::super::at::Notes;
    use super::*;

    fn translated(policy: serde_json::Value) -> Result<RbacConfig, Invalid> {
        let notes = Notes::default();
        let wire = json!({"rules": {"policies": {"p": policy}}});
        rbac(&At::root(&notes), &from_json(wire).expect("an RBAC filter"))
    }

    #[test]
    fn a_policy_is_of_permissions_and_principals() {
        let config = translated(json!({
            "permissions": [{"and_rules": {"rules": [
                {"url_path": {"path": {"prefix": "/admin"}}}, {"destination_port": 8080},
            ]}}],
            "principals": [{"authenticated": {"principal_name": {"exact": "spiffe://a/b"}}}],
        }));

        let rules = config.expect("valid").rules.expect("rules");
        let policy = &rules.policies[0];
        assert_eq!(&*policy.name, "p");
        assert!(matches!(&policy.permissions[..], [Rule::All(rules)] if rules.len() == 2));
        assert!(matches!(policy.principals[..], [Rule::Principal(_)]));
    }

    #[test]
    fn what_cannot_be_asked_is_refused_by_path() {
        let refused = |permission| {
            let policy = json!({"permissions": [permission], "principals": [{"any": true}]});
            translated(policy).expect_err("refused").to_string()
        };

        assert_eq!(
            refused(json!({"matcher": {"name": "m"}})),
            "rules.policies[\"p\"].permissions[0].matcher: \"m\" is not supported"
        );
        assert_eq!(
            refused(json!({"destination_port_range": {"start": 5, "end": 5}})),
            "rules.policies[\"p\"].permissions[0].destination_port_range: 5 to 5 is no range of ports"
        );
        assert_eq!(
            translated(json!({"permissions": [{"any": true}]}))
                .expect_err("refused")
                .to_string(),
            "rules.policies[\"p\"].principals: must not be empty"
        );
    }
}
