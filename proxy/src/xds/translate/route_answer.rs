//! Requests that are answered here: redirects and direct responses.

use bytes::Bytes;
use http::StatusCode;
use weft_proto::envoy::config::core::v3::DataSource;
use weft_proto::envoy::config::core::v3::data_source::Specifier;
use weft_proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use weft_proto::envoy::config::route::v3::{DirectResponseAction, RedirectAction};

use super::at::{At, Invalid, enumeration, required, unsupported};
use super::headers::literal;
use super::text::substitution;
use crate::config::route::{DirectResponse, PathRewrite, Redirect};

/// To another place.
pub(super) fn redirect(at: &At<'_>, wire: &RedirectAction) -> Result<Redirect, Invalid> {
    let RedirectAction {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = wire;
    let status = match enumeration(&at.field("response_code"), *response_code)? {
        RedirectResponseCode::MovedPermanently => StatusCode::MOVED_PERMANENTLY,
        RedirectResponseCode::Found => StatusCode::FOUND,
        RedirectResponseCode::SeeOther => StatusCode::SEE_OTHER,
        RedirectResponseCode::TemporaryRedirect => StatusCode::TEMPORARY_REDIRECT,
        RedirectResponseCode::PermanentRedirect => StatusCode::PERMANENT_REDIRECT,
    };
    let scheme = match scheme_rewrite_specifier {
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".into()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => Some(scheme.as_str().into()),
    };
    let port = u16::try_from(*port_redirect).map_err(|_| {
        at.field("port_redirect")
            .refuse(format_args!("{port_redirect} is no port"))
    })?;
    let path = match path_rewrite_specifier {
        None => None,
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            Some(PathRewrite::Full(path.as_str().into()))
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            Some(PathRewrite::Prefix(prefix.as_str().into()))
        }
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => Some(PathRewrite::Regex(
            substitution(&at.field("regex_rewrite"), rewrite)?,
        )),
        Some(PathRewriteSpecifier::PathRewrite(path)) => Some(PathRewrite::Full(
            literal(&at.field("path_rewrite"), path)?.into(),
        )),
    };
    Ok(Redirect {
        status,
        scheme,
        host: (!host_redirect.is_empty()).then(|| host_redirect.as_str().into()),
        port: (port != 0).then_some(port),
        path,
        strip_query: *strip_query,
    })
}

/// An answer given here.
pub(super) fn direct_response(
    at: &At<'_>,
    wire: &DirectResponseAction,
) -> Result<DirectResponse, Invalid> {
    let DirectResponseAction {
        status,
        body,
        body_format,
    } = wire;
    unsupported!(at; body_format);
    let at_status = at.field("status");
    let status = u16::try_from(*status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| at_status.refuse(format_args!("{status} is no status")))?;
    let body = match body {
        None => Bytes::new(),
        Some(source) => inline(&at.field("body"), source)?,
    };
    Ok(DirectResponse { status, body })
}

fn inline(at: &At<'_>, wire: &DataSource) -> Result<Bytes, Invalid> {
    let DataSource {
        watched_directory,
        specifier,
    } = wire;
    unsupported!(at; watched_directory);
    match required(&at.field("specifier"), specifier.as_ref())? {
        Specifier::InlineBytes(bytes) => Ok(bytes.clone()),
        Specifier::InlineString(text) => Ok(text.clone().into()),
        Specifier::Filename(path) => Err(at.field("filename").refuse_value(path)),
        Specifier::EnvironmentVariable(name) => {
            Err(at.field("environment_variable").refuse_value(name))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::at::Notes;
    use super::*;

    #[test]
    fn a_direct_response_has_a_status_that_ends_a_request() {
        let notes = Notes::default();
        for status in [0, 100, 600, 65_736] {
            let wire = DirectResponseAction {
                status,
                ..DirectResponseAction::default()
            };
            assert!(
                direct_response(&At::root(&notes), &wire).is_err(),
                "{status}"
            );
        }
    }
}
