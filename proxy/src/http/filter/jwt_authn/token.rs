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
    #[error("Jwt {0} is an invalid Base64url encoded")]
    NoBase64(&'static str),
    #[error("Jwt {0} is an invalid JSON")]
    NoJson(&'static str),
    #[error("Jwt header [alg] field is missing or not a string")]
    NoAlgorithm,
    #[error("Jwt header [alg] is not supported")]
    Algorithm,
    #[error("Jwt header [kid] field is not a string")]
    NoKeyName,
    #[error("Jwt payload [{0}] field is not a string")]
    NoText(&'static str),
    #[error("Jwt payload [{0}] field is not an integer")]
    NoInteger(&'static str),
    #[error("Jwt payload [{0}] field is not a positive 64 bit integer")]
    OutOfRange(&'static str),
    #[error("Jwt payload [aud] field is not a string or string list")]
    NoAudiences,
    #[error("Jwt issuer is not configured")]
    UnknownIssuer,
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    #[error("Jwt is expired")]
    Expired,
    #[error("Jwt not yet valid")]
    NotYetValid,
    #[error("Jwks remote fetch is failed")]
    FetchFailed,
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoKey,
    /// The signature, or what Envoy says nothing more about: the subject, or a lifetime that is too long.
    #[error("Jwt verification fails")]
    Verification,
}

impl Refusal {
    /// The number that Envoy has for it, for metadata.
    pub(super) fn code(self) -> u32 {
        match self {
            Refusal::Missing => 1,
            Refusal::NotYetValid => 2,
            Refusal::Expired => 3,
            Refusal::Form => 4,
            Refusal::NoBase64("header") => 5,
            Refusal::NoJson("header") => 6,
            Refusal::NoAlgorithm => 7,
            Refusal::Algorithm => 8,
            Refusal::NoKeyName => 9,
            Refusal::NoBase64(_) => 10,
            Refusal::NoJson(_) => 11,
            Refusal::NoText("iss") => 12,
            Refusal::NoText("sub") => 13,
            Refusal::NoInteger("iat") => 14,
            Refusal::OutOfRange("iat") => 15,
            Refusal::NoInteger("nbf") => 16,
            Refusal::OutOfRange("nbf") => 17,
            Refusal::NoInteger(_) => 18,
            Refusal::OutOfRange(_) => 19,
            Refusal::NoText(_) => 20,
            Refusal::NoAudiences => 21,
            Refusal::UnknownIssuer => 24,
            Refusal::Audience => 25,
            Refusal::Verification => 26,
            Refusal::NoKey => 32,
            Refusal::FetchFailed => 36,
        }
    }
}

/// A token, and where it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Located {
    pub(super) text: String,
    pub(super) location: TokenLocation,
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
pub(super) fn find<'l>(
    locations: impl IntoIterator<Item = &'l TokenLocation>,
    head: &Head,
) -> Vec<Located> {
    let mut found = vec![];
    for location in locations {
        let text = match location {
            TokenLocation::Header(name, prefix) => {
                let values = head.headers.get_all(name).iter();
                let values: Vec<_> = values
                    .map(|value| String::from_utf8_lossy(value.as_bytes()))
                    .collect();
                // Several lines are one list, so that no line hides the token of another.
                after(&values.join(","), prefix).map(str::to_owned)
            }
            TokenLocation::Parameter(name) => parameter(head.path(), name).map(str::to_owned),
            TokenLocation::Cookie(name) => cookie(&head.headers, name).map(str::to_owned),
        };
        found.extend(text.map(|text| Located {
            text,
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
        let header = object("header", head)?;
        let named = header.get("alg").and_then(Value::as_str);
        let named = named.ok_or(Refusal::NoAlgorithm)?;
        let algorithm = named.parse().map_err(|_| Refusal::Algorithm)?;
        if header.get("kid").is_some_and(|kid| !kid.is_string()) {
            return Err(Refusal::NoKeyName);
        }
        let claims = object("payload", payload)?;
        check_types(&claims)?;
        Ok(Token {
            header,
            claims,
            algorithm,
            signed,
            payload,
            signature,
        })
    }

    /// Who says that it has made the token.
    pub(super) fn issuer(&self) -> &str {
        self.text("iss")
    }

    fn text(&self, name: &str) -> &str {
        let claim = self.claims.get(name);
        claim.and_then(Value::as_str).unwrap_or_default()
    }

    /// Whether it is of the provider, for whom it should be, and in time. In Envoy's order, which decides what the
    /// caller is told.
    pub(super) fn check_claims(
        &self,
        provider: &JwtProvider,
        audiences: Option<&[Arc<str>]>,
        now: SystemTime,
    ) -> Result<(), Refusal> {
        let issuer = provider.issuer.as_deref();
        if issuer.is_some_and(|wanted| wanted != self.issuer()) {
            return Err(Refusal::UnknownIssuer);
        }
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        self.check_time(provider.clock_skew, now)?;
        let wanted = audiences.unwrap_or(&provider.audiences);
        let is_wanted = |has: &str| wanted.iter().any(|one| is_same(one, has));
        if !wanted.is_empty() && !self.audiences().any(is_wanted) {
            return Err(Refusal::Audience);
        }
        let subjects = provider.subjects.as_ref();
        if subjects.is_some_and(|test| !test.is_match(self.text("sub"))) {
            return Err(Refusal::Verification);
        }
        self.check_lifetime(provider, now)
    }

    /// When something is, or was; never where it is said to be at 0.
    fn at(&self, name: &str) -> Option<Duration> {
        let seconds = self.claims.get(name)?.as_f64()?;
        Duration::try_from_secs_f64(seconds.trunc())
            .ok()
            .filter(|at| !at.is_zero())
    }

    /// Whether it is between its beginning and its end, both in whole seconds.
    fn check_time(&self, skew: Duration, now: Duration) -> Result<(), Refusal> {
        let now = Duration::from_secs(now.as_secs());
        if self.at("nbf").is_some_and(|begins| begins > now + skew) {
            return Err(Refusal::NotYetValid);
        }
        match self.at("exp") {
            Some(end) if now > end.saturating_add(skew) => Err(Refusal::Expired),
            _ => Ok(()),
        }
    }

    /// Whether it ends where it must, and soon enough: what counts is the time that is left.
    fn check_lifetime(&self, provider: &JwtProvider, now: Duration) -> Result<(), Refusal> {
        let is_allowed = match (self.at("exp"), provider.max_lifetime) {
            (None, None) => !provider.requires_expiration,
            (None, Some(_)) => false,
            (Some(_), None) => true,
            (Some(end), Some(max)) => end.saturating_sub(now) <= max,
        };
        match is_allowed {
            true => Ok(()),
            false => Err(Refusal::Verification),
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
            false => Err(Refusal::Verification),
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
            Value::Number(number) => Some(number_text(number)),
            other => Some(BASE64_URL_SAFE.encode(other.to_string())),
        }
    }
}

/// Registered claims (RFC 7519 §4.1) are what they have to be, or not there.
fn check_types(claims: &Map<String, Value>) -> Result<(), Refusal> {
    let is_text = |name: &str| claims.get(name).is_none_or(Value::is_string);
    for name in ["iss", "sub"] {
        if !is_text(name) {
            return Err(Refusal::NoText(name));
        }
    }
    for name in ["iat", "nbf", "exp"] {
        check_moment(name, claims.get(name))?;
    }
    if !is_text("jti") {
        return Err(Refusal::NoText("jti"));
    }
    match claims.get("aud") {
        None | Some(Value::String(_)) => Ok(()),
        Some(Value::Array(all)) if all.iter().all(Value::is_string) => Ok(()),
        Some(_) => Err(Refusal::NoAudiences),
    }
}

fn check_moment(name: &'static str, claim: Option<&Value>) -> Result<(), Refusal> {
    /// 2^63: what 64 bits hold as a signed integer.
    const END: f64 = 9_223_372_036_854_775_808.0;
    let Some(claim) = claim else { return Ok(()) };
    let seconds = claim.as_f64().ok_or(Refusal::NoInteger(name))?;
    match (0.0..END).contains(&seconds) {
        true => Ok(()),
        false => Err(Refusal::OutOfRange(name)),
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

fn object(name: &'static str, part: &str) -> Result<Map<String, Value>, Refusal> {
    let bytes = BASE64_URL_SAFE_NO_PAD
        .decode(part)
        .map_err(|_| Refusal::NoBase64(name))?;
    serde_json::from_slice(&bytes).map_err(|_| Refusal::NoJson(name))
}

/// A number as Envoy writes it: whole ones from 0 on as such, others with six digits after the point.
fn number_text(number: &serde_json::Number) -> String {
    match (number.as_u64(), number.as_f64()) {
        (Some(whole), _) => whole.to_string(),
        (None, Some(float)) => format!("{float:.6}"),
        (None, None) => number.to_string(),
    }
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

        assert_eq!(of(json!({"iss": "issuer"})), Err(Refusal::Verification));
        assert_eq!(
            of(json!({"iss": "issuer", "exp": 0})),
            Err(Refusal::Verification)
        );
        assert_eq!(
            of(json!({"iss": "issuer", "exp": 1011})),
            Err(Refusal::Verification)
        );
        // What is left of it counts, and not how long ago it was made.
        assert_eq!(of(json!({"iss": "issuer", "iat": 1, "exp": 1010})), Ok(()));
    }

    #[test]
    fn registered_claims_of_other_types_are_named() {
        let of = |claims| checked(&provider(), &claims);

        assert_eq!(of(json!({"iss": 5})), Err(Refusal::NoText("iss")));
        assert_eq!(of(json!({"exp": "x"})), Err(Refusal::NoInteger("exp")));
        assert_eq!(of(json!({"exp": -1})), Err(Refusal::OutOfRange("exp")));
        assert_eq!(of(json!({"nbf": 1e30})), Err(Refusal::OutOfRange("nbf")));
        assert_eq!(of(json!({"aud": ["a", 5]})), Err(Refusal::NoAudiences));
        assert_eq!(Refusal::NoText("jti").code(), 20);
    }

    #[test]
    fn a_token_that_ends_at_0_never_ends() {
        let claims = json!({"iss": "issuer", "exp": 0});

        assert_eq!(checked(&provider(), &claims), Ok(()));
    }

    #[test]
    fn what_is_no_token_is_said_to_be_none() {
        let refused = |text: &str| Token::parse(text).map(|_| ()).expect_err("refused");

        assert_eq!(refused("abc"), Refusal::Form);
        assert_eq!(refused("a.b.c.d"), Refusal::Form);
        assert_eq!(refused("!.b.c"), Refusal::NoBase64("header"));
        assert_eq!(
            refused("eyJhbGciOiJFUzI1NiJ9.e30x.c"),
            Refusal::NoJson("payload")
        );
        assert_eq!(refused("e30.e30.c"), Refusal::NoAlgorithm);
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
        let text = unsigned(
            &json!({"sub": "a", "n": 7, "part": -0.5, "deep": {"ok": true}, "list": ["x"]}),
        );
        let token = Token::parse(&text).expect("a token");
        let claim = |path: &[&str]| {
            let path: Vec<_> = path.iter().map(|key| Arc::from(*key)).collect();
            token.claim_text(&path)
        };

        assert_eq!(claim(&["sub"]), Some("a".into()));
        assert_eq!(claim(&["n"]), Some("7".into()));
        assert_eq!(claim(&["part"]), Some("-0.500000".into()));
        assert_eq!(claim(&["deep", "ok"]), Some("true".into()));
        assert_eq!(claim(&["list"]), Some(BASE64_URL_SAFE.encode("[\"x\"]")));
        assert_eq!(claim(&["none"]), None);
    }
}
