//! What of a request decides its endpoint.

use weft_proto::envoy::config::route::v3::route_action::HashPolicy as WirePolicy;
use weft_proto::envoy::config::route::v3::route_action::hash_policy::{
    ConnectionProperties, Cookie, Header, PolicySpecifier, QueryParameter,
};

use super::at::{At, Invalid, duration, nonempty, required};
use super::text::{subject, substitution};
use crate::config::affinity::{HashCookie, HashPolicy, HashSource};

/// All policies, in order; those that say nothing are left out.
pub(super) fn hash_policies(at: &At<'_>, wire: &[WirePolicy]) -> Result<Vec<HashPolicy>, Invalid> {
    let mut policies = Vec::new();
    for (index, wire) in wire.iter().enumerate() {
        let at = at.index(index);
        let WirePolicy {
            policy_specifier,
            terminal,
        } = wire;
        let specifier = required(&at.field("policy_specifier"), policy_specifier.as_ref())?;
        if let Some(source) = source(&at, specifier)? {
            policies.push(HashPolicy {
                source,
                is_terminal: *terminal,
            });
        }
    }
    Ok(policies)
}

fn source(at: &At<'_>, wire: &PolicySpecifier) -> Result<Option<HashSource>, Invalid> {
    Ok(Some(match wire {
        PolicySpecifier::Header(Header {
            header_name: name,
            regex_rewrite,
        }) => {
            let at = at.field("header");
            HashSource::Header {
                name: subject(
                    &at.field("header_name"),
                    nonempty(&at.field("header_name"), name)?,
                )?,
                rewrite: regex_rewrite
                    .as_ref()
                    .map(|wire| substitution(&at.field("regex_rewrite"), wire))
                    .transpose()?,
            }
        }
        PolicySpecifier::Cookie(Cookie {
            name,
            ttl,
            path,
            attributes,
        }) => {
            let at = at.field("cookie");
            HashSource::Cookie(HashCookie {
                name: nonempty(&at.field("name"), name)?.into(),
                ttl: duration(&at.field("ttl"), ttl.as_ref())?,
                path: path.as_str().into(),
                attributes: attributes
                    .iter()
                    .map(|each| (each.name.as_str().into(), each.value.as_str().into()))
                    .collect(),
            })
        }
        PolicySpecifier::ConnectionProperties(ConnectionProperties { source_ip }) => {
            return Ok(source_ip.then_some(HashSource::SourceAddress));
        }
        PolicySpecifier::QueryParameter(QueryParameter { name }) => {
            let at = at.field("query_parameter");
            HashSource::QueryParameter(nonempty(&at.field("name"), name)?.into())
        }
        PolicySpecifier::FilterState(wire) => {
            let at = at.field("filter_state");
            return Err(at.field("key").refuse_value(&wire.key));
        }
    }))
}
