//! Endpoints of a cluster that goes wherever the connection was going.
//!
//! Each destination is an endpoint of its own while it is used, so that its connections are reused. How many
//! are remembered is bounded: beyond that, a destination gets an endpoint for one connection only.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;

use parking_lot::Mutex;

use super::discovery::Transports;
use super::endpoint::Endpoint;

/// Remembered destinations.
#[derive(Debug, Clone, Default)]
pub struct OriginalDestinations(Arc<Mutex<HashMap<SocketAddr, Arc<Endpoint>>>>);

/// No more destinations are remembered.
const MAX_REMEMBERED: usize = 4096;

impl OriginalDestinations {
    /// The endpoint of a destination.
    pub fn endpoint(&self, address: SocketAddr, transports: &Transports) -> Arc<Endpoint> {
        let mut endpoints = self.0.lock();
        if let Some(endpoint) = endpoints.get(&address) {
            return Arc::clone(endpoint);
        }
        let endpoint = Arc::new(Endpoint::at(address, transports.fallback()));
        if endpoints.len() < MAX_REMEMBERED {
            endpoints.insert(address, Arc::clone(&endpoint));
        }
        endpoint
    }

    /// All that are remembered.
    pub fn endpoints(&self) -> Vec<Arc<Endpoint>> {
        self.0.lock().values().cloned().collect()
    }

    /// Forgets those that fail the test.
    pub fn retain(&self, keep: impl Fn(&Endpoint) -> bool) {
        self.0
            .lock()
            .retain(|_, endpoint| Arc::strong_count(endpoint) > 1 || keep(endpoint));
    }
}
