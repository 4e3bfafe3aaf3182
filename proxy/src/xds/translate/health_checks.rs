//! Active health checks of a cluster.

use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use weft_proto::envoy::config::core::v3::health_check::{
    GrpcHealthCheck, HealthChecker, HttpHealthCheck, Payload, TcpHealthCheck, TlsOptions, payload,
};
use weft_proto::envoy::config::core::v3::{HealthCheck, RequestMethod};
use weft_proto::envoy::r#type::v3::{CodecClientType, Int64Range};

use super::at::{At, Invalid, duration, enumeration, harmless, nonempty, required, unsupported};
use super::headers::mutations;
use super::text::text_match;
use crate::config::headers::HeaderMutations;
use crate::config::health_check::{HealthCheckConfig, HttpProbe, Intervals, Probe};

/// Envoy's: a cluster without traffic is asked once a minute.
const DEFAULT_NO_TRAFFIC: Duration = Duration::from_secs(60);
/// Envoy's: so much of an answer is looked at.
const DEFAULT_BODY_BYTES: usize = 1024;

/// All of them; each endpoint must pass every one.
pub(super) fn health_checks(
    at: &At<'_>,
    wire: &[HealthCheck],
) -> Result<Vec<Arc<HealthCheckConfig>>, Invalid> {
    if wire.len() > 1 {
        return Err(at
            .index(1)
            .refuse("one health check for a cluster is supported, as in Envoy"));
    }
    wire.iter()
        .enumerate()
        .map(|(index, wire)| health_check(&at.index(index), wire).map(Arc::new))
        .collect()
}

fn health_check(at: &At<'_>, wire: &HealthCheck) -> Result<HealthCheckConfig, Invalid> {
    let HealthCheck {
        timeout,
        interval: _,
        interval_jitter: _,
        unhealthy_threshold,
        healthy_threshold,
        alt_port,
        reuse_connection,
        health_checker,
        no_traffic_interval: _,
        unhealthy_interval: _,
        unhealthy_edge_interval: _,
        healthy_edge_interval: _,
        event_log_path,
        interval_jitter_percent: _,
        always_log_health_check_failures,
        initial_jitter: _,
        tls_options,
        event_service,
        transport_socket_match_criteria,
        no_traffic_healthy_interval: _,
        event_logger,
        always_log_health_check_success,
    } = wire;
    unsupported!(at; transport_socket_match_criteria);
    // Changes of health are logged in any case.
    harmless!(at; event_log_path, always_log_health_check_failures, event_service, event_logger,
        always_log_health_check_success);
    let at_port = at.field("alt_port");
    let port = alt_port
        .map(|port| {
            u16::try_from(port).map_err(|_| at_port.refuse(format_args!("{port} is no port")))
        })
        .transpose()?;
    Ok(HealthCheckConfig {
        timeout: positive(&at.field("timeout"), timeout.as_ref())?,
        intervals: intervals(at, wire)?,
        unhealthy_threshold: count(&at.field("unhealthy_threshold"), *unhealthy_threshold)?,
        healthy_threshold: count(&at.field("healthy_threshold"), *healthy_threshold)?,
        port,
        reuses_connection: reuse_connection.unwrap_or(true),
        alpn: alpn(&at.field("tls_options"), tls_options.as_ref())?,
        probe: probe(at, health_checker.as_ref())?,
    })
}

fn count(at: &At<'_>, wire: Option<u32>) -> Result<u32, Invalid> {
    Ok((*required(at, wire.as_ref())?).max(1))
}

fn positive(at: &At<'_>, wire: Option<&prost_types::Duration>) -> Result<Duration, Invalid> {
    match duration(at, wire)? {
        None => Err(at.refuse("missing")),
        Some(Duration::ZERO) => Err(at.refuse("must be more than 0")),
        Some(found) => Ok(found),
    }
}

fn intervals(at: &At<'_>, wire: &HealthCheck) -> Result<Intervals, Invalid> {
    let usual = positive(&at.field("interval"), wire.interval.as_ref())?;
    let optional = |name: &'static str, wire: Option<&prost_types::Duration>| {
        duration(&at.field(name), wire).map(|found| found.filter(|found| !found.is_zero()))
    };
    let unhealthy =
        optional("unhealthy_interval", wire.unhealthy_interval.as_ref())?.unwrap_or(usual);
    Ok(Intervals {
        usual,
        jitter: optional("interval_jitter", wire.interval_jitter.as_ref())?.unwrap_or_default(),
        jitter_percent: wire.interval_jitter_percent,
        initial_jitter: optional("initial_jitter", wire.initial_jitter.as_ref())?
            .unwrap_or_default(),
        no_traffic: optional("no_traffic_interval", wire.no_traffic_interval.as_ref())?
            .unwrap_or(DEFAULT_NO_TRAFFIC),
        no_traffic_healthy: optional(
            "no_traffic_healthy_interval",
            wire.no_traffic_healthy_interval.as_ref(),
        )?,
        unhealthy,
        unhealthy_edge: optional(
            "unhealthy_edge_interval",
            wire.unhealthy_edge_interval.as_ref(),
        )?
        .unwrap_or(unhealthy),
        healthy_edge: optional("healthy_edge_interval", wire.healthy_edge_interval.as_ref())?
            .unwrap_or(usual),
    })
}

fn alpn(at: &At<'_>, wire: Option<&TlsOptions>) -> Result<Option<Arc<str>>, Invalid> {
    let Some(TlsOptions { alpn_protocols }) = wire else {
        return Ok(None);
    };
    match alpn_protocols.as_slice() {
        [] => Ok(None),
        [one] => Ok(Some(one.as_str().into())),
        more => Err(at.field("alpn_protocols").refuse_value(more)),
    }
}

fn probe(at: &At<'_>, wire: Option<&HealthChecker>) -> Result<Probe, Invalid> {
    match required(&at.field("health_checker"), wire)? {
        HealthChecker::HttpHealthCheck(wire) => http_probe(&at.field("http_health_check"), wire)
            .map(|probe| Probe::Http(Box::new(probe))),
        HealthChecker::TcpHealthCheck(wire) => {
            let at = at.field("tcp_health_check");
            let TcpHealthCheck {
                send,
                receive,
                proxy_protocol_config,
            } = wire;
            unsupported!(at; proxy_protocol_config);
            Ok(Probe::Tcp {
                send: payload(&at.field("send"), send.as_ref())?,
                receive: payloads(&at.field("receive"), receive)?,
            })
        }
        HealthChecker::GrpcHealthCheck(wire) => {
            let at = at.field("grpc_health_check");
            let GrpcHealthCheck {
                service_name,
                authority,
                initial_metadata,
            } = wire;
            Ok(Probe::Grpc {
                service: service_name.as_str().into(),
                authority: optional_text(authority),
                headers: mutations(
                    &at,
                    ("initial_metadata", initial_metadata),
                    ("initial_metadata", &[]),
                )?,
            })
        }
        HealthChecker::CustomHealthCheck(wire) => {
            Err(at.field("custom_health_check").refuse_value(&wire.name))
        }
    }
}

fn http_probe(at: &At<'_>, wire: &HttpHealthCheck) -> Result<HttpProbe, Invalid> {
    let HttpHealthCheck {
        host,
        path,
        send,
        receive,
        request_headers_to_add,
        request_headers_to_remove,
        expected_statuses,
        codec_client_type,
        service_name_matcher,
        retriable_statuses,
        method,
        response_buffer_size,
    } = wire;
    let codec: CodecClientType = enumeration(&at.field("codec_client_type"), *codec_client_type)?;
    if codec == CodecClientType::Http3 {
        return Err(at.field("codec_client_type").refuse_value(codec));
    }
    let headers: HeaderMutations = mutations(
        at,
        ("request_headers_to_add", request_headers_to_add),
        ("request_headers_to_remove", request_headers_to_remove),
    )?;
    let mut expected = ranges(&at.field("expected_statuses"), expected_statuses)?;
    if expected.is_empty() {
        expected.push(200..201);
    }
    let body_bytes = response_buffer_size.map_or(DEFAULT_BODY_BYTES, |size| {
        usize::try_from(size).unwrap_or(usize::MAX)
    });
    Ok(HttpProbe {
        method: self::method(&at.field("method"), *method)?,
        host: optional_text(host),
        path: nonempty(&at.field("path"), path)?.into(),
        send: payload(&at.field("send"), send.as_ref())?,
        receive: payloads(&at.field("receive"), receive)?,
        headers,
        expected,
        retriable: ranges(&at.field("retriable_statuses"), retriable_statuses)?,
        is_http2: codec == CodecClientType::Http2,
        service_name: service_name_matcher
            .as_ref()
            .map(|wire| text_match(&at.field("service_name_matcher"), wire))
            .transpose()?,
        // 0 stands for all of it; that is bounded here.
        max_body_bytes: match body_bytes {
            0 => MAX_BODY_BYTES,
            bytes => bytes.min(MAX_BODY_BYTES),
        },
    })
}

/// No more of an answer is ever looked at.
const MAX_BODY_BYTES: usize = 1024 * 1024;

fn method(at: &At<'_>, wire: i32) -> Result<Method, Invalid> {
    Ok(match enumeration(at, wire)? {
        RequestMethod::MethodUnspecified | RequestMethod::Get => Method::GET,
        RequestMethod::Head => Method::HEAD,
        RequestMethod::Post => Method::POST,
        RequestMethod::Put => Method::PUT,
        RequestMethod::Delete => Method::DELETE,
        RequestMethod::Options => Method::OPTIONS,
        RequestMethod::Trace => Method::TRACE,
        RequestMethod::Patch => Method::PATCH,
        RequestMethod::Connect => return Err(at.refuse("CONNECT is no health check")),
    })
}

fn optional_text(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| text.into())
}

fn ranges(at: &At<'_>, wire: &[Int64Range]) -> Result<Vec<Range<u16>>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, range)| {
            let Int64Range { start, end } = range;
            let at = at.index(index);
            match (u16::try_from(*start), u16::try_from(*end)) {
                (Ok(start), Ok(end))
                    if (100..600).contains(&start) && start < end && end <= 600 =>
                {
                    Ok(start..end)
                }
                _ => Err(at.refuse(format_args!("[{start}, {end}) is no range of statuses"))),
            }
        })
        .collect()
}

fn payloads(at: &At<'_>, wire: &[Payload]) -> Result<Vec<Bytes>, Invalid> {
    wire.iter()
        .enumerate()
        .map(|(index, wire)| payload(&at.index(index), Some(wire)))
        .collect()
}

fn payload(at: &At<'_>, wire: Option<&Payload>) -> Result<Bytes, Invalid> {
    match wire.and_then(|wire| wire.payload.as_ref()) {
        None => Ok(Bytes::new()),
        Some(payload::Payload::Binary(bytes)) => Ok(bytes.clone()),
        Some(payload::Payload::Text(text)) => {
            let at = at.field("text");
            unhex(text).ok_or_else(|| at.refuse(format_args!("{text:?} is not hexadecimal")))
        }
    }
}

fn unhex(text: &str) -> Option<Bytes> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|pair| {
            let digit = |byte: u8| char::from(byte).to_digit(16);
            u8::try_from(digit(pair[0])? * 16 + digit(pair[1])?).ok()
        })
        .collect::<Option<Vec<u8>>>()
        .map(Bytes::from)
}

#[cfg(test)]
mod tests {
    use super::super::at::Notes;
    use super::*;

    fn seconds(seconds: i64) -> Option<prost_types::Duration> {
        Some(prost_types::Duration { seconds, nanos: 0 })
    }

    fn tcp(text: &str) -> HealthCheck {
        HealthCheck {
            timeout: seconds(1),
            interval: seconds(5),
            unhealthy_threshold: Some(2),
            healthy_threshold: Some(1),
            health_checker: Some(HealthChecker::TcpHealthCheck(TcpHealthCheck {
                send: Some(Payload {
                    payload: Some(payload::Payload::Text(text.into())),
                }),
                ..TcpHealthCheck::default()
            })),
            ..HealthCheck::default()
        }
    }

    fn translated(wire: HealthCheck) -> Result<HealthCheckConfig, String> {
        let notes = Notes::default();
        health_check(&At::root(&notes).field("health_checks"), &wire)
            .map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_sent_is_hexadecimal() {
        let found = translated(tcp("50494e47")).expect("valid");
        assert_eq!(
            found.probe,
            Probe::Tcp {
                send: Bytes::from_static(b"PING"),
                receive: vec![]
            }
        );

        for text in ["5", "zz", "é"] {
            let error = translated(tcp(text)).expect_err("refused");
            assert!(
                error.starts_with("health_checks.tcp_health_check.send.text"),
                "{error}"
            );
        }
    }

    #[test]
    fn intervals_that_are_not_said_follow_those_that_are() {
        let wire = HealthCheck {
            unhealthy_interval: seconds(2),
            ..tcp("")
        };

        let found = translated(wire).expect("valid").intervals;

        assert_eq!(found.unhealthy_edge, Duration::from_secs(2));
        assert_eq!(found.healthy_edge, Duration::from_secs(5));
        assert_eq!(found.no_traffic, Duration::from_secs(60));
    }

    #[test]
    fn a_check_without_a_timeout_is_refused() {
        let wire = HealthCheck {
            timeout: None,
            ..tcp("")
        };

        assert_eq!(
            translated(wire),
            Err("health_checks.timeout: missing".into())
        );
    }
}
