//! From resources to one configuration that is whole: what is pointed at is there before what points at it.
//!
//! - A cluster joins when its endpoints are known; until then the one it replaces stays.
//! - Routes join when all clusters they name are there; a listener, when its routes and clusters are.
//! - A cluster that is removed stays as long as routes or listeners in force name it.
//!
//! Nobody waits for ever: what has waited for as long as its source allows, or for [`LIMIT`] where another resource is
//! missing, joins as it is, and what lingers goes. The bootstrap's own resources wait for what they discover alone.

mod pass;
mod same;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use self::pass::{Pass, Since};
pub use self::same::is_same;
use super::cache::Cache;
use super::kind::Kind;
use super::secrets;
use crate::config::Configuration;

/// How long a resource waits for clusters that it names.
pub const LIMIT: Duration = Duration::from_secs(5);

/// Puts configurations together, each from the one before.
#[derive(Debug, Default)]
pub struct Assembly {
    current: Configuration,
    /// Since when a resource waits, or lingers.
    since: Since,
}

/// A configuration, and what is not in it yet.
#[derive(Debug, Clone)]
pub struct Assembled {
    /// As it can be served.
    pub configuration: Configuration,
    /// What waits for something else, by kind and name.
    pub waiting: BTreeSet<(Kind, Arc<str>)>,
    /// When to put together anew, although nothing has arrived.
    pub again_at: Option<Instant>,
}

impl Assembly {
    /// The configuration that these resources make, after the one before.
    pub fn assemble(&mut self, cache: &Cache, now: Instant) -> Assembled {
        let mut pass = Pass::new(cache, &self.current, &mut self.since, now);
        pass.run();
        let Pass {
            noted,
            waiting,
            again_at,
            mut next,
            ..
        } = pass;
        secrets::fill_in(&mut next, Some(&self.current));
        self.since.retain(|key, _| noted.contains(key));
        self.current.clone_from(&next);
        Assembled {
            configuration: next,
            again_at,
            waiting,
        }
    }
}

#[cfg(test)]
mod tests;
