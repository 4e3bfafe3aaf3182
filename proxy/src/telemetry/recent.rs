//! The series a thread used last, found by the addresses of what a report shares with the one before it.
//!
//! Reports of one connection, route and endpoint share their `Arc`s, so comparing addresses is enough, and no
//! label is hashed or formatted. An entry keeps what it compares alive: an address is never that of something
//! else. The table is small and overwritten as it fills.

use std::cell::RefCell;
use std::sync::Arc;

use http::Method;

use super::report::{Downstream, RequestReport, ResponseFlags, Upstream};
use super::traffic::RequestSeries;
use crate::config::Workload;

/// A power of two.
const SLOTS: usize = 128;

struct Entry {
    owner: usize,
    downstream: Arc<Downstream>,
    workload: Option<Arc<Workload>>,
    is_mutual_tls: bool,
    cluster: Option<Arc<str>>,
    route: Arc<str>,
    method: Method,
    is_grpc: bool,
    response_code: u16,
    flags: ResponseFlags,
    grpc_status: Option<u32>,
    series: Arc<RequestSeries>,
}

thread_local! {
    static RECENT: RefCell<Vec<Option<Entry>>> = const { RefCell::new(Vec::new()) };
}

/// The series of a report; `find` is asked where it was not used lately by this thread. `owner` tells several
/// recorders of one process apart.
pub fn series(
    owner: usize,
    report: &RequestReport,
    find: impl FnOnce() -> Arc<RequestSeries>,
) -> Arc<RequestSeries> {
    RECENT.with_borrow_mut(|entries| {
        if entries.is_empty() {
            entries.resize_with(SLOTS, || None);
        }
        let entry = &mut entries[slot(report)];
        match entry {
            Some(recent) if recent.is_of(owner, report) => Arc::clone(&recent.series),
            _ => {
                let series = find();
                *entry = Some(Entry::new(owner, report, Arc::clone(&series)));
                series
            }
        }
    })
}

impl Entry {
    fn new(owner: usize, report: &RequestReport, series: Arc<RequestSeries>) -> Self {
        Self {
            owner,
            downstream: Arc::clone(&report.downstream),
            workload: workload(report).cloned(),
            is_mutual_tls: is_mutual_tls(report),
            cluster: report.cluster.clone(),
            route: Arc::clone(&report.route),
            method: report.method.clone(),
            is_grpc: report.is_grpc,
            response_code: report.response_code,
            flags: report.flags,
            grpc_status: report.grpc_status,
            series,
        }
    }

    fn is_of(&self, owner: usize, report: &RequestReport) -> bool {
        self.owner == owner
            && Arc::ptr_eq(&self.downstream, &report.downstream)
            && is_same(self.workload.as_ref(), workload(report))
            && self.is_mutual_tls == is_mutual_tls(report)
            && is_same(self.cluster.as_ref(), report.cluster.as_ref())
            && Arc::ptr_eq(&self.route, &report.route)
            && self.method == report.method
            && self.is_grpc == report.is_grpc
            && self.response_code == report.response_code
            && self.flags == report.flags
            && self.grpc_status == report.grpc_status
    }
}

fn workload(report: &RequestReport) -> Option<&Arc<Workload>> {
    report.upstream.as_ref().map(|upstream| &upstream.workload)
}

fn is_mutual_tls(report: &RequestReport) -> bool {
    report
        .upstream
        .as_ref()
        .is_some_and(|Upstream { is_mutual_tls, .. }| *is_mutual_tls)
}

fn is_same<T: ?Sized>(left: Option<&Arc<T>>, right: Option<&Arc<T>>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => Arc::ptr_eq(left, right),
        (None, None) => true,
        _ => false,
    }
}

/// Where a report's entry is: from the addresses and numbers that vary most.
fn slot(report: &RequestReport) -> usize {
    let mixed = Arc::as_ptr(&report.downstream).addr()
        ^ workload(report)
            .map_or(0, |workload| Arc::as_ptr(workload).addr())
            .rotate_left(7)
        ^ Arc::as_ptr(&report.route).addr().rotate_left(13)
        ^ usize::from(report.response_code) << 20;
    // Fibonacci hashing: the upper bits depend on all of them.
    mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> (usize::BITS - SLOTS.trailing_zeros())
}

#[cfg(test)]
mod tests {
    use super::super::registry::Registry;
    use super::super::testing::{own_workload, request, upstream};
    use super::super::traffic::Traffic;
    use super::super::value::Shards;
    use super::*;

    fn find(traffic: &Traffic, report: &RequestReport) -> Arc<RequestSeries> {
        traffic.request(report, &own_workload(), None)
    }

    #[test]
    fn the_same_report_again_is_not_looked_up() {
        let traffic = Traffic::register(&Registry::new(Shards::for_threads(1), 10));
        let report = request();

        let first = series(1, &report, || find(&traffic, &report));
        let again = series(1, &report, || panic!("it was used a moment ago"));

        assert!(Arc::ptr_eq(&first, &again));
    }

    #[test]
    fn whatever_a_label_shows_tells_reports_apart() {
        let traffic = Traffic::register(&Registry::new(Shards::for_threads(1), 10));
        let report = request();
        let first = series(2, &report, || find(&traffic, &report));

        let mut others = vec![report.clone(); 6];
        others[0].response_code = 500;
        others[1].flags = ResponseFlags::NO_ROUTE;
        others[2].method = Method::POST;
        others[3].upstream = Some(upstream());
        others[4].grpc_status = Some(0);
        others[5].route = "another".into();

        for other in others {
            let found = series(2, &other, || find(&traffic, &other));
            assert!(!Arc::ptr_eq(&first, &found), "{other:?}");
        }
    }
}
