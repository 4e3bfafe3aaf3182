//! How long requests of a route may take.

use std::time::Duration;

/// The longest that a stream may take, from its first byte to its last: `max_stream_duration`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StreamDuration {
    /// In place of the chain's; zero: none.
    pub max: Option<Duration>,
    /// What a gRPC caller asks for is taken, up to this; zero: whatever it asks for.
    pub grpc_max: Option<Duration>,
    /// So much less than it asks for.
    pub grpc_offset: Option<Duration>,
}

/// What a gRPC caller asks for in place of the route's time-out: `max_grpc_timeout`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GrpcTimeout {
    /// No more than this; zero: whatever it asks for.
    pub max: Duration,
    /// So much less than it asks for.
    pub offset: Option<Duration>,
}
