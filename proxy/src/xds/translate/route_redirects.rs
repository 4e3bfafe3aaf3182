//! Redirects of the upstream that the proxy follows itself.

use http::StatusCode;
use weft_proto::envoy::config::core::v3::TypedExtensionConfig;
use weft_proto::envoy::config::route::v3::InternalRedirectPolicy;
use weft_proto::envoy::config::route::v3::route_action::InternalRedirectAction;
use weft_proto::envoy::extensions::internal_redirect::allow_listed_routes::v3::AllowListedRoutesConfig;
use weft_proto::envoy::extensions::internal_redirect::previous_routes::v3::PreviousRoutesConfig;
use weft_proto::envoy::extensions::internal_redirect::safe_cross_scheme::v3::SafeCrossSchemeConfig;

use super::at::{At, Invalid, enumeration, holds, opened, required};
use super::text::header_name;
use crate::config::route::internal_redirect::InternalRedirects;

/// When they are followed, if ever; `action` and `max` are the older way to say so.
pub(super) fn internal_redirects(
    at: &At<'_>,
    policy: Option<&InternalRedirectPolicy>,
    (action, max): (i32, Option<u32>),
) -> Result<Option<InternalRedirects>, Invalid> {
    let action = enumeration(&at.field("internal_redirect_action"), action)?;
    match (policy, action) {
        (Some(policy), _) => of_policy(&at.field("internal_redirect_policy"), policy).map(Some),
        (None, InternalRedirectAction::HandleInternalRedirect) => Ok(Some(InternalRedirects {
            max: max.unwrap_or(1),
            ..InternalRedirects::default()
        })),
        (None, InternalRedirectAction::PassThroughInternalRedirect) => Ok(None),
    }
}

fn of_policy(at: &At<'_>, wire: &InternalRedirectPolicy) -> Result<InternalRedirects, Invalid> {
    let InternalRedirectPolicy {
        max_internal_redirects,
        redirect_response_codes,
        predicates,
        allow_cross_scheme_redirect,
        response_headers_to_copy,
    } = wire;
    let mut redirects = InternalRedirects {
        max: max_internal_redirects.unwrap_or(1),
        across_schemes: *allow_cross_scheme_redirect,
        ..InternalRedirects::default()
    };
    if !redirect_response_codes.is_empty() {
        let at = at.field("redirect_response_codes");
        redirects.statuses = redirect_response_codes
            .iter()
            .enumerate()
            .map(|(index, code)| status(&at.index(index), *code))
            .collect::<Result<_, _>>()?;
    }
    let at_predicates = at.field("predicates");
    for (index, wire) in predicates.iter().enumerate() {
        predicate(&at_predicates.index(index), wire, &mut redirects)?;
    }
    let at_headers = at.field("response_headers_to_copy");
    for (index, name) in response_headers_to_copy.iter().enumerate() {
        let name = header_name(&at_headers.index(index), name)?;
        redirects.copied_headers.push(name);
    }
    Ok(redirects)
}

/// Envoy knows these five; others among the codes have no effect there, and are refused here.
fn status(at: &At<'_>, code: u32) -> Result<StatusCode, Invalid> {
    match code {
        301 => Ok(StatusCode::MOVED_PERMANENTLY),
        302 => Ok(StatusCode::FOUND),
        303 => Ok(StatusCode::SEE_OTHER),
        307 => Ok(StatusCode::TEMPORARY_REDIRECT),
        308 => Ok(StatusCode::PERMANENT_REDIRECT),
        other => Err(at.refuse_value(other)),
    }
}

fn predicate(
    at: &At<'_>,
    wire: &TypedExtensionConfig,
    redirects: &mut InternalRedirects,
) -> Result<(), Invalid> {
    let TypedExtensionConfig { name, typed_config } = wire;
    let at_config = at.field("typed_config");
    let any = required(&at_config, typed_config.as_ref())?;
    if holds::<AllowListedRoutesConfig>(any) {
        let AllowListedRoutesConfig {
            allowed_route_names,
        } = opened(&at_config, any)?;
        redirects.allowed_routes = Some(allowed_route_names);
    } else if holds::<PreviousRoutesConfig>(any) {
        let PreviousRoutesConfig {} = opened(&at_config, any)?;
        redirects.avoids_previous_routes = true;
    } else if holds::<SafeCrossSchemeConfig>(any) {
        let SafeCrossSchemeConfig {} = opened(&at_config, any)?;
        redirects.safe_schemes_only = true;
    } else {
        return Err(at.field("name").refuse_value(name));
    }
    Ok(())
}
