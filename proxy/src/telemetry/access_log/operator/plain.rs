//! Operators without arguments, and what they stand for.

use std::net::{IpAddr, SocketAddr};

use super::super::super::report::{Downstream, RequestReport, ResponseFlags, TcpReport, Upstream};
use super::super::super::session::Field;
use super::argument::{camel_case_status, long_flags};
use super::{Value, header_text, millis, text};
use crate::config::tls::NameKind;
use crate::random;

macro_rules! plain_operators {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// An operator without arguments.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Plain {
            $($(#[$doc])* $name,)*
        }

        impl Plain {
            pub(super) fn from_word(word: &str) -> Option<Self> {
                match word {
                    $($word => Some(Plain::$name),)*
                    _ => None,
                }
            }
        }
    };
}

plain_operators! {
    /// `HTTP/1.1`
    Protocol = "PROTOCOL",
    /// The status; 0 where there is none.
    ResponseCode = "RESPONSE_CODE",
    /// Why the proxy answered itself.
    ResponseCodeDetails = "RESPONSE_CODE_DETAILS",
    /// Envoy's short flags.
    ResponseFlags = "RESPONSE_FLAGS",
    /// The number of the client's connection.
    ConnectionId = "CONNECTION_ID",
    /// A random number for the line.
    UniqueId = "UNIQUE_ID",
    /// Milliseconds to the last byte of the request.
    RequestDuration = "REQUEST_DURATION",
    /// Milliseconds from the upstream's first byte to the client's last.
    ResponseTxDuration = "RESPONSE_TX_DURATION",
    /// What was spoken with the endpoint.
    UpstreamProtocol = "UPSTREAM_PROTOCOL",
    /// Whence the endpoint was reached.
    UpstreamLocalAddress = "UPSTREAM_LOCAL_ADDRESS",
    /// Without its port.
    UpstreamLocalAddressWithoutPort = "UPSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    /// Its port.
    UpstreamLocalPort = "UPSTREAM_LOCAL_PORT",
    /// `TLSv1.3`
    DownstreamTlsVersion = "DOWNSTREAM_TLS_VERSION",
    /// As OpenSSL calls it.
    DownstreamTlsCipher = "DOWNSTREAM_TLS_CIPHER",
    /// Of the client's certificate.
    DownstreamPeerSubject = "DOWNSTREAM_PEER_SUBJECT",
    /// Of the client's certificate.
    DownstreamPeerIssuer = "DOWNSTREAM_PEER_ISSUER",
    /// Of the client's certificate.
    DownstreamPeerSerial = "DOWNSTREAM_PEER_SERIAL",
    /// Of the client's certificate, by SHA-256.
    DownstreamPeerFingerprint = "DOWNSTREAM_PEER_FINGERPRINT_256",
    /// Of the client's certificate.
    DownstreamPeerDnsSan = "DOWNSTREAM_PEER_DNS_SAN",
    /// Of the client's certificate.
    DownstreamPeerIpSan = "DOWNSTREAM_PEER_IP_SAN",
    /// Of the client's certificate.
    DownstreamPeerEmailSan = "DOWNSTREAM_PEER_EMAIL_SAN",
    /// Body bytes of the request.
    BytesReceived = "BYTES_RECEIVED",
    /// Body bytes of the response.
    BytesSent = "BYTES_SENT",
    /// Milliseconds.
    Duration = "DURATION",
    /// Milliseconds to the upstream's first byte.
    ResponseDuration = "RESPONSE_DURATION",
    /// The endpoint.
    UpstreamHost = "UPSTREAM_HOST",
    /// The endpoint, once more.
    UpstreamRemoteAddress = "UPSTREAM_REMOTE_ADDRESS",
    /// Without its port.
    UpstreamRemoteAddressWithoutPort = "UPSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// Its port.
    UpstreamRemotePort = "UPSTREAM_REMOTE_PORT",
    /// The name of the endpoint, else its address.
    UpstreamHostName = "UPSTREAM_HOST_NAME",
    /// The same without a port.
    UpstreamHostNameWithoutPort = "UPSTREAM_HOST_NAME_WITHOUT_PORT",
    /// `TLSv1.3`
    UpstreamTlsVersion = "UPSTREAM_TLS_VERSION",
    /// As OpenSSL calls it.
    UpstreamTlsCipher = "UPSTREAM_TLS_CIPHER",
    /// Of the endpoint's certificate.
    UpstreamPeerSubject = "UPSTREAM_PEER_SUBJECT",
    /// Of the endpoint's certificate.
    UpstreamPeerIssuer = "UPSTREAM_PEER_ISSUER",
    /// Of the endpoint's certificate.
    UpstreamPeerUriSan = "UPSTREAM_PEER_URI_SAN",
    /// Of the endpoint's certificate.
    UpstreamPeerDnsSan = "UPSTREAM_PEER_DNS_SAN",
    /// Of the endpoint's certificate.
    UpstreamPeerIpSan = "UPSTREAM_PEER_IP_SAN",
    /// What the proxy has ended the connection for.
    ConnectionTerminationDetails = "CONNECTION_TERMINATION_DETAILS",
    /// The cluster.
    UpstreamCluster = "UPSTREAM_CLUSTER",
    /// The same.
    UpstreamClusterRaw = "UPSTREAM_CLUSTER_RAW",
    /// How often it was tried.
    UpstreamRequestAttemptCount = "UPSTREAM_REQUEST_ATTEMPT_COUNT",
    /// What went wrong towards the endpoint.
    UpstreamTransportFailureReason = "UPSTREAM_TRANSPORT_FAILURE_REASON",
    /// The route's name.
    RouteName = "ROUTE_NAME",
    /// The name a TLS client asked for.
    RequestedServerName = "REQUESTED_SERVER_NAME",
    /// The client.
    DownstreamRemoteAddress = "DOWNSTREAM_REMOTE_ADDRESS",
    /// The client without its port.
    DownstreamRemoteAddressWithoutPort = "DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT",
    /// The client's port.
    DownstreamRemotePort = "DOWNSTREAM_REMOTE_PORT",
    /// Who has made the connection, which the PROXY protocol may announce for somebody else.
    DownstreamDirectRemoteAddress = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS",
    /// Without its port.
    DownstreamDirectRemoteAddressWithoutPort = "DOWNSTREAM_DIRECT_REMOTE_ADDRESS_WITHOUT_PORT",
    /// Its port.
    DownstreamDirectRemotePort = "DOWNSTREAM_DIRECT_REMOTE_PORT",
    /// Where the client was going.
    DownstreamLocalAddress = "DOWNSTREAM_LOCAL_ADDRESS",
    /// Without its port.
    DownstreamLocalAddressWithoutPort = "DOWNSTREAM_LOCAL_ADDRESS_WITHOUT_PORT",
    /// Its port.
    DownstreamLocalPort = "DOWNSTREAM_LOCAL_PORT",
    /// The client's identity.
    DownstreamPeerUriSan = "DOWNSTREAM_PEER_URI_SAN",
    /// The trace.
    TraceId = "TRACE_ID",
    /// The span.
    SpanId = "SPAN_ID",
    /// `x-request-id`.
    StreamId = "STREAM_ID",
    /// gRPC's status, as a number.
    GrpcStatusNumber = "GRPC_STATUS_NUMBER",
    /// gRPC's status, as `NotFound`.
    GrpcStatus = "GRPC_STATUS",
    /// Envoy's flags in words.
    ResponseFlagsLong = "RESPONSE_FLAGS_LONG",
    /// The body of an answer of the proxy's own.
    LocalReplyBody = "LOCAL_REPLY_BODY",
}

impl Plain {
    pub(super) fn of_request(self, report: &RequestReport) -> Value<'_> {
        match self {
            Plain::Protocol => text(report.protocol.as_str()),
            Plain::ResponseCode => Value::Number(report.response_code.into()),
            Plain::BytesReceived => Value::Number(report.request_bytes),
            Plain::BytesSent => Value::Number(report.response_bytes),
            Plain::Duration => millis(report.duration),
            Plain::ResponseDuration => report.upstream_latency.map_or(Value::Missing, millis),
            Plain::UpstreamRequestAttemptCount => Value::Number(report.attempts.into()),
            Plain::RequestDuration => report.request_duration.map_or(Value::Missing, millis),
            Plain::ResponseTxDuration => report
                .upstream_latency
                .and_then(|latency| report.duration.checked_sub(latency))
                .map_or(Value::Missing, millis),
            // Envoy's word for an answer that is not the proxy's own.
            Plain::ResponseCodeDetails => match &report.details {
                Some(details) => text(details),
                None if report.upstream_latency.is_some() => text("via_upstream"),
                None => Value::Missing,
            },
            Plain::RouteName => named(&report.route),
            Plain::TraceId => match &report.trace {
                Some(trace) => Value::Text(format!("{:032x}", trace.trace_id()).into()),
                None => Value::Missing,
            },
            Plain::SpanId => match &report.trace {
                Some(trace) => Value::Text(format!("{:016x}", trace.span_id()).into()),
                None => Value::Missing,
            },
            Plain::StreamId => report
                .request_id
                .as_ref()
                .map_or(Value::Missing, header_text),
            Plain::GrpcStatusNumber => report
                .told_grpc_status()
                .map_or(Value::Missing, |status| Value::Number(status.into())),
            Plain::GrpcStatus => report
                .told_grpc_status()
                .map_or(Value::Missing, camel_case_status),
            other if report.client.is_some() && other.is_of_client() => report
                .client
                .map_or(Value::Missing, |client| other.of_client(client)),
            other => other.of_both(&Common {
                downstream: &report.downstream,
                upstream: report.upstream.as_ref(),
                cluster: report.cluster.as_deref(),
                flags: report.flags,
                reason: report.reason.as_deref(),
            }),
        }
    }

    fn is_of_client(self) -> bool {
        matches!(
            self,
            Plain::DownstreamRemoteAddress
                | Plain::DownstreamRemoteAddressWithoutPort
                | Plain::DownstreamRemotePort
        )
    }

    /// Of a client that a proxy in front has named: nobody knows its port.
    fn of_client(self, client: IpAddr) -> Value<'static> {
        let client = SocketAddr::new(client, 0);
        match self {
            Plain::DownstreamRemoteAddressWithoutPort => Value::Host(client.ip()),
            Plain::DownstreamRemotePort => port(client),
            _ => Value::Address(client),
        }
    }

    pub(super) fn of_connection(self, report: &TcpReport) -> Value<'_> {
        match self {
            Plain::ResponseCode => Value::Number(0),
            Plain::BytesReceived => Value::Number(report.received_bytes),
            Plain::BytesSent => Value::Number(report.sent_bytes),
            Plain::Duration => millis(report.duration),
            Plain::ConnectionTerminationDetails => {
                report.termination.as_deref().map_or(Value::Missing, text)
            }
            other => other.of_both(&Common {
                downstream: &report.downstream,
                upstream: report.upstream.as_ref(),
                cluster: report.cluster.as_deref(),
                flags: report.flags,
                reason: report.reason.as_deref(),
            }),
        }
    }

    fn of_both<'report>(self, report: &Common<'report>) -> Value<'report> {
        match self {
            Plain::ResponseFlags => Value::Flags(report.flags),
            Plain::ResponseFlagsLong => Value::Text(long_flags(report.flags).into()),
            Plain::UpstreamTransportFailureReason => report
                .reason
                .filter(|_| {
                    report
                        .flags
                        .contains(ResponseFlags::UPSTREAM_CONNECTION_FAILURE)
                })
                .map_or(Value::Missing, text),
            Plain::UpstreamHost | Plain::UpstreamRemoteAddress => report
                .upstream
                .map_or(Value::Missing, |upstream| Value::Address(upstream.address)),
            Plain::UpstreamRemoteAddressWithoutPort => {
                report.upstream.map_or(Value::Missing, |upstream| {
                    Value::Host(upstream.address.ip())
                })
            }
            Plain::UpstreamRemotePort => report
                .upstream
                .map_or(Value::Missing, |upstream| port(upstream.address)),
            // One that does not exist has a name only in the configuration.
            Plain::UpstreamCluster | Plain::UpstreamClusterRaw
                if report.flags.contains(ResponseFlags::NO_CLUSTER) =>
            {
                Value::Missing
            }
            Plain::UpstreamCluster | Plain::UpstreamClusterRaw => {
                report.cluster.map_or(Value::Missing, text)
            }
            Plain::ConnectionId => Value::Number(report.downstream.id),
            Plain::UniqueId => shown(String::from_utf8_lossy(&random::uuid())),
            Plain::UpstreamProtocol => report
                .upstream
                .and_then(|upstream| upstream.protocol)
                .map_or(Value::Missing, |protocol| text(protocol.as_str())),
            Plain::UpstreamLocalAddress => report.local().map_or(Value::Missing, Value::Address),
            Plain::UpstreamLocalAddressWithoutPort => report
                .local()
                .map_or(Value::Missing, |local| Value::Host(local.ip())),
            Plain::UpstreamLocalPort => report.local().map_or(Value::Missing, port),
            Plain::RequestedServerName => report
                .downstream
                .server_name
                .as_deref()
                .map_or(Value::Missing, text),
            Plain::DownstreamRemoteAddress => Value::Address(report.downstream.peer),
            Plain::DownstreamDirectRemoteAddress => Value::Address(report.downstream.direct_peer),
            Plain::DownstreamRemoteAddressWithoutPort => Value::Host(report.downstream.peer.ip()),
            Plain::DownstreamDirectRemoteAddressWithoutPort => {
                Value::Host(report.downstream.direct_peer.ip())
            }
            Plain::DownstreamRemotePort => port(report.downstream.peer),
            Plain::DownstreamDirectRemotePort => port(report.downstream.direct_peer),
            Plain::DownstreamLocalAddress => Value::Address(report.downstream.local),
            Plain::DownstreamLocalAddressWithoutPort => Value::Host(report.downstream.local.ip()),
            Plain::DownstreamLocalPort => port(report.downstream.local),
            other => match report
                .upstream
                .and_then(|upstream| other.of_upstream(upstream))
            {
                Some(value) => value,
                None => other.of_session(report.downstream),
            },
        }
    }

    /// What the endpoint is called, and what its TLS says; `None`: it is not about that.
    fn of_upstream(self, upstream: &Upstream) -> Option<Value<'_>> {
        let session = upstream.session.as_deref();
        let field = match self {
            Plain::UpstreamHostName => {
                return Some(match &upstream.hostname {
                    Some(name) => text(name),
                    None => Value::Address(upstream.address),
                });
            }
            Plain::UpstreamHostNameWithoutPort => {
                return Some(match &upstream.hostname {
                    Some(name) => text(without_port(name)),
                    None => Value::Host(upstream.address.ip()),
                });
            }
            Plain::UpstreamTlsVersion => {
                let version = session.and_then(|session| session.version);
                return Some(version.map_or(Value::Missing, text));
            }
            Plain::UpstreamTlsCipher => {
                let cipher = session.and_then(|session| session.cipher);
                return Some(cipher.map_or(Value::Missing, text));
            }
            Plain::UpstreamPeerSubject => Field::Subject,
            Plain::UpstreamPeerIssuer => Field::Issuer,
            Plain::UpstreamPeerUriSan => Field::Names(NameKind::Uri),
            Plain::UpstreamPeerDnsSan => Field::Names(NameKind::Host),
            Plain::UpstreamPeerIpSan => Field::Names(NameKind::Address),
            _ => return None,
        };
        let said = session.and_then(|session| session.field(field));
        Some(said.map_or(Value::Missing, shown))
    }
}

/// A name may have a port behind it.
fn without_port(name: &str) -> &str {
    match name.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    }
}

impl Plain {
    /// What the client's TLS says.
    fn of_session(self, downstream: &Downstream) -> Value<'_> {
        let session = downstream.session.as_deref();
        let field = match self {
            Plain::DownstreamTlsVersion => {
                let version = session.and_then(|session| session.version);
                return version.map_or(Value::Missing, text);
            }
            Plain::DownstreamTlsCipher => {
                let cipher = session.and_then(|session| session.cipher);
                return cipher.map_or(Value::Missing, text);
            }
            // Without a certificate, what is known otherwise.
            Plain::DownstreamPeerUriSan if session.is_none() => {
                return downstream.principal.as_deref().map_or(Value::Missing, text);
            }
            Plain::DownstreamPeerUriSan => Field::Names(NameKind::Uri),
            Plain::DownstreamPeerDnsSan => Field::Names(NameKind::Host),
            Plain::DownstreamPeerIpSan => Field::Names(NameKind::Address),
            Plain::DownstreamPeerEmailSan => Field::Names(NameKind::Email),
            Plain::DownstreamPeerSubject => Field::Subject,
            Plain::DownstreamPeerIssuer => Field::Issuer,
            Plain::DownstreamPeerSerial => Field::Serial,
            Plain::DownstreamPeerFingerprint => Field::Fingerprint,
            _ => return Value::Missing,
        };
        session
            .and_then(|session| session.field(field))
            .map_or(Value::Missing, shown)
    }
}

/// What requests and connections have in common.
struct Common<'report> {
    downstream: &'report Downstream,
    upstream: Option<&'report Upstream>,
    cluster: Option<&'report str>,
    flags: ResponseFlags,
    reason: Option<&'report str>,
}

impl Common<'_> {
    fn local(&self) -> Option<SocketAddr> {
        self.upstream?.local
    }
}

fn port(address: SocketAddr) -> Value<'static> {
    Value::Number(address.port().into())
}

pub(super) fn named(name: &str) -> Value<'_> {
    if name.is_empty() {
        Value::Missing
    } else {
        text(name)
    }
}

fn shown(value: impl ToString) -> Value<'static> {
    Value::Text(value.to_string().into())
}
