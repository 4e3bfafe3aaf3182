//! The head of a request, and what a proxy owes to headers: hop-by-hop ones end here, and forwarding is told.

use std::cell::RefCell;
use std::net::IpAddr;

use http::header::{self, HeaderName};
use http::uri::PathAndQuery;
use http::{Extensions, HeaderMap, HeaderValue, Method, Request, Response, Uri};

use super::HttpConnection;
use super::attempt::HostBefore;
use super::completion::Completion;
use super::expectation;
use super::failure::Failure;
use super::forwarding;
use super::upgrade::Upgrade;
use crate::config::http::{ForwardClientCertificate, HttpConfig, RouterOptions};
use crate::config::matching::RequestLine;
use crate::hop_by_hop;
use crate::present;
use crate::random;
use crate::upstream::HttpVersion;
use crate::upstream::body::client::ClientBody;
use crate::upstream::response::UpstreamBody;

pub(super) const ATTEMPT_COUNT: HeaderName = HeaderName::from_static("x-envoy-attempt-count");
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
pub(super) const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
pub(super) const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const ORIGINAL_HOST: HeaderName = HeaderName::from_static("x-envoy-original-host");
const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const FORWARDED_CLIENT_CERT: HeaderName = HeaderName::from_static("x-forwarded-client-cert");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");

/// A request without its body.
#[derive(Debug, Clone)]
pub(super) struct Head {
    pub(super) method: Method,
    pub(super) path: PathAndQuery,
    /// Host and port; `Host` is not among the headers.
    pub(super) authority: Option<HeaderValue>,
    pub(super) headers: HeaderMap,
    /// `http` or `https`: what its target says, else `x-forwarded-proto`, else its connection. Empty until
    /// [`receive`] has seen who is believed about it.
    pub(super) scheme: &'static str,
    /// As it is sent upstream; set by [`address`].
    pub(super) uri: Uri,
    /// What is told beside the request: how names of headers came, what an extended CONNECT asks for.
    pub(super) extensions: Extensions,
}

impl Head {
    /// Takes a request apart. Nothing is copied.
    pub(super) fn of(request: Box<Request<ClientBody>>) -> (Box<Self>, ClientBody) {
        let (parts, body) = request.into_parts();
        let mut headers = parts.headers;
        if parts.version == http::Version::HTTP_2 {
            join_cookies(&mut headers);
        }
        let uri = parts.uri.into_parts();
        let host = headers.remove(header::HOST);
        // RFC 9112 §3.2.2: the authority of an absolute form goes before Host.
        let named = uri
            .authority
            .and_then(|authority| authority.as_str().try_into().ok());
        let named_scheme = uri
            .scheme
            .as_ref()
            .and_then(|scheme| known_scheme(scheme.as_str()));
        let room = Box::new_uninit();
        let head = Box::write(
            room,
            Head {
                scheme: named_scheme.unwrap_or_default(),
                method: parts.method,
                path: uri
                    .path_and_query
                    .unwrap_or_else(|| PathAndQuery::from_static("/")),
                authority: named.or(host),
                headers,
                uri: Uri::default(),
                extensions: parts.extensions,
            },
        );
        (head, body)
    }

    /// Path and query.
    pub(super) fn path(&self) -> &str {
        self.path.as_str()
    }

    /// What routes and filters match on, beside headers.
    pub(super) fn line(&self) -> RequestLine<'_> {
        RequestLine {
            method: self.method.as_str(),
            path: self.path(),
            authority: self.authority(),
            scheme: self.scheme,
        }
    }

    /// Host and port; empty where there is none.
    pub(super) fn authority(&self) -> &str {
        text(self.authority.as_ref())
    }
}

/// HTTP/2 may have a line for each cookie; beyond it there is one for all (RFC 9113 §8.2.3).
fn join_cookies(headers: &mut HeaderMap) {
    let lines = headers.get_all(header::COOKIE);
    if lines.iter().nth(1).is_none() {
        return;
    }
    let lines: Vec<&[u8]> = lines.iter().map(HeaderValue::as_bytes).collect();
    if let Ok(line) = HeaderValue::from_bytes(&lines.join(&b"; "[..])) {
        headers.insert(header::COOKIE, line);
    }
}

/// The text of a header; empty where there is none.
pub(super) fn text(value: Option<&HeaderValue>) -> &str {
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
}

/// The scheme of a connection.
pub(super) fn scheme(is_tls: bool) -> &'static str {
    if is_tls { "https" } else { "http" }
}

/// The scheme of this name; none where a proxy of HTTP knows no such scheme.
pub(super) fn known_scheme(name: &str) -> Option<&'static str> {
    ["http", "https"]
        .into_iter()
        .find(|known| known.eq_ignore_ascii_case(name))
}

/// What is done to every request when it arrives; says who has sent it, where that is not the peer of the connection.
pub(super) fn receive(
    head: &mut Head,
    connection: &HttpConnection,
    config: &HttpConfig,
    upgrade: Option<&Upgrade>,
) -> Option<IpAddr> {
    hop_by_hop::end(&mut head.headers);
    if !config.proxies_continue && expectation::is_of_continue(&head.headers) {
        // The client is asked when the body is first read.
        head.headers.remove(header::EXPECT);
    }
    if let Some(upgrade) = upgrade {
        upgrade.ask_for(&mut head.headers);
    }
    let client = forwarding::receive(head, connection, config);
    client_certificate(&mut head.headers, connection, config.client_certificate);
    client
}

/// Whether a request comes from inside, as [`receive`] has found.
pub(super) fn is_internal(headers: &HeaderMap) -> bool {
    headers.contains_key(INTERNAL)
}

/// Takes away what only callers inside may send.
pub(super) fn remove_internal(headers: &mut HeaderMap, names: &[HeaderName]) {
    if !names.is_empty() && !is_internal(headers) {
        for name in names {
            headers.remove(name);
        }
    }
}

/// Tells the upstream which host a request was for before it was given another.
pub(super) fn remember_host(
    headers: &mut HeaderMap,
    before: Option<&HeaderValue>,
    keeps_original: bool,
    appends_forwarded: bool,
) {
    let Some(before) = before else { return };
    if appends_forwarded && !before.is_empty() {
        let known = text(headers.get(FORWARDED_HOST));
        let last = known.rsplit(',').next().unwrap_or_default().trim();
        let value = match known {
            "" => Some(before.clone()),
            _ if last == text(Some(before)) => None,
            known => HeaderValue::try_from(format!("{known},{}", text(Some(before)))).ok(),
        };
        if let Some(value) = value {
            headers.insert(FORWARDED_HOST, value);
        }
    }
    if keeps_original {
        headers.insert(ORIGINAL_HOST, before.clone());
    }
}

/// Puts the head into the form of the version that is spoken upstream.
pub(super) fn address(head: &mut Head, version: HttpVersion) -> Result<(), Failure> {
    head.uri = match version {
        HttpVersion::Http1 => {
            // RFC 9112 §3.2: Host is sent also where it is empty.
            let host = head
                .authority
                .clone()
                .unwrap_or(HeaderValue::from_static(""));
            head.headers.insert(header::HOST, host);
            Uri::from(head.path.clone())
        }
        HttpVersion::Http2 => absolute(head)?,
    };
    Ok(())
}

/// The whole URL of a request.
pub(super) fn absolute(head: &Head) -> Result<Uri, Failure> {
    let uri = Uri::builder()
        .scheme(head.scheme)
        .authority(head.authority())
        .path_and_query(head.path.clone());
    uri.build().map_err(|_| Failure::Authority {
        authority: head.authority().into(),
    })
}

/// Sends a request to another host; one that is no host changes nothing.
pub(super) fn readdress<B>(
    request: &mut Request<B>,
    version: HttpVersion,
    host: &str,
    before: HostBefore,
) {
    let old = match request.uri().authority() {
        Some(authority) => HeaderValue::from_str(authority.as_str()).ok(),
        None => request.headers().get(header::HOST).cloned(),
    };
    let HostBefore {
        keeps_original,
        appends_forwarded,
    } = before;
    let headers = request.headers_mut();
    remember_host(headers, old.as_ref(), keeps_original, appends_forwarded);
    match version {
        HttpVersion::Http1 => {
            if let Ok(host) = HeaderValue::from_str(host) {
                request.headers_mut().insert(header::HOST, host);
            }
        }
        HttpVersion::Http2 => {
            let mut parts = request.uri().clone().into_parts();
            if let Ok(authority) = host.parse() {
                parts.authority = Some(authority);
            }
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
}

/// What is done to every response from upstream.
pub(super) fn send_back(
    response: &mut Response<UpstreamBody>,
    completion: &mut Completion,
    router: RouterOptions,
) {
    let is_upgrade = response.status() == http::StatusCode::SWITCHING_PROTOCOLS;
    let latency = completion.answered(response);
    completion.status(response.status());
    let headers = response.headers_mut();
    if !is_upgrade {
        hop_by_hop::end(headers);
    }
    // As in Envoy: how long the upstream took is not known before it had the whole request.
    if !router.suppresses_envoy_headers && completion.has_request() {
        headers.insert(SERVICE_TIME, number(latency));
    }
    // The version is that of each side's own connection.
    *response.version_mut() = http::Version::HTTP_11;
}

/// Whether there may be a header by which a caller asks something of a proxy: those that proxies themselves set are none.
/// One look at all names costs less than looking for each that may be there.
pub(super) fn ask_something(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let own = name.as_str().strip_prefix("x-envoy-");
        own.is_some_and(|own| own != "internal")
    })
}

fn client_certificate(
    headers: &mut HeaderMap,
    connection: &HttpConnection,
    details: ForwardClientCertificate,
) {
    let peer = connection.client_certificate.as_ref();
    match (details, peer) {
        (ForwardClientCertificate::AlwaysForwardOnly, _)
        | (ForwardClientCertificate::ForwardOnly, Some(_)) => {}
        (ForwardClientCertificate::AppendForward, Some(peer)) => {
            let before = headers
                .get(FORWARDED_CLIENT_CERT)
                .map(HeaderValue::as_bytes);
            let value = match before {
                Some(before) => HeaderValue::from_bytes(&[before, b",", peer.as_bytes()].concat()),
                None => Ok(peer.clone()),
            };
            if let Ok(value) = value {
                headers.insert(FORWARDED_CLIENT_CERT, value);
            }
        }
        (ForwardClientCertificate::SanitizeSet, Some(peer)) => {
            headers.insert(FORWARDED_CLIENT_CERT, peer.clone());
        }
        (ForwardClientCertificate::Sanitize, _) | (_, None) => {
            present::remove(headers, &FORWARDED_CLIENT_CERT);
        }
    }
}

thread_local! {
    /// The last large number that was written.
    static LARGE: RefCell<(u64, HeaderValue)> =
        const { RefCell::new((0, HeaderValue::from_static("0"))) };
}

/// A number. Most are small, and cost nothing; of the others, such as time-outs, most are the same as the one before.
pub(super) fn number(number: u64) -> HeaderValue {
    const SMALL: [&str; 10] = ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"];
    let small = usize::try_from(number).ok().and_then(|at| SMALL.get(at));
    if let Some(text) = small {
        return HeaderValue::from_static(text);
    }
    LARGE.with_borrow_mut(|(last, text)| {
        if *last != number {
            (*last, *text) = (number, number.into());
        }
        text.clone()
    })
}

/// A random UUID.
pub(super) fn random_request_id() -> HeaderValue {
    random::identifier(&random::uuid())
}

#[cfg(test)]
mod tests;
