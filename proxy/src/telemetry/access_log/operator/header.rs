//! Operators about headers: which header, and where its value comes from.

use http::{HeaderMap, HeaderName};

use super::plain::named;
use super::{Exchange, InvalidOperator, Value, header_text, millis, text};

/// A request header; some are kept in every report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Header {
    /// `:method`
    Method,
    /// `:scheme`
    Scheme,
    /// `:path`: the path as it is.
    Path,
    /// `x-envoy-original-path`: the path as it came, where a route has rewritten it.
    OriginalPath,
    /// `:authority`, `host`
    Authority,
    /// `user-agent`
    UserAgent,
    /// `x-forwarded-for`
    ForwardedFor,
    /// `x-request-id`
    RequestId,
    /// Any other.
    Other(HeaderName),
}

/// A response header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResponseHeader {
    /// `x-envoy-upstream-service-time`
    UpstreamServiceTime,
    /// `grpc-status`
    GrpcStatus,
    /// `:status`
    Status,
    /// Any other.
    Other(HeaderName),
}

impl Header {
    pub(super) fn parse(name: &str) -> Result<Self, InvalidOperator> {
        Ok(match name.to_ascii_lowercase().as_str() {
            ":method" => Header::Method,
            ":scheme" => Header::Scheme,
            ":path" => Header::Path,
            "x-envoy-original-path" => Header::OriginalPath,
            ":authority" | "host" => Header::Authority,
            "user-agent" => Header::UserAgent,
            "x-forwarded-for" => Header::ForwardedFor,
            "x-request-id" => Header::RequestId,
            other => Header::Other(
                other
                    .parse()
                    .map_err(|_| InvalidOperator::HeaderName(name.to_owned()))?,
            ),
        })
    }

    pub(super) fn value<'report>(&self, exchange: Exchange<'report>) -> Value<'report> {
        let report = exchange.report;
        if let (Some(line), Header::Method | Header::Scheme | Header::Path | Header::Authority) =
            (exchange.line, self)
        {
            return text(match self {
                Header::Scheme => line.scheme,
                Header::Method => line.method,
                Header::Authority => line.authority,
                _ => line.path,
            });
        }
        if let Some(headers) = exchange.request {
            return self.among(headers);
        }
        let value = match self {
            Header::Method => return text(report.method.as_str()),
            Header::Scheme => return named(report.scheme),
            Header::Path => return exchange.path().map_or(Value::Missing, text),
            Header::OriginalPath => return exchange.original_path().map_or(Value::Missing, text),
            Header::Authority => {
                let rewritten = report.rewritten_authority.as_ref();
                rewritten.or(report.authority.as_ref())
            }
            Header::UserAgent => report.user_agent.as_ref(),
            Header::ForwardedFor => report.forwarded_for.as_ref(),
            Header::RequestId => report.request_id.as_ref(),
            Header::Other(name) => report
                .request_headers
                .as_ref()
                .and_then(|headers| headers.get(name)),
        };
        value.map_or(Value::Missing, header_text)
    }

    fn among<'report>(&self, headers: &'report HeaderMap) -> Value<'report> {
        let value = match self {
            Header::Method | Header::Scheme | Header::Path | Header::Authority => None,
            Header::OriginalPath => headers.get("x-envoy-original-path"),
            Header::UserAgent => headers.get(http::header::USER_AGENT),
            Header::ForwardedFor => headers.get("x-forwarded-for"),
            Header::RequestId => headers.get("x-request-id"),
            Header::Other(name) => headers.get(name),
        };
        value.map_or(Value::Missing, header_text)
    }
}

impl ResponseHeader {
    pub(super) fn parse(name: &str) -> Result<Self, InvalidOperator> {
        Ok(match name.to_ascii_lowercase().as_str() {
            "x-envoy-upstream-service-time" => ResponseHeader::UpstreamServiceTime,
            "grpc-status" => ResponseHeader::GrpcStatus,
            ":status" => ResponseHeader::Status,
            other => ResponseHeader::Other(
                other
                    .parse()
                    .map_err(|_| InvalidOperator::HeaderName(name.to_owned()))?,
            ),
        })
    }

    pub(super) fn value<'report>(&self, exchange: Exchange<'report>) -> Value<'report> {
        let report = exchange.report;
        match self {
            ResponseHeader::UpstreamServiceTime => {
                report.upstream_latency.map_or(Value::Missing, millis)
            }
            ResponseHeader::GrpcStatus => report
                .grpc_status
                .map_or(Value::Missing, |status| Value::Number(status.into())),
            ResponseHeader::Status if report.response_code == 0 => Value::Missing,
            ResponseHeader::Status => Value::Text(report.response_code.to_string().into()),
            ResponseHeader::Other(name) => exchange
                .response
                .or(report.response_headers.as_deref())
                .and_then(|headers| headers.get(name))
                .map_or(Value::Missing, header_text),
        }
    }
}
