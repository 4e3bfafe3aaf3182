//! How a request is answered and ends, and what its report says then.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Response, StatusCode};

use super::{Completion, Inner};
use crate::clock;
use crate::http::body::{ResponseBody, Source, Watch};
use crate::http::failure::after_response;
use crate::http::reply::Why;
use crate::present;
use crate::telemetry::managers::HttpEvent;
use crate::telemetry::report::ResponseFlags;
use crate::upstream::response::UpstreamBody;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

impl Completion {
    /// The head of the upstream's response is here; says how many milliseconds that took.
    pub(in crate::http) fn answered(&mut self, response: &Response<UpstreamBody>) -> u64 {
        let latency = clock::now().saturating_duration_since(self.started());
        self.tell(|inner| {
            inner.report.upstream_latency = Some(latency);
            inner.report.grpc_status = grpc_status(response.headers());
        });
        u64::try_from(latency.as_millis()).unwrap_or(u64::MAX)
    }

    /// The proxy answers itself.
    pub(in crate::http) fn replied(&mut self, why: &Why) {
        self.tell(|inner| {
            inner.report.reason = Some(Arc::clone(&why.reason));
            inner.report.details = Some(Arc::clone(&why.details));
            inner.report.grpc_status = None;
        });
    }

    /// It answers as gRPC.
    pub(in crate::http) fn replied_grpc(&mut self, status: u32) {
        self.tell(|inner| inner.report.grpc_status = Some(status));
    }

    /// The response goes to the client, and what is left to do goes with its body.
    pub(in crate::http) fn carried_by(
        mut self,
        response: Response<Source>,
    ) -> Box<Response<ResponseBody>> {
        let status = response.status();
        self.status(status);
        self.count_response();
        self.tell(|inner| {
            if inner.keeps_response_headers {
                inner.report.response_headers = Some(Box::new(response.headers().clone()));
            }
        });
        let watch = self
            .0
            .as_ref()
            .map_or_else(Watch::default, |inner| inner.watch);
        let has_no_body = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
        let carried =
            response.map(|source| ResponseBody::new(source, self, watch).left_out(has_no_body));
        Box::new(carried)
    }

    /// Notes how long it has taken so far, and how much has come.
    pub(in crate::http) fn measure(&mut self) {
        self.tell(Inner::measure);
    }

    pub(in crate::http) fn status(&mut self, status: StatusCode) {
        self.tell(|inner| inner.report.response_code = status.as_u16());
    }

    /// Leaves what is to be done to somebody else.
    pub(in crate::http) fn take(&mut self) -> Completion {
        Completion(self.0.take())
    }

    pub(in crate::http) fn sent(&mut self, bytes: usize) {
        self.tell(|inner| inner.report.response_bytes += bytes as u64);
    }

    pub(in crate::http) fn trailers(&mut self, trailers: &HeaderMap) {
        let status = grpc_status(trailers);
        self.tell(|inner| {
            inner.report.grpc_status = status.or(inner.report.grpc_status);
            if inner.keeps_response_headers {
                inner.report.response_trailers = Some(Box::new(trailers.clone()));
            }
        });
    }

    /// The response has ended as it should: its connection can be used again.
    pub(in crate::http) fn end(&mut self) {
        if let Some(mut inner) = self.0.take() {
            inner.has_ended = true;
            if !inner.has_all() {
                inner.stats().count(HttpEvent::ResetReceived);
            }
            inner.held.iter_mut().for_each(|held| held.ended());
            let has_sent_request = inner
                .meter
                .as_ref()
                .is_none_or(|meter| meter.ended_at().is_some());
            if let Some(borrowed) = inner.borrowed.take()
                && has_sent_request
            {
                borrowed.give_back();
            }
        }
    }

    /// The response has ended early, and not because of the client.
    pub(in crate::http) fn fail(&mut self, flag: ResponseFlags, reason: Arc<str>) {
        if let Some(mut inner) = self.0.take() {
            inner.has_ended = true;
            inner.count_failure(flag);
            if let (ResponseFlags::UPSTREAM_REMOTE_RESET, Some(borrowed)) = (flag, &inner.borrowed)
            {
                borrowed.count_reset();
            }
            inner.report.flags.add(flag);
            inner.report.reason = Some(reason);
            inner.report.details = Some(after_response(flag));
            if let (ResponseFlags::UPSTREAM_TIMEOUT, Some(borrowed)) = (flag, &inner.borrowed) {
                borrowed.count_timeout();
            }
        }
    }

    /// A tunnel has ended, after so many bytes either way.
    pub(in crate::http) fn end_tunnel(&mut self, received: u64, sent: u64) {
        self.tell(|inner| {
            inner.report.request_bytes = received;
            inner.report.response_bytes = sent;
        });
        if let Some(mut inner) = self.0.take() {
            inner.has_ended = true;
            inner.stats().count(HttpEvent::ResetReceived);
        }
    }
}

impl Inner {
    fn measure(&mut self) {
        self.report.duration = clock::now().saturating_duration_since(self.started);
        if let Some(meter) = &self.meter {
            self.report.request_bytes = meter.bytes();
        }
        self.report.request_duration = match &self.meter {
            Some(meter) => meter
                .ended_at()
                .map(|at| at.saturating_duration_since(self.started)),
            // Nothing follows its headers.
            None => Some(std::time::Duration::ZERO),
        };
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.measure();
        self.stats().request_ended(self.report.duration);
        if self.is_upgraded {
            self.stats().uncount(HttpEvent::UpgradesActive);
        }
        if !self.has_ended {
            self.stats().count(HttpEvent::ResetReceived);
            self.report.flags.add(ResponseFlags::DOWNSTREAM_TERMINATION);
        }
        self.request.0.environment.reports.request(&self.report);
    }
}

fn grpc_status(headers: &HeaderMap) -> Option<u32> {
    present::value(headers, &GRPC_STATUS)?
        .to_str()
        .ok()?
        .parse()
        .ok()
}
