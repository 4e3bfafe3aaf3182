//! Upgrades: the request that asks for one, and the tunnel that it becomes.

use std::sync::Arc;
use std::time::Duration;

use http::header;
use http::{HeaderMap, HeaderValue, Request, Response};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::HttpConnection;
use super::body::Source;
use super::completion::Completion;
use crate::tcp::copy::{self, Transfer};

/// A client that asks for another protocol on its connection.
pub(super) struct Upgrade {
    protocol: HeaderValue,
    downstream: OnUpgrade,
}

/// Both sides must have left HTTP by then.
const PATIENCE: Duration = Duration::from_secs(10);
/// A tunnel may be silent for so long; Envoy's default for streams is less, for TCP as long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);

impl Upgrade {
    /// What a request asks for, where that is allowed; else it is an ordinary request.
    pub(super) fn asked_for(request: &mut Request<Incoming>, allowed: &[Arc<str>]) -> Option<Self> {
        let protocol = request.headers().get(header::UPGRADE)?.clone();
        let named = protocol.to_str().ok()?;
        if !allowed.iter().any(|each| named.eq_ignore_ascii_case(each)) {
            return None;
        }
        Some(Upgrade {
            protocol,
            downstream: hyper::upgrade::on(request),
        })
    }

    /// Asks the next hop for the same.
    pub(super) fn ask_for(&self, headers: &mut HeaderMap) {
        headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(header::UPGRADE, self.protocol.clone());
    }

    /// The upstream has agreed: tells the client, and joins the two connections until one of them ends. The
    /// tunnel is an open connection of the process's drain.
    pub(super) fn tunnel(
        self,
        mut response: Response<Incoming>,
        completion: &mut Completion,
        connection: &HttpConnection,
    ) -> Response<Source> {
        completion.status(response.status());
        let mut completion = completion.take();
        let upstream = hyper::upgrade::on(&mut response);
        let token = connection.environment.drain.token();
        tokio::spawn(async move {
            let transfer = Transfer::default();
            join(self.downstream, upstream, &transfer).await;
            completion.end_tunnel(transfer.received(), transfer.sent());
            drop(token);
        });
        response.map(|_| Source::Empty)
    }
}

async fn join(downstream: OnUpgrade, upstream: OnUpgrade, transfer: &Transfer) {
    let both = async { tokio::try_join!(downstream, upstream) };
    let joined = match tokio::time::timeout(PATIENCE, both).await {
        Ok(joined) => joined,
        Err(_) => return tracing::debug!("an upgraded connection did not leave HTTP in time"),
    };
    let copied = match joined {
        Ok((downstream, upstream)) => {
            let (downstream, upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
            copy::both_ways(downstream, upstream, Some(IDLE_TIMEOUT), transfer).await
        }
        Err(error) => return tracing::debug!(%error, "upgrade failed"),
    };
    if let Err(error) = copied {
        tracing::debug!(%error, "tunnel ended");
    }
}
