//! The wire: Envoy's xDS v3 as weft speaks it, weft's own services, and the names both ends agree on.
//!
//! [`envoy`], [`xds`] and [`google`] are a subset of the published API with the same packages, names,
//! numbers and types, so `envoy.config.listener.v3.Listener` is [`envoy::config::listener::v3::Listener`].
//! What is left out reaches nobody unnoticed: [`unknown`] finds it in the encoded bytes.
//!
//! Well-known types are those of [`prost_types`], wrappers are plain `Option<u32>`, and maps are ordered, so
//! the same message always encodes to the same bytes. The one exception is [`Any`], which is ours: its value
//! is [`bytes::Bytes`], so one encoded resource goes to any number of clients without a copy.
//! [`wkt`] converts durations and structs.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

use std::sync::{Arc, Mutex, PoisonError, Weak};

use prost_reflect::DescriptorPool;

pub mod any;
pub mod handoff;
pub mod json;
pub mod names;
mod path;
mod rules;
pub mod spiffe;
mod table;
mod tree;
pub mod type_urls;
pub mod unknown;
pub mod wkt;

pub use any::Any;
pub use generated::{envoy, google, weft, xds};

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::all,
    clippy::allow_attributes_without_reason,
    rustdoc::all,
    reason = "generated from the .proto files, where the documentation is"
)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/weft_proto.rs"));
}

/// The encoded `google.protobuf.FileDescriptorSet` of every message in this crate and of the well-known
/// types, without comments.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

static IN_USE: Mutex<Weak<DescriptorPool>> = Mutex::new(Weak::new());

/// The descriptors in [`DESCRIPTOR_SET`], built when somebody asks and dropped with their last user.
///
/// They take more memory than everything else in an idle proxy, so nobody keeps them. Building takes
/// milliseconds: who needs them many times in a row holds on to them meanwhile.
pub fn descriptor_pool() -> Arc<DescriptorPool> {
    let mut in_use = IN_USE.lock().unwrap_or_else(PoisonError::into_inner);
    in_use.upgrade().unwrap_or_else(|| {
        let pool = DescriptorPool::decode(DESCRIPTOR_SET)
            .expect("the build script wrote a valid descriptor set");
        let pool = Arc::new(pool);
        *in_use = Arc::downgrade(&pool);
        pool
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_descriptors_are_shared_by_those_who_use_them_at_once() {
        let first = descriptor_pool();

        let second = descriptor_pool();

        assert!(Arc::ptr_eq(&first, &second));
    }
}
