//! The keys of a provider: from the configuration, or fetched and kept for a while.
//!
//! One request fetches, and those that come meanwhile wait for it; keys that cannot be replaced by newer ones go on
//! to be used.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use http::{Request, StatusCode};
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, JwkSet, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey};
use parking_lot::RwLock;

use super::super::call::Asked;
use super::Stats;
use crate::config::filter::jwt_authn::{KeySource, RemoteKeys};
use crate::snapshot::Snapshot;
use crate::upstream::environment::Environment;
use crate::upstream::explain;

/// Keys that can verify.
#[derive(Default)]
pub(super) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    /// The only algorithm it is for, where it says so.
    algorithm: Option<Algorithm>,
    family: AlgorithmFamily,
    key: DecodingKey,
}

impl KeySet {
    /// Those of a set that can verify; others are passed over (RFC 7517 §5).
    pub(super) fn of(text: &[u8]) -> Option<Self> {
        let set: JwkSet = serde_json::from_slice(text).ok()?;
        Some(KeySet(set.keys.iter().filter_map(key).collect()))
    }

    /// Those that may have signed a token with this key id and algorithm.
    pub(super) fn fitting(
        &self,
        id: Option<&str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &DecodingKey> {
        let is_named = move |key: &&Key| match (id, &key.id) {
            (Some(wanted), Some(id)) => wanted == id,
            _ => true,
        };
        let is_for = move |key: &&Key| {
            key.family == algorithm.family() && key.algorithm.is_none_or(|only| only == algorithm)
        };
        self.0
            .iter()
            .filter(is_named)
            .filter(is_for)
            .map(|key| &key.key)
    }
}

fn key(jwk: &Jwk) -> Option<Key> {
    if matches!(&jwk.common.public_key_use, Some(other) if *other != PublicKeyUse::Signature) {
        return None;
    }
    let family = match &jwk.algorithm {
        AlgorithmParameters::EllipticCurve(_) => AlgorithmFamily::Ec,
        AlgorithmParameters::RSA(_) => AlgorithmFamily::Rsa,
        AlgorithmParameters::OctetKey(_) => AlgorithmFamily::Hmac,
        AlgorithmParameters::OctetKeyPair(_) => AlgorithmFamily::Ed,
        _ => return None,
    };
    let algorithm = match &jwk.common.key_algorithm {
        Some(named) => Some(named.to_string().parse().ok()?),
        None => None,
    };
    Some(Key {
        id: jwk.common.key_id.clone(),
        algorithm,
        family,
        key: DecodingKey::from_jwk(jwk).ok()?,
    })
}

/// The keys of a provider.
pub(super) enum Keys {
    Local(Arc<KeySet>),
    Remote(Box<Remote>),
}

/// Keys that are fetched.
pub(super) struct Remote {
    config: RemoteKeys,
    /// The last that came, and until when they are kept.
    kept: RwLock<Option<(Arc<KeySet>, Instant)>>,
    /// Held by who fetches; when it last failed.
    fetching: tokio::sync::Mutex<Option<Instant>>,
}

impl Keys {
    pub(super) fn new(source: &KeySource) -> Self {
        match source {
            KeySource::Local(text) => {
                Keys::Local(Arc::new(KeySet::of(text.as_bytes()).unwrap_or_default()))
            }
            KeySource::Remote(config) => Keys::Remote(Box::new(Remote {
                config: config.clone(),
                kept: RwLock::default(),
                fetching: tokio::sync::Mutex::default(),
            })),
        }
    }

    /// The keys as they are now, fetched where they must be; `None` where none can be had.
    pub(super) async fn current(
        &self,
        environment: &Environment,
        snapshot: &Snapshot,
        stats: &Stats,
    ) -> Option<Arc<KeySet>> {
        match self {
            Keys::Local(keys) => Some(Arc::clone(keys)),
            Keys::Remote(remote) => remote.current(environment, snapshot, stats).await,
        }
    }
}

impl Remote {
    async fn current(
        &self,
        environment: &Environment,
        snapshot: &Snapshot,
        stats: &Stats,
    ) -> Option<Arc<KeySet>> {
        let come = Instant::now();
        if let Some(keys) = self.kept_until(come) {
            return Some(keys);
        }
        // Whoever holds it fetches within its time-out, so that nobody waits for ever.
        let mut failed = self.fetching.lock().await;
        if let Some(keys) = self.kept_until(come) {
            return Some(keys);
        }
        // Whoever has waited for a fetch that failed does not make the next wait for another.
        if failed.is_some_and(|failed| failed >= come) {
            return self.outdated();
        }
        match self.fetch(environment, snapshot).await {
            Some(keys) => {
                stats.jwks_fetch_success.increment();
                let keys = Arc::new(keys);
                let until = Instant::now() + self.config.kept;
                *self.kept.write() = Some((Arc::clone(&keys), until));
                Some(keys)
            }
            None => {
                stats.jwks_fetch_failed.increment();
                *failed = Some(Instant::now());
                self.outdated()
            }
        }
    }

    fn kept_until(&self, now: Instant) -> Option<Arc<KeySet>> {
        let kept = self.kept.read();
        let (keys, until) = kept.as_ref()?;
        (now < *until).then(|| Arc::clone(keys))
    }

    fn outdated(&self) -> Option<Arc<KeySet>> {
        let kept = self.kept.read();
        kept.as_ref().map(|(keys, _)| Arc::clone(keys))
    }

    async fn fetch(&self, environment: &Environment, snapshot: &Snapshot) -> Option<KeySet> {
        let mut question = Request::new(Bytes::new());
        *question.uri_mut() = self.config.uri.clone();
        let asked = Asked {
            environment,
            snapshot,
            cluster: &self.config.cluster,
            timeout: self.config.timeout,
        };
        match asked.http(question).await {
            Ok(answer) if answer.status() == StatusCode::OK => KeySet::of(answer.body()),
            Ok(answer) => {
                tracing::warn!(status = %answer.status(), uri = %self.config.uri, "no keys");
                None
            }
            Err(error) => {
                tracing::warn!(error = explain(&error), uri = %self.config.uri, "no keys");
                None
            }
        }
    }
}
