//! What is fuzzed of tokens: what they say, and whether it is believed.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Uri, header};

use super::keys::KeySet;
use super::token::{Token, find};
use crate::config::filter::jwt_authn::{JwtProvider, KeySource, TokenLocation};
use crate::http::headers::Head;

/// The key of RFC 7515, appendix A.2.
const KEYS: &str = r#"{"keys":[{"kty":"RSA","alg":"RS256","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}]}"#;
/// What of the only token in the world that is signed with it is signed.
const SIGNED: &str = "eyJhbGciOiJSUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.";

/// No token is believed that was not signed; the rest of it may be anything.
pub(in crate::http::filter) fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    find_everywhere(text);
    let Ok(token) = Token::parse(text) else {
        return;
    };
    let keys = KeySet::of(KEYS.as_bytes()).expect("keys");
    if token.check_signature(&keys).is_ok() {
        assert!(text.starts_with(SIGNED), "{text}");
    }
    check_claims(&token);
}

fn check_claims(token: &Token<'_>) {
    for (skew, max_lifetime) in [
        (0, None),
        (60, Some(10)),
        (u64::from(u32::MAX), Some(u64::MAX)),
    ] {
        let provider = provider(skew, max_lifetime);
        for now in [SystemTime::UNIX_EPOCH, SystemTime::now()] {
            let _ = token.check_claims(&provider, None, now);
        }
    }
    for path in [&["iss"][..], &["a", "b"], &["exp"]] {
        let path: Vec<Arc<str>> = path.iter().map(|key| Arc::from(*key)).collect();
        if let Some(text) = token.claim_text(&path) {
            let _ = HeaderValue::try_from(text);
        }
    }
    let _ = token.payload(true);
}

/// What is found is in the request, and is gone when it is taken out.
fn find_everywhere(text: &str) {
    let mut headers = HeaderMap::new();
    for name in [header::AUTHORIZATION, header::COOKIE] {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    }
    let path = PathAndQuery::try_from(format!("/?{text}"));
    let mut head = Head {
        scheme: "http",
        method: Method::GET,
        path: path.unwrap_or(PathAndQuery::from_static("/")),
        authority: None,
        headers,
        uri: Uri::default(),
        extensions: Default::default(),
    };
    let authorization = |prefix: &str| TokenLocation::Header(header::AUTHORIZATION, prefix.into());
    let locations = [
        authorization(""),
        authorization("Bearer "),
        TokenLocation::Parameter("access_token".into()),
        TokenLocation::Cookie("a".into()),
        TokenLocation::Header(HeaderName::from_static("x-none"), "".into()),
    ];
    for located in find(&locations, &head) {
        assert!(text.contains(&located.text));
        located.remove(&mut head);
    }
}

/// A key set and a token, by an empty line: keys that are none are passed over.
pub(in crate::http::filter) fn keys(bytes: &[u8]) {
    let at = bytes.windows(2).position(|pair| pair == b"\n\n");
    let (set, text) = bytes.split_at(at.unwrap_or(bytes.len()));
    let Some(keys) = KeySet::of(set) else {
        return;
    };
    let Ok(text) = std::str::from_utf8(text.trim_ascii()) else {
        return;
    };
    if let Ok(token) = Token::parse(text) {
        let _ = token.check_signature(&keys);
    }
}

fn provider(clock_skew: u64, max_lifetime: Option<u64>) -> JwtProvider {
    JwtProvider {
        name: "p".into(),
        issuer: None,
        audiences: vec!["https://a.example/".into()],
        subjects: None,
        requires_expiration: max_lifetime.is_some(),
        max_lifetime: max_lifetime.map(Duration::from_secs),
        clock_skew: Duration::from_secs(clock_skew),
        keys: KeySource::Local(KEYS.into()),
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
