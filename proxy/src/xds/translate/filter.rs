//! Filters of HTTP: what a chain lists, and what routes say to them.
//!
//! One file for each filter, beside the one that tells its behaviour in `http/filter/`.

mod adaptive_concurrency;
mod bandwidth_limit;
mod buffer;
mod compression;
mod cors;
mod csrf;
mod ext_authz;
mod fault;
pub(super) mod gate;
pub(super) mod header_mutation;
mod header_to_metadata;
mod health_check;
mod jwt_authn;
mod local_ratelimit;
pub(super) mod overrides;
pub(super) mod rate_limits;
mod ratelimit;
mod rbac;
pub(super) mod service;
mod stateful_session;
pub(super) mod value;

use weft_proto::Any;
use weft_proto::envoy::extensions::filters::http::adaptive_concurrency::v3::AdaptiveConcurrency;
use weft_proto::envoy::extensions::filters::http::bandwidth_limit::v3::BandwidthLimit;
use weft_proto::envoy::extensions::filters::http::buffer::v3::{Buffer, BufferPerRoute};
use weft_proto::envoy::extensions::filters::http::compressor::v3::{
    Compressor, CompressorPerRoute,
};
use weft_proto::envoy::extensions::filters::http::cors::v3::{Cors, CorsPolicy};
use weft_proto::envoy::extensions::filters::http::csrf::v3::CsrfPolicy as Csrf;
use weft_proto::envoy::extensions::filters::http::decompressor::v3::Decompressor;
use weft_proto::envoy::extensions::filters::http::ext_authz::v3::{ExtAuthz, ExtAuthzPerRoute};
use weft_proto::envoy::extensions::filters::http::fault::v3::HttpFault;
use weft_proto::envoy::extensions::filters::http::grpc_web::v3::GrpcWeb;
use weft_proto::envoy::extensions::filters::http::header_mutation::v3::{
    HeaderMutation, HeaderMutationPerRoute,
};
use weft_proto::envoy::extensions::filters::http::header_to_metadata::v3::Config as HeaderToMetadata;
use weft_proto::envoy::extensions::filters::http::health_check::v3::HealthCheck;
use weft_proto::envoy::extensions::filters::http::jwt_authn::v3::{
    JwtAuthentication, PerRouteConfig as JwtPerRoute,
};
use weft_proto::envoy::extensions::filters::http::local_ratelimit::v3::LocalRateLimit;
use weft_proto::envoy::extensions::filters::http::original_src::v3::OriginalSrc;
use weft_proto::envoy::extensions::filters::http::ratelimit::v3::{RateLimit, RateLimitPerRoute};
use weft_proto::envoy::extensions::filters::http::rbac::v3::{Rbac, RbacPerRoute};
use weft_proto::envoy::extensions::filters::http::stateful_session::v3::{
    StatefulSession, StatefulSessionPerRoute,
};

use super::at::{At, Invalid, holds, opened};
use crate::config::filter::live::Live;
use crate::config::filter::{FilterKind, FilterOverride, RouteFilter};
use crate::config::upstream_socket::OriginalSource;

/// A filter as a chain lists it; `None`: one that is not known.
pub(super) fn kind(at: &At<'_>, any: &Any) -> Result<Option<FilterKind>, Invalid> {
    Ok(Some(if holds::<HttpFault>(any) {
        FilterKind::Fault(fault::fault(at, &opened(at, any)?)?.into())
    } else if holds::<Rbac>(any) {
        FilterKind::Rbac(rbac::rbac(at, &opened(at, any)?)?.into())
    } else if holds::<LocalRateLimit>(any) {
        let limit = local_ratelimit::local_ratelimit(at, &opened(at, any)?)?;
        FilterKind::LocalRateLimit(limit.into())
    } else if holds::<Cors>(any) {
        let Cors {} = opened(at, any)?;
        FilterKind::Cors(Live::default())
    } else if holds::<Csrf>(any) {
        FilterKind::Csrf(csrf::csrf(at, &opened(at, any)?)?.into())
    } else if holds::<HeaderMutation>(any) {
        let mutation = header_mutation::header_mutation(at, &opened(at, any)?)?;
        FilterKind::HeaderMutation(mutation.into())
    } else if holds::<HeaderToMetadata>(any) {
        let rules = header_to_metadata::header_to_metadata(at, &opened(at, any)?)?;
        FilterKind::HeaderToMetadata(rules.into())
    } else if holds::<Buffer>(any) {
        FilterKind::Buffer(buffer::buffer(at, &opened(at, any)?)?.into())
    } else if holds::<ExtAuthz>(any) {
        FilterKind::ExtAuthz(ext_authz::ext_authz(at, &opened(at, any)?)?.into())
    } else if holds::<Compressor>(any) {
        FilterKind::Compressor(compression::compressor(at, &opened(at, any)?)?.into())
    } else if holds::<Decompressor>(any) {
        FilterKind::Decompressor(compression::decompressor(at, &opened(at, any)?)?.into())
    } else if holds::<BandwidthLimit>(any) {
        let limit = bandwidth_limit::bandwidth_limit(at, &opened(at, any)?)?;
        FilterKind::BandwidthLimit(limit.into())
    } else if holds::<AdaptiveConcurrency>(any) {
        match adaptive_concurrency::adaptive_concurrency(at, &opened(at, any)?)? {
            Some(config) => FilterKind::AdaptiveConcurrency(config.into()),
            None => FilterKind::Nothing,
        }
    } else if holds::<GrpcWeb>(any) {
        let GrpcWeb {} = opened(at, any)?;
        FilterKind::GrpcWeb
    } else if holds::<JwtAuthentication>(any) {
        FilterKind::JwtAuthn(jwt_authn::jwt_authn(at, &opened(at, any)?)?.into())
    } else if holds::<RateLimit>(any) {
        FilterKind::RateLimit(ratelimit::ratelimit(at, &opened(at, any)?)?.into())
    } else if holds::<StatefulSession>(any) {
        let session = stateful_session::stateful_session(at, &opened(at, any)?)?;
        FilterKind::StatefulSession(session.into())
    } else if holds::<OriginalSrc>(any) {
        let OriginalSrc { mark } = opened(at, any)?;
        FilterKind::OriginalSource(OriginalSource { mark })
    } else if holds::<HealthCheck>(any) {
        FilterKind::HealthCheck(health_check::health_check(at, &opened(at, any)?)?.into())
    } else {
        return Ok(None);
    }))
}

/// What is said to a filter for a part of the routes; `None`: to one that is not known.
fn said(at: &At<'_>, any: &Any) -> Result<Option<FilterOverride>, Invalid> {
    Ok(Some(FilterOverride::Configured(
        if holds::<HttpFault>(any) {
            RouteFilter::Fault(fault::fault(at, &opened(at, any)?)?.into())
        } else if holds::<RbacPerRoute>(any) {
            RouteFilter::Rbac(rbac::per_route(at, &opened(at, any)?)?.into())
        } else if holds::<LocalRateLimit>(any) {
            let limit = local_ratelimit::local_ratelimit(at, &opened(at, any)?)?;
            RouteFilter::LocalRateLimit(limit.into())
        } else if holds::<Csrf>(any) {
            RouteFilter::Csrf(csrf::policy(at, &opened(at, any)?)?.into())
        } else if holds::<HeaderMutationPerRoute>(any) {
            let mutations = header_mutation::per_route(at, &opened(at, any)?)?;
            RouteFilter::HeaderMutation(vec![mutations.into()])
        } else if holds::<StatefulSessionPerRoute>(any) {
            return stateful_session::per_route(at, &opened(at, any)?).map(Some);
        } else if holds::<HeaderToMetadata>(any) {
            let rules = header_to_metadata::header_to_metadata(at, &opened(at, any)?)?;
            RouteFilter::HeaderToMetadata(rules.into())
        } else if holds::<BandwidthLimit>(any) {
            let limit = bandwidth_limit::bandwidth_limit(at, &opened(at, any)?)?;
            RouteFilter::BandwidthLimit(limit.into())
        } else if holds::<RateLimitPerRoute>(any) {
            RouteFilter::RateLimit(ratelimit::per_route(at, &opened(at, any)?)?.into())
        } else if holds::<CompressorPerRoute>(any) {
            return compression::per_route(at, &opened(at, any)?).map(Some);
        } else if holds::<JwtPerRoute>(any) {
            return jwt_authn::per_route(at, &opened(at, any)?).map(Some);
        } else if holds::<ExtAuthzPerRoute>(any) {
            return ext_authz::per_route(at, &opened(at, any)?).map(Some);
        } else if holds::<BufferPerRoute>(any) {
            return buffer::per_route(at, &opened(at, any)?).map(Some);
        } else {
            return Ok(None);
        },
    )))
}

/// A CORS policy, which is looked for by its type and not by a filter's name.
fn cors_policy(
    at: &At<'_>,
    any: &Any,
) -> Result<Option<crate::config::filter::cors::CorsPolicy>, Invalid> {
    if holds::<CorsPolicy>(any) {
        return cors::policy(at, &opened(at, any)?).map(Some);
    }
    Ok(None)
}
