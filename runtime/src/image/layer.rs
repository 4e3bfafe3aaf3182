//! Layers: tar archives that become folders, and folders that become tar archives.
//!
//! Archives come from strangers. Nothing in one may name a file outside of the folder it is
//! unpacked into, exhaust memory or disk, or make the process panic; see `tree.rs` for how paths
//! are opened and `entries.rs` for the bounds.

pub(super) mod attributes;
pub(super) mod entries;
pub(super) mod pack;
pub(super) mod path;
pub(super) mod tree;
pub(super) mod unpack;
pub(super) mod whiteout;
