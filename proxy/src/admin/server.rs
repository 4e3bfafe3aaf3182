//! The HTTP/1.1 servers of the control thread: few connections, small answers.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::reply::{Query, Reply};
use super::{AdminState, admin, health_port, metrics_port};

/// Connections at a time, for each address.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send its request.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may last at all.
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;
/// How long to wait after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A port of the proxy's own that cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("listening on {address} for {purpose}; is another proxy running here?")]
pub struct BindError {
    purpose: &'static str,
    address: SocketAddr,
    source: io::Error,
}

/// Which of the three a port is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Admin,
    Health,
    Metrics,
}

/// Sockets that are bound and not served yet.
#[derive(Debug)]
pub struct Bound {
    sockets: Vec<(Purpose, StdListener)>,
}

/// Where the three are answered.
#[derive(Debug, Clone, Default)]
pub struct Endpoints {
    /// The admin interface.
    pub admin: Vec<SocketAddr>,
    /// Health.
    pub health: Vec<SocketAddr>,
    /// Metrics.
    pub metrics: Vec<SocketAddr>,
}

impl Endpoints {
    /// Binds all of them, so that a port that is taken is known before anything has begun.
    pub fn bind(
        admin: &[SocketAddr],
        health: &[SocketAddr],
        metrics: &[SocketAddr],
    ) -> Result<Bound, BindError> {
        let mut sockets = Vec::new();
        for (purpose, addresses) in [
            (Purpose::Admin, admin),
            (Purpose::Health, health),
            (Purpose::Metrics, metrics),
        ] {
            for address in addresses {
                match listen(*address) {
                    Ok(socket) => sockets.push((purpose, socket)),
                    Err(error) if has_no_ipv6(*address, &error) => {
                        tracing::info!(%address, "not listening: this network has no IPv6");
                    }
                    Err(source) => {
                        return Err(BindError {
                            purpose: purpose.word(),
                            address: *address,
                            source,
                        });
                    }
                }
            }
        }
        Ok(Bound { sockets })
    }
}

impl Bound {
    /// Serves them until cancelled.
    pub fn serve(
        self,
        state: &Arc<AdminState>,
        tasks: &mut JoinSet<()>,
        cancel: &CancellationToken,
    ) -> io::Result<Endpoints> {
        let mut endpoints = Endpoints::default();
        for (purpose, socket) in self.sockets {
            let address = socket.local_addr()?;
            match purpose {
                Purpose::Admin => endpoints.admin.push(address),
                Purpose::Health => endpoints.health.push(address),
                Purpose::Metrics => endpoints.metrics.push(address),
            }
            let listener = TcpListener::from_std(socket)?;
            tasks.spawn(accept(listener, purpose, Arc::clone(state), cancel.clone()));
        }
        Ok(endpoints)
    }
}

impl Purpose {
    fn word(self) -> &'static str {
        match self {
            Purpose::Admin => "the admin interface",
            Purpose::Health => "health checks",
            Purpose::Metrics => "metrics",
        }
    }
}

fn listen(address: SocketAddr) -> io::Result<StdListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    if address.is_ipv6() {
        // IPv4 has a socket of its own.
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn has_no_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let unavailable = [
        rustix::io::Errno::AFNOSUPPORT,
        rustix::io::Errno::ADDRNOTAVAIL,
    ];
    address.is_ipv6()
        && address.ip().is_unspecified()
        && unavailable
            .iter()
            .any(|errno| error.raw_os_error() == Some(errno.raw_os_error()))
}

async fn accept(
    listener: TcpListener,
    purpose: Purpose,
    state: Arc<AdminState>,
    cancel: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Waits for a free place first: what cannot be served stays in the backlog.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            return;
        };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => return,
        };
        match stream {
            Ok((stream, _)) => {
                let state = Arc::clone(&state);
                connections.spawn(async move {
                    let served = serve(stream, purpose, state);
                    if tokio::time::timeout(CONNECTION_LIMIT, served)
                        .await
                        .is_err()
                    {
                        tracing::debug!("a connection lasted too long");
                    }
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accepting for {}", purpose.word());
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(stream: TcpStream, purpose: Purpose, state: Arc<AdminState>) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(request, purpose, &state).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection to {}", purpose.word());
    }
}

async fn answer(
    request: Request<Incoming>,
    purpose: Purpose,
    state: &AdminState,
) -> Response<Full<Bytes>> {
    let path = request.uri().path();
    let reply: Reply = match purpose {
        Purpose::Admin => {
            let query = Query::parse(request.uri().query().unwrap_or_default());
            admin(state, request.method(), path, &query).await
        }
        Purpose::Health => health_port(state, path),
        Purpose::Metrics => metrics_port(state, path),
    };
    reply.into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_taken_is_named_with_what_it_is_for() {
        let taken = StdListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address");

        let error = Endpoints::bind(&[], &[], &[address]).expect_err("taken");

        assert!(error.to_string().contains("for metrics"), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
