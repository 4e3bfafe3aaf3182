//! The buckets of a rate limit: one for each descriptor, one for all else.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;

use crate::config::filter::local_ratelimit::{DescriptorLimit, LocalRateLimitConfig};
use crate::http::filter::descriptors::Descriptor;
use crate::token_bucket::TokenBucket;

/// Buckets of one limit.
#[derive(Debug)]
pub(super) struct Buckets {
    default: Option<Arc<TokenBucket>>,
    /// One for each descriptor without an open value, by its position.
    fixed: Vec<Option<Arc<TokenBucket>>>,
    /// For descriptors with an open value: one for each value that has come, up to a bound.
    dynamic: Mutex<Dynamic>,
}

/// By the descriptor's position, and its values.
type Dynamic = HashMap<(usize, Vec<String>), Arc<TokenBucket>>;

/// What came of asking.
#[derive(Debug)]
pub(super) struct Asked {
    pub(super) is_allowed: bool,
    /// The bucket that decided.
    pub(super) bucket: Option<Arc<TokenBucket>>,
}

impl Buckets {
    /// Full ones.
    pub(super) fn new(config: &LocalRateLimitConfig, now: Instant) -> Self {
        let fixed = config.descriptors.iter().map(|limit| {
            let is_open = limit.entries.iter().any(|(_, value)| value.is_none());
            (!is_open).then(|| Arc::new(TokenBucket::new(limit.bucket, now)))
        });
        Buckets {
            default: config
                .bucket
                .map(|bucket| Arc::new(TokenBucket::new(bucket, now))),
            fixed: fixed.collect(),
            dynamic: Mutex::default(),
        }
    }

    /// Takes a token from each bucket that is for the request; stops at the first that has none. As in Envoy, the
    /// slowest goes first, so that what it refuses takes mostly nothing from others.
    pub(super) fn ask(
        &self,
        config: &LocalRateLimitConfig,
        descriptors: &[Descriptor],
        now: Instant,
    ) -> Asked {
        let mut matched: Vec<_> = descriptors
            .iter()
            .filter_map(|descriptor| {
                let (position, limit) = matching(config, descriptor)?;
                let bucket = self.bucket(config, position, limit, descriptor, now);
                Some((bucket, limit, descriptor))
            })
            .collect();
        matched.sort_by(|(one, ..), (other, ..)| one.rate().total_cmp(&other.rate()));
        for (bucket, limit, descriptor) in &matched {
            if !counts(bucket, descriptor, now) && !limit.is_shadow {
                return Asked {
                    is_allowed: false,
                    bucket: Some(Arc::clone(bucket)),
                };
            }
        }
        let takes_default = matched.is_empty() || config.always_takes_default;
        let default = self.default.as_ref().filter(|_| takes_default);
        let slowest = matched.into_iter().next().map(|(bucket, ..)| bucket);
        match default {
            Some(default) if !default.take(now) => Asked {
                is_allowed: false,
                bucket: Some(Arc::clone(default)),
            },
            default => Asked {
                is_allowed: true,
                bucket: slowest.or_else(|| default.cloned()),
            },
        }
    }

    fn bucket(
        &self,
        config: &LocalRateLimitConfig,
        position: usize,
        limit: &DescriptorLimit,
        descriptor: &Descriptor,
        now: Instant,
    ) -> Arc<TokenBucket> {
        if let Some(Some(bucket)) = self.fixed.get(position) {
            return Arc::clone(bucket);
        }
        let values = descriptor.entries.iter().map(|(_, value)| value.clone());
        let key = (position, values.collect());
        let mut dynamic = self.dynamic.lock();
        if !dynamic.contains_key(&key) && dynamic.len() >= config.max_dynamic {
            forget_one(&mut dynamic, now);
        }
        let make = || Arc::new(TokenBucket::new(limit.bucket, now));
        Arc::clone(dynamic.entry(key).or_insert_with(make))
    }
}

/// Takes what a descriptor counts, or gives it back; whether there was enough.
fn counts(bucket: &TokenBucket, descriptor: &Descriptor, now: Instant) -> bool {
    #[allow(
        clippy::cast_precision_loss,
        reason = "a request counts less than 2^52"
    )]
    let hits = descriptor.hits.unwrap_or(1) as f64;
    if descriptor.is_given_back {
        bucket.give_back(hits, now);
        return true;
    }
    bucket.take_several(hits, now)
}

/// The fullest goes: it is the one that says least.
fn forget_one(dynamic: &mut Dynamic, now: Instant) {
    let fullest = dynamic
        .iter()
        .min_by_key(|(_, bucket)| bucket.full(now))
        .map(|(key, _)| key.clone());
    if let Some(key) = fullest {
        dynamic.remove(&key);
    }
}

fn matching<'a>(
    config: &'a LocalRateLimitConfig,
    descriptor: &Descriptor,
) -> Option<(usize, &'a DescriptorLimit)> {
    let is_match = |limit: &DescriptorLimit| {
        let mut pairs = limit.entries.iter().zip(&descriptor.entries);
        limit.entries.len() == descriptor.entries.len()
            && pairs.all(|((key, value), (has_key, has_value))| {
                **key == **has_key && value.as_ref().is_none_or(|value| **value == **has_value)
            })
    };
    let mut limits = config.descriptors.iter().enumerate();
    limits.find(|(_, limit)| is_match(limit))
}

/// A number of tokens, as people count them.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "tokens are positive, and no more than u32 counts"
)]
pub(super) fn whole(number: f64) -> u64 {
    (number + 1e-9) as u64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::filter::local_ratelimit::Bucket;
    use crate::config::percent::Percent;

    fn bucket(max_tokens: u32) -> Bucket {
        Bucket {
            max_tokens,
            tokens_per_fill: 1,
            fill_interval: Duration::from_secs(3600),
        }
    }

    fn config(descriptors: Vec<DescriptorLimit>) -> LocalRateLimitConfig {
        LocalRateLimitConfig {
            stat_prefix: "test".into(),
            bucket: Some(bucket(2)),
            descriptors,
            rules: [].into(),
            host_rules: Default::default(),
            stage: 0,
            enabled: Percent::ALL,
            enforced: Percent::ALL,
            status: http::StatusCode::TOO_MANY_REQUESTS,
            is_resource_exhausted: false,
            response_headers: Default::default(),
            request_headers: Default::default(),
            per_connection: false,
            always_takes_default: false,
            tells_limits: false,
            tells_retry_after: false,
            max_dynamic: 2,
            live: Default::default(),
        }
    }

    fn limit(value: Option<&str>, max_tokens: u32) -> DescriptorLimit {
        DescriptorLimit {
            entries: vec![("caller".into(), value.map(Into::into))],
            bucket: bucket(max_tokens),
            is_shadow: false,
        }
    }

    fn of(caller: &str) -> [Descriptor; 1] {
        [Descriptor {
            entries: vec![("caller".into(), caller.into())],
            hits: None,
            is_given_back: false,
            limit: None,
        }]
    }

    #[test]
    fn what_matches_no_descriptor_takes_from_the_default_bucket() {
        let config = config(vec![limit(Some("a"), 1)]);
        let now = Instant::now();
        let buckets = Buckets::new(&config, now);
        let is_allowed = |caller: &str| buckets.ask(&config, &of(caller), now).is_allowed;

        assert!(is_allowed("a"));
        assert!(!is_allowed("a"));
        assert!(is_allowed("b"));
        assert!(is_allowed("c"));
        assert!(!is_allowed("b"));
    }

    #[test]
    fn the_slowest_bucket_is_asked_first_and_told_of() {
        let slow = DescriptorLimit {
            entries: vec![("kind".into(), Some("x".into()))],
            bucket: Bucket {
                fill_interval: Duration::from_secs(36_000),
                ..bucket(1)
            },
            is_shadow: false,
        };
        let config = config(vec![limit(Some("a"), 5), slow]);
        let now = Instant::now();
        let buckets = Buckets::new(&config, now);
        let kind = Descriptor {
            entries: vec![("kind".into(), "x".into())],
            ..of("a")[0].clone()
        };
        let asked = || buckets.ask(&config, &[of("a")[0].clone(), kind.clone()], now);

        assert!(asked().is_allowed);
        let refused = asked();

        assert!(!refused.is_allowed);
        assert_eq!(refused.bucket.expect("one").max(), 1.0);
        // What was refused has taken nothing from the other.
        let left = buckets.ask(&config, &of("a"), now).bucket.expect("one");
        assert_eq!(left.left(now).round(), 3.0);
    }

    #[test]
    fn an_open_value_has_a_bucket_for_each_that_comes() {
        let config = config(vec![limit(None, 1)]);
        let now = Instant::now();
        let buckets = Buckets::new(&config, now);
        let is_allowed = |caller: &str| buckets.ask(&config, &of(caller), now).is_allowed;

        assert!(is_allowed("a"));
        assert!(!is_allowed("a"));
        assert!(is_allowed("b"));
    }

    #[test]
    fn no_more_values_are_remembered_than_may_be() {
        let config = config(vec![limit(None, 1)]);
        let now = Instant::now();
        let buckets = Buckets::new(&config, now);

        for caller in ["a", "b", "c", "d"] {
            buckets.ask(&config, &of(caller), now);
        }

        assert_eq!(buckets.dynamic.lock().len(), 2);
    }

    #[test]
    fn a_shadow_limit_refuses_nothing() {
        let shadow = DescriptorLimit {
            is_shadow: true,
            ..limit(Some("a"), 0)
        };
        let config = config(vec![shadow]);
        let now = Instant::now();

        let asked = Buckets::new(&config, now).ask(&config, &of("a"), now);

        assert!(asked.is_allowed);
    }
}
