//! What an upgraded request has become: bytes between a client and an upstream, until one of them ends.

use std::io;
use std::time::Duration;

use http::Response;
use tokio::io::{AsyncRead, AsyncWrite};

use super::Upgrade;
use crate::http::HttpConnection;
use crate::http::body::Source;
use crate::http::completion::Completion;
use crate::http::limits::Limits;
use crate::http::serve::switch::Switch;
use crate::tcp::copy::{self, FirstEnd, Transfer};
use crate::telemetry::managers::HttpEvent;
use crate::telemetry::report::ResponseFlags;
use crate::upstream::response::UpstreamBody;
use crate::upstream::upgraded;

/// Both sides must have left HTTP by then.
const PATIENCE: Duration = Duration::from_secs(10);
/// A tunnel may be silent for so long where nothing else is said, as a connection of TCP may.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3600);
/// Stands for no limit of the whole: a year.
const NO_LIMIT: Duration = Duration::from_secs(365 * 24 * 60 * 60);

impl Upgrade {
    /// The upstream has agreed: tells the client, and joins the two.
    pub(in crate::http) fn join(
        self,
        mut response: Response<UpstreamBody>,
        limits: Limits,
        completion: &mut Completion,
        connection: &HttpConnection,
    ) -> Response<Source> {
        self.tell(&mut response);
        completion.status(self.logged());
        let upstream = upgraded::on(&mut response);
        self.carry(upstream, (), limits, (completion, connection));
        response.map(|_| Source::Empty)
    }

    /// Copies both ways, in a task of its own: an open connection of the process's drain. What is held goes with it.
    pub(super) fn carry<IO, H, E>(
        self,
        upstream: impl Future<Output = Result<IO, E>> + Send + 'static,
        held: H,
        limits: Limits,
        (completion, connection): (&mut Completion, &HttpConnection),
    ) where
        IO: AsyncRead + AsyncWrite + Send + 'static,
        H: Send + 'static,
        E: std::error::Error + Send + Sync + 'static,
    {
        completion.count_response();
        let mut completion = completion.take();
        let is_http2 = self.is_http2;
        let token = connection.environment.drain.token();
        let idle = limits.idle.unwrap_or(IDLE_TIMEOUT);
        let deadline = limits.stream_deadline(completion.started());
        tokio::spawn(async move {
            let transfer = Transfer::default();
            let copied = copy(self.downstream, upstream, idle, &transfer);
            let longest = deadline.map_or(NO_LIMIT, |deadline| {
                deadline.saturating_duration_since(std::time::Instant::now())
            });
            match tokio::time::timeout(longest, copied).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::debug!(%error, "tunnel ended");
                    if error.kind() == io::ErrorKind::TimedOut {
                        completion.flag(ResponseFlags::STREAM_IDLE_TIMEOUT);
                        completion.count(HttpEvent::StreamIdle);
                    }
                }
                Err(_) => {
                    completion.flag(ResponseFlags::DURATION_TIMEOUT);
                    completion.count(HttpEvent::StreamTooLong);
                }
            }
            if has_lost_client(transfer.first_end(), is_http2) {
                completion.flag(ResponseFlags::DOWNSTREAM_TERMINATION);
            }
            completion.end_tunnel(transfer.received(), transfer.sent());
            drop((token, held));
        });
    }
}

/// As in Envoy, the end of what a client says is the end of its connection in HTTP/1.1, and only that in HTTP/2.
fn has_lost_client(first: Option<FirstEnd>, is_http2: bool) -> bool {
    match first {
        Some(FirstEnd::ClientFailed) => true,
        Some(FirstEnd::Client) => !is_http2,
        Some(FirstEnd::Server | FirstEnd::ServerFailed) | None => false,
    }
}

async fn copy<IO, E>(
    downstream: Option<Switch>,
    upstream: impl Future<Output = Result<IO, E>>,
    idle: Duration,
    transfer: &Transfer,
) -> io::Result<()>
where
    IO: AsyncRead + AsyncWrite,
    E: std::error::Error + Send + Sync + 'static,
{
    let both = async {
        let downstream = downstream.ok_or_else(|| io::Error::from(io::ErrorKind::Unsupported))?;
        tokio::try_join!(downstream.switched(), async {
            upstream.await.map_err(io::Error::other)
        },)
    };
    let (downstream, upstream) = tokio::time::timeout(PATIENCE, both)
        .await
        .map_err(|_| io::Error::other("a connection did not leave HTTP in time"))??;
    copy::both_ways(downstream, upstream, Some(idle), transfer).await
}
