//! Where two outcomes differ.

use std::collections::BTreeMap;
use std::fmt::Debug;

use crate::case::Case;
use crate::outcome::{Outcome, Response, Seen};
use crate::text::shown;

/// A place where they differ, and what each has there.
#[derive(Debug, Clone)]
pub(crate) struct Difference {
    /// `status`, `header server`, `upstream header x`, `log`, `counter cluster.upstream.upstream_rq_total`…
    pub(crate) place: String,
    pub(crate) envoy: String,
    pub(crate) weft: String,
}

/// All differences that a case could be about. Counters that it names must be there on both sides.
pub(crate) fn differences(envoy: &Outcome, weft: &Outcome, case: &Case) -> Vec<Difference> {
    let mut found = Found(vec![]);
    found.check("responses", &envoy.responses.len(), &weft.responses.len());
    for (left, right) in envoy.responses.iter().zip(&weft.responses) {
        response(&mut found, left, right, case);
    }
    found.bytes("received", &envoy.received, &weft.received);
    found.check("tls", &envoy.tls, &weft.tls);
    found.check("end", &envoy.end, &weft.end);
    found.check("goaway", &envoy.goaway, &weft.goaway);
    found.check(
        "upstream requests",
        &envoy.upstream.len(),
        &weft.upstream.len(),
    );
    for (left, right) in envoy.upstream.iter().zip(&weft.upstream) {
        request(&mut found, left, right);
    }
    found.check("log", &envoy.log, &weft.log);
    for (name, rise) in &envoy.counters {
        let is_left_out = is_by_history(name)
            || is_of_the_end(name)
            || (envoy.tls.is_some() && is_of_tcp_bytes(name))
            || (found.has_other_answers() && is_of_answers(name))
            || (found.has_other_requests() && is_of_manager(name));
        let Some(other) = weft.counters.get(name).filter(|_| !is_left_out) else {
            continue;
        };
        match is_of_timers(name) {
            true => found.check(&format!("counter {name}"), &(*rise > 0), &(*other > 0)),
            false => found.check(&format!("counter {name}"), rise, other),
        }
    }
    for name in &case.counters {
        let (left, right) = (envoy.counters.get(name), weft.counters.get(name));
        assert!(left.is_some(), "Envoy has no counter {name}");
        found.check(&format!("counter {name}"), &left, &right);
    }
    found.0
}

/// Whether a connection is there already depends on the cases before; how much memory is used, on everything.
fn is_by_history(counter: &str) -> bool {
    [
        "upstream_cx_",
        "upstream_rq_pending_total",
        ".remaining_",
        ".pressure",
    ]
    .iter()
    .any(|part| counter.contains(part))
}

/// Whether a counter says how connections and streams end, of which a case may show more than it is about: compared where
/// it is named.
fn is_of_the_end(counter: &str) -> bool {
    let is_close = counter.starts_with("http.") && counter.contains(".downstream_cx_destroy");
    let others = [
        "downstream_cx_drain_close",
        "downstream_cx_idle_timeout",
        "downstream_cx_protocol_error",
        // Envoy waits for its client to close.
        "downstream_cx_delayed_close_timeout",
        "downstream_listener_filter_",
        "downstream_rq_rx_reset",
        "downstream_rq_tx_reset",
        "downstream_rq_response_before_rq_complete",
        "downstream_rq_header_timeout",
        "downstream_pre_cx_timeout",
        "upstream_rq_rx_reset",
    ];
    is_close || others.iter().any(|part| counter.contains(part))
}

/// Whether a counter rises with time: that it does is compared, not how often.
fn is_of_timers(counter: &str) -> bool {
    counter.contains(".health_check.")
}

/// Whether a counter says how many bytes went through a TCP proxy: those of a handshake, whose signatures are of no certain
/// length.
fn is_of_tcp_bytes(counter: &str) -> bool {
    counter.starts_with("tcp.") && counter.ends_with("_bytes_total")
}

/// Whether a connection manager counts it: of requests, of which the log has a line each.
fn is_of_manager(counter: &str) -> bool {
    counter.starts_with("http.") || counter.contains(".http.")
}

/// Whether a counter says what the answers say already: where they differ, so does it.
fn is_of_answers(counter: &str) -> bool {
    let (_, name) = counter.rsplit_once('.').unwrap_or_default();
    let rest = name.strip_prefix("upstream_rq_").unwrap_or_default();
    rest == "completed" || rest.starts_with(|first: char| first.is_ascii_digit())
}

fn response(found: &mut Found, envoy: &Response, weft: &Response, case: &Case) {
    found.check("status", &envoy.status, &weft.status);
    match weft.header(REASON) {
        Some(_) if case.own_bodies => {
            found.fields("header", &envoy.headers, &without(&[REASON], weft));
            found.bytes("body", &envoy.body, &weft.body);
        }
        // Meant everywhere, as docs/envoy-differences.md says.
        Some(_) => found.fields("header", &without(&TEXT, envoy), &without(&TEXT, weft)),
        None => {
            found.fields("header", &envoy.headers, &weft.headers);
            found.bytes("body", &envoy.body, &weft.body);
        }
    }
    found.fields("trailer", &envoy.trailers, &weft.trailers);
    found.check("complete", &envoy.is_complete, &weft.is_complete);
    found.check("reset", &envoy.reset, &weft.reset);
}

fn request(found: &mut Found, envoy: &Seen, weft: &Seen) {
    found.check("upstream port", &envoy.port, &weft.port);
    found.check("upstream line", &envoy.line, &weft.line);
    found.fields("upstream header", &envoy.headers, &weft.headers);
    found.bytes("upstream body", &envoy.body, &weft.body);
    found.fields("upstream trailer", &envoy.trailers, &weft.trailers);
    found.check("upstream complete", &envoy.is_complete, &weft.is_complete);
    found.check("upstream reset", &envoy.reset, &weft.reset);
    found.check("upstream tls", &envoy.tls, &weft.tls);
}

/// weft says in a header, and mostly in the body, why it answers by itself.
const REASON: &str = "x-weft-reason";

/// The headers of a local reply that speak of its text.
const TEXT: [&str; 3] = [REASON, "content-length", "content-type"];

/// The headers of a response but these.
fn without(names: &[&str], response: &Response) -> Vec<(String, String)> {
    let headers = response.headers.iter();
    headers
        .filter(|(name, _)| !names.contains(&name.to_ascii_lowercase().as_str()))
        .cloned()
        .collect()
}

struct Found(Vec<Difference>);

impl Found {
    /// Whether there are other answers, or they were asked of others.
    fn has_other_answers(&self) -> bool {
        let is_answer = |place: &str| ["responses", "status", "upstream requests"].contains(&place);
        self.0.iter().any(|each| is_answer(&each.place))
    }

    /// Whether there are other answers, or one of the two has seen a request where the other has seen none.
    fn has_other_requests(&self) -> bool {
        self.has_other_answers() || self.0.iter().any(|each| each.place == "log")
    }

    fn check<T: PartialEq + Debug>(&mut self, place: &str, envoy: &T, weft: &T) {
        if envoy != weft {
            self.add(place, format!("{envoy:?}"), format!("{weft:?}"));
        }
    }

    fn bytes(&mut self, place: &str, envoy: &[u8], weft: &[u8]) {
        if envoy != weft {
            self.add(place, shown(envoy), shown(weft));
        }
    }

    /// By name, with the values of each in order; the order of names is nobody's concern (RFC 9110, section 5.3).
    fn fields(&mut self, place: &str, envoy: &[(String, String)], weft: &[(String, String)]) {
        let (envoy, weft) = (by_name(envoy), by_name(weft));
        let mut names: Vec<_> = envoy.keys().chain(weft.keys()).collect();
        names.sort();
        names.dedup();
        for name in names {
            self.check(
                &format!("{place} {name}"),
                &envoy.get(name),
                &weft.get(name),
            );
        }
    }

    fn add(&mut self, place: &str, envoy: String, weft: String) {
        self.0.push(Difference {
            place: place.to_owned(),
            envoy,
            weft,
        });
    }
}

fn by_name(fields: &[(String, String)]) -> BTreeMap<&str, Vec<&str>> {
    let mut named: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (name, value) in fields {
        named.entry(name).or_default().push(value);
    }
    named
}
