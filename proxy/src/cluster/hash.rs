//! Consistent hashing: the same request goes to the same endpoint, whoever else comes or goes.
//!
//! Ring and table are Envoy's, place by place: a fleet of both sends a session to the same endpoint.

pub mod maglev;
pub mod ring;

use twox_hash::XxHash64;

use crate::config::balancing::HashFunction;

/// An endpoint as it is hashed.
#[derive(Debug, Clone, Copy)]
pub struct HashedEndpoint<'a> {
    /// Its address or name.
    pub key: &'a str,
    /// Its share; all of them sum to 1.
    pub weight: f64,
}

/// XXH64.
pub fn xxhash(seed: u64, bytes: &[u8]) -> u64 {
    XxHash64::oneshot(seed, bytes)
}

fn hash_key(function: HashFunction, key: &[u8]) -> u64 {
    match function {
        HashFunction::XxHash => xxhash(0, key),
        HashFunction::Murmur2 => murmur2(key),
    }
}

/// The seed of libstdc++'s `std::hash`.
const MURMUR_SEED: u64 = 0xc70f_6907;
const MURMUR_FACTOR: u64 = 0xc6a4_a793_5bd1_e995;

/// MurmurHash64A.
fn murmur2(bytes: &[u8]) -> u64 {
    let mixed = |value: u64| value ^ (value >> 47);
    let mut hash = MURMUR_SEED ^ (bytes.len() as u64).wrapping_mul(MURMUR_FACTOR);
    let (whole, rest) = bytes.as_chunks::<8>();
    for chunk in whole {
        let word = u64::from_le_bytes(*chunk).wrapping_mul(MURMUR_FACTOR);
        hash ^= mixed(word).wrapping_mul(MURMUR_FACTOR);
        hash = hash.wrapping_mul(MURMUR_FACTOR);
    }
    if !rest.is_empty() {
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        hash = (hash ^ u64::from_le_bytes(last)).wrapping_mul(MURMUR_FACTOR);
    }
    mixed(mixed(hash).wrapping_mul(MURMUR_FACTOR))
}

#[cfg(test)]
mod tests {
    use super::maglev::Maglev;
    use super::ring::Ring;
    use super::*;

    fn keys(count: usize) -> Vec<String> {
        (0..count)
            .map(|index| format!("10.0.0.{index}:80"))
            .collect()
    }

    fn even(keys: &[String]) -> Vec<HashedEndpoint<'_>> {
        #[allow(clippy::cast_precision_loss, reason = "a few")]
        let weight = 1.0 / keys.len() as f64;
        keys.iter()
            .map(|key| HashedEndpoint { key, weight })
            .collect()
    }

    /// Hashes as requests have them.
    fn requests() -> impl Iterator<Item = u64> {
        (0..20_000_u64).map(|index| xxhash(7, &index.to_le_bytes()))
    }

    /// How many requests change their endpoint when the last of ten goes, of those that were not at it.
    fn disrupted<'a>(
        before: impl Fn(u64) -> &'a str,
        after: impl Fn(u64) -> &'a str,
        gone: &str,
    ) -> usize {
        requests()
            .filter(|hash| before(*hash) != gone && before(*hash) != after(*hash))
            .count()
    }

    #[test]
    fn murmur_is_the_published_function() {
        // What libstdc++'s `std::_Hash_bytes` gives.
        assert_eq!(murmur2(b""), 6_142_509_188_972_423_790);
        assert_eq!(murmur2(b"a"), 4_993_892_634_952_068_459);
        assert_eq!(murmur2(b"abc"), 3_663_726_644_998_027_833);
        assert_eq!(murmur2(b"127.0.0.1:80_12345"), 4_014_760_874_431_155_586);
    }

    #[test]
    fn on_a_ring_only_the_requests_of_the_endpoint_that_goes_move() {
        let keys = keys(10);
        let ring = |keys| Ring::new(&even(keys), 10_240, 8_388_608, HashFunction::XxHash);
        let (before, after) = (ring(&keys), ring(&keys[..9]));
        let at = |ring: &Ring, hash| keys[ring.choose(hash, 0).expect("one")].as_str();

        let moved = disrupted(|hash| at(&before, hash), |hash| at(&after, hash), &keys[9]);

        // A few: with fewer endpoints, each has a few more points.
        assert!(moved <= 20_000 / 9, "{moved}");
    }

    #[test]
    fn in_a_table_few_requests_move_besides_those_of_the_endpoint_that_goes() {
        let keys = keys(10);
        let table = |keys| Maglev::new(&even(keys), 65_537);
        let (before, after) = (table(&keys), table(&keys[..9]));
        let at = |table: &Maglev, hash| keys[table.choose(hash, 0).expect("one")].as_str();

        let moved = disrupted(|hash| at(&before, hash), |hash| at(&after, hash), &keys[9]);

        // The paper's bound for tables a hundred times larger than the endpoints is 2 %; here a tenth goes.
        assert!(moved <= 1_000, "{moved}");
    }

    #[test]
    fn a_table_is_shared_by_weight_to_one_place() {
        let keys = keys(3);
        let weights = [0.5, 0.25, 0.25];
        let endpoints: Vec<_> = keys
            .iter()
            .zip(weights)
            .map(|(key, weight)| HashedEndpoint { key, weight })
            .collect();
        let table = Maglev::new(&endpoints, 1009);

        let mut counts = [0_u32; 3];
        for hash in 0..1009 {
            counts[table.choose(hash, 0).expect("one")] += 1;
        }

        for (count, weight) in counts.into_iter().zip(weights) {
            assert!(
                (f64::from(count) - weight * 1009.0).abs() <= 2.0,
                "{counts:?}"
            );
        }
    }

    #[test]
    fn the_order_of_endpoints_is_of_no_consequence_for_a_table() {
        let keys = keys(5);
        let mut reversed = keys.clone();
        reversed.reverse();
        let (one, other) = (
            Maglev::new(&even(&keys), 1009),
            Maglev::new(&even(&reversed), 1009),
        );

        for hash in requests() {
            let (at, other) = (one.choose(hash, 0), other.choose(hash, 0));
            assert_eq!(keys[at.expect("one")], reversed[other.expect("one")]);
        }
    }

    #[test]
    fn a_ring_has_its_smallest_size_and_never_more_than_its_largest() {
        let keys = keys(4);
        let size = |min, max| Ring::new(&even(&keys), min, max, HashFunction::XxHash).len();

        assert_eq!(size(1024, 8_388_608), 1024);
        assert_eq!(size(1023, 8_388_608), 1024);
        assert_eq!(size(1024, 8), 8);
        assert!(
            Ring::new(&[], 1024, 1024, HashFunction::XxHash)
                .choose(1, 0)
                .is_none()
        );
    }

    #[test]
    fn another_attempt_goes_elsewhere_sooner_or_later() {
        let keys = keys(5);
        let table = Maglev::new(&even(&keys), 1009);
        let ring = Ring::new(&even(&keys), 1024, 1024, HashFunction::XxHash);

        for hash in requests().take(100) {
            let first = (table.choose(hash, 0), ring.choose(hash, 0));
            assert!((1..40).any(|attempt| table.choose(hash, attempt) != first.0));
            assert!((1..40).any(|attempt| ring.choose(hash, attempt) != first.1));
        }
    }
}
