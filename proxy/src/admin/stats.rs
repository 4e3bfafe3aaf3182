//! `/stats`: what has been counted in Envoy's names, one on a line.

pub(super) mod baseline;
mod clusters;
mod listeners;
pub(super) mod prometheus;
mod selection;
mod server;
mod told;

use http::StatusCode;
use serde_json::{Value, json};

use self::selection::{Format, Selection};
use self::told::{Scope, Stat, Told};
use super::AdminState;
use super::reply::{Query, Reply};
use crate::telemetry::exposition::CONTENT_TYPE;
use crate::workers::DataPlane;

/// All counters and gauges, or those whose name matches `filter`, or of one `type`; with `usedonly` only those that are
/// not zero; with `format=json` as JSON, with `format=prometheus` as `/stats/prometheus`.
pub fn stats(state: &AdminState, query: &Query) -> Reply {
    let asked = Format::of(query).and_then(|format| Ok((format, Selection::of(query)?)));
    let (format, selection) = match asked {
        Ok(asked) => asked,
        Err(refusal) => return refusal,
    };
    if format == Format::Prometheus {
        return in_metrics(state, &selection);
    }
    let Some(kind) = Kind::asked_for(query.value("type")) else {
        return Reply::text(StatusCode::BAD_REQUEST, "invalid &type= param");
    };
    let mut told = shown(state);
    told.retain(|stat| kind.covers(stat));
    let mut all = told.by_name();
    all.retain(|(name, value)| selection.has(name, || *value > 0));
    match format {
        Format::Json => Reply::json(&as_json(&all)),
        _ => Reply::ok(as_text(&all)),
    }
}

/// All metrics in Prometheus's text format, or those that `filter` and `usedonly` leave.
pub fn metrics(state: &AdminState, query: &Query) -> Reply {
    match Selection::of(query) {
        Ok(selection) => in_metrics(state, &selection),
        Err(refusal) => refusal,
    }
}

fn in_metrics(state: &AdminState, selection: &Selection) -> Reply {
    let text = match selection.is_all() {
        true => state.registry.render(),
        false => prometheus::selected(state, selection),
    };
    Reply::of_type(CONTENT_TYPE, text)
}

/// `/reset_counters`: they begin anew.
pub fn reset_counters(state: &AdminState) -> Reply {
    state.baseline.remember(all(state));
    Reply::ok("OK\n")
}

/// What is shown of statistics, in Envoy's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    All,
    Counters,
    Gauges,
    /// Those that `/stats/prometheus` alone has, or that there are none of.
    Others,
}

impl Kind {
    fn asked_for(name: Option<&str>) -> Option<Self> {
        Some(match name {
            None | Some("" | "All") => Kind::All,
            Some("Counters") => Kind::Counters,
            Some("Gauges") => Kind::Gauges,
            Some("Histograms" | "TextReadouts") => Kind::Others,
            Some(_) => return None,
        })
    }

    fn covers(self, stat: &Stat) -> bool {
        match self {
            Kind::All => true,
            Kind::Counters => !prometheus::is_gauge(stat),
            Kind::Gauges => prometheus::is_gauge(stat),
            Kind::Others => false,
        }
    }
}

/// All that is told.
fn all(state: &AdminState) -> Told {
    let mut told = of_data_plane(&state.data_plane);
    server::of_process(state, &mut told);
    told
}

/// The same, since counters have last begun anew.
fn shown(state: &AdminState) -> Told {
    state.baseline.since(all(state))
}

/// All that is told of what is served, without what the process is.
fn of_data_plane(data_plane: &DataPlane) -> Told {
    let (snapshot, environment) = (data_plane.snapshot(), data_plane.environment());
    let mut told = Told::default();
    for cluster in snapshot.clusters.values() {
        clusters::of_cluster(cluster, &mut told);
    }
    listeners::of_listeners(&snapshot, environment, &mut told);
    server::of_configuration(&snapshot, environment, &mut told);
    for (name, value) in environment.counters.read() {
        told.add(Stat::named(&name, value));
    }
    told
}

fn as_text(stats: &[(String, u64)]) -> String {
    let lines = stats
        .iter()
        .map(|(name, value)| format!("{name}: {value}\n"));
    lines.collect()
}

fn as_json(stats: &[(String, u64)]) -> Value {
    let all: Vec<_> = stats
        .iter()
        .map(|(name, value)| json!({"name": name, "value": value}))
        .collect();
    json!({"stats": all})
}
