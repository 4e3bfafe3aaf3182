//! Where what is named comes from: always the same aggregated stream.

use weft_proto::envoy::config::core::v3::ConfigSource;
use weft_proto::envoy::config::core::v3::config_source::ConfigSourceSpecifier;

use super::at::{At, Invalid, harmless, required, unsupported};

/// Checks that it comes over ADS, or from where the naming resource came, which is the same.
pub(super) fn from_ads(at: &At<'_>, wire: Option<&ConfigSource>) -> Result<(), Invalid> {
    let ConfigSource {
        authorities,
        initial_fetch_timeout,
        resource_api_version,
        config_source_specifier,
    } = required(at, wire)?;
    unsupported!(at; authorities);
    harmless!(at; initial_fetch_timeout);
    // Only version 3 is spoken; servers say so or say nothing.
    let _ = resource_api_version;
    match config_source_specifier {
        Some(ConfigSourceSpecifier::Ads(_) | ConfigSourceSpecifier::Self_(_)) => Ok(()),
        Some(other) => Err(at.refuse_value(other)),
        None => Err(at.refuse("must be `ads`")),
    }
}
