//! What the connection manager counts of a request, on its way and at its end.

use super::{Completion, Inner};
use crate::telemetry::managers::{HttpEvent, ManagerStats};
use crate::telemetry::report::ResponseFlags;

impl Completion {
    /// Counts what happens to the request.
    pub(in crate::http) fn count(&self, event: HttpEvent) {
        if let Some(inner) = &self.0 {
            inner.stats().count(event);
        }
    }

    /// The client is told how it went.
    pub(in crate::http) fn count_response(&mut self) {
        self.tell(|inner| {
            if inner.report.is_health_check {
                return;
            }
            inner.stats().responded(inner.report.response_code);
            if !inner.has_all() {
                inner.stats().count(HttpEvent::AnsweredEarly);
            }
        });
    }

    /// It follows a redirect of the upstream: as in Envoy, what follows is a request of its own.
    pub(in crate::http) fn count_next(&self) {
        if let Some(inner) = &self.0 {
            inner.stats().request_begun(inner.report.protocol);
            inner.stats().count(HttpEvent::Ended);
        }
    }

    /// It asks for the proxy's own health.
    pub(in crate::http) fn is_health_check(&mut self) {
        self.tell(|inner| {
            inner.report.is_health_check = true;
            inner.stats().count(HttpEvent::HealthCheck);
        });
    }

    /// The request asks for something else on its connection, and may.
    pub(in crate::http) fn upgraded(&mut self) {
        self.tell(|inner| {
            inner.is_upgraded = true;
            let events = [HttpEvent::Upgrades, HttpEvent::UpgradesActive];
            inner.stats().count_all(events);
        });
    }
}

impl Inner {
    pub(super) fn stats(&self) -> &ManagerStats {
        self.request.0.stats()
    }

    /// Whether all of the request has come.
    pub(super) fn has_all(&self) -> bool {
        match &self.meter {
            Some(meter) => meter.ended_at().is_some(),
            None => !self.has_body && !self.is_upgraded,
        }
    }

    /// A response that has begun is cut off.
    pub(super) fn count_failure(&self, flag: ResponseFlags) {
        // As in Envoy, whoever resets a stream is told of it like of any other reset.
        let reset = [HttpEvent::ResetSent, HttpEvent::ResetReceived];
        self.stats().count_all(reset);
        self.stats().count(match flag {
            ResponseFlags::STREAM_IDLE_TIMEOUT => HttpEvent::StreamIdle,
            ResponseFlags::LOCAL_RESET => return,
            flag if flag == ResponseFlags::default() => HttpEvent::StreamTooLong,
            // As in Envoy, which blames the upstream of a gRPC call only once it has ended.
            _ if self.report.is_grpc => HttpEvent::CutOff,
            _ => return,
        });
    }
}
