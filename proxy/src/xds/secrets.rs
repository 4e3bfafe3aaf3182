//! Secrets that TLS is configured with by name: which are named, and their contents in place of the names.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::config::Configuration;
use crate::config::cluster::{ClusterConfig, Transport};
use crate::config::listener::ListenerConfig;
use crate::config::tls::{Anchor, Believed, DownstreamTls, Secret, Shown, UpstreamTls};

/// Secrets by name.
pub type Secrets = BTreeMap<Arc<str>, Arc<Secret>>;

/// The secrets that a listener names.
pub fn of_listener(listener: &ListenerConfig) -> impl Iterator<Item = &Arc<str>> {
    let contexts = listener.chains().filter_map(|chain| chain.tls.as_deref());
    contexts.flat_map(|tls| named(&tls.shows, tls.believes.as_ref()))
}

/// The secrets that a cluster names.
pub fn of_cluster(cluster: &ClusterConfig) -> impl Iterator<Item = &Arc<str>> {
    let others = cluster.transport_matches.iter();
    let transports = others.map(|one| &one.transport).chain([&cluster.transport]);
    transports.flat_map(|transport| match transport {
        Transport::Tls(tls) => named(&tls.shows, Some(&tls.believes)).collect(),
        Transport::Plaintext => vec![],
    })
}

fn named<'a>(
    shows: &'a Shown,
    believes: Option<&'a Believed>,
) -> impl Iterator<Item = &'a Arc<str>> {
    let shown = match shows {
        Shown::Secret(name) => Some(name),
        _ => None,
    };
    let anchor = believes.and_then(|believes| match &believes.anchor {
        Anchor::Secret(name) => Some(name),
        _ => None,
    });
    shown.into_iter().chain(anchor)
}

/// Puts secrets that are there in place of their names. What comes out as it was before is the very same, so that
/// nobody takes it for a change.
pub fn fill_in(configuration: &mut Configuration, before: Option<&Configuration>) {
    let Configuration {
        listeners,
        clusters,
        secrets,
        ..
    } = configuration;
    for (name, listener) in listeners {
        if of_listener(listener).next().is_some() {
            let filled = filled_listener(listener, secrets);
            let before = before.and_then(|before| before.listeners.get(name));
            *listener = same_or(before, filled);
        }
    }
    for (name, cluster) in clusters {
        if of_cluster(cluster).next().is_some() {
            let filled = filled_cluster(cluster, secrets);
            let before = before.and_then(|before| before.clusters.get(name));
            *cluster = same_or(before, filled);
        }
    }
}

/// TLS towards endpoints, with secrets that are there in place of their names.
pub fn filled_upstream(tls: &UpstreamTls, secrets: &Secrets) -> UpstreamTls {
    UpstreamTls {
        shows: filled_shown(&tls.shows, secrets),
        believes: filled_believed(&tls.believes, secrets),
        ..tls.clone()
    }
}

/// The secrets that TLS towards endpoints knows by their names alone.
pub fn names_of_upstream(tls: &UpstreamTls) -> impl Iterator<Item = &Arc<str>> {
    named(&tls.shows, Some(&tls.believes))
}

fn same_or<T: PartialEq>(before: Option<&Arc<T>>, now: T) -> Arc<T> {
    match before {
        Some(before) if **before == now => Arc::clone(before),
        _ => Arc::new(now),
    }
}

fn filled_listener(listener: &ListenerConfig, secrets: &Secrets) -> ListenerConfig {
    let mut filled = listener.clone();
    for chain in filled
        .filter_chains
        .iter_mut()
        .chain(&mut filled.default_chain)
    {
        if let Some(tls) = &mut chain.tls {
            let DownstreamTls {
                shows, believes, ..
            } = &**tls;
            *tls = Arc::new(DownstreamTls {
                shows: filled_shown(shows, secrets),
                believes: believes.as_ref().map(|one| filled_believed(one, secrets)),
                ..(**tls).clone()
            });
        }
    }
    filled
}

fn filled_cluster(cluster: &ClusterConfig, secrets: &Secrets) -> ClusterConfig {
    let mut filled = cluster.clone();
    let others = filled.transport_matches.iter_mut();
    let transports = others.map(|one| &mut one.transport);
    for transport in transports.chain([&mut filled.transport]) {
        if let Transport::Tls(tls) = transport {
            *tls = Arc::new(filled_upstream(tls, secrets));
        }
    }
    filled
}

fn filled_shown(shows: &Shown, secrets: &Secrets) -> Shown {
    let Shown::Secret(name) = shows else {
        return shows.clone();
    };
    match secrets.get(name).map(|secret| &**secret) {
        Some(Secret::Certificate(certificate)) => {
            Shown::Certificates(vec![Arc::clone(certificate)])
        }
        _ => shows.clone(),
    }
}

/// What the context says by itself is added to what the secret says.
fn filled_believed(believes: &Believed, secrets: &Secrets) -> Believed {
    let Anchor::Secret(name) = &believes.anchor else {
        return believes.clone();
    };
    let Some(Secret::Believed(secret)) = secrets.get(name).map(|secret| &**secret) else {
        return believes.clone();
    };
    let mut filled = secret.clone();
    filled.names.extend(believes.names.iter().cloned());
    filled
        .certificate_hashes
        .extend(&believes.certificate_hashes);
    filled.key_hashes.extend(&believes.key_hashes);
    filled.allows_expired |= believes.allows_expired;
    filled
}
