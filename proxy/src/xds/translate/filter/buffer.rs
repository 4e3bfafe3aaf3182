//! Requests that are sent on only when they are whole.

use weft_proto::envoy::extensions::filters::http::buffer::v3::buffer_per_route::Override;
use weft_proto::envoy::extensions::filters::http::buffer::v3::{Buffer, BufferPerRoute};

use super::super::at::{At, Invalid, required};
use crate::config::filter::buffer::BufferConfig;
use crate::config::filter::{FilterOverride, RouteFilter};

/// The filter.
pub(super) fn buffer(at: &At<'_>, wire: &Buffer) -> Result<BufferConfig, Invalid> {
    let Buffer { max_request_bytes } = wire;
    let at = at.field("max_request_bytes");
    let max = *required(&at, max_request_bytes.as_ref())?;
    if max == 0 {
        return Err(at.refuse("must be at least 1"));
    }
    Ok(BufferConfig {
        max_request_bytes: usize::try_from(max).unwrap_or(usize::MAX),
    })
}

/// For a part of the routes.
pub(super) fn per_route(at: &At<'_>, wire: &BufferPerRoute) -> Result<FilterOverride, Invalid> {
    let BufferPerRoute { r#override } = wire;
    Ok(
        match required(&at.field("override"), r#override.as_ref())? {
            Override::Disabled(true) => FilterOverride::Disabled,
            Override::Disabled(false) => {
                return Err(at.field("disabled").refuse("must be true"));
            }
            Override::Buffer(wire) => {
                let config = buffer(&at.field("buffer"), wire)?;
                FilterOverride::Configured(RouteFilter::Buffer(config.into()))
            }
        },
    )
}
