//! `/certs`: the workload's certificate and the roots it trusts, and those of the configuration's own, as Envoy shows
//! them.

use jiff::Timestamp;
use serde_json::{Value, json};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::reply::Reply;
use crate::config::cluster::Transport;
use crate::config::tls::{Anchor, Believed, Shown};
use crate::identity::CredentialsReceiver;
use crate::identity::credentials::Credentials;
use crate::snapshot::Snapshot;

const SECONDS_OF_A_DAY: i64 = 24 * 60 * 60;

/// All certificates: the workload's first.
pub fn certs(credentials: Option<&CredentialsReceiver>, snapshot: &Snapshot) -> Reply {
    let current = credentials.and_then(|credentials| credentials.borrow().clone());
    let of_workload = current.iter().map(|current| certificate(current));
    let all: Vec<_> = of_workload.chain(configured(snapshot)).collect();
    Reply::json(&json!({"certificates": all}))
}

/// Those of listeners and clusters, by name.
fn configured(snapshot: &Snapshot) -> Vec<Value> {
    let mut listeners: Vec<_> = snapshot.listeners.values().collect();
    listeners.sort_by(|one, other| one.config.name.cmp(&other.config.name));
    let mut clusters: Vec<_> = snapshot.clusters.values().collect();
    clusters.sort_by(|one, other| one.name().cmp(other.name()));
    let of_listeners = listeners
        .iter()
        .flat_map(|listener| listener.config.chains());
    let of_listeners = of_listeners.filter_map(|chain| chain.tls.as_deref());
    let of_listeners = of_listeners.map(|tls| context(&tls.shows, tls.believes.as_ref()));
    let transports = clusters.iter().flat_map(|cluster| {
        let others = cluster.config.transport_matches.iter();
        let others = others.map(|one| &one.transport);
        others.chain([&cluster.config.transport])
    });
    let of_clusters = transports.map(|transport| match transport {
        Transport::Tls(tls) => context(&tls.shows, Some(&tls.believes)),
        Transport::Plaintext => None,
    });
    of_listeners.chain(of_clusters).flatten().collect()
}

/// What TLS shows and believes; none where it has nothing of its own.
fn context(shows: &Shown, believes: Option<&Believed>) -> Option<Value> {
    let chain: Vec<_> = match shows {
        Shown::Certificates(all) => all
            .iter()
            .filter_map(|each| Some(details(&each.origin, each.key.cert.first()?)))
            .collect(),
        _ => vec![],
    };
    let authorities: Vec<_> = match believes.map(|believes| &believes.anchor) {
        Some(Anchor::Roots(roots)) => roots
            .certificates
            .iter()
            .map(|der| details(&roots.origin, der))
            .collect(),
        _ => vec![],
    };
    let is_empty = chain.is_empty() && authorities.is_empty();
    (!is_empty).then(|| json!({"ca_cert": authorities, "cert_chain": chain}))
}

/// How many days the workload's certificate is valid for; none without an identity.
pub(super) fn days_left(credentials: Option<&CredentialsReceiver>) -> u64 {
    let current = credentials.and_then(|credentials| credentials.borrow().clone());
    let chain = current
        .iter()
        .flat_map(|current| current.identity.key.cert.iter());
    let ends = chain.filter_map(|der| {
        let (_, certificate) = X509Certificate::from_der(der).ok()?;
        Some(certificate.validity().not_after.timestamp())
    });
    let left = |ends: i64| (ends - Timestamp::now().as_second()).max(0) / SECONDS_OF_A_DAY;
    ends.min().map_or(0, |ends| left(ends).unsigned_abs())
}

fn certificate(credentials: &Credentials) -> Value {
    let chain = credentials.identity.key.cert.iter();
    let roots = credentials.roots.iter().flat_map(|(domain, roots)| {
        roots
            .iter()
            .map(move |der| details(&format!("trust-bundle: {domain}"), der))
    });
    json!({
        "ca_cert": roots.collect::<Vec<_>>(),
        "cert_chain": chain.map(|der| details("identity", der)).collect::<Vec<_>>(),
    })
}

fn details(path: &str, der: &[u8]) -> Value {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return json!({"path": path, "error": "not a certificate"});
    };
    let validity = certificate.validity();
    let ends = validity.not_after.timestamp();
    let days_left = (ends - Timestamp::now().as_second()).max(0) / SECONDS_OF_A_DAY;
    json!({
        "path": path,
        "serial_number": certificate.raw_serial_as_string().replace(':', ""),
        "subject_alt_names": names(&certificate),
        "days_until_expiration": days_left.to_string(),
        "valid_from": time(validity.not_before.timestamp()),
        "expiration_time": time(ends),
    })
}

fn names(certificate: &X509Certificate<'_>) -> Vec<Value> {
    let extension = certificate.subject_alternative_name().ok().flatten();
    let names = extension
        .iter()
        .flat_map(|extension| &extension.value.general_names);
    names
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(json!({"uri": uri})),
            GeneralName::DNSName(name) => Some(json!({"dns": name})),
            _ => None,
        })
        .collect()
}

fn time(seconds: i64) -> Option<String> {
    Timestamp::from_second(seconds)
        .ok()
        .map(|time| time.to_string())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::SystemTime;

    use tokio::sync::watch;

    use super::*;
    use crate::identity::testing::Authority;

    #[test]
    fn the_chain_and_the_roots_are_shown_with_names_and_ends() {
        let id = "spiffe://cluster.local/ns/default/sa/reviews";
        let credentials = Authority::new()
            .issue(id)
            .check(SystemTime::now())
            .expect("valid");
        let (_sender, receiver) = watch::channel(Some(Arc::new(credentials)));

        let shown: Value =
            serde_json::from_slice(certs(Some(&receiver), &Snapshot::default()).body())
                .expect("json");

        let leaf = &shown["certificates"][0]["cert_chain"][0];
        assert_eq!(leaf["subject_alt_names"][0]["uri"], id);
        assert!(leaf["expiration_time"].is_string());
        assert_eq!(
            shown["certificates"][0]["ca_cert"].as_array().map(Vec::len),
            Some(1)
        );
    }

    #[test]
    fn a_proxy_without_an_identity_has_no_certificates() {
        let shown: Value =
            serde_json::from_slice(certs(None, &Snapshot::default()).body()).expect("json");

        assert_eq!(shown["certificates"], json!([]));
    }
}
