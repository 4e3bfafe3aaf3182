//! The small messages that every other one is made of.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};

use prost::Name;
use prost_types::{Struct, Value, value::Kind};
use weft_proto::envoy::config::core::v3 as core;
use weft_proto::envoy::r#type::matcher::v3 as matcher;
use weft_proto::envoy::r#type::v3 as kind;
use weft_proto::{Any, any, names};

use crate::kinds::reference::Percentage;
use crate::mesh::Sharing;

/// A TCP address.
pub(super) fn socket_address(address: SocketAddr) -> core::SocketAddress {
    core::SocketAddress {
        address: address.ip().to_string(),
        port_specifier: Some(core::socket_address::PortSpecifier::PortValue(u32::from(
            address.port(),
        ))),
        ..core::SocketAddress::default()
    }
}

/// A TCP address, as an address of any kind.
pub(super) fn address(address: SocketAddr) -> core::Address {
    core::Address {
        address: Some(core::address::Address::SocketAddress(socket_address(
            address,
        ))),
    }
}

/// A TCP address, of address and port.
pub(super) fn address_of(ip: IpAddr, port: u16) -> core::Address {
    address(SocketAddr::new(ip, port))
}

/// "Over the stream that this came by".
pub(super) fn ads() -> core::ConfigSource {
    core::ConfigSource {
        resource_api_version: core::ApiVersion::V3.into(),
        config_source_specifier: Some(core::config_source::ConfigSourceSpecifier::Ads(
            core::AggregatedConfigSource {},
        )),
        ..core::ConfigSource::default()
    }
}

/// Text values under one key of metadata.
pub(super) fn metadata(key: &str, values: &[(&str, &str)]) -> core::Metadata {
    core::Metadata {
        filter_metadata: BTreeMap::from([(key.to_owned(), text_struct(values))]),
        ..core::Metadata::default()
    }
}

/// "The socket broker opens this socket in the host's network".
pub(super) fn host_network() -> core::Metadata {
    metadata(
        names::METADATA,
        &[(names::METADATA_NETWORK, names::NETWORK_HOST)],
    )
}

/// "What goes to sidecars may share connections"; whoever does not know it makes one for each.
pub(super) fn sharing(sharing: Sharing) -> Option<core::Metadata> {
    let said = match sharing {
        Sharing::Never => return None,
        Sharing::WhenBusy => (names::METADATA_REQUESTS, names::REQUESTS_SHARED_WHEN_BUSY),
        Sharing::Always => (names::METADATA_CONNECTIONS, names::CONNECTIONS_SHARED),
    };
    Some(metadata(names::METADATA, &[said]))
}

/// An object of texts.
pub(super) fn text_struct(values: &[(&str, &str)]) -> Struct {
    let text = |value: &str| Value {
        kind: Some(Kind::StringValue(value.to_owned())),
    };
    Struct {
        fields: values
            .iter()
            .map(|(key, value)| ((*key).to_owned(), text(value)))
            .collect(),
    }
}

/// An extension that this crate's messages do not describe and that has nothing to configure.
pub(super) fn empty_extension(message: &str) -> Any {
    Any {
        type_url: format!("type.googleapis.com/{message}"),
        value: bytes::Bytes::new(),
    }
}

/// A transport socket of that name.
pub(super) fn transport_socket<T: Name>(name: &str, configuration: &T) -> core::TransportSocket {
    core::TransportSocket {
        name: name.to_owned(),
        config_type: Some(core::transport_socket::ConfigType::TypedConfig(any::pack(
            configuration,
        ))),
    }
}

/// A share of requests, to the millionth.
pub(super) fn fraction(percentage: Percentage) -> kind::FractionalPercent {
    kind::FractionalPercent {
        numerator: percentage.millionths(),
        denominator: kind::fractional_percent::DenominatorType::Million.into(),
    }
}

/// Exactly this text.
pub(super) fn exactly(text: &str) -> matcher::StringMatcher {
    matcher::StringMatcher {
        match_pattern: Some(matcher::string_matcher::MatchPattern::Exact(
            text.to_owned(),
        )),
        ..matcher::StringMatcher::default()
    }
}

/// The whole of the text.
pub(super) fn regex(pattern: &str) -> matcher::RegexMatcher {
    matcher::RegexMatcher {
        regex: pattern.to_owned(),
        ..matcher::RegexMatcher::default()
    }
}
