//! Asking one endpoint once.

use std::net::SocketAddr;
use std::sync::Arc;

use super::http::HttpAsker;
use super::{grpc, tcp};
use crate::cluster::Cluster;
use crate::cluster::endpoint::Endpoint;
use crate::cluster::health::Checked;
use crate::config::health_check::{HealthCheckConfig, Probe};
use crate::upstream::io::UpstreamIo;
use crate::upstream::{ConnectFailure, HttpVersion, Upstreams};

/// Why an endpoint is not well.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unwell {
    /// It cannot be connected to.
    #[error("{}", crate::upstream::explain(.0))]
    Connect(#[from] ConnectFailure),
    /// It says something that is no answer.
    #[error("{}", crate::upstream::explain(.0))]
    Http(#[from] hyper::Error),
    /// The connection ended.
    #[error("{0}")]
    Io(#[from] std::io::Error),
    /// It says that it is not.
    #[error("it answers {0}")]
    Answer(String),
    /// The check cannot be put into a request.
    #[error("no request can be made of the check: {0}")]
    Request(#[from] http::Error),
}

/// What is kept of an endpoint from one check to the next.
#[derive(Default)]
pub(super) struct Prober {
    http: Option<HttpAsker>,
}

impl Prober {
    /// Asks as configured.
    pub(super) async fn ask(
        &mut self,
        upstreams: &Upstreams,
        cluster: &Cluster,
        endpoint: &Arc<Endpoint>,
        config: &HealthCheckConfig,
    ) -> Result<Checked, Unwell> {
        let place = Place {
            upstreams,
            cluster,
            endpoint,
            config,
        };
        match &config.probe {
            Probe::Tcp { send, receive } => tcp::ask(&place, send, receive).await,
            Probe::Http(probe) => {
                let version = match probe.is_http2 {
                    true => HttpVersion::Http2,
                    false => HttpVersion::Http1,
                };
                let asker = self.asker(&place, version).await?;
                let checked = asker.ask_http(&place, probe).await;
                self.keep(config, checked.is_ok());
                checked
            }
            Probe::Grpc {
                service,
                authority,
                headers,
            } => {
                let asker = self.asker(&place, HttpVersion::Http2).await?;
                let checked =
                    grpc::ask(asker, &place, service, authority.as_deref(), headers).await;
                self.keep(config, checked.is_ok());
                checked
            }
        }
    }

    /// Keeps nothing.
    pub(super) fn forget(&mut self) {
        self.http = None;
    }

    fn keep(&mut self, config: &HealthCheckConfig, is_good: bool) {
        if !config.reuses_connection || !is_good {
            self.http = None;
        }
    }

    async fn asker(
        &mut self,
        place: &Place<'_>,
        version: HttpVersion,
    ) -> Result<&mut HttpAsker, Unwell> {
        let is_usable = match &mut self.http {
            Some(kept) => kept.is_usable().await,
            None => false,
        };
        if !is_usable {
            let alpn = Some(version.alpn());
            let io = place.dial(alpn).await?;
            self.http = Some(HttpAsker::over(io, version).await?);
        }
        // Set just now, where it was not before.
        self.http
            .as_mut()
            .ok_or_else(|| Unwell::Answer("no connection".into()))
    }
}

/// Who is asked, and how.
pub(super) struct Place<'a> {
    upstreams: &'a Upstreams,
    cluster: &'a Cluster,
    endpoint: &'a Arc<Endpoint>,
    config: &'a HealthCheckConfig,
}

impl Place<'_> {
    /// A connection to where the endpoint is asked.
    pub(super) async fn dial(
        &self,
        alpn: Option<&'static str>,
    ) -> Result<UpstreamIo, ConnectFailure> {
        let own = &self.endpoint.health_check;
        let mut address: SocketAddr = own.address.unwrap_or(self.endpoint.address);
        if own.address.is_none()
            && let Some(port) = own.port.or(self.config.port)
        {
            address.set_port(port);
        }
        self.upstreams
            .dial_at(
                self.cluster,
                self.endpoint,
                address,
                alpn,
                self.config.alpn.as_deref(),
            )
            .await
    }

    /// The host that is asked for: what the check says, what the endpoint says, the cluster's name.
    pub(super) fn host<'b>(&'b self, said: Option<&'b str>) -> &'b str {
        let own = self.endpoint.health_check.host.as_deref();
        said.filter(|_| own.is_none())
            .or(own)
            .or(self.endpoint.hostname.as_deref())
            .unwrap_or(self.cluster.name())
    }
}
