//! The series a thread used last, found by what its labels depend on.
//!
//! Reports of one listener, route and endpoint share their `Arc`s, so comparing addresses is enough, and no label is
//! hashed or formatted. An entry keeps what it compares alive: an address is never that of something else. Of the
//! client's connection only what a label shows of it counts: clients that have little to say come and go, each with a
//! connection of its own. The tables are small and overwritten as they fill.

use std::cell::RefCell;
use std::hash::BuildHasher;
use std::sync::Arc;

use foldhash::fast::FixedState;
use http::Method;

use super::report::{Downstream, RequestReport, ResponseFlags, TcpReport, Upstream};
use super::traffic::{RequestSeries, TcpSeries};
use crate::config::Workload;
use crate::config::listener::Direction;

/// A power of two.
const SLOTS: usize = 128;

thread_local! {
    static REQUESTS: Table<OfRequest, RequestSeries> = const { Table::new() };
    static CONNECTIONS: Table<(), TcpSeries> = const { Table::new() };
}

/// Who counts, and who they are to the one that is called.
#[derive(Debug, Clone, Copy)]
pub struct Counting<'recorder> {
    /// Tells several recorders of one process apart.
    pub recorder: usize,
    /// The own identity, where a label shows it.
    pub principal: Option<&'recorder Arc<str>>,
}

/// The series of a request; `find` is asked where it was not used lately by this thread.
pub fn of_request(
    counting: Counting<'_>,
    report: &RequestReport,
    find: impl FnOnce() -> Arc<RequestSeries>,
) -> Arc<RequestSeries> {
    let ends = Ends {
        counting,
        downstream: &report.downstream,
        upstream: report.upstream.as_ref(),
        cluster: report.cluster.as_ref(),
        flags: report.flags,
    };
    let varies =
        Arc::as_ptr(&report.route).addr().rotate_left(13) ^ usize::from(report.response_code) << 20;
    REQUESTS.with(|table| {
        let is_of = |details: &OfRequest| details.is_of(report);
        table.series(ends, varies, is_of, || OfRequest::new(report), find)
    })
}

/// The series of a connection, likewise.
pub fn of_connection(
    counting: Counting<'_>,
    report: &TcpReport,
    find: impl FnOnce() -> Arc<TcpSeries>,
) -> Arc<TcpSeries> {
    let ends = Ends {
        counting,
        downstream: &report.downstream,
        upstream: report.upstream.as_ref(),
        cluster: report.cluster.as_ref(),
        flags: report.flags,
    };
    CONNECTIONS.with(|table| table.series(ends, 0, |()| true, || (), find))
}

/// Entries where their hash says, the last one with it.
struct Table<D, S>(RefCell<Vec<Option<Entry<D, S>>>>);

impl<D, S> Table<D, S> {
    const fn new() -> Self {
        Self(RefCell::new(Vec::new()))
    }

    /// The series of these ends, of which `is_of` holds; `varies` tells apart what has the same ends.
    fn series(
        &self,
        ends: Ends<'_>,
        varies: usize,
        is_of: impl FnOnce(&D) -> bool,
        details: impl FnOnce() -> D,
        find: impl FnOnce() -> Arc<S>,
    ) -> Arc<S> {
        let mut entries = self.0.borrow_mut();
        if entries.is_empty() {
            entries.resize_with(SLOTS, || None);
        }
        // Fibonacci hashing: the upper bits depend on all of them.
        let mixed = (ends.hash() ^ varies).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let entry = &mut entries[mixed >> (usize::BITS - SLOTS.trailing_zeros())];
        match entry {
            Some(recent) if recent.ends.are(&ends) && is_of(&recent.details) => {
                Arc::clone(&recent.series)
            }
            _ => {
                let series = find();
                *entry = Some(Entry {
                    ends: ends.kept(),
                    details: details(),
                    series: Arc::clone(&series),
                });
                series
            }
        }
    }
}

struct Entry<D, S> {
    ends: KeptEnds,
    details: D,
    series: Arc<S>,
}

/// What the labels of any series depend on.
#[derive(Clone, Copy)]
struct Ends<'report> {
    counting: Counting<'report>,
    downstream: &'report Downstream,
    upstream: Option<&'report Upstream>,
    cluster: Option<&'report Arc<str>>,
    flags: ResponseFlags,
}

impl Ends<'_> {
    /// Who has called, where a label shows it.
    fn caller(&self) -> Option<&Arc<str>> {
        let is_shown = self.downstream.direction == Direction::Inbound;
        let principal = self.downstream.principal.as_ref();
        principal.filter(|_| is_shown)
    }

    fn workload(&self) -> Option<&Arc<Workload>> {
        self.upstream.map(|upstream| &upstream.workload)
    }

    fn is_mutual_tls(&self) -> bool {
        self.upstream.is_some_and(|upstream| upstream.is_mutual_tls)
    }

    /// From what varies most.
    fn hash(&self) -> usize {
        let workload = self.workload();
        let workload = workload.map_or(0, |workload| Arc::as_ptr(workload).addr());
        let caller = self
            .caller()
            .map_or(0, |caller| FixedState::default().hash_one(caller) as usize);
        workload.rotate_left(7) ^ caller
    }

    fn kept(&self) -> KeptEnds {
        KeptEnds {
            recorder: self.counting.recorder,
            principal: self.counting.principal.cloned(),
            direction: self.downstream.direction,
            caller: self.caller().cloned(),
            workload: self.workload().cloned(),
            is_mutual_tls: self.is_mutual_tls(),
            cluster: self.cluster.cloned(),
            flags: self.flags,
        }
    }
}

struct KeptEnds {
    recorder: usize,
    principal: Option<Arc<str>>,
    direction: Direction,
    caller: Option<Arc<str>>,
    workload: Option<Arc<Workload>>,
    is_mutual_tls: bool,
    cluster: Option<Arc<str>>,
    flags: ResponseFlags,
}

impl KeptEnds {
    fn are(&self, ends: &Ends<'_>) -> bool {
        self.recorder == ends.counting.recorder
            && self.direction == ends.downstream.direction
            && is_same(self.workload.as_ref(), ends.workload())
            && is_same(self.cluster.as_ref(), ends.cluster)
            && self.is_mutual_tls == ends.is_mutual_tls()
            && self.flags == ends.flags
            // Identities are read anew with each handshake and renewal: their texts count.
            && self.caller.as_ref() == ends.caller()
            && self.principal.as_ref() == ends.counting.principal
    }
}

/// What the labels of requests depend on besides.
struct OfRequest {
    route: Arc<str>,
    method: Method,
    is_grpc: bool,
    response_code: u16,
    grpc_status: Option<u32>,
}

impl OfRequest {
    fn new(report: &RequestReport) -> Self {
        Self {
            route: Arc::clone(&report.route),
            method: report.method.clone(),
            is_grpc: report.is_grpc,
            response_code: report.response_code,
            grpc_status: report.grpc_status,
        }
    }

    fn is_of(&self, report: &RequestReport) -> bool {
        Arc::ptr_eq(&self.route, &report.route)
            && self.method == report.method
            && self.is_grpc == report.is_grpc
            && self.response_code == report.response_code
            && self.grpc_status == report.grpc_status
    }
}

fn is_same<T: ?Sized>(left: Option<&Arc<T>>, right: Option<&Arc<T>>) -> bool {
    match (left, right) {
        (Some(left), Some(right)) => Arc::ptr_eq(left, right),
        (None, None) => true,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::registry::Registry;
    use super::super::testing::{connection, inbound, outbound, own_workload, request, upstream};
    use super::super::traffic::Traffic;
    use super::super::value::Shards;
    use super::*;

    const NOBODY: Counting<'_> = Counting {
        recorder: 0,
        principal: None,
    };

    fn traffic() -> Traffic {
        Traffic::register(&Registry::new(Shards::for_threads(1), 100))
    }

    /// The series of a request, by whatever a table remembers.
    fn series(traffic: &Traffic, report: &RequestReport) -> Arc<RequestSeries> {
        of_request(NOBODY, report, || {
            traffic.request(report, &own_workload(), None)
        })
    }

    #[test]
    fn the_same_report_again_is_not_looked_up() {
        let traffic = traffic();
        let report = request();

        let first = series(&traffic, &report);
        let again = of_request(NOBODY, &report, || panic!("it was used a moment ago"));

        assert!(Arc::ptr_eq(&first, &again));
    }

    #[test]
    fn another_connection_of_a_client_is_not_looked_up() {
        const CALLER: &str = "spiffe://cluster.local/ns/shop/sa/cart";
        let traffic = traffic();
        let mut report = request();
        for connect in [outbound, || inbound(None), || inbound(Some(CALLER))] {
            report.downstream = connect();
            let first = series(&traffic, &report);

            report.downstream = connect();
            let again = of_request(NOBODY, &report, || panic!("it was used a moment ago"));

            assert!(Arc::ptr_eq(&first, &again), "{:?}", report.downstream);
        }
    }

    #[test]
    fn whatever_a_label_shows_tells_reports_apart() {
        let traffic = traffic();
        let mut report = request();
        report.downstream = inbound(None);
        let first = series(&traffic, &report);

        let mut others = vec![report.clone(); 8];
        others[0].response_code = 500;
        others[1].flags = ResponseFlags::NO_ROUTE;
        others[2].method = Method::POST;
        others[3].downstream = outbound();
        others[4].grpc_status = Some(0);
        others[5].route = "another".into();
        others[6].downstream = inbound(Some("spiffe://cluster.local/ns/shop/sa/cart"));
        others[7].is_grpc = true;

        for other in others {
            let found = series(&traffic, &other);
            assert!(!Arc::ptr_eq(&first, &found), "{other:?}");
        }
    }

    #[test]
    fn an_endpoint_and_an_identity_tell_requests_apart() {
        let traffic = traffic();
        let mut report = request();
        let alone = series(&traffic, &report);
        report.upstream = Some(upstream());
        let of = |principal: Option<&Arc<str>>| {
            let counting = Counting {
                principal,
                ..NOBODY
            };
            of_request(counting, &report, || {
                traffic.request(&report, &own_workload(), principal.map(|text| &**text))
            })
        };

        let unknown = of(None);
        let known = of(Some(&"spiffe://cluster.local/ns/default/sa/own".into()));
        let renewed = of(Some(&"spiffe://cluster.local/ns/default/sa/own".into()));

        assert!(!Arc::ptr_eq(&alone, &unknown));
        assert!(!Arc::ptr_eq(&unknown, &known));
        assert!(Arc::ptr_eq(&known, &renewed));
    }

    #[test]
    fn connections_are_remembered_beside_requests() {
        let traffic = traffic();
        let mut report = connection();
        let find = |report: &TcpReport| {
            of_connection(NOBODY, report, || {
                traffic.connection(report, &own_workload(), None)
            })
        };

        let first = find(&report);
        let again = of_connection(NOBODY, &report, || panic!("it was used a moment ago"));
        report.flags = ResponseFlags::UPSTREAM_CONNECTION_FAILURE;
        let failed = find(&report);

        assert!(Arc::ptr_eq(&first, &again));
        assert!(!Arc::ptr_eq(&first, &failed));
    }
}
