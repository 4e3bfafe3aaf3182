//! HTTP into a pod: `pods/NAME:PORT/proxy/PATH` reaches a port on the loopback of its sandbox.
//!
//! The node connects inside the sandbox and hands the socket over. What is the caller's and not the pod's business (the
//! token above all) is left behind.

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::response::Response;
use http::header::{AUTHORIZATION, CONNECTION, COOKIE, HOST, HeaderName, HeaderValue};
use http::{HeaderMap, Uri};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, UnixStream};
use weft_proto::handoff::{self, BrokerReply, NodeRequest};

use crate::api::Api;
use crate::refusal::Refusal;
use crate::store::{Name, Object};

/// How long the node may take for the connection, and the pod until its answer begins.
const CONNECT: Duration = Duration::from_secs(5);
const ANSWER: Duration = Duration::from_secs(30);

/// Headers that are for one connection only (RFC 9110 §7.6.1), or for the API alone.
const NOT_PASSED_ON: [HeaderName; 6] = [
    AUTHORIZATION,
    COOKIE,
    CONNECTION,
    http::header::TRANSFER_ENCODING,
    http::header::TE,
    http::header::UPGRADE,
];

/// Passes a request on to a pod.
pub(super) async fn serve(
    api: &Arc<Api>,
    name: &Name,
    rest: &str,
    request: Request,
) -> Result<Response, Refusal> {
    let (pod_name, port) = split(&name.name)?;
    let pod = super::find(api, &Name::new(&name.namespace, pod_name))?;
    let port = match port {
        Some(port) => port,
        None => first_port(&pod)?,
    };
    let stream = tokio::time::timeout(CONNECT, dial(&api.node_handoff, pod.name(), port))
        .await
        .map_err(|_| unreachable(pod_name, port, "the node does not answer"))?
        .map_err(|reason| unreachable(pod_name, port, &reason))?;
    let failed = |error: hyper::Error| unreachable(pod_name, port, &error.to_string());
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
        .await
        .map_err(failed)?;
    // Ends when the answer has been read, or nobody reads it any more.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a connection into a pod ended");
        }
    });
    let request = rewritten(request, rest, port)?;
    let response = tokio::time::timeout(ANSWER, sender.send_request(request))
        .await
        .map_err(|_| Refusal::Timeout(format!("pod {pod_name} does not answer on port {port}")))?
        .map_err(failed)?;
    let (mut parts, body) = response.into_parts();
    strip(&mut parts.headers);
    Ok(Response::from_parts(parts, Body::new(body)))
}

/// `NAME`, `NAME:PORT` or `http:NAME:PORT`.
fn split(text: &str) -> Result<(&str, Option<u16>), Refusal> {
    let text = text.strip_prefix("http:").unwrap_or(text);
    let Some((name, port)) = text.split_once(':') else {
        return Ok((text, None));
    };
    if port.is_empty() {
        return Ok((name, None));
    }
    match port.parse() {
        Ok(port) if port != 0 => Ok((name, Some(port))),
        _ => Err(Refusal::BadRequest(format!(
            "invalid pod request {text:?}: the port is no number"
        ))),
    }
}

fn first_port(pod: &Object) -> Result<u16, Refusal> {
    let containers = pod.value()["spec"]["containers"]
        .as_array()
        .into_iter()
        .flatten();
    containers
        .flat_map(|container| container["ports"].as_array().into_iter().flatten())
        .find_map(|port| u16::try_from(port["containerPort"].as_u64()?).ok())
        .ok_or_else(|| {
            Refusal::BadRequest(format!(
                "pod {} declares no port: name one, as in {}:8080",
                pod.name().name,
                pod.name().name
            ))
        })
}

async fn dial(handoff: &Path, pod: &Name, port: u16) -> Result<TcpStream, String> {
    let mut stream = UnixStream::connect(handoff)
        .await
        .map_err(|error| format!("the node cannot be reached: {error}"))?;
    let request = NodeRequest::Dial {
        sandbox: super::sandbox(pod),
        address: SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
        timeout_millis: u32::try_from(CONNECT.as_millis()).unwrap_or(u32::MAX),
    };
    handoff::send(&mut stream, &request, None)
        .await
        .map_err(|error| format!("asking the node: {error}"))?;
    let (reply, descriptor) = handoff::receive::<BrokerReply>(&mut stream)
        .await
        .map_err(|error| format!("the node's answer: {error}"))?;
    match (reply, descriptor) {
        (BrokerReply::Socket, Some(descriptor)) => connected(descriptor),
        (BrokerReply::Failed { reason, .. }, _) => Err(reason),
        _ => Err("the node's answer makes no sense".to_owned()),
    }
}

fn connected(descriptor: OwnedFd) -> Result<TcpStream, String> {
    let stream = std::net::TcpStream::from(descriptor);
    stream
        .set_nonblocking(true)
        .and_then(|()| TcpStream::from_std(stream))
        .map_err(|error| format!("the socket from the node: {error}"))
}

fn rewritten(request: Request, rest: &str, port: u16) -> Result<Request, Refusal> {
    let (mut parts, body) = request.into_parts();
    let query = parts
        .uri
        .query()
        .map_or_else(String::new, |query| format!("?{query}"));
    parts.uri = format!("/{rest}{query}")
        .parse::<Uri>()
        .map_err(|error| Refusal::BadRequest(format!("the path behind proxy/: {error}")))?;
    parts.version = http::Version::HTTP_11;
    strip(&mut parts.headers);
    let host = HeaderValue::try_from(format!("localhost:{port}"))
        .map_err(|error| Refusal::Internal(error.to_string()))?;
    parts.headers.insert(HOST, host);
    Ok(Request::from_parts(parts, body))
}

fn strip(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in NOT_PASSED_ON.iter().chain(&listed) {
        headers.remove(name);
    }
}

fn unreachable(pod: &str, port: u16, why: &str) -> Refusal {
    Refusal::Unavailable(format!("port {port} of pod {pod} cannot be reached: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_named_with_or_without_port() {
        assert_eq!(split("web").unwrap(), ("web", None));
        assert_eq!(split("web:80").unwrap(), ("web", Some(80)));
        assert_eq!(split("http:web:80").unwrap(), ("web", Some(80)));
        assert_eq!(split("web:").unwrap(), ("web", None));
        assert!(split("web:0").is_err());
        assert!(split("web:x").is_err());
    }

    #[test]
    fn the_callers_token_stays_behind() {
        let mut request = Request::new(Body::empty());
        for (name, value) in [
            ("authorization", "Bearer secret"),
            ("connection", "close, x-private"),
            ("x-private", "1"),
            ("accept", "*/*"),
        ] {
            request
                .headers_mut()
                .insert(name, HeaderValue::from_static(value));
        }

        let request = rewritten(request, "stats", 15000).unwrap();

        let names: Vec<&str> = request.headers().keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["accept", "host"]);
        assert_eq!(request.uri(), "/stats");
    }
}
