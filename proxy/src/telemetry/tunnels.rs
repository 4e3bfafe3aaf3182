//! What TCP proxies count, in Envoy's words: `tcp.<stat_prefix>.…`.

use std::sync::Arc;

use super::tally::{Event, Tally, events};
use super::value::Shards;

events! {
    /// What is counted of a TCP proxy on one listener.
    pub enum TcpEvent {
        Connections = "downstream_cx_total",
        NoRoute = "downstream_cx_no_route",
        ReceivedBytes = "downstream_cx_rx_bytes_total",
        SentBytes = "downstream_cx_tx_bytes_total",
        Idle = "idle_timeout",
        TooLong = "max_downstream_connection_duration",
    }
}

/// What cannot happen here: nothing is put off, drained or flushed apart from the connection itself.
const NEVER: [&str; 6] = [
    "downstream_cx_drain_close",
    "downstream_cx_overload_close",
    "early_data_received_count_total",
    "route_delayed_total",
    "upstream_flush_active",
    "upstream_flush_total",
];

/// What is counted of a TCP proxy on one listener.
pub type TcpStats = Tally<TcpEvent>;

/// Makes one.
pub fn tcp_stats(shards: Shards) -> TcpStats {
    Tally::new(shards)
}

/// Of all TCP proxies of one prefix, everything with Envoy's names.
pub fn read(all: &[Arc<TcpStats>]) -> Vec<(&'static str, u64)> {
    let sum = |event: TcpEvent| all.iter().map(|one| one.value(event)).sum();
    let counted = TcpEvent::ALL
        .iter()
        .map(|(event, name)| (*name, sum(*event)));
    counted.chain(NEVER.map(|name| (name, 0))).collect()
}
