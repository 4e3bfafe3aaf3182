//! What filters ask of services: one request, one answer, both of a bounded size, within a time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header,
};
use http_body_util::BodyExt;
use prost::Message;

use crate::cluster::breaker::{Gauge, Overflow};
use crate::cluster::outlier::Outcome;
use crate::cluster::stats::ClusterStats;
use crate::cluster::{Cluster, NoEndpoint, Pick};
use crate::http::target;
use crate::snapshot::Snapshot;
use crate::telemetry::report::Protocol;
use crate::upstream::body::RequestBody;
use crate::upstream::environment::Environment;
use crate::upstream::error::ExchangeError;
use crate::upstream::guise::Guise;
use crate::upstream::lease::{Freshness, Terms, Wanted};
use crate::upstream::response::UpstreamBody;
use crate::upstream::{ConnectFailure, HttpVersion};

const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const EXPECTED_TIMEOUT: HeaderName = HeaderName::from_static("x-envoy-expected-rq-timeout-ms");
const SERVICE_TIME: HeaderName = HeaderName::from_static("x-envoy-upstream-service-time");
/// No larger answer is read.
const MAX_ANSWER_BYTES: usize = 4 * 1024 * 1024;
/// A connection that was closed while it lay idle is replaced so often.
const MAX_STALE: u32 = 3;
/// Before a message of gRPC: whether it is compressed, and its length.
const GRPC_PREFIX: usize = 5;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallFailure {
    #[error("cluster {0} does not exist")]
    NoCluster(Arc<str>),
    #[error("no endpoint can be asked")]
    NoEndpoint(#[from] NoEndpoint),
    #[error("the circuit breaker refuses")]
    Overflow(#[from] Overflow),
    #[error("no connection")]
    Connect(#[from] ConnectFailure),
    #[error("the service ended the request")]
    Reset(#[source] ExchangeError),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    #[error("the answer is larger than {MAX_ANSWER_BYTES} bytes")]
    TooLarge,
    #[error("the question cannot be put into HTTP")]
    Question(#[from] http::Error),
    #[error("the answer's status is {0}")]
    Status(StatusCode),
    #[error("the answer's gRPC status is {code}: {message}")]
    Grpc { code: u32, message: String },
    #[error("the answer is no message of gRPC")]
    NoMessage,
}

/// A service that is asked, in a cluster.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) environment: &'a Environment,
    pub(super) snapshot: &'a Snapshot,
    pub(super) cluster: &'a Arc<str>,
    pub(super) timeout: Duration,
}

/// A method of gRPC.
pub(super) struct GrpcMethod<'a> {
    /// `/package.Service/Method`.
    pub(super) path: &'static str,
    /// Whom it is for; empty: the cluster.
    pub(super) authority: &'a str,
    /// More headers.
    pub(super) metadata: &'a HeaderMap,
}

impl Asked<'_> {
    /// Asks over HTTP. The question has an absolute URI; its authority is kept.
    pub(super) async fn http(
        self,
        question: Request<Bytes>,
    ) -> Result<Response<Bytes>, CallFailure> {
        let cluster = self.cluster()?;
        let version = target::version(cluster, Protocol::Http11);
        let begun = Instant::now();
        let (mut answer, _) = self.bounded(cluster, version, question).await?;
        // As after every request that goes upstream.
        let took = u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        answer.headers_mut().insert(SERVICE_TIME, took.into());
        Ok(answer)
    }

    /// Asks over gRPC.
    pub(super) async fn grpc<Question, Answer>(
        self,
        method: GrpcMethod<'_>,
        question: &Question,
    ) -> Result<Answer, CallFailure>
    where
        Question: Message,
        Answer: Message + Default,
    {
        let cluster = self.cluster()?;
        let authority = match method.authority {
            "" => &**cluster.name(),
            authority => authority,
        };
        let mut asked = Request::new(framed(question));
        *asked.method_mut() = Method::POST;
        *asked.uri_mut() = Uri::builder()
            .scheme("http")
            .authority(grpc_authority(authority))
            .path_and_query(method.path)
            .build()?;
        let headers = asked.headers_mut();
        headers.clone_from(method.metadata);
        let grpc = HeaderValue::from_static("application/grpc");
        headers.insert(header::CONTENT_TYPE, grpc);
        headers.insert(header::TE, HeaderValue::from_static("trailers"));
        if let Ok(limit) = HeaderValue::try_from(format!("{}m", self.timeout.as_millis())) {
            headers.insert("grpc-timeout", limit);
        }
        let (answer, trailers) = self.bounded(cluster, HttpVersion::Http2, asked).await?;
        if answer.status() != StatusCode::OK {
            return Err(CallFailure::Status(answer.status()));
        }
        check_status(trailers.as_ref().unwrap_or(answer.headers()))?;
        unframed(answer.body())
    }

    fn cluster(&self) -> Result<&Arc<Cluster>, CallFailure> {
        let cluster = self.snapshot.clusters.get(self.cluster);
        cluster.ok_or_else(|| CallFailure::NoCluster(Arc::clone(self.cluster)))
    }

    async fn bounded(
        &self,
        cluster: &Arc<Cluster>,
        version: HttpVersion,
        mut question: Request<Bytes>,
    ) -> Result<(Response<Bytes>, Option<HeaderMap>), CallFailure> {
        // A service knows by these that a proxy asks, and how long it waits.
        let headers = question.headers_mut();
        headers.insert(INTERNAL, HeaderValue::from_static("true"));
        let millis = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        headers.insert(EXPECTED_TIMEOUT, millis.into());
        let asked = ask(self.environment, cluster, version, question);
        let asked = tokio::time::timeout(self.timeout, asked).await;
        asked.unwrap_or(Err(CallFailure::Timeout(self.timeout)))
    }
}

/// One try: admitted by the breaker, sent to an endpoint, recorded there.
async fn ask(
    environment: &Environment,
    cluster: &Arc<Cluster>,
    version: HttpVersion,
    question: Request<Bytes>,
) -> Result<(Response<Bytes>, Option<HeaderMap>), CallFailure> {
    let _permit = cluster.breakers.admit(Gauge::Requests)?;
    let endpoint = cluster.pick(Pick::at(Instant::now()))?;
    ClusterStats::count(&cluster.stats.requests);
    let _active = endpoint.state.begin();
    let failed = || cluster.record(&endpoint, Outcome::LocalOriginFailure, Instant::now());
    let mut request = Box::new(as_sent(question, version));
    let mut freshness = Freshness::Any;
    let mut stale = 0;
    let (lease, response) = loop {
        let terms = Terms::alone(version, freshness, Guise::own(&cluster.config));
        let lent = environment.upstreams.lend(cluster, &endpoint, terms).await;
        let mut lease = lent.inspect_err(|_| failed())?;
        if stale == 0 {
            ClusterStats::count(&cluster.stats.tries);
        }
        match lease.send(&mut request, Wanted::Once).await {
            Ok(response) => break (lease, response),
            // A connection that was closed while it lay idle is nobody's failure.
            Err(failure) if lease.is_reused() && failure.is_unsent && stale < MAX_STALE => {
                stale += 1;
                lease.retire();
                freshness = Freshness::Fresh;
            }
            Err(failure) => {
                failed();
                // As for every request that is lost.
                let lost = StatusCode::SERVICE_UNAVAILABLE;
                cluster.stats.responses.count(lost);
                return Err(CallFailure::Reset(failure.error));
            }
        }
    };
    let outcome = Outcome::of_status(response.status());
    cluster.stats.responses.count(response.status());
    cluster.record(&endpoint, outcome, Instant::now());
    let (parts, body) = response.into_parts();
    let (data, trailers) = collected(body).await?;
    lease.finish(cluster);
    Ok((Response::from_parts(parts, data), trailers))
}

/// HTTP/1.1 has the authority in `host`, HTTP/2 in the URI.
fn as_sent(question: Request<Bytes>, version: HttpVersion) -> Request<RequestBody> {
    let (mut parts, body) = question.into_parts();
    if version == HttpVersion::Http1 {
        let authority = parts.uri.authority().map(|authority| authority.as_str());
        let host = authority.and_then(|host| HeaderValue::from_str(host).ok());
        if let Some(host) = host {
            parts.headers.insert(header::HOST, host);
        }
        if let Some(path) = parts.uri.path_and_query() {
            parts.uri = Uri::from(path.clone());
        }
    }
    let body = match body.is_empty() {
        true => RequestBody::Empty,
        false => RequestBody::Full(Some(body)),
    };
    Request::from_parts(parts, body)
}

async fn collected(mut body: UpstreamBody) -> Result<(Bytes, Option<HeaderMap>), CallFailure> {
    let mut data = BytesMut::new();
    let mut trailers = None;
    while let Some(frame) = body.frame().await {
        match frame.map_err(CallFailure::Reset)?.into_data() {
            Ok(piece) if data.len() + piece.len() > MAX_ANSWER_BYTES => {
                return Err(CallFailure::TooLarge);
            }
            Ok(piece) => data.extend_from_slice(&piece),
            Err(other) => trailers = other.into_trailers().ok(),
        }
    }
    Ok((data.freeze(), trailers))
}

/// A cluster's name need not be an authority.
fn grpc_authority(name: &str) -> &str {
    match name.parse::<http::uri::Authority>() {
        Ok(_) => name,
        Err(_) => "service",
    }
}

fn framed(message: &impl Message) -> Bytes {
    let length = message.encoded_len();
    let mut framed = BytesMut::with_capacity(GRPC_PREFIX + length);
    framed.put_u8(0);
    framed.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    message
        .encode(&mut framed)
        .expect("a buffer of bytes grows as is needed");
    framed.freeze()
}

fn check_status(headers: &HeaderMap) -> Result<(), CallFailure> {
    let text = |name: &str| headers.get(name)?.to_str().ok();
    match text("grpc-status").and_then(|status| status.parse().ok()) {
        Some(0) => Ok(()),
        Some(code) => Err(CallFailure::Grpc {
            code,
            message: text("grpc-message").unwrap_or_default().to_owned(),
        }),
        None => Err(CallFailure::NoMessage),
    }
}

fn unframed<Answer: Message + Default>(data: &Bytes) -> Result<Answer, CallFailure> {
    let (prefix, message) = data
        .split_at_checked(GRPC_PREFIX)
        .ok_or(CallFailure::NoMessage)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    // Nobody was asked to compress.
    if prefix[0] != 0 || usize::try_from(length) != Ok(message.len()) {
        return Err(CallFailure::NoMessage);
    }
    Answer::decode(message).map_err(|_| CallFailure::NoMessage)
}

#[cfg(test)]
mod tests {
    use prost_types::Duration as Message;

    use super::*;

    #[test]
    fn a_message_survives_its_frame() {
        let message = Message {
            seconds: 7,
            nanos: 0,
        };

        let read: Message = unframed(&framed(&message)).expect("a message");

        assert_eq!(read, message);
    }

    #[test]
    fn what_is_no_message_is_an_error_and_no_panic() {
        for bytes in [
            &b""[..],
            b"\0\0",
            b"\x01\0\0\0\0",
            b"\0\0\0\0\x09ab",
            b"\0\0\0\0\x01\xff",
        ] {
            let read = unframed::<Message>(&Bytes::from_static(bytes));

            assert!(read.is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn a_status_of_grpc_is_said() {
        let mut headers = HeaderMap::new();
        assert!(check_status(&headers).is_err());
        headers.insert("grpc-status", HeaderValue::from_static("0"));
        assert!(check_status(&headers).is_ok());
        headers.insert("grpc-status", HeaderValue::from_static("7"));
        assert!(matches!(
            check_status(&headers),
            Err(CallFailure::Grpc { code: 7, .. })
        ));
    }
}
