//! `google.protobuf.Any` with a value that is shared instead of copied.
//!
//! Both ends pack resources and extension configurations with [`pack`] and take them apart with [`unpack`],
//! which never trusts the type URL.

use bytes::Bytes;
use prost::{DecodeError, Message, Name};

/// An encoded message and the URL of its type; the same on the wire as [`prost_types::Any`].
#[derive(Clone, PartialEq, Eq, Hash, Message)]
pub struct Any {
    /// `type.googleapis.com/` and the full name of the message.
    #[prost(string, tag = "1")]
    pub type_url: String,
    /// The encoded message.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
}

impl Name for Any {
    const NAME: &'static str = "Any";
    const PACKAGE: &'static str = "google.protobuf";

    fn type_url() -> String {
        format!("type.googleapis.com/{}", Self::full_name())
    }
}

/// Why an [`Any`] is not the message it was taken for.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It holds another type.
    #[error("expected {expected}, found {found:?}")]
    Type {
        /// The full name of the message that was asked for.
        expected: String,
        /// The type URL that was there.
        found: String,
    },
    /// Its bytes are not a message of its type.
    #[error("decoding {name}")]
    Decode {
        /// The full name of the message.
        name: String,
        /// What is wrong with the bytes.
        source: DecodeError,
    },
}

/// Encodes a message together with its type URL.
pub fn pack<T: Name>(message: &T) -> Any {
    Any {
        type_url: T::type_url(),
        value: message.encode_to_vec().into(),
    }
}

/// Decodes the message of type `T` that `any` must hold.
///
/// Only the part of the URL after its last slash counts, as the well-known type demands.
pub fn unpack<T: Name + Default>(any: &Any) -> Result<T, UnpackError> {
    if type_name(&any.type_url) != T::full_name() {
        return Err(UnpackError::Type {
            expected: T::full_name(),
            found: any.type_url.clone(),
        });
    }
    T::decode(any.value.clone()).map_err(|source| UnpackError::Decode {
        name: T::full_name(),
        source,
    })
}

/// The full name of the message that a type URL names.
pub fn type_name(type_url: &str) -> &str {
    type_url.rsplit_once('/').map_or(type_url, |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::envoy::config::cluster::v3::Cluster;
    use crate::envoy::config::listener::v3::Listener;

    fn cluster() -> Cluster {
        Cluster {
            name: "reviews".into(),
            ..Cluster::default()
        }
    }

    #[test]
    fn what_is_packed_is_unpacked_unchanged() {
        let any = pack(&cluster());

        assert_eq!(
            any.type_url,
            "type.googleapis.com/envoy.config.cluster.v3.Cluster"
        );
        assert_eq!(unpack::<Cluster>(&any).unwrap(), cluster());
    }

    #[test]
    fn another_type_is_refused_by_name() {
        let error = unpack::<Listener>(&pack(&cluster())).unwrap_err();

        assert_eq!(
            error.to_string(),
            "expected envoy.config.listener.v3.Listener, found \
             \"type.googleapis.com/envoy.config.cluster.v3.Cluster\""
        );
    }

    #[test]
    fn the_host_of_a_type_url_does_not_matter() {
        let mut any = pack(&cluster());
        any.type_url = "types.example/a/envoy.config.cluster.v3.Cluster".into();

        assert_eq!(unpack::<Cluster>(&any).unwrap(), cluster());
    }

    #[test]
    fn bytes_that_are_no_message_are_an_error() {
        let mut any = pack(&cluster());
        any.value = Bytes::from_static(b"\x0a\xff");

        let error = unpack::<Cluster>(&any).unwrap_err();

        assert!(matches!(error, UnpackError::Decode { .. }));
    }

    #[test]
    fn it_is_the_well_known_type_on_the_wire() {
        let ours = pack(&cluster());

        let theirs = prost_types::Any::decode(ours.encode_to_vec().as_slice()).unwrap();

        assert_eq!(theirs.type_url, ours.type_url);
        assert_eq!(theirs.value, ours.value);
    }

    #[test]
    fn unpacking_shares_the_bytes_of_nested_values() {
        let outer = crate::envoy::service::discovery::v3::Resource {
            resource: Some(pack(&cluster())),
            ..Default::default()
        };
        let any = pack(&outer);

        let inner = unpack::<crate::envoy::service::discovery::v3::Resource>(&any)
            .unwrap()
            .resource
            .unwrap();

        assert!(any.value.as_ptr_range().contains(&inner.value.as_ptr()));
    }
}
