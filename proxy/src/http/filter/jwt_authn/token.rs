//! One token: where it is found, what it says, and whether that is to be believed.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::{BASE64_URL_SAFE, BASE64_URL_SAFE_NO_PAD};
use http::header::{self, HeaderMap};
use jsonwebtoken::Algorithm;
use serde_json::{Map, Value};

use super::keys::KeySet;
use crate::config::filter::header_mutation::QueryChange;
use crate::config::filter::jwt_authn::{JwtProvider, TokenLocation};
use crate::http::filter::header_mutation::change_query;
use crate::http::headers::Head;

/// Why a token does not do, in Envoy's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    #[error("Jwt is missing")]
    Missing,
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    Form,
    #[error("Jwt header is an invalid Base64url encoded or has bad JSON")]
    Header,
    #[error("Jwt payload is an invalid Base64url encoded or has bad JSON")]
    Payload,
    #[error("Jwt header [alg] is not supported")]
    Algorithm,
    #[error("Jwt issuer is not configured")]
    UnknownIssuer,
    #[error("Jwt subject is not allowed")]
    Subject,
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    #[error("Jwt is expired")]
    Expired,
    #[error("Jwt not yet valid")]
    NotYetValid,
    #[error("Jwt must have an expiration")]
    NoExpiration,
    #[error("Jwt lifetime is too long")]
    Lifetime,
    #[error("Jwks remote fetch is failed")]
    FetchFailed,
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoKey,
    #[error("Jwt verification fails")]
    Signature,
}

impl Refusal {
    /// A number, for metadata.
    pub(super) fn code(self) -> u32 {
        self as u32
    }
}

/// A token, and where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) text: String,
    location: TokenLocation,
}

impl Located {
    /// Takes it out of a request; as in Envoy, a cookie stays.
    pub(super) fn remove(&self, head: &mut Head) {
        match &self.location {
            TokenLocation::Header(name, _) => {
                head.headers.remove(name);
            }
            TokenLocation::Parameter(name) => {
                let change = QueryChange::Remove(Arc::clone(name));
                change_query(&[change], &mut head.path, |_| String::new());
            }
            TokenLocation::Cookie(_) => {}
        }
    }
}

/// All tokens at these places.
pub(super) fn find(locations: &[TokenLocation], head: &Head) -> Vec<Located> {
    let mut found = vec![];
    for location in locations {
        let text = match location {
            TokenLocation::Header(name, prefix) => {
                let value = head.headers.get(name).and_then(|value| value.to_str().ok());
                value.and_then(|value| after(value, prefix))
            }
            TokenLocation::Parameter(name) => parameter(head.path(), name),
            TokenLocation::Cookie(name) => cookie(&head.headers, name),
        };
        found.extend(text.map(|text| Located {
            text: text.to_owned(),
            location: location.clone(),
        }));
    }
    found
}

/// Envoy: the prefix may be anywhere, and the token goes up to what cannot be in one.
fn after<'a>(value: &'a str, prefix: &str) -> Option<&'a str> {
    let start = match prefix {
        "" => 0,
        prefix => value.find(prefix)? + prefix.len(),
    };
    let rest = value[start..].trim_start();
    let is_outside = |character: char| {
        !(character.is_ascii_alphanumeric() || matches!(character, '-' | '_' | '.' | '='))
    };
    let token = &rest[..rest.find(is_outside).unwrap_or(rest.len())];
    (!token.is_empty()).then_some(token)
}

fn parameter<'a>(path: &'a str, name: &str) -> Option<&'a str> {
    let (_, query) = path.split_once('?')?;
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    (!value.is_empty()).then_some(value)
}

fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    let cookies = headers.get_all(header::COOKIE).iter();
    let mut pairs = cookies
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    let (_, value) = pairs.find(|(key, _)| *key == name)?;
    Some(value)
}

/// A token that has been taken apart.
#[derive(Debug)]
pub(super) struct Token<'t> {
    pub(super) header: Map<String, Value>,
    pub(super) claims: Map<String, Value>,
    algorithm: Algorithm,
    /// What is signed.
    signed: &'t str,
    payload: &'t str,
    signature: &'t str,
}

impl<'t> Token<'t> {
    /// Takes a token apart. Believes nothing of it.
    pub(super) fn parse(text: &'t str) -> Result<Self, Refusal> {
        let (signed, signature) = text.rsplit_once('.').ok_or(Refusal::Form)?;
        let (head, payload) = signed.split_once('.').ok_or(Refusal::Form)?;
        if payload.contains('.') {
            return Err(Refusal::Form);
        }
        let header = object(head).ok_or(Refusal::Header)?;
        let claims = object(payload).ok_or(Refusal::Payload)?;
        let named = header.get("alg").and_then(Value::as_str);
        let algorithm = named
            .and_then(|name| name.parse().ok())
            .ok_or(Refusal::Algorithm)?;
        Ok(Token {
            header,
            claims,
            algorithm,
            signed,
            payload,
            signature,
        })
    }

    /// Whether it is of the provider, for whom it should be, and in time.
    pub(super) fn check_claims(
        &self,
        provider: &JwtProvider,
        audiences: Option<&[Arc<str>]>,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let text = |name: &str| self.claims.get(name).and_then(Value::as_str);
        let issuer = text("iss").unwrap_or_default();
        if provider
            .issuer
            .as_deref()
            .is_some_and(|wanted| wanted != issuer)
        {
            return Err(Refusal::UnknownIssuer);
        }
        let subject = text("sub").unwrap_or_default();
        if provider
            .subjects
            .as_ref()
            .is_some_and(|test| !test.is_match(subject))
        {
            return Err(Refusal::Subject);
        }
        self.check_time(provider, now)?;
        let wanted = audiences.unwrap_or(&provider.audiences);
        if wanted.is_empty()
            || self
                .audiences()
                .any(|has| wanted.iter().any(|one| is_same(one, has)))
        {
            return Ok(());
        }
        Err(Refusal::Audience)
    }

    fn check_time(&self, provider: &JwtProvider, now: SystemTime) -> Result<(), Refusal> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        let at = |name: &str| {
            let seconds = self.claims.get(name)?.as_f64()?;
            Some(Duration::try_from_secs_f64(seconds).unwrap_or_default())
        };
        let expires = at("exp");
        if at("nbf").is_some_and(|begins| begins > now + provider.clock_skew) {
            return Err(Refusal::NotYetValid);
        }
        if expires.is_some_and(|end| now > end.saturating_add(provider.clock_skew)) {
            return Err(Refusal::Expired);
        }
        if expires.is_none() && (provider.requires_expiration || provider.max_lifetime.is_some()) {
            return Err(Refusal::NoExpiration);
        }
        let lifetime = expires.map(|end| end.saturating_sub(at("iat").unwrap_or(now)));
        match (lifetime, provider.max_lifetime) {
            (Some(lifetime), Some(max)) if lifetime > max => Err(Refusal::Lifetime),
            _ => Ok(()),
        }
    }

    fn audiences(&self) -> impl Iterator<Item = &str> {
        let several = match self.claims.get("aud") {
            Some(Value::Array(all)) => &all[..],
            Some(one) => std::slice::from_ref(one),
            None => &[],
        };
        several.iter().filter_map(Value::as_str)
    }

    /// Whether one of the keys has signed it.
    pub(super) fn check_signature(&self, keys: &KeySet) -> Result<(), Refusal> {
        let id = self.header.get("kid").and_then(Value::as_str);
        let mut fitting = keys.fitting(id, self.algorithm).peekable();
        if fitting.peek().is_none() {
            return Err(Refusal::NoKey);
        }
        let has_signed = |key: &jsonwebtoken::DecodingKey| {
            let message = self.signed.as_bytes();
            jsonwebtoken::crypto::verify(self.signature, message, key, self.algorithm)
                .unwrap_or(false)
        };
        match fitting.any(has_signed) {
            true => Ok(()),
            false => Err(Refusal::Signature),
        }
    }

    /// The payload as it is in the token.
    pub(super) fn payload(&self, is_padded: bool) -> String {
        let mut payload = self.payload.to_owned();
        while is_padded && !payload.len().is_multiple_of(4) {
            payload.push('=');
        }
        payload
    }

    /// A claim as a text; objects and lists as the base64 of their JSON.
    pub(super) fn claim_text(&self, path: &[Arc<str>]) -> Option<String> {
        let (first, rest) = path.split_first()?;
        let mut value = self.claims.get(&**first)?;
        for key in rest {
            value = value.get(&**key)?;
        }
        match value {
            Value::Null => None,
            Value::String(text) => Some(text.clone()),
            Value::Bool(truth) => Some(truth.to_string()),
            Value::Number(number) => Some(number.to_string()),
            other => Some(BASE64_URL_SAFE.encode(other.to_string())),
        }
    }
}

/// Envoy: schemes and slashes at the end are not told apart.
fn is_same(wanted: &str, has: &str) -> bool {
    bare(wanted) == bare(has)
}

fn bare(audience: &str) -> &str {
    let audience = audience.strip_suffix('/').unwrap_or(audience);
    let bare = audience.strip_prefix("https://");
    bare.or_else(|| audience.strip_prefix("http://"))
        .unwrap_or(audience)
}

fn object(part: &str) -> Option<Map<String, Value>> {
    let bytes = BASE64_URL_SAFE_NO_PAD.decode(part).ok()?;
    serde_json::from_slice(&bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::config::filter::jwt_authn::KeySource;

    fn provider() -> JwtProvider {
        JwtProvider {
            name: "p".into(),
            issuer: Some("issuer".into()),
            audiences: vec![],
            subjects: None,
            requires_expiration: false,
            max_lifetime: None,
            clock_skew: Duration::from_secs(60),
            keys: KeySource::Local("{\"keys\":[]}".into()),
            locations: vec![],
            forwards: false,
            payload_header: None,
            pads_payload: false,
            payload_metadata: None,
            header_metadata: None,
            failure_metadata: None,
            claim_headers: vec![],
            clears_route: false,
        }
    }

    fn unsigned(claims: &Value) -> String {
        let part = |value: &Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        format!("{}.{}.c2ln", part(&json!({"alg": "ES256"})), part(claims))
    }

    fn checked(provider: &JwtProvider, claims: &Value) -> Result<(), Refusal> {
        let text = unsigned(claims);
        let now = UNIX_EPOCH + Duration::from_secs(1000);
        Token::parse(&text)?.check_claims(provider, None, now)
    }

    #[test]
    fn a_token_is_valid_in_its_time_give_or_take_the_skew() {
        let at = |claims| checked(&provider(), &claims);

        assert_eq!(at(json!({"iss": "issuer", "exp": 940})), Ok(()));
        assert_eq!(
            at(json!({"iss": "issuer", "exp": 939})),
            Err(Refusal::Expired)
        );
        assert_eq!(at(json!({"iss": "issuer", "nbf": 1060})), Ok(()));
        assert_eq!(
            at(json!({"iss": "issuer", "nbf": 1061})),
            Err(Refusal::NotYetValid)
        );
        assert_eq!(at(json!({"iss": "other"})), Err(Refusal::UnknownIssuer));
    }

    #[test]
    fn an_audience_is_compared_without_its_scheme() {
        let provider = JwtProvider {
            audiences: vec!["https://a.example/".into()],
            ..provider()
        };
        let of = |audience| checked(&provider, &json!({"iss": "issuer", "aud": audience}));

        assert_eq!(of(json!("a.example")), Ok(()));
        assert_eq!(of(json!(["b.example", "http://a.example"])), Ok(()));
        assert_eq!(of(json!("b.example")), Err(Refusal::Audience));
    }

    #[test]
    fn a_token_without_an_end_is_refused_where_one_must_be() {
        let provider = JwtProvider {
            max_lifetime: Some(Duration::from_secs(10)),
            ..provider()
        };
        let of = |claims| checked(&provider, &claims);

        assert_eq!(of(json!({"iss": "issuer"})), Err(Refusal::NoExpiration));
        assert_eq!(
            of(json!({"iss": "issuer", "iat": 1000, "exp": 1011})),
            Err(Refusal::Lifetime)
        );
        assert_eq!(
            of(json!({"iss": "issuer", "iat": 1000, "exp": 1010})),
            Ok(())
        );
    }

    #[test]
    fn what_is_no_token_is_said_to_be_none() {
        let refused = |text: &str| Token::parse(text).map(|_| ()).expect_err("refused");

        assert_eq!(refused("abc"), Refusal::Form);
        assert_eq!(refused("a.b.c.d"), Refusal::Form);
        assert_eq!(refused("!.b.c"), Refusal::Header);
        assert_eq!(refused("eyJhbGciOiJub25lIn0.e30.x"), Refusal::Algorithm);
    }

    #[test]
    fn a_token_is_found_after_its_prefix() {
        assert_eq!(after("Bearer abc.def.ghi", "Bearer "), Some("abc.def.ghi"));
        assert_eq!(after("Basic abc", "Bearer "), None);
        assert_eq!(after("Bearer ", "Bearer "), None);
        assert_eq!(
            parameter("/a?access_token=x.y.z&b", "access_token"),
            Some("x.y.z")
        );
    }

    #[test]
    fn a_claim_becomes_a_text() {
        let text = unsigned(&json!({"sub": "a", "n": 7, "deep": {"ok": true}, "list": ["x"]}));
        let token = Token::parse(&text).expect("a token");
        let claim = |path: &[&str]| {
            let path: Vec<_> = path.iter().map(|key| Arc::from(*key)).collect();
            token.claim_text(&path)
        };

        assert_eq!(claim(&["sub"]), Some("a".into()));
        assert_eq!(claim(&["n"]), Some("7".into()));
        assert_eq!(claim(&["deep", "ok"]), Some("true".into()));
        assert_eq!(claim(&["list"]), Some(BASE64_URL_SAFE.encode("[\"x\"]")));
        assert_eq!(claim(&["none"]), None);
    }
}
