//! The container runtime: images, sandboxes, containers, networks.
