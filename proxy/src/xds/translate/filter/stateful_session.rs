//! Sessions that stay at one endpoint.

use std::time::Duration;

use weft_proto::Any;
use weft_proto::envoy::extensions::filters::http::stateful_session::v3::stateful_session_per_route::Override;
use weft_proto::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute,
};
use weft_proto::envoy::extensions::http::stateful_session::cookie::v3::CookieBasedSessionState;
use weft_proto::envoy::extensions::http::stateful_session::header::v3::HeaderBasedSessionState;
use weft_proto::envoy::r#type::http::v3::Cookie;

use super::super::at::{At, Invalid, duration, harmless, holds, nonempty, opened, required};
use super::super::text::header_name;
use crate::config::filter::stateful_session::{SessionState, StatefulSessionConfig};
use crate::config::filter::{FilterOverride, RouteFilter};

/// The filter.
pub(super) fn stateful_session(
    at: &At<'_>,
    wire: &StatefulSession,
) -> Result<StatefulSessionConfig, Invalid> {
    let StatefulSession {
        session_state,
        strict,
        stat_prefix,
        status_on_strict_destination_not_found,
    } = wire;
    harmless!(at; stat_prefix);
    let at_state = at.field("session_state");
    let at_state = at_state.field("typed_config");
    let state = match session_state {
        None => SessionState::None,
        Some(extension) => {
            let any = required(&at_state, extension.typed_config.as_ref())?;
            self::state(&at_state, any)?
        }
    };
    let at_status = at.field("status_on_strict_destination_not_found");
    if !matches!(status_on_strict_destination_not_found, 0 | 503) {
        return Err(at_status.refuse_value(status_on_strict_destination_not_found));
    }
    Ok(StatefulSessionConfig {
        state,
        is_strict: *strict,
    })
}

fn state(at: &At<'_>, any: &Any) -> Result<SessionState, Invalid> {
    if holds::<CookieBasedSessionState>(any) {
        let CookieBasedSessionState { cookie } = opened(at, any)?;
        let at = at.field("cookie");
        let Cookie {
            name,
            ttl,
            path,
            attributes,
        } = required(&at, cookie.as_ref())?;
        return Ok(SessionState::Cookie {
            name: nonempty(&at.field("name"), name)?.into(),
            ttl: duration(&at.field("ttl"), ttl.as_ref())?.unwrap_or(Duration::ZERO),
            path: path.as_str().into(),
            attributes: attributes
                .iter()
                .map(|each| (each.name.as_str().into(), each.value.as_str().into()))
                .collect(),
        });
    }
    if holds::<HeaderBasedSessionState>(any) {
        let HeaderBasedSessionState { name } = &opened(at, any)?;
        return Ok(SessionState::Header(header_name(&at.field("name"), name)?));
    }
    Err(at.refuse_value(&any.type_url))
}

/// For a part of the routes.
pub(super) fn per_route(
    at: &At<'_>,
    wire: &StatefulSessionPerRoute,
) -> Result<FilterOverride, Invalid> {
    let StatefulSessionPerRoute { r#override } = wire;
    Ok(
        match required(&at.field("override"), r#override.as_ref())? {
            Override::Disabled(true) => FilterOverride::Disabled,
            Override::Disabled(false) => {
                return Err(at.field("disabled").refuse("must be true"));
            }
            Override::StatefulSession(wire) => {
                let config = stateful_session(&at.field("stateful_session"), wire)?;
                FilterOverride::Configured(RouteFilter::StatefulSession(config.into()))
            }
        },
    )
}
