//! Telemetry that remembers.

use parking_lot::Mutex;
use weft_proxy::telemetry::report::{ReportSink, RequestReport, TcpReport};

use crate::upstream::until;

/// Every report there was.
#[derive(Default)]
pub(crate) struct Reports {
    requests: Mutex<Vec<RequestReport>>,
    closed: Mutex<Vec<TcpReport>>,
}

impl ReportSink for Reports {
    fn request(&self, report: &RequestReport) {
        self.requests.lock().push(report.clone());
    }

    fn tcp_open(&self, _report: &TcpReport) {}

    fn tcp_close(&self, report: &TcpReport) {
        self.closed.lock().push(report.clone());
    }

    fn connection(&self, _report: &TcpReport) {}
}

impl Reports {
    /// The n-th report of a request, counted from 0.
    pub(crate) async fn request(&self, index: usize) -> RequestReport {
        until(|| self.requests.lock().len() > index).await;
        self.requests.lock()[index].clone()
    }

    pub(crate) fn requests(&self) -> usize {
        self.requests.lock().len()
    }

    /// The n-th report of a TCP connection.
    pub(crate) async fn closed(&self, index: usize) -> TcpReport {
        until(|| self.closed.lock().len() > index).await;
        self.closed.lock()[index].clone()
    }
}
