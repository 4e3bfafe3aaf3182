//! Requests that are answered here: redirects and direct responses.

use bytes::Bytes;
use http::StatusCode;
use weft_proto::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use weft_proto::envoy::config::route::v3::{DirectResponseAction, RedirectAction};

use super::at::{At, Invalid, enumeration};
use super::body_format::body_format as body_format_of;
use super::data_source::data_source;
use super::route_action::whole_rewrite;
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
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => {
            (!scheme.is_empty()).then(|| scheme.as_str().into())
        }
    };
    let port = u16::try_from(*port_redirect).map_err(|_| {
        at.field("port_redirect")
            .refuse(format_args!("{port_redirect} is no port"))
    })?;
    let path = match path_rewrite_specifier {
        None => None,
        // As in Envoy, an empty text changes nothing.
        Some(PathRewriteSpecifier::PathRedirect(path)) => {
            (!path.is_empty()).then(|| PathRewrite::Full(path.as_str().into()))
        }
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            (!prefix.is_empty()).then(|| PathRewrite::Prefix(prefix.as_str().into()))
        }
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => Some(PathRewrite::Regex(
            substitution(&at.field("regex_rewrite"), rewrite)?,
        )),
        Some(PathRewriteSpecifier::PathRewrite(path)) => {
            Some(whole_rewrite(&at.field("path_rewrite"), path)?)
        }
    };
    Ok(Redirect {
        status,
        scheme,
        host: (!host_redirect.is_empty()).then(|| host_redirect.as_str().into()),
        port: (port != 0).then_some(port),
        path,
        strip_query: *strip_query,
        keeps_port: false,
    })
}

/// An answer given here, whose body has at most so many bytes.
pub(super) fn direct_response(
    at: &At<'_>,
    wire: &DirectResponseAction,
    max_bytes: usize,
) -> Result<DirectResponse, Invalid> {
    let DirectResponseAction {
        status,
        body,
        body_format,
    } = wire;
    let at_status = at.field("status");
    let status = u16::try_from(*status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .ok_or_else(|| at_status.refuse(format_args!("{status} is no status")))?;
    let body = match body {
        None => Bytes::new(),
        Some(source) => data_source(&at.field("body"), source, max_bytes)?,
    };
    let mut response = DirectResponse::new(status, body);
    let at_format = at.field("body_format");
    let made = body_format.as_ref();
    response.body_format = made
        .map(|wire| body_format_of(&at_format, wire, max_bytes))
        .transpose()?;
    Ok(response)
}

#[cfg(test)]
mod tests {
    use weft_proto::envoy::config::core::v3::DataSource;
    use weft_proto::envoy::config::core::v3::data_source::Specifier;

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
                direct_response(&At::root(&notes), &wire, 10).is_err(),
                "{status}"
            );
        }
    }

    fn answered(source: Specifier) -> Result<DirectResponse, Invalid> {
        let notes = Notes::default();
        let wire = DirectResponseAction {
            status: 200,
            body: Some(DataSource {
                specifier: Some(source),
                ..DataSource::default()
            }),
            ..DirectResponseAction::default()
        };
        direct_response(&At::root(&notes), &wire, 10)
    }

    #[test]
    fn a_body_is_read_from_a_file_up_to_the_bound() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("body").display().to_string();

        assert!(answered(Specifier::Filename(path.clone())).is_err());
        std::fs::write(&path, "0123456789").expect("written");
        let whole = answered(Specifier::Filename(path.clone())).expect("valid");
        assert_eq!(whole.body, "0123456789");

        std::fs::write(&path, "0123456789+").expect("written");
        let error = answered(Specifier::Filename(path)).expect_err("refused");
        assert_eq!(error.to_string(), "body: 11 bytes are more than 10");
    }

    #[test]
    fn an_inline_body_has_the_same_bound() {
        assert!(answered(Specifier::InlineString("0123456789".into())).is_ok());
        assert!(answered(Specifier::InlineString("0123456789+".into())).is_err());
    }
}
