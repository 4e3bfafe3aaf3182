//! The container runtime: images, sandboxes, containers, networks.
//!
//! [`bootstrap`] starts or adopts the node and gives the daemon a client of it; [`entry`] is what the
//! runtime's own processes run. Everything between the two speaks `weft.node.v1`, so nothing else is public,
//! but [`release_free_memory`] and [`release_program_pages`]: they need unsafe code, and that is only here.

pub mod bootstrap;
pub mod check;
pub mod entry;
pub mod image;

mod build_step;
mod cgroup;
mod container;
mod dns;
mod files;
mod network;
mod node;
mod procfs;
mod program_pages;
mod server;
mod sys;

pub use program_pages::release as release_program_pages;
pub use sys::release_free_memory;
