//! What is done when the proxy itself runs short of something: Envoy's overload manager.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// What is watched, and what follows.
#[derive(Debug, Clone, PartialEq)]
pub struct OverloadConfig {
    /// How often resources are looked at.
    pub refresh_interval: Duration,
    /// What is looked at.
    pub monitors: Vec<Monitor>,
    /// How many connections of clients may be open.
    pub max_connections: Option<ConnectionLimit>,
    /// What is done, and when; each action once.
    pub actions: Vec<(Action, Vec<Trigger>)>,
    /// How far idle connections of clients are cut short.
    pub connection_idle: Option<Shortest>,
    /// How often memory is given back.
    pub shrink_interval: Duration,
}

/// Something that can run short.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Monitor {
    /// As triggers call it.
    pub name: Arc<str>,
    /// What it is.
    pub resource: Resource,
}

/// What a monitor looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Resource {
    /// The memory of the process, against this many bytes.
    Heap(u64),
    /// The memory of the control group, against its limit or this many bytes, whichever is less; 0: its limit.
    ControlGroup(u64),
    /// The number that a file holds.
    File(PathBuf),
}

/// How many connections of clients may be open.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectionLimit {
    /// As statistics call it.
    pub name: Arc<str>,
    /// How many.
    pub max: u64,
}

/// When an action is taken, by the pressure on a resource.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Trigger {
    /// The monitor, by its place.
    pub monitor: usize,
    /// Above this pressure the action begins to be taken.
    pub scaling: f64,
    /// From this one on it is taken always.
    pub saturation: f64,
}

impl Trigger {
    /// How far an action is taken: from 0, not at all, to 1, always.
    pub fn state(&self, pressure: f64) -> f64 {
        if pressure >= self.saturation {
            return 1.0;
        }
        let range = self.saturation - self.scaling;
        if pressure <= self.scaling || range <= 0.0 {
            return 0.0;
        }
        (pressure - self.scaling) / range
    }
}

/// What is done against a shortage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Requests are answered with 503, once it is saturated.
    StopAcceptingRequests,
    /// Connections of HTTP/1 end with their next response.
    DisableKeepalive,
    /// Connections wait to be accepted, once it is saturated.
    StopAcceptingConnections,
    /// Connections are closed as soon as they are accepted.
    RejectConnections,
    /// Idle connections are kept less long.
    ReduceTimeouts,
    /// Free memory is given back to the system, once it is saturated.
    ShrinkHeap,
    /// A load shed point: connections are closed as soon as they are accepted.
    ShedConnections,
    /// A load shed point: requests are answered with 503.
    ShedRequests,
}

impl Action {
    /// All of them.
    pub const ALL: [Action; 8] = [
        Action::StopAcceptingRequests,
        Action::DisableKeepalive,
        Action::StopAcceptingConnections,
        Action::RejectConnections,
        Action::ReduceTimeouts,
        Action::ShrinkHeap,
        Action::ShedConnections,
        Action::ShedRequests,
    ];

    /// As Envoy calls it.
    pub fn name(self) -> &'static str {
        match self {
            Action::StopAcceptingRequests => "envoy.overload_actions.stop_accepting_requests",
            Action::DisableKeepalive => "envoy.overload_actions.disable_http_keepalive",
            Action::StopAcceptingConnections => "envoy.overload_actions.stop_accepting_connections",
            Action::RejectConnections => "envoy.overload_actions.reject_incoming_connections",
            Action::ReduceTimeouts => "envoy.overload_actions.reduce_timeouts",
            Action::ShrinkHeap => "envoy.overload_actions.shrink_heap",
            Action::ShedConnections => "envoy.load_shed_points.tcp_listener_accept",
            Action::ShedRequests => "envoy.load_shed_points.http_connection_manager_decode_headers",
        }
    }

    /// Whether it is a load shed point.
    pub fn is_point(self) -> bool {
        matches!(self, Action::ShedConnections | Action::ShedRequests)
    }
}

/// The least that is left of a time-out.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Shortest {
    /// So long.
    Time(Duration),
    /// A share of it, from 0 to 1.
    Share(f64),
}

impl Shortest {
    /// What is left of a time-out where the action is taken so far.
    pub fn left_of(self, timeout: Duration, state: f64) -> Duration {
        let shortest = match self {
            Shortest::Time(time) => time.min(timeout),
            Shortest::Share(share) => timeout.mul_f64(share),
        };
        shortest + (timeout - shortest).mul_f64(1.0 - state.clamp(0.0, 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_action_is_taken_further_the_higher_the_pressure() {
        let scaled = Trigger {
            monitor: 0,
            scaling: 0.5,
            saturation: 0.9,
        };
        let threshold = Trigger {
            scaling: 0.9,
            ..scaled
        };

        for (pressure, expected) in [(0.4, 0.0), (0.5, 0.0), (0.6, 0.25), (0.7, 0.5), (0.9, 1.0)] {
            assert!(
                (scaled.state(pressure) - expected).abs() < 1e-9,
                "{pressure}"
            );
        }
        assert_eq!((threshold.state(0.89), threshold.state(0.9)), (0.0, 1.0));
    }

    #[test]
    fn a_timeout_shrinks_to_the_shortest_and_no_further() {
        let minute = Duration::from_secs(60);
        let ten = Shortest::Time(Duration::from_secs(10));

        assert_eq!(ten.left_of(minute, 0.0), minute);
        assert_eq!(ten.left_of(minute, 0.5), Duration::from_secs(35));
        assert_eq!(ten.left_of(minute, 1.0), Duration::from_secs(10));
        assert_eq!(
            ten.left_of(Duration::from_secs(5), 1.0),
            Duration::from_secs(5)
        );
        assert_eq!(Shortest::Share(0.5).left_of(minute, 1.0), minute / 2);
    }
}
