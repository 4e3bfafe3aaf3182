//! How many connections of a cluster are made ahead of need.

use weft_proto::envoy::config::cluster::v3::cluster::PreconnectPolicy;

use super::at::{At, Invalid, unsupported};

/// Ratios of connections to streams; `None`: none are made ahead.
#[derive(Debug, Default)]
pub(super) struct Preconnect {
    /// Of each endpoint.
    pub(super) per_upstream: Option<f64>,
    /// Of the cluster.
    pub(super) predictive: Option<f64>,
}

/// What is said of connections made ahead.
pub(super) fn preconnect(
    at: &At<'_>,
    wire: Option<&PreconnectPolicy>,
) -> Result<Preconnect, Invalid> {
    let Some(PreconnectPolicy {
        per_upstream_preconnect_ratio,
        predictive_preconnect_ratio,
        preconnect_enabled_metadata,
    }) = wire
    else {
        return Ok(Preconnect::default());
    };
    unsupported!(at; preconnect_enabled_metadata);
    Ok(Preconnect {
        per_upstream: above_one(
            &at.field("per_upstream_preconnect_ratio"),
            *per_upstream_preconnect_ratio,
        )?,
        predictive: above_one(
            &at.field("predictive_preconnect_ratio"),
            *predictive_preconnect_ratio,
        )?,
    })
}

/// A ratio of one, which is Envoy's default, asks for nothing ahead of need.
fn above_one(at: &At<'_>, ratio: Option<f64>) -> Result<Option<f64>, Invalid> {
    match ratio {
        Some(ratio) if !(1.0..=3.0).contains(&ratio) => Err(at.refuse(format_args!(
            "{ratio} is not possible: a ratio is from 1.0 to 3.0"
        ))),
        ratio => Ok(ratio.filter(|ratio| *ratio > 1.0)),
    }
}
