//! JSON web tokens: found, verified, and told to who comes after.
//!
//! `token` looks at one token, `keys` has the keys. What a request must present is worked out here.

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;
mod keys;
mod token;

use bytes::Bytes;
use http::header::{self, HeaderName};
use http::{HeaderValue, Method, StatusCode};
use serde_json::json;

use self::keys::Keys;
use self::token::{Located, Refusal, Token};
use super::{Passing, joined};
use crate::config::filter::jwt_authn::{
    JwtAuthnConfig, JwtOverride, JwtProvider, Requirement, TokenLocation,
};
use crate::http::failure::{Failure, LocalReply};
use crate::snapshot::routes::matches::is_for;
use crate::telemetry::counters::counted;

/// Where tokens are told.
const NAMESPACE: &str = "envoy.filters.http.jwt_authn";
/// No longer path is told as a realm, as in Envoy.
const MAX_REALM: usize = 256;

counted! {
    /// What is counted of requests and of keys.
    struct Stats { allowed, denied, cors_preflight_bypassed, jwks_fetch_success, jwks_fetch_failed }
}

/// What lives of the filter.
struct State {
    stats: Stats,
    /// Of each provider.
    keys: Vec<Keys>,
}

/// A request on its way through the requirements.
struct Check<'c> {
    config: &'c JwtAuthnConfig,
    state: &'c State,
}

/// Looks for what a request must present.
pub(super) async fn request(
    config: &JwtAuthnConfig,
    own: Option<&JwtOverride>,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    let state = config.live.get_or_init(|| {
        let all = format!("http.{}.jwt_authn.", passing.stat_prefix());
        let prefix = joined(&all, &config.stat_prefix);
        let keys = config.providers.iter().map(|one| Keys::new(&one.keys));
        State {
            stats: Stats::new(&passing.connection.environment.counters, &prefix),
            keys: keys.collect(),
        }
    });
    remove_claim_headers(config, passing);
    if config.preflight_passes && is_preflight(passing) {
        state.stats.cors_preflight_bypassed.increment();
        state.stats.allowed.increment();
        return Ok(());
    }
    let required = match own {
        Some(JwtOverride { requirement: None }) => None,
        Some(JwtOverride {
            requirement: Some(name),
        }) => match named(config, name) {
            Some(requirement) => Some(requirement),
            // The route means something that is not configured: nobody passes.
            None => return Err(misconfigured(state, name)),
        },
        None => by_rules(config, passing),
    };
    let Some(required) = required else {
        state.stats.allowed.increment();
        return Ok(());
    };
    let check = Check { config, state };
    match Box::pin(check.requirement(required, passing)).await {
        Ok(()) => {
            state.stats.allowed.increment();
            Ok(())
        }
        Err(refusal) => Err(denied(config, state, &refusal, passing)),
    }
}

fn is_preflight(passing: &Passing<'_>) -> bool {
    let headers = &passing.head.headers;
    passing.head.method == Method::OPTIONS
        && headers.contains_key(header::ORIGIN)
        && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD)
}

/// Only a token may say what claims say.
fn remove_claim_headers(config: &JwtAuthnConfig, passing: &mut Passing<'_>) {
    for provider in &config.providers {
        let claims = provider.claim_headers.iter().map(|(name, _)| name);
        for name in claims.chain(&provider.payload_header) {
            passing.head.headers.remove(name);
        }
    }
}

fn named<'c>(config: &'c JwtAuthnConfig, wanted: &str) -> Option<&'c Requirement> {
    let mut named = config.named.iter();
    let (_, requirement) = named.find(|(name, _)| **name == *wanted)?;
    Some(requirement)
}

fn by_rules<'c>(config: &'c JwtAuthnConfig, passing: &Passing<'_>) -> Option<&'c Requirement> {
    let facts = super::request_facts(passing);
    let mut rules = config.rules.iter();
    let rule = rules.find(|rule| is_for(&rule.matches, &facts))?;
    rule.requirement.as_ref()
}

impl<'c> Check<'c> {
    async fn requirement(
        &self,
        requirement: &'c Requirement,
        passing: &mut Passing<'_>,
    ) -> Result<(), Refusal> {
        match requirement {
            Requirement::AllowAll => {
                // What is valid is told all the same.
                let _ = self.whoever(passing).await;
                Ok(())
            }
            Requirement::AllowMissing => match self.whoever(passing).await {
                Ok(()) | Err(Refusal::Missing) => Ok(()),
                refused => refused,
            },
            Requirement::Provider(position, audiences) => {
                let audiences = audiences.as_deref();
                self.provider(*position, audiences, passing).await
            }
            Requirement::All(all) => {
                for one in all {
                    Box::pin(self.requirement(one, passing)).await?;
                }
                Ok(())
            }
            Requirement::Any(all) => self.any(all, passing).await,
        }
    }

    /// One of these must hold. Beside others, that tokens may be missing means those of the others, and counts where
    /// all of theirs are.
    async fn any(&self, all: &'c [Requirement], passing: &mut Passing<'_>) -> Result<(), Refusal> {
        let is_lenient =
            |one: &&Requirement| matches!(one, Requirement::AllowAll | Requirement::AllowMissing);
        if let Some(one) = all
            .first()
            .filter(|_| all.iter().all(|one| is_lenient(&one)))
        {
            let any = all.contains(&Requirement::AllowAll);
            let one = if any { &Requirement::AllowAll } else { one };
            return Box::pin(self.requirement(one, passing)).await;
        }
        let mut worst = Refusal::Missing;
        for one in all.iter().filter(|one| !is_lenient(one)) {
            match Box::pin(self.requirement(one, passing)).await {
                Ok(()) => return Ok(()),
                // What is wrong with a token says more than that there is none.
                Err(Refusal::Missing) => {}
                Err(Refusal::UnknownIssuer) if worst != Refusal::Missing => {}
                Err(refusal) => worst = refusal,
            }
        }
        let may_miss = worst == Refusal::Missing && all.contains(&Requirement::AllowMissing);
        match may_miss || all.contains(&Requirement::AllowAll) {
            true => Ok(()),
            false => Err(worst),
        }
    }

    /// Tokens at the places of all providers, each for the provider that its issuer names. As in Envoy, all that are
    /// valid are told, and the first decides.
    async fn whoever(&self, passing: &mut Passing<'_>) -> Result<(), Refusal> {
        let mut places: Vec<&TokenLocation> = vec![];
        for place in self.config.providers.iter().flat_map(|one| &one.locations) {
            if !places.contains(&place) {
                places.push(place);
            }
        }
        // The order that Envoy looks in.
        places.sort_by_key(|place| match place {
            TokenLocation::Header(..) => 0,
            TokenLocation::Parameter(_) => 1,
            TokenLocation::Cookie(_) => 2,
        });
        let mut result = Err(Refusal::Missing);
        for located in token::find(places, passing.head).into_iter().rev() {
            result = match self.issuer_of(&located) {
                Ok(position) => {
                    let checked = self.token(position, None, located, passing).await;
                    tell_failure(&self.config.providers[position], &checked, passing);
                    checked
                }
                Err(refusal) => Err(refusal),
            };
        }
        result
    }

    /// Whose a token says that it is: one of those who may have theirs at its place must know the issuer.
    fn issuer_of(&self, located: &Located) -> Result<usize, Refusal> {
        let token = Token::parse(&located.text)?;
        let providers = &self.config.providers;
        let is_of = |provider: &JwtProvider| provider.issuer.as_deref() == Some(token.issuer());
        let mut those = providers
            .iter()
            .filter(|provider| provider.locations.contains(&located.location));
        if !those.any(|provider| provider.issuer.is_none() || is_of(provider)) {
            return Err(Refusal::UnknownIssuer);
        }
        let named = providers.iter().position(is_of);
        named
            .or_else(|| providers.iter().position(|one| one.issuer.is_none()))
            .ok_or(Refusal::UnknownIssuer)
    }

    /// All tokens that are where the provider's are must be valid, and one must be there.
    async fn provider(
        &self,
        position: usize,
        audiences: Option<&[std::sync::Arc<str>]>,
        passing: &mut Passing<'_>,
    ) -> Result<(), Refusal> {
        let provider = &self.config.providers[position];
        let found = token::find(&provider.locations, passing.head);
        let mut result = match found.is_empty() {
            true => Err(Refusal::Missing),
            false => Ok(()),
        };
        for located in found.into_iter().rev() {
            result = self.token(position, audiences, located, passing).await;
            if result.is_err() {
                break;
            }
        }
        tell_failure(provider, &result, passing);
        result
    }

    async fn token(
        &self,
        position: usize,
        audiences: Option<&[std::sync::Arc<str>]>,
        located: Located,
        passing: &mut Passing<'_>,
    ) -> Result<(), Refusal> {
        let provider = &self.config.providers[position];
        let token = Token::parse(&located.text)?;
        token.check_claims(provider, audiences, std::time::SystemTime::now())?;
        let (connection, scene) = (passing.connection, passing.scene);
        let keys = &self.state.keys[position];
        let keys = keys
            .current(&connection.environment, &scene.snapshot, &self.state.stats)
            .await
            .ok_or(Refusal::FetchFailed)?;
        token.check_signature(&keys)?;
        tell(provider, &token, &located, passing);
        Ok(())
    }
}

/// What becomes of a token that is not valid. As in Envoy, nothing is told where there is none.
fn tell_failure(provider: &JwtProvider, result: &Result<(), Refusal>, passing: &mut Passing<'_>) {
    if let (Err(refusal), Some(key)) = (result, &provider.failure_metadata)
        && *refusal != Refusal::Missing
    {
        let failed = json!({"code": refusal.code(), "message": refusal.to_string()});
        let completion = &mut *passing.completion;
        completion.with_metadata(|metadata| metadata.put(NAMESPACE, key, failed));
    }
}

/// What becomes of a token that is valid.
fn tell(provider: &JwtProvider, token: &Token<'_>, located: &Located, passing: &mut Passing<'_>) {
    let mut has_changed = false;
    let headers = &mut passing.head.headers;
    let mut set = |name: &HeaderName, value: String| {
        if let Ok(value) = HeaderValue::try_from(value) {
            headers.append(name.clone(), value);
            has_changed = true;
        }
    };
    if let Some(name) = &provider.payload_header {
        set(name, token.payload(provider.pads_payload));
    }
    for (name, path) in &provider.claim_headers {
        if let Some(text) = token.claim_text(path) {
            set(name, text);
        }
    }
    if !provider.forwards {
        located.remove(passing.head);
    }
    passing.passage.is_rerouted |= provider.clears_route && has_changed;
    passing.completion.with_metadata(|metadata| {
        if let Some(key) = &provider.payload_metadata {
            metadata.put(NAMESPACE, key, token.claims.clone().into());
        }
        if let Some(key) = &provider.header_metadata {
            metadata.put(NAMESPACE, key, token.header.clone().into());
        }
    });
}

fn denied(
    config: &JwtAuthnConfig,
    state: &State,
    refusal: &Refusal,
    passing: &Passing<'_>,
) -> Failure {
    state.stats.denied.increment();
    let status = match refusal {
        Refusal::Audience => StatusCode::FORBIDDEN,
        _ => StatusCode::UNAUTHORIZED,
    };
    let reason = refusal.to_string();
    let details = format!("jwt_authn_access_denied{{{}}}", reason.replace(' ', "_"));
    let mut reply = LocalReply::new(status, &details);
    if !config.hides_reasons {
        reply.body = Bytes::from(reason);
        if let Ok(challenge) = HeaderValue::try_from(challenge(refusal, passing)) {
            reply.headers.push((header::WWW_AUTHENTICATE, challenge));
        }
    }
    Failure::Answered(Box::new(reply))
}

fn misconfigured(state: &State, name: &str) -> Failure {
    state.stats.denied.increment();
    let mut reply = LocalReply::new(StatusCode::FORBIDDEN, "jwt_authn_access_denied");
    reply.body = Bytes::from(format!(
        "Failed JWT authentication: Wrong requirement_name: {name}"
    ));
    Failure::Answered(Box::new(reply))
}

/// RFC 6750 §3.
fn challenge(refusal: &Refusal, passing: &Passing<'_>) -> String {
    let line = passing.line();
    let path = match line.path.char_indices().nth(MAX_REALM) {
        Some((end, _)) => &line.path[..end],
        None => line.path,
    };
    let realm = format!("{}://{}{path}", line.scheme, line.authority);
    match refusal {
        Refusal::Missing => format!("Bearer realm=\"{realm}\""),
        _ => format!("Bearer realm=\"{realm}\", error=\"invalid_token\""),
    }
}
