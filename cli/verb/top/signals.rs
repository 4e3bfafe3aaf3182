//! Golden signals out of the metrics of all sidecars.

use std::collections::BTreeMap;

use super::samples::Sample;

/// Signals by service and route.
#[derive(Debug, Clone, Default)]
pub(super) struct Table {
    rows: BTreeMap<(String, String), Signals>,
}

/// What is known of some requests.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Signals {
    /// How many.
    pub(super) requests: f64,
    failures: f64,
    /// How many took at most so many seconds; the bounds as they are written.
    buckets: BTreeMap<Bound, f64>,
}

/// The upper bound of a bucket, in seconds.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Bound(f64);

impl Eq for Bound {}

impl Ord for Bound {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Bound {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// gRPC statuses that are the server's fault, as OpenTelemetry's conventions say: UNKNOWN, DEADLINE_EXCEEDED,
/// UNIMPLEMENTED, INTERNAL, UNAVAILABLE, DATA_LOSS.
const SERVER_FAULTS: [&str; 6] = ["2", "4", "12", "13", "14", "15"];

impl Table {
    /// Counts a sample. Each request once: where its caller has a sidecar, that one has seen what became of it in
    /// the end; else the one that was called has.
    pub(super) fn add(&mut self, sample: &Sample<'_>) {
        let is_callers = sample.label("reporter") == "source";
        if !is_callers && sample.label("source_workload") != "unknown" {
            return;
        }
        let key = |sample: &Sample<'_>| {
            let [service, route] = ["destination_service", "route"].map(|name| sample.label(name));
            (service.to_owned(), route.to_owned())
        };
        match sample.name {
            "weft_requests_total" => {
                let signals = self.rows.entry(key(sample)).or_default();
                signals.requests += sample.value;
                if is_failure(sample) {
                    signals.failures += sample.value;
                }
            }
            "weft_request_duration_seconds_bucket" => {
                let Ok(bound) = sample.label("le").parse() else {
                    return;
                };
                let signals = self.rows.entry(key(sample)).or_default();
                *signals.buckets.entry(Bound(bound)).or_default() += sample.value;
            }
            _ => {}
        }
    }

    /// What has been added since an earlier look. A sidecar that was replaced meanwhile begins at nothing.
    pub(super) fn since(&self, before: &Table) -> Table {
        let rows = self.rows.iter().map(|(key, now)| {
            let earlier = before.rows.get(key).cloned().unwrap_or_default();
            (key.clone(), now.since(&earlier))
        });
        Table {
            rows: rows.collect(),
        }
    }

    /// By service and route.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&(String, String), &Signals)> {
        self.rows.iter()
    }
}

fn is_failure(sample: &Sample<'_>) -> bool {
    let code = sample.label("response_code");
    let is_answered = matches!(code.as_bytes().first(), Some(b'1'..=b'4'));
    !is_answered || SERVER_FAULTS.contains(&sample.label("grpc_status"))
}

impl Signals {
    fn since(&self, earlier: &Signals) -> Signals {
        let grown = |now: f64, before: f64| (now - before).max(0.0);
        let buckets = self.buckets.iter().map(|(bound, count)| {
            let before = earlier.buckets.get(bound).copied().unwrap_or_default();
            (*bound, grown(*count, before))
        });
        Signals {
            requests: grown(self.requests, earlier.requests),
            failures: grown(self.failures, earlier.failures),
            buckets: buckets.collect(),
        }
    }

    /// The share of requests that were answered well; `None` without any.
    pub(super) fn success(&self) -> Option<f64> {
        (self.requests > 0.0).then(|| 1.0 - self.failures / self.requests)
    }

    /// The time in seconds that this share of requests did not exceed, interpolated within its bucket; of the last
    /// bucket, which has no end, its beginning. `None` without requests.
    pub(super) fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.buckets.values().copied().fold(0.0, f64::max);
        if total <= 0.0 {
            return None;
        }
        let wanted = share * total;
        let (mut start, mut below) = (0.0, 0.0);
        for (Bound(end), count) in &self.buckets {
            if *count >= wanted && *count > below {
                let is_open = end.is_infinite();
                let part = (wanted - below) / (count - below);
                return Some(if is_open {
                    start
                } else {
                    start + (end - start) * part
                });
            }
            (start, below) = (*end, *count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(text: &str) -> Table {
        let mut table = Table::default();
        Sample::all(text).for_each(|sample| table.add(&sample));
        table
    }

    fn requests(labels: &str, count: u32) -> String {
        format!("weft_requests_total{{{labels},destination_service=\"a\",route=\"r\"}} {count}\n")
    }

    fn only(table: &Table) -> Signals {
        let rows: Vec<_> = table.rows().collect();
        assert_eq!(rows.len(), 1, "{rows:?}");
        rows[0].1.clone()
    }

    #[test]
    fn a_request_that_two_sidecars_saw_counts_once() {
        let text = requests(
            "reporter=\"source\",source_workload=\"b\",response_code=\"200\"",
            4,
        ) + &requests(
            "reporter=\"destination\",source_workload=\"b\",response_code=\"200\"",
            4,
        ) + &requests(
            "reporter=\"destination\",source_workload=\"unknown\",response_code=\"200\"",
            3,
        );

        assert_eq!(only(&table(&text)).requests, 7.0);
    }

    #[test]
    fn what_the_server_did_wrong_is_a_failure() {
        let of = |code: &str, status: &str| {
            let labels =
                format!("reporter=\"source\",response_code=\"{code}\",grpc_status=\"{status}\"");
            only(&table(&requests(&labels, 1))).success()
        };
        assert_eq!(of("200", ""), Some(1.0));
        assert_eq!(of("404", ""), Some(1.0));
        assert_eq!(of("503", ""), Some(0.0));
        assert_eq!(of("0", ""), Some(0.0));
        assert_eq!(of("200", "5"), Some(1.0));
        assert_eq!(of("200", "14"), Some(0.0));
    }

    #[test]
    fn quantiles_are_interpolated_in_their_bucket() {
        let bucket = |bound: &str, count: u32| {
            format!(
                "weft_request_duration_seconds_bucket{{reporter=\"source\",destination_service=\"a\",le=\"{bound}\"}} {count}\n"
            )
        };
        let signals = only(&table(
            &(bucket("0.1", 50) + &bucket("0.2", 90) + &bucket("1", 90) + &bucket("+Inf", 100)),
        ));
        let close = |share: f64, seconds: f64| {
            let found = signals.quantile(share).expect("there are requests");
            assert!((found - seconds).abs() < 1e-9, "{share}: {found}");
        };

        close(0.25, 0.05);
        close(0.5, 0.1);
        close(0.7, 0.15);
        close(0.99, 1.0);
        assert_eq!(Signals::default().quantile(0.5), None);
    }

    #[test]
    fn only_what_was_added_is_shown() {
        let labels = "reporter=\"source\",response_code=\"200\"";
        let (before, now) = (table(&requests(labels, 5)), table(&requests(labels, 12)));

        assert_eq!(only(&now.since(&before)).requests, 7.0);
        assert_eq!(
            only(&before.since(&now)).requests,
            0.0,
            "it was started again"
        );
    }
}
