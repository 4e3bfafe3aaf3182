//! What the proxy tells of itself and of its traffic: metrics, access log, traces.
//!
//! The data path calls it once for each finished exchange; scrapes and exports run on the control thread.

pub mod exposition;
pub mod process;
pub mod registry;
pub mod trace;
pub mod value;
