//! weft's own entries in `Metadata`: whose network a socket is in, what connections share, and what an endpoint is called.

use std::collections::BTreeMap;
use std::sync::Arc;

use prost_types::value::Kind;
use prost_types::{Struct, Value};
use weft_proto::envoy::config::core::v3::Metadata;
use weft_proto::names;

use super::at::{At, Invalid};
use crate::config::cluster::Sharing;
use crate::config::{Network, Workload};

/// Envoy's key of the labels that choose an endpoint's transport.
const TRANSPORT_SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// `weft.dev: {network: host}`. Metadata of others is theirs, and passed over.
pub(super) fn network(at: &At<'_>, wire: Option<&Metadata>) -> Result<Network, Invalid> {
    let Some(own) = own(wire) else {
        return Ok(Network::Sandbox);
    };
    match own.fields.get(names::METADATA_NETWORK).and_then(text) {
        None => Ok(Network::Sandbox),
        Some(names::NETWORK_HOST) => Ok(Network::Host),
        Some(other) => {
            let at = at.field("filter_metadata");
            let at = at.key(names::METADATA);
            Err(at.field(names::METADATA_NETWORK).refuse_value(other))
        }
    }
}

/// `weft.dev: {connections: shared}` or `{requests: shared-when-busy}`.
pub(super) fn sharing(at: &At<'_>, wire: Option<&Metadata>) -> Result<Sharing, Invalid> {
    let said = |key, expected: &str| {
        let value = own(wire).and_then(|own| own.fields.get(key));
        match value.and_then(text) {
            None => Ok(false),
            Some(value) if value == expected => Ok(true),
            Some(other) => {
                let at = at.field("filter_metadata");
                let at = at.key(names::METADATA);
                Err(at.field(key).refuse_value(other))
            }
        }
    };
    let all_share = said(names::METADATA_CONNECTIONS, names::CONNECTIONS_SHARED)?;
    let many_share = said(names::METADATA_REQUESTS, names::REQUESTS_SHARED_WHEN_BUSY)?;
    Ok(match (all_share, many_share) {
        (true, _) => Sharing::Always,
        (false, true) => Sharing::WhenBusy,
        (false, false) => Sharing::Never,
    })
}

/// `weft.dev: {workload, namespace, pod, service}`; what is missing is empty.
pub(super) fn workload(wire: Option<&Metadata>) -> Workload {
    let Some(own) = own(wire) else {
        return Workload::default();
    };
    workload_of(own)
}

/// The same fields in any struct, such as a node's metadata.
pub fn workload_of(fields: &Struct) -> Workload {
    let named = |name: &str| {
        fields
            .fields
            .get(name)
            .and_then(text)
            .unwrap_or_default()
            .into()
    };
    Workload {
        name: named("workload"),
        namespace: named("namespace"),
        pod: named("pod"),
        service: named("service"),
    }
}

/// The labels that choose an endpoint's transport.
pub(super) fn transport_labels(
    at: &At<'_>,
    wire: Option<&Metadata>,
) -> Result<BTreeMap<Arc<str>, Arc<str>>, Invalid> {
    let fields = wire.and_then(|metadata| metadata.filter_metadata.get(TRANSPORT_SOCKET_MATCH));
    let at = at.field("filter_metadata");
    fields.map_or(Ok(BTreeMap::new()), |fields| {
        labels(&at.key(TRANSPORT_SOCKET_MATCH), fields)
    })
}

/// A struct of texts.
pub(super) fn labels(at: &At<'_>, wire: &Struct) -> Result<BTreeMap<Arc<str>, Arc<str>>, Invalid> {
    wire.fields
        .iter()
        .map(|(name, value)| {
            let text = text(value).ok_or_else(|| at.field(name).refuse("must be a text"))?;
            Ok((name.as_str().into(), text.into()))
        })
        .collect()
}

fn own(wire: Option<&Metadata>) -> Option<&Struct> {
    wire?.filter_metadata.get(names::METADATA)
}

fn text(value: &Value) -> Option<&str> {
    match &value.kind {
        Some(Kind::StringValue(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use weft_proto::wkt::struct_from_json;

    use super::super::at::Notes;
    use super::*;

    fn metadata(key: &str, fields: serde_json::Value) -> Metadata {
        let fields = struct_from_json(fields.as_object().expect("an object"));
        Metadata {
            filter_metadata: BTreeMap::from([(key.to_owned(), fields)]),
            ..Metadata::default()
        }
    }

    #[test]
    fn the_host_network_is_asked_for_by_name() {
        let notes = Notes::default();
        let at = At::root(&notes);

        let host = network(&at, Some(&metadata("weft.dev", json!({"network": "host"}))));
        let other = network(&at, Some(&metadata("weft.dev", json!({"network": "moon"}))));

        assert_eq!(host, Ok(Network::Host));
        assert_eq!(network(&at, None), Ok(Network::Sandbox));
        assert_eq!(
            other.expect_err("refused").to_string(),
            "filter_metadata[\"weft.dev\"].network: \"moon\" is not supported"
        );
    }

    #[test]
    fn connections_are_shared_where_that_is_said() {
        let notes = Notes::default();
        let at = At::root(&notes);
        let said = |key: &str, value| {
            let wire = metadata("weft.dev", json!({key: value}));
            sharing(&at, Some(&wire))
        };

        let other = said("connections", "borrowed");

        assert_eq!(said("connections", "shared"), Ok(Sharing::Always));
        assert_eq!(said("requests", "shared-when-busy"), Ok(Sharing::WhenBusy));
        assert_eq!(sharing(&at, None), Ok(Sharing::Never));
        assert_eq!(
            other.expect_err("refused").to_string(),
            "filter_metadata[\"weft.dev\"].connections: \"borrowed\" is not supported"
        );
    }

    #[test]
    fn an_endpoint_is_called_as_its_metadata_says() {
        let wire = metadata(
            "weft.dev",
            json!({"workload": "reviews-v1", "service": "reviews"}),
        );

        let workload = workload(Some(&wire));

        assert_eq!(
            (&*workload.name, &*workload.service, &*workload.pod),
            ("reviews-v1", "reviews", "")
        );
    }
}
