//! Health checks by HTTP.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinHandle;

use super::probe::{Place, Unwell};
use super::tcp::contains_in_order;
use crate::cluster::health::Checked;
use crate::config::health_check::HttpProbe;
use crate::upstream::HttpVersion;
use crate::upstream::io::UpstreamIo;

/// A connection for checks. Its task ends with it.
pub(super) struct HttpAsker {
    sender: Sender,
    task: JoinHandle<()>,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

/// Endpoints that ask to be spared say so.
const DEGRADED: &str = "x-envoy-degraded";
/// Endpoints that are about to fail say so.
const IMMEDIATE_FAIL: &str = "x-envoy-immediate-health-check-fail";
/// Whose endpoints they are, as a health check filter says.
const CLUSTER: &str = "x-envoy-upstream-healthchecked-cluster";
/// As Envoy's checks call themselves.
const USER_AGENT: HeaderValue = HeaderValue::from_static("Envoy/HC");

impl Drop for HttpAsker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HttpAsker {
    pub(super) async fn over(io: UpstreamIo, version: HttpVersion) -> hyper::Result<Self> {
        let io = TokioIo::new(io);
        Ok(match version {
            HttpVersion::Http1 => {
                let (sender, connection) = http1::handshake(io).await?;
                HttpAsker {
                    sender: Sender::Http1(sender),
                    task: tokio::spawn(async move {
                        let _ = connection.await;
                    }),
                }
            }
            HttpVersion::Http2 => {
                let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await?;
                HttpAsker {
                    sender: Sender::Http2(sender),
                    task: tokio::spawn(async move {
                        let _ = connection.await;
                    }),
                }
            }
        })
    }

    /// Whether it can carry another check.
    pub(super) async fn is_usable(&mut self) -> bool {
        match &mut self.sender {
            Sender::Http1(sender) => sender.ready().await.is_ok(),
            Sender::Http2(sender) => sender.ready().await.is_ok(),
        }
    }

    /// Sends a request to a path, with a host.
    pub(super) async fn send(
        &mut self,
        mut request: Request<Full<Bytes>>,
        host: &str,
    ) -> Result<Response<Incoming>, Unwell> {
        match &mut self.sender {
            Sender::Http1(sender) => {
                let host = HeaderValue::try_from(host).map_err(http::Error::from)?;
                request.headers_mut().insert(header::HOST, host);
                Ok(sender.send_request(request).await?)
            }
            Sender::Http2(sender) => {
                let uri = http::Uri::builder()
                    .scheme("http")
                    .authority(host)
                    .path_and_query(
                        request
                            .uri()
                            .path_and_query()
                            .map_or("/", |path| path.as_str()),
                    );
                *request.uri_mut() = uri.build()?;
                Ok(sender.send_request(request).await?)
            }
        }
    }

    /// Asks, and judges the answer.
    pub(super) async fn ask_http(
        &mut self,
        place: &Place<'_>,
        probe: &HttpProbe,
    ) -> Result<Checked, Unwell> {
        let mut request = Request::builder()
            .method(&probe.method)
            .uri(&*probe.path)
            .header(header::USER_AGENT, USER_AGENT)
            .body(Full::new(probe.send.clone()))?;
        probe.headers.apply(request.headers_mut());
        let host = place.host(probe.host.as_deref()).to_owned();
        let response = self.send(request, &host).await?;
        let (head, body) = response.into_parts();
        let verdict = verdict(head.status.as_u16(), &head.headers, probe)?;
        let body = Limited::new(body, MAX_READ).collect().await;
        let body = body.map_err(|error| Unwell::Answer(error.to_string()))?;
        let bytes = body.to_bytes();
        let looked_at = &bytes[..bytes.len().min(probe.max_body_bytes)];
        match contains_in_order(looked_at, &probe.receive) {
            true => Ok(verdict),
            false => Err(Unwell::Answer("another body than is expected".into())),
        }
    }
}

/// An answer that is longer is no answer to a health check.
const MAX_READ: usize = 4 * 1024 * 1024;

/// What status and headers say.
fn verdict(status: u16, headers: &HeaderMap, probe: &HttpProbe) -> Result<Checked, Unwell> {
    let is_in =
        |ranges: &[std::ops::Range<u16>]| ranges.iter().any(|range| range.contains(&status));
    if !is_in(&probe.expected) {
        // Envoy: what is not said to be worth another try decides at once.
        return match is_in(&probe.retriable) {
            true => Err(Unwell::Answer(format!("status {status}"))),
            false => Ok(Checked::FailedForGood),
        };
    }
    if headers.contains_key(IMMEDIATE_FAIL) {
        return Ok(Checked::FailedForGood);
    }
    if let Some(wanted) = &probe.service_name {
        let name = headers.get(CLUSTER).and_then(|name| name.to_str().ok());
        if !wanted.is_match(name.unwrap_or_default()) {
            return Ok(Checked::FailedForGood);
        }
    }
    Ok(match headers.contains_key(DEGRADED) {
        true => Checked::PassedDegraded,
        false => Checked::Passed,
    })
}

#[cfg(test)]
mod tests {
    use http::Method;

    use super::*;
    use crate::config::headers::HeaderMutations;

    fn probe() -> HttpProbe {
        HttpProbe {
            method: Method::GET,
            host: None,
            path: "/".into(),
            send: Bytes::new(),
            receive: vec![],
            headers: HeaderMutations::default(),
            expected: std::iter::once(200..300).collect(),
            retriable: std::iter::once(503..504).collect(),
            is_http2: false,
            service_name: None,
            max_body_bytes: 1024,
        }
    }

    fn judged(status: u16, headers: &[&'static str]) -> Option<Checked> {
        let headers = headers
            .iter()
            .map(|name| {
                (
                    http::HeaderName::from_static(name),
                    HeaderValue::from_static("x"),
                )
            })
            .collect();
        verdict(status, &headers, &probe()).ok()
    }

    #[test]
    fn statuses_that_are_expected_pass_and_others_decide_at_once_unless_retriable() {
        assert_eq!(judged(204, &[]), Some(Checked::Passed));
        assert_eq!(judged(500, &[]), Some(Checked::FailedForGood));
        assert_eq!(judged(503, &[]), None);
    }

    #[test]
    fn what_endpoints_say_of_themselves_in_headers_is_heard() {
        assert_eq!(judged(200, &[DEGRADED]), Some(Checked::PassedDegraded));
        assert_eq!(judged(200, &[IMMEDIATE_FAIL]), Some(Checked::FailedForGood));
    }
}
