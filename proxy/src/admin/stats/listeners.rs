//! `/stats` of listeners, and of the connection managers and TCP proxies on them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::{Scope, Told};
use crate::snapshot::Snapshot;
use crate::snapshot::chain::Service;
use crate::snapshot::listener::Listener;
use crate::telemetry::managers::ManagerStats;
use crate::telemetry::tunnels;
use crate::upstream::environment::Environment;

/// Prefixes with the listeners that they are on.
type Places = BTreeMap<Arc<str>, BTreeSet<Arc<str>>>;

fn has(places: &Places, prefix: &str, listener: &str) -> bool {
    let listeners = places.get(prefix);
    listeners.is_some_and(|listeners| listeners.contains(listener))
}

/// Adds all that is told of listeners.
pub(super) fn of_listeners(snapshot: &Snapshot, environment: &Environment, told: &mut Told) {
    let mut managers = Places::new();
    let mut proxies = Places::new();
    for listener in snapshot.listeners.values() {
        let address: Arc<str> = listener_name(listener).into();
        of_listener(listener, &address, told);
        for chain in &listener.chains {
            match &chain.service {
                Service::Http(service) => {
                    let prefix = &service.config.stat_prefix;
                    let stats = environment.managers.of(prefix, &listener.config.name);
                    let scope = Scope::ManagerOnListener(Arc::clone(&address), Arc::clone(prefix));
                    told.add_all(&scope, stats.responses());
                    let listeners = managers.entry(Arc::clone(prefix)).or_default();
                    listeners.insert(Arc::clone(&listener.config.name));
                }
                Service::Tcp(config) => {
                    // Made where it is new: a counter is there before anything has happened.
                    environment
                        .tunnels
                        .of(&config.stat_prefix, &listener.config.name);
                    let listeners = proxies.entry(Arc::clone(&config.stat_prefix));
                    let listeners = listeners.or_default();
                    listeners.insert(Arc::clone(&listener.config.name));
                }
            }
        }
    }
    let is_used = |prefix: &str, listener: &str| has(&managers, prefix, listener);
    environment.managers.retain(is_used);
    let is_used = |prefix: &str, listener: &str| has(&proxies, prefix, listener);
    environment.tunnels.retain(is_used);
    for prefix in managers.into_keys() {
        let all = environment.managers.of_prefix(&prefix);
        told.add_all(&Scope::Manager(prefix), sums(&all));
    }
    for prefix in proxies.into_keys() {
        let all = environment.tunnels.of_prefix(&prefix);
        told.add_all(&Scope::Tunnel(prefix), tunnels::read(&all));
    }
}

/// What connection managers of one prefix have counted together.
fn sums(all: &[Arc<ManagerStats>]) -> BTreeMap<&'static str, u64> {
    let mut sums = BTreeMap::new();
    let counted = all.iter().flat_map(|one| {
        let completed = one.responses().into_iter().filter(is_completed);
        one.read().into_iter().chain(completed)
    });
    for (name, value) in counted {
        *sums.entry(name).or_default() += value;
    }
    sums
}

fn is_completed((name, _): &(&str, u64)) -> bool {
    name.ends_with("_completed")
}

fn of_listener(listener: &Listener, address: &Arc<str>, told: &mut Told) {
    let live = &listener.live;
    let counted = [
        ("downstream_cx_total", &live.accepted),
        ("downstream_cx_active", &live.open),
        ("downstream_pre_cx_active", &live.opening),
        ("downstream_pre_cx_timeout", &live.openings_timed_out),
        ("downstream_listener_filter_remote_close", &live.left_unseen),
        (
            "downstream_listener_filter_error",
            &live.proxy_headers_refused,
        ),
        (
            "downstream_cx_transport_socket_connect_timeout",
            &live.handshake_timeouts,
        ),
        ("no_filter_chain_match", &live.unmatched),
        ("downstream_global_cx_overflow", &live.refused_in_overload),
        ("downstream_cx_overflow", &live.overflown),
        ("ssl.connection_error", &live.tls_failures),
    ];
    let scope = Scope::Listener(Arc::clone(address));
    let counted = counted.map(|(name, value)| (name, value.load(Ordering::Relaxed)));
    told.add_all(&scope, counted);
    let [(_, accepted), (_, open), ..] = counted;
    told.add_all(
        &scope,
        [
            ("downstream_cx_destroy", accepted.saturating_sub(open)),
            // No filters come from elsewhere.
            ("extension_config_missing", 0),
            ("network_extension_config_missing", 0),
        ],
    );
}

/// As Envoy calls a listener in its counters: as it says, else by its first address, `0.0.0.0_15001`.
pub(super) fn listener_name(listener: &Listener) -> String {
    match (
        &listener.config.stat_name,
        listener.config.addresses.first(),
    ) {
        (Some(name), _) => name.to_string(),
        (None, Some(address)) => address.to_string().replace(':', "_"),
        (None, None) => listener.config.name.to_string(),
    }
}
