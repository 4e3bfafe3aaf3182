//! Adds sidecars to pods: Compose translation, injection, the local launcher and the socket broker.
//!
//! [`inject::inject`] is the one function that gives a pod its sidecar; [`broker`] joins the mesh to the host's
//! network; [`api`] is how this crate and the command line speak with the control plane.

#![cfg_attr(test, allow(clippy::unwrap_used, reason = "a test may panic"))]

pub mod api;
pub mod bootstrap;
pub mod broker;
pub mod compose;
pub mod inject;
pub mod launcher;
pub mod rules;
