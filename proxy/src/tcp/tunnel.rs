//! Opaque bytes carried in a request of HTTP, to a proxy further on (Envoy's `tunneling_config`).
//!
//! `tcp` opens one in the place of a connection. CONNECT makes a connection, or a stream, a tunnel; of a POST the two
//! bodies are the two directions.

mod io;

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::HOST;
use http::uri::{Authority, Scheme};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri};
use tokio::sync::mpsc;
use tokio_util::either::Either;

pub use self::io::TunnelIo;
use super::{Dialled, Held, TcpFailure};
use crate::cluster::breaker::{Gauge, Permit};
use crate::cluster::endpoint::Endpoint;
use crate::cluster::outlier::Outcome;
use crate::cluster::stats::ClusterStats;
use crate::cluster::{Cluster, Pick};
use crate::config::cluster::UpstreamProtocol;
use crate::config::listener::TcpConfig;
use crate::config::tunnel::{TunnelConfig, TunnelMethod};
use crate::telemetry::access_log::format::Template;
use crate::telemetry::access_log::operator::Subject;
use crate::telemetry::report::{Downstream, ResponseFlags, TcpReport};
use crate::upstream::body::RequestBody;
use crate::upstream::guise::Guise;
use crate::upstream::lease::{Freshness, Lease, Terms, Wanted};
use crate::upstream::response::UpstreamBody;
use crate::upstream::upgraded;
use crate::upstream::{ConnectFailure, HttpVersion, TunnelFailure, Upstreams};

/// The upstream must have agreed by then; it may have to connect to somebody first.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);
/// So many pieces of what a client says wait for the upstream.
const PIECES: usize = 2;

/// What is asked for on behalf of one client.
#[derive(Debug)]
pub(super) struct Asked {
    authority: String,
    method: TunnelMethod,
    headers: HeaderMap,
}

impl Asked {
    /// What operators stand for is what is known of the client's connection.
    pub(super) fn new(
        tunnel: &TunnelConfig,
        config: &TcpConfig,
        downstream: Arc<Downstream>,
    ) -> Self {
        let report = report(config, downstream);
        let text = |template: &Template| template.text(Subject::Connection(&report));
        let mut headers = HeaderMap::new();
        tunnel
            .headers
            .apply_in(&mut headers, |(template, _)| text(template));
        Asked {
            authority: text(&tunnel.hostname),
            method: tunnel.method.clone(),
            headers,
        }
    }

    fn request(
        &self,
        version: HttpVersion,
        scheme: Scheme,
        body: RequestBody,
    ) -> Result<Request<RequestBody>, http::Error> {
        let authority: Authority = self.authority.parse()?;
        let uri = match (&self.method, version) {
            (TunnelMethod::Connect, _) => Uri::builder().authority(authority.clone()),
            (TunnelMethod::Post { path }, HttpVersion::Http1) => {
                Uri::builder().path_and_query(&**path)
            }
            (TunnelMethod::Post { path }, HttpVersion::Http2) => Uri::builder()
                .scheme(scheme)
                .authority(authority.clone())
                .path_and_query(&**path),
        };
        let mut request = Request::new(body);
        *request.uri_mut() = uri.build()?;
        *request.method_mut() = match self.method {
            TunnelMethod::Connect => Method::CONNECT,
            TunnelMethod::Post { .. } => Method::POST,
        };
        let headers = request.headers_mut();
        if version == HttpVersion::Http1 {
            headers.insert(HOST, HeaderValue::from_str(authority.as_str())?);
        }
        headers.extend(self.headers.clone());
        Ok(request)
    }
}

/// As in Envoy.
fn is_agreed(status: StatusCode, version: HttpVersion) -> bool {
    match version {
        HttpVersion::Http1 => status.is_success(),
        HttpVersion::Http2 => status == StatusCode::OK,
    }
}

/// A tunnel through an endpoint of a cluster, for opaque bytes of a client.
pub(super) async fn open(
    cluster: &Arc<Cluster>,
    pick: Pick<'_>,
    guise: Guise,
    upstreams: &Upstreams,
    asked: &Asked,
) -> Result<Dialled, TcpFailure> {
    let endpoint = super::picked(cluster, pick)?;
    let admitted = cluster.breakers.admit(Gauge::Requests);
    let request = admitted.map_err(|source| TcpFailure::Overflow {
        cluster: Arc::clone(cluster.name()),
        source,
    })?;
    let active = endpoint.state.begin();
    let made = through(cluster, &endpoint, guise, upstreams, asked).await;
    let outcome = match &made {
        Ok(_) => Some(Outcome::Success),
        Err(ConnectFailure::Overflow(_) | ConnectFailure::NoTls(_)) => None,
        Err(_) => Some(Outcome::LocalOriginFailure),
    };
    if let Some(outcome) = outcome {
        cluster.record(&endpoint, outcome, Instant::now());
    }
    match made {
        Ok((io, lease)) => {
            let held = Held::Stream {
                _stream: Box::new((lease, request)),
            };
            Ok(Dialled::new(
                Either::Right(io),
                cluster,
                endpoint,
                (held, active),
            ))
        }
        Err(ConnectFailure::Overflow(source)) => Err(TcpFailure::Overflow {
            cluster: Arc::clone(cluster.name()),
            source,
        }),
        Err(source) => Err(TcpFailure::Connect {
            cluster: Arc::clone(cluster.name()),
            endpoint,
            source,
        }),
    }
}

/// What is held for as long as a tunnel is open: a stream, and its place among the cluster's requests.
pub(super) type HeldStream = (Lease, Permit);

async fn through(
    cluster: &Arc<Cluster>,
    endpoint: &Arc<Endpoint>,
    guise: Guise,
    upstreams: &Upstreams,
    asked: &Asked,
) -> Result<(TunnelIo, Lease), ConnectFailure> {
    let version = match cluster.config.protocol {
        UpstreamProtocol::Http2 => HttpVersion::Http2,
        UpstreamProtocol::Http1 | UpstreamProtocol::Downstream => HttpVersion::Http1,
    };
    let failed = |source: TunnelFailure| ConnectFailure::Tunnel {
        address: endpoint.address,
        source: Arc::new(source),
    };
    let (body, pieces) = match asked.method {
        TunnelMethod::Connect => (RequestBody::Empty, None),
        TunnelMethod::Post { .. } => {
            let (pieces, received) = mpsc::channel(PIECES);
            (RequestBody::Copy(received), Some(pieces))
        }
    };
    let scheme = match endpoint.transport.is_tls() {
        true => Scheme::HTTPS,
        false => Scheme::HTTP,
    };
    let request = asked.request(version, scheme, body);
    let mut request = request.map_err(|source| {
        let authority = asked.authority.clone();
        failed(TunnelFailure::Request { authority, source })
    })?;
    // One that lay idle may have been closed meanwhile, and there is no second try on the same endpoint.
    let terms = Terms::alone(version, Freshness::Fresh, guise);
    let mut lease = upstreams.lend(cluster, endpoint, terms).await?;
    ClusterStats::count(&cluster.stats.tries);
    let opened = async {
        let response = lease.send(&mut request, Wanted::Once).await;
        let response = response.map_err(|failure| TunnelFailure::Http(failure.error))?;
        let status = response.status();
        if !is_agreed(status, version) {
            return Err(TunnelFailure::Refused(status));
        }
        joined(response, pieces).await
    };
    let io = tokio::time::timeout(ANSWER_WITHIN, opened)
        .await
        .unwrap_or(Err(TunnelFailure::Late(ANSWER_WITHIN)))
        .map_err(failed)?;
    Ok((io, lease))
}

async fn joined(
    mut response: Response<UpstreamBody>,
    pieces: Option<mpsc::Sender<crate::upstream::body::meter::Copied>>,
) -> Result<TunnelIo, TunnelFailure> {
    match pieces {
        Some(pieces) => Ok(TunnelIo::of_bodies(pieces, response.into_body())),
        None => {
            let upgraded = upgraded::on(&mut response).await;
            upgraded
                .map(TunnelIo::Upgraded)
                .map_err(TunnelFailure::Http)
        }
    }
}

/// What operators can be asked about before there is an upstream.
fn report(config: &TcpConfig, downstream: Arc<Downstream>) -> TcpReport {
    TcpReport {
        downstream,
        start: SystemTime::now(),
        duration: Duration::ZERO,
        cluster: None,
        upstream: None,
        received_bytes: 0,
        sent_bytes: 0,
        flags: ResponseFlags::default(),
        reason: None,
        termination: None,
        access_logs: Arc::clone(&config.access_logs),
    }
}
