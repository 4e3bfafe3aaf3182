//! Maglev's table: each endpoint fills places in an order of its own, in turn, until the table is full.

use super::{HashedEndpoint, xxhash};

/// A full table.
#[derive(Debug)]
pub struct Maglev {
    places: Vec<u32>,
}

/// An endpoint while the table is filled.
struct Filling {
    index: u32,
    offset: u64,
    skip: u64,
    weight: f64,
    target: f64,
    next: u64,
}

const EMPTY: u32 = u32::MAX;

impl Maglev {
    /// Of a size that is prime. Endpoints fill it in the order of their keys, so that their order is of no
    /// consequence.
    pub fn new(endpoints: &[HashedEndpoint<'_>], size: u64) -> Self {
        let mut filling: Vec<_> = (0_u32..).zip(endpoints).collect();
        filling.sort_by(|(_, one), (_, other)| one.key.cmp(other.key));
        let mut filling: Vec<_> = filling
            .into_iter()
            .filter(|(_, endpoint)| endpoint.weight > 0.0)
            .map(|(index, endpoint)| Filling {
                index,
                offset: xxhash(0, endpoint.key.as_bytes()) % size,
                skip: xxhash(1, endpoint.key.as_bytes()) % (size - 1) + 1,
                weight: endpoint.weight,
                target: 0.0,
                next: 0,
            })
            .collect();
        let Ok(length) = usize::try_from(size) else {
            return Maglev { places: vec![] };
        };
        if filling.is_empty() {
            return Maglev { places: vec![] };
        }
        let mut places = vec![EMPTY; length];
        fill(&mut places, &mut filling, size);
        Maglev { places }
    }

    /// The endpoint of a hash; another one for each further attempt.
    pub fn choose(&self, hash: u64, attempt: usize) -> Option<usize> {
        if self.places.is_empty() {
            return None;
        }
        // Envoy: most bits are flipped, so that the next attempt goes somewhere else entirely.
        let hash = match attempt {
            0 => hash,
            attempt => hash ^ (attempt as u64).wrapping_neg(),
        };
        let place = usize::try_from(hash % self.places.len() as u64).ok()?;
        usize::try_from(self.places[place]).ok()
    }
}

fn fill(places: &mut [u32], filling: &mut [Filling], size: u64) {
    let largest = filling.iter().map(|each| each.weight).fold(0.0, f64::max);
    let mut free = places.len();
    let mut iteration = 1.0;
    while free > 0 {
        for each in filling.iter_mut() {
            if free == 0 {
                return;
            }
            // The largest weight has a place in every iteration, one of a third in every third.
            if iteration * each.weight < each.target {
                continue;
            }
            each.target += largest;
            let place = each.next_free(places, size);
            places[place] = each.index;
            free -= 1;
        }
        iteration += 1.0;
    }
}

impl Filling {
    /// The first free place in its order. There is one: the order goes through all places, as the size is prime.
    fn next_free(&mut self, places: &[u32], size: u64) -> usize {
        loop {
            let place = (self.offset + self.skip.wrapping_mul(self.next) % size) % size;
            self.next += 1;
            let place = usize::try_from(place).unwrap_or(0);
            if places[place] == EMPTY {
                return place;
            }
        }
    }
}
