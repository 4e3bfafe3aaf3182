//! Which exchanges access logs and changes of the proxy's own answers are about.

use std::time::Duration;

use weft_proto::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use weft_proto::envoy::config::accesslog::v3::comparison_filter::Op;
use weft_proto::envoy::config::accesslog::v3::grpc_status_filter::Status as GrpcStatus;
use weft_proto::envoy::config::accesslog::v3::{
    AccessLogFilter as WireFilter, AndFilter, ComparisonFilter, DurationFilter, GrpcStatusFilter,
    HeaderFilter, LogTypeFilter, MetadataFilter, NotHealthCheckFilter, OrFilter,
    ResponseFlagFilter, RuntimeFilter, StatusCodeFilter, TraceableFilter,
};
use weft_proto::envoy::config::core::v3::RuntimeUInt32;
use weft_proto::envoy::data::accesslog::v3::AccessLogType;

use super::super::at::{At, Invalid, enumeration, harmless, nonempty, required};
use super::super::filter::value::metadata_match;
use super::super::share::fraction;
use super::super::text::header_match;
use crate::config::access_log::{AccessLogFilter, Comparison, Moment};
use crate::config::percent::Percent;

/// Envoy's flags; some are never seen here.
const FLAGS: [&str; 30] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC",
    "URX", "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR",
    "UDO",
];

/// Which exchanges are meant.
pub(in crate::xds::translate) fn filter(
    at: &At<'_>,
    wire: &WireFilter,
) -> Result<AccessLogFilter, Invalid> {
    let WireFilter { filter_specifier } = wire;
    Ok(
        match required(&at.field("filter_specifier"), filter_specifier.as_ref())? {
            FilterSpecifier::StatusCodeFilter(StatusCodeFilter { comparison: wire }) => {
                let (op, value) = comparison(&at.field("status_code_filter"), wire.as_ref())?;
                AccessLogFilter::Status(op, value)
            }
            FilterSpecifier::DurationFilter(DurationFilter { comparison: wire }) => {
                let (op, value) = comparison(&at.field("duration_filter"), wire.as_ref())?;
                AccessLogFilter::Duration(op, Duration::from_millis(value.into()))
            }
            FilterSpecifier::NotHealthCheckFilter(NotHealthCheckFilter {}) => {
                AccessLogFilter::NotHealthCheck
            }
            FilterSpecifier::TraceableFilter(TraceableFilter {}) => AccessLogFilter::Traced,
            FilterSpecifier::RuntimeFilter(wire) => {
                AccessLogFilter::Sample(sample(&at.field("runtime_filter"), wire)?)
            }
            FilterSpecifier::AndFilter(AndFilter { filters }) => {
                AccessLogFilter::All(several(&at.field("and_filter"), filters)?)
            }
            FilterSpecifier::OrFilter(OrFilter { filters }) => {
                AccessLogFilter::Any(several(&at.field("or_filter"), filters)?)
            }
            FilterSpecifier::HeaderFilter(HeaderFilter { header }) => {
                let at = at.field("header_filter");
                let at = at.field("header");
                AccessLogFilter::Header(header_match(&at, required(&at, header.as_ref())?)?)
            }
            FilterSpecifier::ResponseFlagFilter(wire) => {
                response_flags(&at.field("response_flag_filter"), wire)?
            }
            FilterSpecifier::GrpcStatusFilter(wire) => {
                grpc_status(&at.field("grpc_status_filter"), wire)?
            }
            FilterSpecifier::MetadataFilter(wire) => metadata(&at.field("metadata_filter"), wire)?,
            FilterSpecifier::LogTypeFilter(wire) => log_type(&at.field("log_type_filter"), wire)?,
            FilterSpecifier::ExtensionFilter(wire) => {
                return Err(at.field("extension_filter").refuse_value(&wire.name));
            }
        },
    )
}

/// Filters nest as deep as prost lets a message nest.
fn several(at: &At<'_>, wire: &[WireFilter]) -> Result<Vec<AccessLogFilter>, Invalid> {
    let at = at.field("filters");
    if wire.len() < 2 {
        return Err(at.refuse("must be two at least"));
    }
    wire.iter()
        .enumerate()
        .map(|(index, wire)| filter(&at.index(index), wire))
        .collect()
}

fn comparison(at: &At<'_>, wire: Option<&ComparisonFilter>) -> Result<(Comparison, u32), Invalid> {
    let at = at.field("comparison");
    let ComparisonFilter { op, value } = required(&at, wire)?;
    let op = match enumeration(&at.field("op"), *op)? {
        Op::Eq => Comparison::Equal,
        Op::Ge => Comparison::AtLeast,
        Op::Le => Comparison::AtMost,
        Op::Ne => Comparison::NotEqual,
    };
    let at = at.field("value");
    let RuntimeUInt32 {
        default_value,
        runtime_key,
    } = required(&at, value.as_ref())?;
    let value = at.runtime().count(runtime_key).unwrap_or(*default_value);
    Ok((op, value))
}

fn sample(at: &At<'_>, wire: &RuntimeFilter) -> Result<Percent, Invalid> {
    let RuntimeFilter {
        runtime_key,
        percent_sampled,
        use_independent_randomness,
    } = wire;
    harmless!(at; use_independent_randomness);
    let runtime_key = nonempty(&at.field("runtime_key"), runtime_key)?;
    let told = at.runtime().share(runtime_key);
    let at = at.field("percent_sampled");
    let default = percent_sampled
        .as_ref()
        .map_or(Ok(Percent::ZERO), |wire| fraction(&at, wire))?;
    Ok(told.unwrap_or(default))
}

fn response_flags(at: &At<'_>, wire: &ResponseFlagFilter) -> Result<AccessLogFilter, Invalid> {
    let ResponseFlagFilter { flags } = wire;
    let at = at.field("flags");
    let flags =
        flags
            .iter()
            .enumerate()
            .map(|(index, flag)| match FLAGS.contains(&flag.as_str()) {
                true => Ok(flag.as_str().into()),
                false => Err(at.index(index).refuse_value(flag)),
            });
    Ok(AccessLogFilter::ResponseFlags(
        flags.collect::<Result<_, _>>()?,
    ))
}

fn grpc_status(at: &At<'_>, wire: &GrpcStatusFilter) -> Result<AccessLogFilter, Invalid> {
    let GrpcStatusFilter { statuses, exclude } = wire;
    let at = at.field("statuses");
    let statuses = statuses.iter().enumerate().map(|(index, number)| {
        let status: GrpcStatus = enumeration(&at.index(index), *number)?;
        Ok(status as u32)
    });
    Ok(AccessLogFilter::GrpcStatus {
        statuses: statuses.collect::<Result<_, _>>()?,
        exclude: *exclude,
    })
}

/// As in Envoy, `invert` says nothing here.
fn metadata(at: &At<'_>, wire: &MetadataFilter) -> Result<AccessLogFilter, Invalid> {
    let MetadataFilter {
        matcher,
        match_if_key_not_found,
    } = wire;
    let at = at.field("matcher");
    Ok(AccessLogFilter::Metadata {
        matches: matcher
            .as_ref()
            .map(|wire| metadata_match(&at, wire))
            .transpose()?,
        passes_missing: match_if_key_not_found.unwrap_or(true),
    })
}

fn log_type(at: &At<'_>, wire: &LogTypeFilter) -> Result<AccessLogFilter, Invalid> {
    let LogTypeFilter { types, exclude } = wire;
    let at = at.field("types");
    let moments = types.iter().enumerate().map(|(index, number)| {
        Ok(match enumeration(&at.index(index), *number)? {
            AccessLogType::NotSet => Moment::Reply,
            AccessLogType::DownstreamEnd => Moment::RequestEnd,
            AccessLogType::TcpConnectionEnd => Moment::ConnectionEnd,
            _ => Moment::Never,
        })
    });
    Ok(AccessLogFilter::Moment {
        moments: moments.collect::<Result<_, _>>()?,
        exclude: *exclude,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use weft_proto::json::from_json;

    use super::super::super::at::Notes;
    use super::*;

    fn translated(json: Value) -> Result<AccessLogFilter, Invalid> {
        let wire: WireFilter = from_json(json).expect("a filter");
        filter(&At::root(&Notes::default()), &wire)
    }

    #[test]
    fn moments_are_those_at_which_somebody_asks() {
        let filter = translated(json!({"log_type_filter":
            {"types": ["DownstreamEnd", "NotSet", "UpstreamEnd"]}}));

        let moments = vec![Moment::RequestEnd, Moment::Reply, Moment::Never];
        assert_eq!(
            filter,
            Ok(AccessLogFilter::Moment {
                moments,
                exclude: false
            })
        );
    }

    #[test]
    fn what_is_missing_passes_unless_it_is_said_not_to() {
        let passes_missing = |json| match translated(json).expect("valid") {
            AccessLogFilter::Metadata { passes_missing, .. } => passes_missing,
            other => panic!("{other:?}"),
        };

        assert!(passes_missing(json!({"metadata_filter": {}})));
        assert!(!passes_missing(
            json!({"metadata_filter": {"match_if_key_not_found": false}})
        ));
    }

    #[test]
    fn what_envoy_refuses_is_refused_by_its_place() {
        for (json, refusal) in [
            (json!({}), "filter_specifier: missing"),
            (
                json!({"and_filter": {"filters": [{"traceable_filter": {}}]}}),
                "and_filter.filters: must be two at least",
            ),
            (
                json!({"response_flag_filter": {"flags": ["UF", "XX"]}}),
                "response_flag_filter.flags[1]: \"XX\" is not supported",
            ),
            (
                json!({"grpc_status_filter": {"statuses": [17]}}),
                "grpc_status_filter.statuses[0]: 17 is not supported",
            ),
            (
                json!({"runtime_filter": {"percent_sampled": {"numerator": 1}}}),
                "runtime_filter.runtime_key: must not be empty",
            ),
            (
                json!({"header_filter": {}}),
                "header_filter.header: missing",
            ),
        ] {
            let error = translated(json).expect_err(refusal);
            assert_eq!(error.to_string(), refusal);
        }
    }
}
