//! `/listeners`: where the proxy listens, and what connections turned out to be.

use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde_json::{Map, Value, json};

use super::reply::{Query, Reply};
use crate::config::listener::Binding;
use crate::snapshot::listener::{Listener, Verdict};
use crate::workers::DataPlane;

/// Text as Envoy's; with `format=json` also the verdicts of protocol detection.
pub async fn listeners(data_plane: &DataPlane, query: &Query) -> Reply {
    let snapshot = data_plane.snapshot();
    let mut all: Vec<_> = snapshot.listeners.values().cloned().collect();
    all.sort_by(|left, right| left.config.name.cmp(&right.config.name));
    let mut shown = Vec::with_capacity(all.len());
    for listener in all {
        let addresses = match listener.config.binding {
            Binding::Bound => data_plane.addresses(&listener.config.name).await,
            Binding::Virtual => listener.config.addresses.clone(),
        };
        shown.push((listener, addresses));
    }
    match query.value("format") {
        Some("json") => Reply::json(&as_json(&shown)),
        _ => Reply::ok(as_text(&shown)),
    }
}

fn as_text(listeners: &[(Arc<Listener>, Vec<SocketAddr>)]) -> String {
    let mut text = String::new();
    for (listener, addresses) in listeners {
        for address in addresses {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{}::{address}", listener.config.name);
        }
    }
    text
}

fn as_json(listeners: &[(Arc<Listener>, Vec<SocketAddr>)]) -> Value {
    let statuses: Vec<_> = listeners
        .iter()
        .map(|(listener, addresses)| {
            let mut addresses = addresses.iter().map(|address| {
                json!({"socket_address":
                    {"address": address.ip().to_string(), "port_value": address.port()}})
            });
            json!({
                "name": listener.config.name,
                "local_address": addresses.next(),
                "additional_local_addresses": addresses.collect::<Vec<_>>(),
                "is_bound": listener.config.binding == Binding::Bound,
                "detection": detection(listener),
                "connections": {
                    "accepted": listener.live.accepted.load(Ordering::Relaxed),
                    "open": listener.live.open.load(Ordering::Relaxed),
                    "unmatched": listener.live.unmatched.load(Ordering::Relaxed),
                },
            })
        })
        .collect();
    json!({"listener_statuses": statuses})
}

/// What the last connection turned out to be, and how many were what; null where nobody has to find out.
fn detection(listener: &Listener) -> Value {
    if !listener.config.needs_detection() {
        return Value::Null;
    }
    let counts: Map<_, _> = Verdict::ALL
        .into_iter()
        .map(|verdict| {
            (
                verdict.as_str().to_owned(),
                listener.live.count_of(verdict).into(),
            )
        })
        .collect();
    json!({"protocol": listener.live.verdict().as_str(), "connections": counts})
}
