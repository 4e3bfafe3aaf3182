//! Hosts that requests are given on their way.

use http::HeaderValue;
use weft_proto::envoy::config::route::v3::route_action::HostRewriteSpecifier;

use super::at::{At, Invalid};
use super::headers::template;
use super::text::{subject, substitution};
use crate::config::route::HostRewrite;

/// The new host, if any.
pub(super) fn host(
    at: &At<'_>,
    wire: Option<&HostRewriteSpecifier>,
) -> Result<Option<HostRewrite>, Invalid> {
    let Some(wire) = wire else { return Ok(None) };
    Ok(Some(match wire {
        HostRewriteSpecifier::HostRewriteLiteral(host) => {
            HostRewrite::Literal(host_value(&at.field("host_rewrite_literal"), host)?)
        }
        HostRewriteSpecifier::HostRewrite(host) => {
            let at = at.field("host_rewrite");
            let template = template(&at, host)?;
            match template.literal() {
                Some(host) => HostRewrite::Literal(host_value(&at, host)?),
                None => HostRewrite::Formatted(template),
            }
        }
        HostRewriteSpecifier::AutoHostRewrite(true) => HostRewrite::Endpoint,
        HostRewriteSpecifier::AutoHostRewrite(false) => return Ok(None),
        HostRewriteSpecifier::HostRewriteHeader(name) => {
            HostRewrite::Header(subject(&at.field("host_rewrite_header"), name)?)
        }
        HostRewriteSpecifier::HostRewritePathRegex(rewrite) => {
            HostRewrite::Path(substitution(&at.field("host_rewrite_path_regex"), rewrite)?)
        }
    }))
}

/// A host as it stands in a header.
pub(super) fn host_value(at: &At<'_>, host: &str) -> Result<HeaderValue, Invalid> {
    HeaderValue::from_str(host).map_err(|_| at.refuse_value(host))
}
