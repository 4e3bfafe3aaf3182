//! A listener as it is served: its chains, and what lives on it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use super::chain::Chain;
use super::choice::{Arrival, choose};
use super::routes::RouteTable;
use crate::config::Named;
use crate::config::listener::ListenerConfig;

/// A listener.
#[derive(Debug)]
pub struct Listener {
    /// As configured.
    pub config: Arc<ListenerConfig>,
    /// What survives configuration changes.
    pub live: Arc<ListenerState>,
    /// The chains; the default one, if any, is last.
    pub chains: Vec<Arc<Chain>>,
}

impl Listener {
    /// With the routes it names, going on from its predecessor.
    pub fn new(
        config: Arc<ListenerConfig>,
        routes: &Named<Arc<RouteTable>>,
        previous: Option<&Listener>,
    ) -> Self {
        let matched = config
            .filter_chains
            .iter()
            .map(|chain| (chain, Some(chain.matches.clone())));
        let default = config.default_chain.iter().map(|chain| (chain, None));
        let chains = matched
            .chain(default)
            .map(|(chain, matches)| {
                let before = previous
                    .and_then(|previous| {
                        previous.chains.iter().find(|each| each.matches == matches)
                    })
                    .map(|chain| &**chain);
                Arc::new(Chain::new(chain, matches, routes, before))
            })
            .collect();
        Listener {
            live: previous.map_or_else(Arc::default, |previous| Arc::clone(&previous.live)),
            chains,
            config,
        }
    }

    /// Whether a listener made of these would be this one.
    pub fn is_made_of(
        &self,
        config: &Arc<ListenerConfig>,
        routes: &Named<Arc<RouteTable>>,
    ) -> bool {
        super::is_unchanged(&self.config, config)
            && self.chains.iter().all(|chain| chain.is_current(routes))
    }

    /// The chain for a connection: the most specific that matches, else the default one.
    pub fn chain(&self, arrival: &Arrival<'_>) -> Option<&Arc<Chain>> {
        choose(&self.chains, arrival)
    }

    /// The chain that stands where another stood before a configuration change.
    pub fn successor_of(&self, chain: &Chain) -> Option<&Arc<Chain>> {
        self.chains
            .iter()
            .find(|each| each.matches == chain.matches)
    }

    /// Whether the choice of a chain needs the first bytes, and not only the destination.
    pub fn depends_on_first_bytes(&self) -> bool {
        self.chains
            .iter()
            .any(|chain| chain.depends_on_first_bytes())
    }

    /// Whether any chain terminates TLS.
    pub fn has_tls(&self) -> bool {
        self.chains.iter().any(|chain| chain.tls.is_some())
    }
}

/// What lives on a listener.
#[derive(Debug, Default)]
pub struct ListenerState {
    verdict: AtomicU8,
    verdicts: [AtomicU64; 6],
    /// Connections accepted.
    pub accepted: AtomicU64,
    /// Of those, the ones that came over a local channel.
    pub local_channels: AtomicU64,
    /// Connections that came as streams of one that is shared.
    pub streams: AtomicU64,
    /// Connections closed at once because the proxy is short of something.
    pub refused_in_overload: AtomicU64,
    /// Connections closed at once because the listener has as many as it may.
    pub overflown: AtomicU64,
    /// Connections open.
    pub open: AtomicU64,
    /// Connections of which it is not known yet what they are.
    pub opening: AtomicU64,
    /// Connections that said too little for too long to tell what they are.
    pub openings_timed_out: AtomicU64,
    /// Connections that were closed by their client before it was known what they are.
    pub left_unseen: AtomicU64,
    /// TLS handshakes that took too long.
    pub handshake_timeouts: AtomicU64,
    /// Connections that no chain was for.
    pub unmatched: AtomicU64,
    /// Of those, the ones that came in the clear where only TLS is served.
    pub plaintext_refused: AtomicU64,
    /// TLS handshakes that failed.
    pub tls_failures: AtomicU64,
    /// Connections that came without being redirected, and would have gone in a circle.
    pub loops_refused: AtomicU64,
    /// Connections whose PROXY header was missing or not valid.
    pub proxy_headers_refused: AtomicU64,
    /// Upstream connections made before it was known what the client speaks.
    pub dialled_ahead: AtomicU64,
    /// Of those, the ones whose server greeted as one of HTTP/2 does before the client had said anything.
    pub http2_greetings: AtomicU64,
}

/// What a connection turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing has arrived yet.
    Unknown,
    /// HTTP/1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// TLS of the client's own.
    Tls,
    /// Something else, and the client speaks first.
    Opaque,
    /// Something where the server speaks first.
    ServerFirst,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 6] = [
        Verdict::Unknown,
        Verdict::Http1,
        Verdict::Http2,
        Verdict::Tls,
        Verdict::Opaque,
        Verdict::ServerFirst,
    ];

    /// For `/listeners` and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Verdict::Unknown => "unknown",
            Verdict::Http1 => "http/1.1",
            Verdict::Http2 => "h2c",
            Verdict::Tls => "tls",
            Verdict::Opaque => "tcp",
            Verdict::ServerFirst => "tcp-server-first",
        }
    }
}

impl ListenerState {
    /// What the last connection turned out to be.
    pub fn verdict(&self) -> Verdict {
        Verdict::ALL[usize::from(self.verdict.load(Ordering::Relaxed)) % Verdict::ALL.len()]
    }

    /// Remembers what a connection turned out to be.
    pub fn remember(&self, verdict: Verdict) {
        self.verdicts[verdict as usize].fetch_add(1, Ordering::Relaxed);
        self.verdict.store(verdict as u8, Ordering::Relaxed);
    }

    /// How many connections turned out to be this.
    pub fn count_of(&self, verdict: Verdict) -> u64 {
        self.verdicts[verdict as usize].load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_verdict_is_remembered_and_all_are_counted() {
        let state = ListenerState::default();
        assert_eq!(state.verdict(), Verdict::Unknown);

        state.remember(Verdict::Http1);
        state.remember(Verdict::ServerFirst);

        assert_eq!(state.verdict(), Verdict::ServerFirst);
        assert_eq!(state.count_of(Verdict::Http1), 1);
    }
}
