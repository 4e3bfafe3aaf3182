//! What a listener's own access log says of a connection that opaque bytes tell nothing of: one line when it ends,
//! also where no filter chain was for it.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::Connection;
use super::detect::Seen;
use crate::cluster::stats::ClusterStats;
use crate::tcp::gate::Denied;
use crate::telemetry::report::{Downstream, ResponseFlags, TcpReport};
use crate::upstream::environment::Environment;

/// The line of a connection, written when dropped.
pub(super) struct Line {
    /// `None`: another report tells of the connection.
    report: Option<TcpReport>,
    started: Instant,
    environment: Arc<Environment>,
}

impl Line {
    fn new(connection: &Connection) -> Self {
        let report = TcpReport {
            downstream: connection.described(None),
            start: SystemTime::now(),
            duration: Duration::ZERO,
            cluster: None,
            upstream: None,
            received_bytes: 0,
            sent_bytes: 0,
            flags: ResponseFlags::default(),
            reason: None,
            termination: None,
            access_logs: Arc::new([]),
        };
        Line {
            report: Some(report),
            started: Instant::now(),
            environment: Arc::clone(&connection.environment),
        }
    }

    /// What has become known of the client.
    pub(super) fn describe(&mut self, downstream: &Arc<Downstream>) {
        if let Some(report) = &mut self.report {
            report.downstream = Arc::clone(downstream);
        }
    }

    /// The report of its bytes tells of the connection.
    pub(super) fn leave_to_bytes(&mut self) {
        self.report = None;
    }

    fn terminate(&mut self, termination: Option<Arc<str>>) {
        if let Some(report) = &mut self.report {
            report.termination = termination;
        }
    }

    fn fail(&mut self, flags: ResponseFlags, reason: &str) {
        if let Some(report) = &mut self.report {
            report.flags.add(flags);
            report.reason = Some(reason.into());
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        if let Some(report) = &mut self.report {
            report.duration = self.started.elapsed();
            self.environment.reports.connection(report);
        }
    }
}

impl Connection {
    /// Begins the line of this connection, where its listener has a log.
    pub(super) fn begin_line(&mut self) {
        if !self.listener.config.access_logs.is_empty() {
            self.line = Some(Box::new(Line::new(self)));
        }
    }

    /// No chain is for this connection: it is closed.
    pub(super) fn refuse(mut self, seen: Option<Seen>) {
        let live = &self.listener.live;
        ClusterStats::count(&live.unmatched);
        let is_plaintext = self.listener.has_tls() && seen != Some(Seen::Tls);
        if is_plaintext {
            ClusterStats::count(&live.plaintext_refused);
        }
        let reason = if is_plaintext {
            "no filter chain is for it: only TLS is served"
        } else {
            "no filter chain is for it"
        };
        if let Some(line) = &mut self.line {
            line.fail(ResponseFlags::NO_ROUTE, reason);
        }
        tracing::debug!(
            listener = %self.listener.config.name,
            peer = %self.peer,
            destination = %self.destination(),
            reason,
            "connection closed"
        );
    }

    /// A network filter closes this connection.
    pub(super) fn deny(mut self, denied: Denied) {
        if let Some(line) = &mut self.line {
            line.terminate(denied.termination);
        }
    }

    /// What a chain would have been chosen by took too long.
    pub(super) fn give_up_hello(self, reason: &str) {
        ClusterStats::count(&self.listener.live.openings_timed_out);
        self.tell_of_handshake(reason);
    }

    /// A handshake took too long.
    pub(super) fn give_up_handshake(self, reason: &str) {
        ClusterStats::count(&self.listener.live.handshake_timeouts);
        self.tell_of_handshake(reason);
    }

    /// A handshake failed.
    pub(super) fn refuse_handshake(self, reason: &str) {
        ClusterStats::count(&self.listener.live.tls_failures);
        self.tell_of_handshake(reason);
    }

    fn tell_of_handshake(mut self, reason: &str) {
        if let Some(line) = &mut self.line {
            line.fail(ResponseFlags::default(), reason);
        }
        tracing::debug!(
            listener = %self.listener.config.name,
            peer = %self.peer,
            reason,
            "TLS handshake with a client failed"
        );
    }
}
