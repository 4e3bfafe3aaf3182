//! JSON web tokens.

use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use http::StatusCode;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};

use super::{asking, counted, filter, proxy, proxy_with, typed};
use crate::client::{Client, Got};
use crate::config::cluster;
use crate::proxy::Proxy;
use crate::upstream::{Upstream, nobody, text};

/// Somebody who signs.
struct Signer {
    key: EncodingKey,
    algorithm: Algorithm,
    /// Its public key (RFC 7517).
    public: Value,
}

impl Signer {
    fn new(algorithm: Algorithm) -> Self {
        let kind = match algorithm {
            Algorithm::EdDSA => &rcgen::PKCS_ED25519,
            _ => &rcgen::PKCS_ECDSA_P256_SHA256,
        };
        let pair = rcgen::KeyPair::generate_for(kind).unwrap();
        let der = pair.serialize_der();
        let part = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let raw = pair.public_key_raw();
        let (key, public) = match algorithm {
            Algorithm::EdDSA => {
                let public = json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": part(raw)});
                (EncodingKey::from_ed_der(&der), public)
            }
            _ => {
                // An uncompressed point: a 4, then both coordinates.
                let (x, y) = (part(&raw[1..33]), part(&raw[33..]));
                let public = json!({"kty": "EC", "crv": "P-256", "kid": "one", "x": x, "y": y});
                (EncodingKey::from_ec_der(&der), public)
            }
        };
        Signer {
            key,
            algorithm,
            public,
        }
    }

    /// Its public key, as a set.
    fn keys(&self) -> String {
        json!({"keys": [self.public]}).to_string()
    }

    fn token(&self, mut claims: Value) -> String {
        claims["iss"] = "issuer".into();
        let mut header = Header::new(self.algorithm);
        header.kid = Some("one".into());
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap().as_secs()
}

fn jwt_authn(provider: &Value, requirement: &Value) -> Value {
    filter(
        "jwt_authn.v3.JwtAuthentication",
        json!({
            "providers": {"p": provider},
            "rules": [
                {"match": {"path": "/public"}},
                {"match": {"prefix": "/"}, "requires": requirement},
            ],
            "requirement_map": {"named": {"provider_name": "p"}},
        }),
    )
}

fn local(keys: &str, more: Value) -> Value {
    let mut provider = json!({"issuer": "issuer", "local_jwks": {"inline_string": keys}});
    let own = provider.as_object_mut().unwrap();
    own.extend(more.as_object().unwrap().clone());
    provider
}

async fn get(proxy: &Proxy, token: &str) -> Got {
    let bearer = format!("Bearer {token}");
    let asked = asking("GET", "/", &[("authorization", &bearer)]);
    Client::http1(proxy.address).await.send(asked).await
}

#[tokio::test]
async fn a_valid_token_passes_and_is_told_to_the_upstream() {
    let upstream = Upstream::echoing().await;
    for algorithm in [Algorithm::ES256, Algorithm::EdDSA] {
        let signer = Signer::new(algorithm);
        let provider = local(
            &signer.keys(),
            json!({
                "forward_payload_header": "x-payload",
                "claim_to_headers": [{"header_name": "x-user", "claim_name": "sub"}],
                "payload_in_metadata": "claims",
            }),
        );
        let filters = vec![jwt_authn(&provider, &json!({"provider_name": "p"}))];
        let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;

        let got = get(
            &proxy,
            &signer.token(json!({"sub": "jason", "exp": now() + 60})),
        )
        .await;

        assert_eq!(got.status, 200, "{algorithm:?}: {}", got.body);
        assert!(got.body.contains("x-user: jason\n"), "{}", got.body);
        assert!(got.body.contains("x-payload: ey"), "{}", got.body);
        assert!(!got.body.contains("authorization"), "{}", got.body);
        let report = proxy.reports.request(0).await;
        let sub = report
            .metadata
            .at("envoy.filters.http.jwt_authn", ["claims", "sub"]);
        assert_eq!(sub, Some(&json!("jason")));
        assert_eq!(counted(&proxy)["http.test.jwt_authn.allowed"], 1);
    }
}

#[tokio::test]
async fn what_is_wrong_with_a_token_is_said_in_envoys_words() {
    let upstream = Upstream::named("fine").await;
    let (signer, other) = (Signer::new(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let provider = local(&signer.keys(), json!({"audiences": ["shop"]}));
    let filters = vec![jwt_authn(&provider, &json!({"provider_name": "p"}))];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;
    let fine = json!({"aud": "shop", "exp": now() + 60});

    let missing = proxy.get("/").await;
    let expired = get(
        &proxy,
        &signer.token(json!({"aud": "shop", "exp": now() - 120})),
    )
    .await;
    let forged = get(&proxy, &other.token(fine.clone())).await;
    let elsewhere = get(&proxy, &signer.token(json!({"aud": "bank"}))).await;
    let garbage = get(&proxy, "abc").await;
    let right = get(&proxy, &signer.token(fine)).await;

    let said: Vec<_> = [&missing, &expired, &forged, &elsewhere, &garbage]
        .iter()
        .map(|got| (got.status.as_u16(), got.body.as_str()))
        .collect();
    assert_eq!(
        said,
        [
            (401, "Jwt is missing"),
            (401, "Jwt is expired"),
            (401, "Jwt verification fails"),
            (403, "Audiences in Jwt are not allowed"),
            (
                401,
                "Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections"
            ),
        ]
    );
    assert_eq!(
        missing.header("www-authenticate"),
        Some("Bearer realm=\"http://reviews/\"")
    );
    assert_eq!(
        forged.header("www-authenticate"),
        Some("Bearer realm=\"http://reviews/\", error=\"invalid_token\"")
    );
    assert_eq!((right.status.as_u16(), upstream.requests()), (200, 1));
    let report = proxy.reports.request(0).await;
    let reason = report.reason.unwrap();
    assert_eq!(&*reason, "jwt_authn_access_denied{Jwt_is_missing}");
}

#[tokio::test]
async fn nothing_is_asked_of_what_no_requirement_is_for() {
    let upstream = Upstream::named("fine").await;
    let signer = Signer::new(Algorithm::ES256);
    let provider = local(&signer.keys(), json!({}));
    let filters = vec![jwt_authn(&provider, &json!({"provider_name": "p"}))];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;

    assert_eq!(proxy.get("/public").await.status, 200);
    assert_eq!(proxy.get("/").await.status, 401);
}

#[tokio::test]
async fn a_token_may_be_missing_but_not_be_wrong() {
    let upstream = Upstream::named("fine").await;
    let (signer, other) = (Signer::new(Algorithm::ES256), Signer::new(Algorithm::ES256));
    let provider = local(&signer.keys(), json!({}));
    let lenient = json!({"requires_any": {"requirements": [
        {"provider_name": "p"}, {"allow_missing": {}},
    ]}});
    let filters = vec![jwt_authn(&provider, &lenient)];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;

    assert_eq!(proxy.get("/").await.status, 200);
    assert_eq!(get(&proxy, &other.token(json!({}))).await.status, 401);
    assert_eq!(get(&proxy, &signer.token(json!({}))).await.status, 200);
}

#[tokio::test]
async fn a_route_requires_what_it_names() {
    let upstream = Upstream::named("fine").await;
    let signer = Signer::new(Algorithm::ES256);
    let provider = local(&signer.keys(), json!({}));
    let own = |config: Value| json!({"jwt_authn": typed("jwt_authn.v3.PerRouteConfig", config)});
    let route = |path: &str, own: Value| json!({"match": {"path": path}, "route": {"cluster": "c"}, "typed_per_filter_config": own});
    let routes = json!([
        route("/public", own(json!({"requirement_name": "named"}))),
        route("/wrong", own(json!({"requirement_name": "other"}))),
        route("/", own(json!({"disabled": true}))),
    ]);
    let filters = vec![jwt_authn(&provider, &json!({"provider_name": "p"}))];
    let clusters = vec![cluster("c", &[upstream.address])];
    let proxy = proxy_with(filters, &routes, json!({}), clusters).await;

    assert_eq!(proxy.get("/public").await.status, 401);
    assert_eq!(proxy.get("/wrong").await.status, 403);
    assert_eq!(proxy.get("/").await.status, 200);
}

fn remote() -> Value {
    json!({"issuer": "issuer", "remote_jwks": {
        "http_uri": {"uri": "http://keys/jwks", "cluster": "keys", "timeout": "5s"},
    }})
}

#[tokio::test]
async fn keys_are_fetched_once_for_all() {
    let upstream = Upstream::named("fine").await;
    let signer = Signer::new(Algorithm::ES256);
    let keys = signer.keys();
    let server = Upstream::answering(move |request| {
        let keys = keys.clone();
        let is_it = request.uri().path() == "/jwks";
        async move {
            match is_it {
                true => text(StatusCode::OK, keys),
                false => text(StatusCode::NOT_FOUND, ""),
            }
        }
    })
    .await;
    let filters = vec![jwt_authn(&remote(), &json!({"provider_name": "p"}))];
    let clusters = vec![
        cluster("c", &[upstream.address]),
        cluster("keys", &[server.address]),
    ];
    let proxy = proxy(filters, clusters).await;
    let token = signer.token(json!({}));

    let all = futures_util::future::join_all((0..8).map(|_| get(&proxy, &token))).await;

    assert!(all.iter().all(|got| got.status == 200), "{all:?}");
    assert_eq!(server.requests(), 1);
    assert_eq!(counted(&proxy)["http.test.jwt_authn.jwks_fetch_success"], 1);
}

#[tokio::test]
async fn without_keys_nobody_passes() {
    let upstream = Upstream::named("fine").await;
    let signer = Signer::new(Algorithm::ES256);
    let filters = vec![jwt_authn(&remote(), &json!({"provider_name": "p"}))];
    let clusters = vec![
        cluster("c", &[upstream.address]),
        cluster("keys", &[nobody().await]),
    ];
    let proxy = proxy(filters, clusters).await;

    let got = get(&proxy, &signer.token(json!({}))).await;

    assert_eq!(
        (got.status.as_u16(), got.body.as_str()),
        (401, "Jwks remote fetch is failed")
    );
}
