//! The container runtime: images, sandboxes, containers, networks.

pub mod image;
