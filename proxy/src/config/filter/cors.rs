//! What browsers may do for pages of other origins (the Fetch standard's CORS protocol).

use http::HeaderValue;

use crate::config::matching::TextMatch;
use crate::config::percent::Percent;

/// A policy. What it does not say, the one around it says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct CorsPolicy {
    /// Origins that may call.
    pub origins: Vec<TextMatch>,
    /// `access-control-allow-methods`.
    pub methods: Option<HeaderValue>,
    /// `access-control-allow-headers`.
    pub headers: Option<HeaderValue>,
    /// `access-control-expose-headers`.
    pub exposed: Option<HeaderValue>,
    /// `access-control-max-age`.
    pub max_age: Option<HeaderValue>,
    /// Whether credentials may be sent.
    pub allows_credentials: Option<bool>,
    /// Whether pages of public networks may call.
    pub allows_private_network: Option<bool>,
    /// Whether preflights of other origins are passed on; else they are answered without a permission.
    pub forwards_others: Option<bool>,
    /// For how many requests it holds.
    pub enabled: Option<Percent>,
    /// For how many requests origins are counted where it does not hold.
    pub shadow: Option<Percent>,
}

impl CorsPolicy {
    /// With what the policy around it says.
    pub fn completed_by(&self, outer: &CorsPolicy) -> Self {
        let origins = if self.origins.is_empty() { outer } else { self };
        let or = |own: &Option<HeaderValue>, outer: &Option<HeaderValue>| {
            own.clone().or_else(|| outer.clone())
        };
        CorsPolicy {
            origins: origins.origins.clone(),
            methods: or(&self.methods, &outer.methods),
            headers: or(&self.headers, &outer.headers),
            exposed: or(&self.exposed, &outer.exposed),
            max_age: or(&self.max_age, &outer.max_age),
            allows_credentials: self.allows_credentials.or(outer.allows_credentials),
            allows_private_network: self.allows_private_network.or(outer.allows_private_network),
            forwards_others: self.forwards_others.or(outer.forwards_others),
            enabled: self.enabled.or(outer.enabled),
            shadow: self.shadow.or(outer.shadow),
        }
    }
}
