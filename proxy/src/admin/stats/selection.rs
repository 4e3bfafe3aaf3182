//! Which statistics are asked for, and in which form: the parameters of `/stats` and `/stats/prometheus`.

use http::StatusCode;
use regex::Regex;

use crate::admin::reply::{Query, Reply};

/// A form of the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// A name and a value on each line. Envoy's pages for browsers are this, too.
    Text,
    /// A list of names and values.
    Json,
    /// As `/stats/prometheus`.
    Prometheus,
}

/// Those that are shown.
#[derive(Debug, Default)]
pub(in crate::admin) struct Selection {
    /// What a name must hold.
    names: Option<Regex>,
    /// Only those that are not zero.
    is_used_only: bool,
}

/// Words of `histogram_buckets`: Envoy's, of which none makes a difference to counters and gauges.
const BUCKETS: [&str; 5] = [
    "cumulative",
    "disjoint",
    "detailed",
    "summary",
    "prometheusnative",
];

impl Format {
    /// What `format` asks for.
    ///
    /// # Errors
    /// The answer to one that is none.
    pub(super) fn of(query: &Query) -> Result<Self, Reply> {
        match query.value("format") {
            None | Some("text" | "html" | "active-html") => Ok(Format::Text),
            Some("json") => Ok(Format::Json),
            Some("prometheus") => Ok(Format::Prometheus),
            Some(_) => Err(refusal(
                "usage: /stats?format=(html|active-html|json|prometheus|text)",
            )),
        }
    }
}

impl Selection {
    /// What `filter`, `usedonly` and `histogram_buckets` ask for.
    ///
    /// # Errors
    /// The answer to a parameter that is none.
    pub(super) fn of(query: &Query) -> Result<Self, Reply> {
        let buckets = query.value("histogram_buckets");
        if buckets.is_some_and(|word| !BUCKETS.contains(&word)) {
            let words = BUCKETS.join("|");
            return Err(refusal(&format!(
                "usage: /stats?histogram_buckets=({words})"
            )));
        }
        let names = query.value("filter").map(Regex::new).transpose();
        Ok(Self {
            names: names.map_err(|error| refusal(&format!("filter: {error}")))?,
            is_used_only: query.has("usedonly"),
        })
    }

    /// Whether nothing is left out.
    pub(super) fn is_all(&self) -> bool {
        self.names.is_none() && !self.is_used_only
    }

    /// Whether one of this name is shown, which is used or not.
    pub(super) fn has(&self, name: &str, is_used: impl FnOnce() -> bool) -> bool {
        let is_named = self.names.as_ref().is_none_or(|names| names.is_match(name));
        is_named && (!self.is_used_only || is_used())
    }
}

fn refusal(why: &str) -> Reply {
    Reply::text(StatusCode::BAD_REQUEST, format!("{why}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_searched_and_zeros_left_out_where_asked() {
        let of = |query| Selection::of(&Query::parse(query)).expect("a selection");

        assert!(of("").is_all());
        assert!(of("filter=rq").has("cluster.a.rq_total", || false));
        assert!(!of("filter=^rq").has("cluster.a.rq_total", || true));
        assert!(!of("usedonly&filter=rq").has("rq", || false));
        assert!(of("usedonly").has("rq", || true));
    }

    #[test]
    fn parameters_that_are_none_are_refused() {
        for query in ["filter=(", "histogram_buckets=many"] {
            let refused = Selection::of(&Query::parse(query)).expect_err(query);
            assert_eq!(refused.status(), StatusCode::BAD_REQUEST, "{query}");
        }
        assert!(Format::of(&Query::parse("format=xml")).is_err());
        assert_eq!(
            Format::of(&Query::parse("format=json")).ok(),
            Some(Format::Json)
        );
    }
}
