//! Filters of HTTP: what a chain lists, and what routes say to them.
//!
//! One file for each filter, beside the one that tells its behaviour in `http/filter/`.

mod fault;
pub(super) mod overrides;

use weft_proto::Any;
use weft_proto::envoy::extensions::filters::http::fault::v3::HttpFault;

use super::at::{At, Invalid, holds, opened};
use crate::config::filter::{FilterKind, RouteFilter};

/// A filter as a chain lists it; `None`: one that is not known.
pub(super) fn kind(at: &At<'_>, any: &Any) -> Result<Option<FilterKind>, Invalid> {
    Ok(Some(if holds::<HttpFault>(any) {
        FilterKind::Fault(fault::fault(at, &opened(at, any)?)?.into())
    } else {
        return Ok(None);
    }))
}

/// A filter's configuration for a part of the routes; `None`: one that is not known.
fn route_filter(at: &At<'_>, any: &Any) -> Result<Option<RouteFilter>, Invalid> {
    Ok(Some(if holds::<HttpFault>(any) {
        RouteFilter::Fault(fault::fault(at, &opened(at, any)?)?.into())
    } else {
        return Ok(None);
    }))
}
