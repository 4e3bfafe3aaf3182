//! What the proxy tells of itself and of its traffic: metrics, access log, traces.
//!
//! The data path calls it once for each finished exchange; scrapes and exports run on the control thread.

pub mod access_log;
pub mod changes;
pub mod counters;
pub mod export;
pub mod exposition;
mod labels;
pub mod managers;
pub mod process;
pub mod recent;
pub mod recorder;
pub mod registry;
pub mod report;
pub mod series;
pub mod session;
pub mod span;
pub mod tally;
pub mod trace;
pub mod traffic;
pub mod tunnels;
pub mod value;

#[cfg(test)]
mod testing;
