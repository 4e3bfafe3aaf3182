//! Whether the proxy can be sent traffic.
//!
//! The launcher opens a sandbox's firewall when it can: a first whole configuration is in force, all of its
//! listeners are bound, and the identity is there where one is needed.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::identity::CredentialsReceiver;

/// Facts that readiness follows from.
#[derive(Debug)]
pub struct Readiness {
    is_configured: AtomicBool,
    is_bound: AtomicBool,
    is_draining: AtomicBool,
    is_failed: AtomicBool,
    credentials: Option<CredentialsReceiver>,
}

/// Why it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unready {
    /// No whole configuration has been put in force.
    NoConfiguration,
    /// A listener could not be bound.
    NotListening,
    /// No identity has been signed.
    NoIdentity,
    /// It is about to end.
    Draining,
    /// `/healthcheck/fail`.
    Failed,
}

impl Unready {
    /// Envoy's word for the state.
    pub fn state(self) -> &'static str {
        match self {
            Unready::NoConfiguration | Unready::NotListening | Unready::NoIdentity => {
                "INITIALIZING"
            }
            Unready::Draining | Unready::Failed => "DRAINING",
        }
    }
}

/// Envoy's number for the state of a proxy that is ready.
pub const STATE_LIVE: u64 = 0;

impl Unready {
    /// Envoy's number for the state, as `server.state` tells it.
    pub fn number(self) -> u64 {
        match self {
            Unready::Draining | Unready::Failed => 1,
            Unready::NoConfiguration | Unready::NotListening | Unready::NoIdentity => 3,
        }
    }
}

impl fmt::Display for Unready {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Unready::NoConfiguration => "waiting for the first configuration of the control plane",
            Unready::NotListening => "not all listeners could be bound",
            Unready::NoIdentity => "waiting for the control plane to sign the workload's identity",
            Unready::Draining => "draining",
            Unready::Failed => "/healthcheck/fail was called",
        })
    }
}

impl Readiness {
    /// Not ready yet. Where there are credentials to come, they are needed.
    pub fn new(credentials: Option<CredentialsReceiver>) -> Self {
        Self {
            is_configured: AtomicBool::new(false),
            is_bound: AtomicBool::new(false),
            is_draining: AtomicBool::new(false),
            is_failed: AtomicBool::new(false),
            credentials,
        }
    }

    /// A whole configuration is in force.
    pub fn configured(&self) {
        self.is_configured.store(true, Ordering::Relaxed);
    }

    /// All of its listeners are bound. One that fails later does not take readiness away again.
    pub fn bound(&self) {
        self.is_bound.store(true, Ordering::Relaxed);
    }

    /// Whether a whole configuration is in force.
    pub fn is_configured(&self) -> bool {
        self.is_configured.load(Ordering::Relaxed)
    }

    /// Whether all of its listeners are, or have been, bound.
    pub fn is_bound(&self) -> bool {
        self.is_bound.load(Ordering::Relaxed)
    }

    /// It is about to end.
    pub fn drain(&self) {
        self.is_draining.store(true, Ordering::Relaxed);
    }

    /// Unready until `heal`.
    pub fn fail(&self) {
        self.is_failed.store(true, Ordering::Relaxed);
    }

    /// Undoes `fail`.
    pub fn heal(&self) {
        self.is_failed.store(false, Ordering::Relaxed);
    }

    /// Why it is not ready; `None`: it is.
    pub fn unready(&self) -> Option<Unready> {
        let has_identity = self
            .credentials
            .as_ref()
            .is_none_or(|current| current.borrow().is_some());
        let holds = |fact: &AtomicBool| fact.load(Ordering::Relaxed);
        if holds(&self.is_draining) {
            Some(Unready::Draining)
        } else if holds(&self.is_failed) {
            Some(Unready::Failed)
        } else if !holds(&self.is_configured) {
            Some(Unready::NoConfiguration)
        } else if !has_identity {
            Some(Unready::NoIdentity)
        } else if !holds(&self.is_bound) {
            Some(Unready::NotListening)
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::watch;

    use super::*;

    #[test]
    fn it_is_ready_when_it_is_configured_bound_and_known() {
        let (_sender, credentials) = watch::channel(None);
        let with_identity = Readiness::new(Some(credentials));
        let without = Readiness::new(None);

        assert_eq!(without.unready(), Some(Unready::NoConfiguration));
        without.configured();
        assert_eq!(without.unready(), Some(Unready::NotListening));
        without.bound();
        assert_eq!(without.unready(), None);
        with_identity.configured();
        with_identity.bound();
        assert_eq!(with_identity.unready(), Some(Unready::NoIdentity));
    }

    #[test]
    fn whoever_fails_it_can_heal_it_and_a_drain_is_for_good() {
        let readiness = Readiness::new(None);
        readiness.configured();
        readiness.bound();

        readiness.fail();
        assert_eq!(readiness.unready(), Some(Unready::Failed));
        readiness.heal();
        assert_eq!(readiness.unready(), None);
        readiness.drain();
        readiness.heal();
        assert_eq!(readiness.unready(), Some(Unready::Draining));
    }
}
