//! Why there was no response, or no whole one, in Envoy's words: `%RESPONSE_CODE_DETAILS%`, which dashboards count by.
//!
//! For people there is [`explain`], which names what was meant.

use std::borrow::Cow;
use std::sync::Arc;

use super::{Failure, Reset};
use crate::cluster::NoEndpoint;
use crate::telemetry::report::ResponseFlags;
use crate::upstream::{ConnectFailure, explain};

impl Failure {
    /// Envoy's words for it.
    pub(in crate::http) fn details(&self) -> Arc<str> {
        let word = match self {
            Failure::NoRoutesYet { .. } | Failure::NoRoute { .. } => "route_not_found",
            Failure::NoCluster { .. } => "cluster_not_found",
            Failure::NoEndpoint {
                source: NoEndpoint::Dropped,
                ..
            } => "unconditional_drop_overload",
            Failure::NoEndpoint { .. } => "no_healthy_upstream",
            Failure::Overflow { .. } => return before_response("overflow"),
            Failure::Connect { source, .. } => return before_response(&connecting(source)),
            Failure::Reset { how, .. } => return before_response(how.words()),
            Failure::Malformed { .. } => return before_response(Reset::Protocol.words()),
            Failure::RequestBody => "http1.codec_error",
            Failure::ClientGone => "downstream_remote_disconnect",
            Failure::Overloaded => "overload",
            Failure::PerTryTimeout { .. } => "upstream_per_try_timeout",
            Failure::PerTryIdle { .. } => "upstream_per_try_idle_timeout",
            Failure::Timeout { .. } => "response_timeout",
            Failure::Idle { .. } => "stream_idle_timeout",
            Failure::Duration { .. } => "max_duration_timeout",
            Failure::RequestTimeout { .. } => "request_overall_timeout",
            Failure::Answered(reply) => return Arc::clone(&reply.details),
            Failure::Authority { .. } => "invalid_authority",
            Failure::Rewrite { .. } => "invalid_rewritten_path",
        };
        word.into()
    }
}

impl Reset {
    fn words(self) -> &'static str {
        match self {
            Reset::BeforeRequest | Reset::Connection => "connection_termination",
            Reset::Refused => "remote_refused_stream_reset",
            Reset::Stream => "remote_reset",
            Reset::Protocol => "protocol_error",
        }
    }
}

/// The words for a response that has ended early, by the flag that it has for it.
pub(in crate::http) fn after_response(flag: ResponseFlags) -> Arc<str> {
    let how = match flag {
        ResponseFlags::UPSTREAM_TIMEOUT => return "response_timeout".into(),
        ResponseFlags::STREAM_IDLE_TIMEOUT => return "stream_idle_timeout".into(),
        ResponseFlags::UPSTREAM_PROTOCOL_ERROR => Reset::Protocol.words(),
        ResponseFlags::UPSTREAM_REMOTE_RESET => Reset::Stream.words(),
        ResponseFlags::UPSTREAM_TERMINATION => Reset::Connection.words(),
        ResponseFlags::LOCAL_RESET => "local_reset",
        _ => return "max_duration_timeout".into(),
    };
    format!("upstream_reset_after_response_started{{{how}}}").into()
}

fn before_response(how: &str) -> Arc<str> {
    format!("upstream_reset_before_response_started{{{how}}}").into()
}

/// Logs are taken apart at spaces, so there are none.
fn connecting(failure: &ConnectFailure) -> Cow<'static, str> {
    match failure {
        ConnectFailure::Overflow(_) => "overflow".into(),
        ConnectFailure::Timeout { .. } => "connection_timeout".into(),
        other => {
            let reason = transport_failure(other).replace(' ', "_");
            format!("remote_connection_failure|{reason}").into()
        }
    }
}

/// Why there was no connection; what the kernel says is called as in Envoy.
fn transport_failure(failure: &ConnectFailure) -> String {
    match failure {
        ConnectFailure::Io { source, .. } => {
            let text = source.to_string();
            // The number of an error is not in Envoy's.
            let text = text.split(" (os error").next().unwrap_or_default();
            format!("delayed connect error: {text}")
        }
        other => explain(other),
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_refused_connection_is_told_without_spaces() {
        let source = Arc::new(io::Error::from_raw_os_error(111));
        let address = ([127, 0, 0, 1], 80).into();
        let failure = Failure::Connect {
            cluster: "dead".into(),
            source: ConnectFailure::Io { address, source },
        };

        assert_eq!(
            &*failure.details(),
            "upstream_reset_before_response_started{remote_connection_failure|delayed_connect_error:_Connection_refused}"
        );
    }
}
