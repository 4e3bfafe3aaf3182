//! Operators with arguments of their own, and the words that Envoy has for numbers.

use std::borrow::Cow;

use serde_json::Value as Json;

use super::super::super::report::ResponseFlags;
use super::{Exchange, Header, InvalidOperator, Value, text};
use crate::config::metadata::MetadataPath;

/// An operator with an argument.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum WithArgument {
    /// `%HOSTNAME%`: known when it is parsed.
    HostName(String),
    /// `%ENVIRONMENT(NAME)%`: known when it is parsed.
    Environment(String),
    /// `%DYNAMIC_METADATA(NAMESPACE:KEY…)%`.
    DynamicMetadata(MetadataPath),
    /// `%METADATA(ROUTE:NAMESPACE:KEY…)%`.
    RouteMetadata(MetadataPath),
    /// `%QUERY_PARAM(NAME)%`.
    QueryParameter(String),
    /// `%PATH(WQ|NQ:ORIG|PATH)%`.
    Path {
        /// Whether the query belongs to it.
        with_query: bool,
        /// Which one.
        which: WhichPath,
    },
    /// `%REQ_WITHOUT_QUERY(NAME?ALTERNATIVE)%`.
    WithoutQuery(Header, Option<Header>),
    /// `%GRPC_STATUS(CAMEL_STRING|SNAKE_STRING|NUMBER)%`.
    GrpcStatus(Spelling),
}

/// A path, where a route may have rewritten it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhichPath {
    /// The one before, else the one that it is.
    OriginalOrCurrent,
    /// The one before; none where it is as it was.
    Original,
    /// The one that it is.
    Current,
}

/// How a gRPC status is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Spelling {
    /// `NotFound`.
    Camel,
    /// `NOT_FOUND`.
    Snake,
    /// `5`.
    Number,
}

impl WithArgument {
    /// From its word and argument; `None` where the word is not one of these.
    pub(super) fn parse(
        word: &str,
        argument: Option<&str>,
    ) -> Result<Option<Self>, InvalidOperator> {
        Ok(Some(match (word, argument) {
            ("HOSTNAME", None) => WithArgument::HostName(host_name()),
            ("ENVIRONMENT", Some(name)) => {
                let value = std::env::var(name);
                WithArgument::Environment(value.unwrap_or_else(|_| "-".to_owned()))
            }
            ("DYNAMIC_METADATA", Some(argument)) => {
                WithArgument::DynamicMetadata(metadata(argument)?)
            }
            ("METADATA", Some(argument)) => match argument.split_once(':') {
                Some(("DYNAMIC", rest)) => WithArgument::DynamicMetadata(metadata(rest)?),
                Some(("ROUTE", rest)) => WithArgument::RouteMetadata(metadata(rest)?),
                _ => return Err(InvalidOperator::Argument(argument.to_owned())),
            },
            ("QUERY_PARAM", Some(name)) => WithArgument::QueryParameter(name.to_owned()),
            ("PATH", argument) => path(argument.unwrap_or_default())?,
            ("REQ_WITHOUT_QUERY", Some(argument)) => match argument.split_once('?') {
                Some((name, alternative)) => WithArgument::WithoutQuery(
                    Header::parse(name)?,
                    Some(Header::parse(alternative)?),
                ),
                None => WithArgument::WithoutQuery(Header::parse(argument)?, None),
            },
            ("GRPC_STATUS", Some(spelling)) => WithArgument::GrpcStatus(match spelling {
                "CAMEL_STRING" => Spelling::Camel,
                "SNAKE_STRING" => Spelling::Snake,
                "NUMBER" => Spelling::Number,
                other => return Err(InvalidOperator::Argument(other.to_owned())),
            }),
            _ => return Ok(None),
        }))
    }

    /// Whether its value may be cut off.
    pub(super) fn takes_length(&self) -> bool {
        !matches!(
            self,
            WithArgument::HostName(_) | WithArgument::GrpcStatus(_)
        )
    }

    /// Its value where that is known from the beginning.
    pub(super) fn fixed(&self) -> Option<&str> {
        match self {
            WithArgument::HostName(fixed) | WithArgument::Environment(fixed) => Some(fixed),
            _ => None,
        }
    }

    /// What it stands for.
    pub(super) fn value<'report>(&'report self, exchange: Exchange<'report>) -> Value<'report> {
        match self {
            WithArgument::HostName(fixed) | WithArgument::Environment(fixed) => text(fixed),
            WithArgument::DynamicMetadata(path) => path
                .of(&exchange.report.metadata)
                .map_or(Value::Missing, metadata_value),
            WithArgument::RouteMetadata(path) => {
                let metadata = exchange.report.route_metadata.as_ref();
                let value = metadata.and_then(|metadata| path.of(metadata));
                value.map_or(Value::Missing, metadata_value)
            }
            WithArgument::QueryParameter(name) => exchange
                .path()
                .and_then(|path| query_parameter(path, name))
                .map_or(Value::Missing, text),
            WithArgument::Path { with_query, which } => {
                let path = match which {
                    WhichPath::OriginalOrCurrent => exchange.original_path().or(exchange.path()),
                    WhichPath::Original => exchange.original_path(),
                    WhichPath::Current => exchange.path(),
                };
                match path {
                    Some(path) if *with_query => text(path),
                    Some(path) => text(without_query(path)),
                    None => Value::Missing,
                }
            }
            WithArgument::WithoutQuery(name, alternative) => {
                let value = match (name.value(exchange), alternative) {
                    (Value::Missing, Some(alternative)) => alternative.value(exchange),
                    (value, _) => value,
                };
                match value {
                    Value::Text(Cow::Borrowed(path)) => text(without_query(path)),
                    Value::Text(Cow::Owned(path)) => {
                        Value::Text(without_query(&path).to_owned().into())
                    }
                    value => value,
                }
            }
            WithArgument::GrpcStatus(spelling) => {
                let Some(status) = exchange.report.told_grpc_status() else {
                    return Value::Missing;
                };
                match spelling {
                    Spelling::Camel => camel_case_status(status),
                    Spelling::Snake => snake_case_status(status),
                    Spelling::Number => Value::Number(status.into()),
                }
            }
        }
    }
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    match name.trim_end() {
        "" => "-".to_owned(),
        name => name.to_owned(),
    }
}

fn metadata(argument: &str) -> Result<MetadataPath, InvalidOperator> {
    let mut parts = argument.split(':');
    let namespace = parts.next().unwrap_or_default();
    let path: Vec<_> = parts.map(Into::into).collect();
    if namespace.is_empty() || path.is_empty() {
        return Err(InvalidOperator::Argument(argument.to_owned()));
    }
    Ok(MetadataPath {
        namespace: namespace.into(),
        path,
    })
}

fn metadata_value(value: &Json) -> Value<'_> {
    match value {
        Json::Null => Value::Missing,
        Json::String(value) => text(value),
        value => Value::Text(value.to_string().into()),
    }
}

fn path(argument: &str) -> Result<WithArgument, InvalidOperator> {
    let refused = || InvalidOperator::Argument(argument.to_owned());
    let (query, which) = argument.split_once(':').unwrap_or((argument, ""));
    Ok(WithArgument::Path {
        with_query: match query {
            "" | "WQ" => true,
            "NQ" => false,
            _ => return Err(refused()),
        },
        which: match which {
            "" | "ORIG_OR_PATH" => WhichPath::OriginalOrCurrent,
            "ORIG" => WhichPath::Original,
            "PATH" => WhichPath::Current,
            _ => return Err(refused()),
        },
    })
}

fn without_query(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}

fn query_parameter<'path>(path: &'path str, name: &str) -> Option<&'path str> {
    let (_, query) = path.split_once('?')?;
    let mut parameters = query
        .split('&')
        .map(|parameter| parameter.split_once('=').unwrap_or((parameter, "")));
    let (_, value) = parameters.find(|(known, _)| *known == name)?;
    Some(value)
}

/// Names of gRPC's statuses, by number.
const STATUSES: [(&str, &str); 17] = [
    ("OK", "OK"),
    ("Canceled", "CANCELLED"),
    ("Unknown", "UNKNOWN"),
    ("InvalidArgument", "INVALID_ARGUMENT"),
    ("DeadlineExceeded", "DEADLINE_EXCEEDED"),
    ("NotFound", "NOT_FOUND"),
    ("AlreadyExists", "ALREADY_EXISTS"),
    ("PermissionDenied", "PERMISSION_DENIED"),
    ("ResourceExhausted", "RESOURCE_EXHAUSTED"),
    ("FailedPrecondition", "FAILED_PRECONDITION"),
    ("Aborted", "ABORTED"),
    ("OutOfRange", "OUT_OF_RANGE"),
    ("Unimplemented", "UNIMPLEMENTED"),
    ("Internal", "INTERNAL"),
    ("Unavailable", "UNAVAILABLE"),
    ("DataLoss", "DATA_LOSS"),
    ("Unauthenticated", "UNAUTHENTICATED"),
];

fn names(status: u32) -> Option<&'static (&'static str, &'static str)> {
    STATUSES.get(usize::try_from(status).ok()?)
}

/// `NotFound`; a number that has no name is written as it is.
pub(super) fn camel_case_status(status: u32) -> Value<'static> {
    match names(status) {
        Some((camel, _)) => text(camel),
        None => Value::Text(status.to_string().into()),
    }
}

fn snake_case_status(status: u32) -> Value<'static> {
    match names(status) {
        Some((_, snake)) => text(snake),
        None => Value::Text(status.to_string().into()),
    }
}

/// Envoy's words for its short flags.
const LONG_FLAGS: [(&str, &str); 22] = [
    ("UH", "NoHealthyUpstream"),
    ("UF", "UpstreamConnectionFailure"),
    ("UO", "UpstreamOverflow"),
    ("NR", "NoRouteFound"),
    ("URX", "UpstreamRetryLimitExceeded"),
    ("NC", "NoClusterFound"),
    ("DC", "DownstreamConnectionTermination"),
    ("LR", "LocalReset"),
    ("UR", "UpstreamRemoteReset"),
    ("UC", "UpstreamConnectionTermination"),
    ("DI", "DelayInjected"),
    ("FI", "FaultInjected"),
    ("UT", "UpstreamRequestTimeout"),
    ("SI", "StreamIdleTimeout"),
    ("DPE", "DownstreamProtocolError"),
    ("UAEX", "UnauthorizedExternalService"),
    ("RL", "RateLimited"),
    ("UPE", "UpstreamProtocolError"),
    ("DT", "DurationTimeout"),
    ("LH", "FailedLocalHealthCheck"),
    ("RLSE", "RateLimitServiceError"),
    ("UDO", "UnconditionalDropOverload"),
];

/// The flags that hold, in words.
pub(super) fn long_flags(flags: ResponseFlags) -> String {
    let words: Vec<_> = flags
        .names()
        .map(|short| {
            let known = LONG_FLAGS.iter().find(|(name, _)| *name == short);
            known.map_or(short, |(_, long)| long)
        })
        .collect();
    match words.is_empty() {
        true => "-".to_owned(),
        false => words.join(","),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::super::super::testing::request;
    use super::super::super::format::Template;
    use super::super::Entry;
    use super::*;

    fn text_of(
        template: &str,
        change: impl FnOnce(&mut crate::telemetry::report::RequestReport),
    ) -> String {
        let mut report = request();
        change(&mut report);
        let template = Template::parse(template).expect("a template");
        template.text(Entry::Request(&report).into())
    }

    #[test]
    fn paths_and_queries_are_taken_apart() {
        assert_eq!(text_of("%PATH(NQ)%", |_| ()), "/reviews/1");
        assert_eq!(text_of("%PATH%", |_| ()), "/reviews/1?full=yes");
        assert_eq!(text_of("%QUERY_PARAM(full)%", |_| ()), "yes");
        assert_eq!(text_of("%QUERY_PARAM(none)%", |_| ()), "");
        assert_eq!(
            text_of("%REQ_WITHOUT_QUERY(X-NONE?:PATH)%", |_| ()),
            "/reviews/1"
        );
    }

    #[test]
    fn a_grpc_status_has_three_spellings() {
        let not_found = |report: &mut crate::telemetry::report::RequestReport| {
            report.is_grpc = true;
            report.grpc_status = Some(5);
        };

        assert_eq!(text_of("%GRPC_STATUS%", not_found), "NotFound");
        assert_eq!(
            text_of("%GRPC_STATUS(SNAKE_STRING)%", not_found),
            "NOT_FOUND"
        );
        assert_eq!(text_of("%GRPC_STATUS(NUMBER)%", not_found), "5");
    }

    #[test]
    fn a_call_of_grpc_without_a_status_has_that_of_its_http_status() {
        let refused = |report: &mut crate::telemetry::report::RequestReport| {
            report.is_grpc = true;
            report.response_code = 502;
        };

        assert_eq!(text_of("%GRPC_STATUS%", refused), "Unavailable");
        assert_eq!(
            text_of("%GRPC_STATUS%", |report| report.response_code = 502),
            ""
        );
    }

    #[test]
    fn a_path_that_a_route_has_rewritten_is_told_apart() {
        let rewritten = |report: &mut crate::telemetry::report::RequestReport| {
            report.rewritten_path = "/new?q".parse().ok();
        };

        assert_eq!(text_of("%PATH(NQ:PATH)%", rewritten), "/new");
        assert_eq!(text_of("%PATH(NQ:ORIG)%", rewritten), "/reviews/1");
        assert_eq!(text_of("%PATH(NQ:ORIG)%", |_| ()), "");
        assert_eq!(text_of("%REQ(:PATH)%", rewritten), "/new?q");
    }

    #[test]
    fn dynamic_metadata_are_found_by_their_path() {
        let with = |report: &mut crate::telemetry::report::RequestReport| {
            report
                .metadata
                .put("jwt", "claims", json!({"sub": "jane", "age": 7}));
        };

        assert_eq!(text_of("%DYNAMIC_METADATA(jwt:claims:sub)%", with), "jane");
        assert_eq!(text_of("%DYNAMIC_METADATA(jwt:claims:age)%", with), "7");
        assert!(Template::parse("%DYNAMIC_METADATA(jwt)%").is_err());
    }

    #[test]
    fn route_metadata_are_told_apart_from_what_filters_have_found_out() {
        let with = |report: &mut crate::telemetry::report::RequestReport| {
            let mut of_route = crate::config::metadata::Metadata::new();
            of_route.put("team", "name", json!("books"));
            report.route_metadata = Some(of_route.into());
            report.metadata.put("team", "name", json!("nobody"));
        };

        assert_eq!(text_of("%METADATA(ROUTE:team:name)%", with), "books");
        assert_eq!(text_of("%METADATA(DYNAMIC:team:name)%", with), "nobody");
        assert!(Template::parse("%METADATA(CLUSTER:team:name)%").is_err());
    }

    #[test]
    fn every_flag_has_a_long_name() {
        let mut all = ResponseFlags::default();
        all.add(ResponseFlags::ALL);

        let long = long_flags(all);

        assert_eq!(long.split(',').count(), all.names().count());
        assert!(long.split(',').all(|word| word.len() > 4), "{long}");
    }
}
