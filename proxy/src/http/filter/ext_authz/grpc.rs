//! A service of `envoy.service.auth.v3.Authorization`.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::SystemTime;

use http::{HeaderName, HeaderValue, StatusCode};
use weft_proto::envoy::config::core::v3::header_value_option::HeaderAppendAction;
use weft_proto::envoy::config::core::v3::socket_address::PortSpecifier;
use weft_proto::envoy::config::core::v3::{
    Address, HeaderValueOption, Metadata as WireMetadata, SocketAddress, address,
};
use weft_proto::envoy::service::auth::v3::attribute_context::{
    HttpRequest, Peer, Request, TlsSession,
};
use weft_proto::envoy::service::auth::v3::check_response::HttpResponse;
use weft_proto::envoy::service::auth::v3::{
    AttributeContext, CheckRequest, CheckResponse, DeniedHttpResponse, OkHttpResponse,
};
use weft_proto::wkt::{struct_from_json, struct_to_json};

use super::super::Passing;
use super::super::call::{Asked, CallFailure, GrpcMethod};
use super::{Allowed, AuthzOverride, Change, Decision, Denied, ExtAuthzConfig, PARTIAL_BODY, Said};
use crate::config::filter::service::GrpcTarget;
use crate::config::headers::HeaderAction;
use crate::config::metadata::Metadata;
use crate::http::headers::REQUEST_ID;

const METHOD: &str = "/envoy.service.auth.v3.Authorization/Check";

pub(super) async fn ask(
    asked: Asked<'_>,
    target: &GrpcTarget,
    question: &CheckRequest,
) -> Result<Decision, CallFailure> {
    let method = GrpcMethod {
        path: METHOD,
        authority: &target.authority,
        metadata: &target.metadata,
    };
    asked.grpc(method, question).await.and_then(decision)
}

/// Everything that is known of a request, as far as it may be said.
pub(super) fn question(
    config: &ExtAuthzConfig,
    own: Option<&AuthzOverride>,
    said: &Said,
    passing: &Passing<'_>,
) -> CheckRequest {
    let downstream = &passing.connection.downstream;
    let metadata = passing.completion.metadata();
    let route_metadata = passing.overrides().metadata();
    CheckRequest {
        attributes: Some(AttributeContext {
            source: Some(peer(downstream.peer, downstream.principal.as_deref())),
            destination: Some(peer(downstream.local, None)),
            request: Some(Request {
                time: Some(SystemTime::now().into()),
                http: Some(http_request(config, said, passing)),
            }),
            context_extensions: own.map(|own| own.context.clone()).unwrap_or_default(),
            metadata_context: said_metadata(metadata, &config.metadata_namespaces),
            route_metadata_context: said_metadata(
                route_metadata,
                &config.route_metadata_namespaces,
            ),
            tls_session: config.tells_server_name.then(|| TlsSession {
                sni: downstream.server_name.as_deref().unwrap_or_default().into(),
            }),
        }),
    }
}

fn peer(at: SocketAddr, principal: Option<&str>) -> Peer {
    let address = SocketAddress {
        address: at.ip().to_canonical().to_string(),
        port_specifier: Some(PortSpecifier::PortValue(at.port().into())),
        ..SocketAddress::default()
    };
    Peer {
        address: Some(Address {
            address: Some(address::Address::SocketAddress(address)),
        }),
        principal: principal.unwrap_or_default().to_owned(),
        ..Peer::default()
    }
}

fn http_request(config: &ExtAuthzConfig, said: &Said, passing: &Passing<'_>) -> HttpRequest {
    let line = passing.line();
    let headers = &passing.head.headers;
    let length = headers.get(http::header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    let (body, raw_body) = match said.is_raw {
        true => (String::new(), said.bytes.clone()),
        false => (
            String::from_utf8_lossy(&said.bytes).into_owned(),
            Default::default(),
        ),
    };
    HttpRequest {
        id: headers
            .get(REQUEST_ID)
            .and_then(|id| id.to_str().ok())
            .unwrap_or_default()
            .to_owned(),
        method: line.method.to_owned(),
        headers: said_headers(config, said, passing),
        path: line.path.to_owned(),
        host: line.authority.to_owned(),
        scheme: line.scheme.to_owned(),
        size: length.unwrap_or(-1),
        protocol: passing.completion.protocol().as_str().to_owned(),
        body,
        raw_body,
        ..HttpRequest::default()
    }
}

fn said_headers(
    config: &ExtAuthzConfig,
    said: &Said,
    passing: &Passing<'_>,
) -> BTreeMap<String, String> {
    let line = passing.line();
    let is_said = |name: &str| {
        let is_in = |tests: &[crate::config::matching::TextMatch]| {
            tests.iter().any(|test| test.is_match(name))
        };
        config.allowed_headers.as_deref().is_none_or(is_in) && !is_in(&config.disallowed_headers)
    };
    let pseudo = [
        (":authority", line.authority),
        (":method", line.method),
        (":path", line.path),
        (":scheme", line.scheme),
    ];
    let mut all: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in pseudo {
        if is_said(name) {
            all.insert(name.to_owned(), value.to_owned());
        }
    }
    for (name, value) in &passing.head.headers {
        if !is_said(name.as_str()) {
            continue;
        }
        let value = String::from_utf8_lossy(value.as_bytes());
        all.entry(name.as_str().to_owned())
            .and_modify(|all| {
                all.push(',');
                all.push_str(&value);
            })
            .or_insert_with(|| value.clone().into_owned());
    }
    if !said.bytes.is_empty() {
        all.insert(
            PARTIAL_BODY.as_str().to_owned(),
            said.is_partial.to_string(),
        );
    }
    all
}

fn said_metadata(metadata: &Metadata, namespaces: &[std::sync::Arc<str>]) -> Option<WireMetadata> {
    let said = namespaces.iter().filter_map(|name| {
        let fields = metadata.namespace(name)?;
        Some((name.to_string(), struct_from_json(fields)))
    });
    let filter_metadata: BTreeMap<_, _> = said.collect();
    (!namespaces.is_empty()).then(|| WireMetadata {
        filter_metadata,
        ..WireMetadata::default()
    })
}

/// What the service's answer means. One without a decision is a failure.
fn decision(answer: CheckResponse) -> Result<Decision, CallFailure> {
    let CheckResponse {
        status,
        http_response,
        dynamic_metadata,
    } = answer;
    let metadata = dynamic_metadata.as_ref().map(struct_to_json);
    let metadata = metadata.unwrap_or_default();
    let is_ok = status.is_none_or(|status| status.code == 0);
    match http_response {
        Some(HttpResponse::OkResponse(ok)) if is_ok => Ok(Decision::Allowed(Allowed {
            metadata,
            ..allowed(&ok)
        })),
        None if is_ok => Ok(Decision::Allowed(Allowed {
            metadata,
            ..Allowed::default()
        })),
        Some(HttpResponse::DeniedResponse(denied)) => Ok(Decision::Denied(Denied {
            metadata,
            ..to_denied(denied)
        })),
        Some(HttpResponse::ErrorResponse(_)) => Err(CallFailure::NoMessage),
        // Denied without a word, or allowed with the words of a denial: it may not pass.
        _ => Ok(Decision::Denied(Denied {
            metadata,
            ..to_denied(DeniedHttpResponse::default())
        })),
    }
}

fn allowed(wire: &OkHttpResponse) -> Allowed {
    let OkHttpResponse {
        headers,
        headers_to_remove,
        dynamic_metadata: _,
        response_headers_to_add,
        query_parameters_to_set,
        query_parameters_to_remove,
    } = wire;
    let removed = headers_to_remove.iter();
    let set = query_parameters_to_set.iter();
    Allowed {
        request: headers.iter().filter_map(request_change).collect(),
        // A pseudo header is none that could be removed.
        removed: removed.filter_map(|name| name.parse().ok()).collect(),
        query_set: set
            .map(|one| (one.key.clone(), one.value.clone()))
            .collect(),
        query_removed: query_parameters_to_remove.clone(),
        response: response_headers_to_add
            .iter()
            .filter_map(response_change)
            .collect(),
        appends_anyway: false,
        metadata: Default::default(),
    }
}

/// Envoy: the request's headers are replaced unless `append` says otherwise.
fn request_change(wire: &HeaderValueOption) -> Option<Change> {
    let action = match wire.append {
        Some(true) => HeaderAction::Append,
        _ => HeaderAction::Overwrite,
    };
    change(wire, action)
}

fn response_change(wire: &HeaderValueOption) -> Option<Change> {
    let action = match (wire.append, wire.append_action()) {
        (Some(true), _) | (None, HeaderAppendAction::AppendIfExistsOrAdd) => HeaderAction::Append,
        (Some(false), _) | (None, HeaderAppendAction::OverwriteIfExistsOrAdd) => {
            HeaderAction::Overwrite
        }
        (None, HeaderAppendAction::AddIfAbsent) => HeaderAction::AddIfAbsent,
        (None, HeaderAppendAction::OverwriteIfExists) => HeaderAction::OverwriteIfPresent,
    };
    change(wire, action)
}

fn change(wire: &HeaderValueOption, action: HeaderAction) -> Option<Change> {
    let (name, value) = header(wire)?;
    Some(Change {
        name,
        value,
        action,
    })
}

fn header(wire: &HeaderValueOption) -> Option<(HeaderName, HeaderValue)> {
    let header = wire.header.as_ref()?;
    let value = match header.raw_value.is_empty() {
        true => header.value.as_bytes(),
        false => &header.raw_value,
    };
    // `:authority` is known by its name in HTTP/1.
    let name = match header.key.as_str() {
        ":authority" => "host",
        name => name,
    };
    Some((name.parse().ok()?, HeaderValue::from_bytes(value).ok()?))
}

/// As in Envoy, those that would be appended are left out.
fn denied_headers(wire: &[HeaderValueOption]) -> Vec<(HeaderName, HeaderValue)> {
    let set = wire.iter().filter(|option| option.append != Some(true));
    set.filter_map(header).collect()
}

fn to_denied(wire: DeniedHttpResponse) -> Denied {
    let DeniedHttpResponse {
        status,
        headers,
        body,
    } = wire;
    let status = status
        .and_then(|status| u16::try_from(status.code).ok())
        .and_then(|code| StatusCode::from_u16(code).ok())
        .filter(|status| (200..600).contains(&status.as_u16()));
    Denied {
        status: status.unwrap_or(StatusCode::FORBIDDEN),
        headers: denied_headers(&headers),
        body: body.into(),
        metadata: Default::default(),
    }
}
