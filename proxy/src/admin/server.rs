//! The HTTP/1.1 servers of the control thread: few connections, small answers.

use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener as StdListener};
use std::os::fd::{AsFd, OwnedFd};
use std::pin::pin;
use std::sync::{Arc, Weak};
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
use crate::handover::{Inheritance, Role, SocketName};

/// Connections at a time, for each address.
const MAX_CONNECTIONS: usize = 64;
/// How long a client may take to send its request.
const HEADER_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may last at all.
const CONNECTION_LIMIT: Duration = Duration::from_secs(300);
/// How many connections may wait to be accepted.
const BACKLOG: i32 = 128;
/// How long answers that have been begun may take after the end of the rest.
const LAST_ANSWERS: Duration = Duration::from_secs(2);
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
    sockets: Vec<(Purpose, SocketAddr, StdListener)>,
    inheritance: Inheritance,
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
    /// Each is closed by whoever accepts from it.
    sockets: Vec<(SocketName, Weak<TcpListener>)>,
}

impl Endpoints {
    /// Binds all of them that are not inherited, so that a port that is taken is known before anything has begun.
    pub fn bind(
        admin: &[SocketAddr],
        health: &[SocketAddr],
        metrics: &[SocketAddr],
        inheritance: &Inheritance,
    ) -> Result<Bound, BindError> {
        let mut sockets = Vec::new();
        for (purpose, addresses) in [
            (Purpose::Admin, admin),
            (Purpose::Health, health),
            (Purpose::Metrics, metrics),
        ] {
            for address in addresses {
                let inherited = inheritance.take(&SocketName::own(purpose.role(), *address));
                match inherited.map_or_else(|| listen(*address), Ok) {
                    Ok(socket) => sockets.push((purpose, *address, socket)),
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
        Ok(Bound {
            sockets,
            inheritance: inheritance.clone(),
        })
    }

    /// Copies of all sockets, for a process that is to accept from them too.
    pub fn sockets(&self) -> io::Result<Vec<(SocketName, OwnedFd)>> {
        let open = self.sockets.iter().filter_map(|(name, socket)| {
            let copy = socket.upgrade()?.as_fd().try_clone_to_owned();
            Some(copy.map(|copy| (name.clone(), copy)))
        });
        open.collect()
    }
}

impl Bound {
    /// Serves them, when the time has come, until cancelled.
    pub fn serve(
        self,
        state: &Arc<AdminState>,
        tasks: &mut JoinSet<()>,
        cancel: &CancellationToken,
    ) -> io::Result<Endpoints> {
        let mut endpoints = Endpoints::default();
        for (purpose, asked, socket) in self.sockets {
            let address = socket.local_addr()?;
            match purpose {
                Purpose::Admin => endpoints.admin.push(address),
                Purpose::Health => endpoints.health.push(address),
                Purpose::Metrics => endpoints.metrics.push(address),
            }
            let listener = Arc::new(TcpListener::from_std(socket)?);
            let name = SocketName::own(purpose.role(), asked);
            endpoints.sockets.push((name, Arc::downgrade(&listener)));
            let (inheritance, state, cancel) =
                (self.inheritance.clone(), Arc::clone(state), cancel.clone());
            tasks.spawn(async move {
                tokio::select! {
                    () = inheritance.entered() => {}
                    () = cancel.cancelled() => return,
                }
                accept(listener, purpose, state, cancel).await;
            });
        }
        Ok(endpoints)
    }
}

impl Purpose {
    fn role(self) -> Role {
        match self {
            Purpose::Admin => Role::Admin,
            Purpose::Health => Role::Health,
            Purpose::Metrics => Role::Metrics,
        }
    }

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
    listener: Arc<TcpListener>,
    purpose: Purpose,
    state: Arc<AdminState>,
    cancel: CancellationToken,
) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        // Waits for a free place first: what cannot be served stays in the backlog.
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
            break;
        };
        let stream = tokio::select! {
            accepted = listener.accept() => accepted,
            () = cancel.cancelled() => break,
        };
        match stream {
            Ok((stream, _)) => {
                let (state, cancel) = (Arc::clone(&state), cancel.clone());
                connections.spawn(async move {
                    let served = serve(stream, purpose, state, cancel);
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
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_ANSWERS, all).await.is_err() {
        tracing::debug!("some answers for {} were not finished", purpose.word());
    }
}

async fn serve(
    stream: TcpStream,
    purpose: Purpose,
    state: Arc<AdminState>,
    cancel: CancellationToken,
) {
    let service = service_fn(move |request| {
        let state = Arc::clone(&state);
        async move { Ok::<_, Infallible>(answer(request, purpose, &state).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_LIMIT)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = cancel.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
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

        let error =
            Endpoints::bind(&[], &[], &[address], &Inheritance::default()).expect_err("taken");

        assert!(error.to_string().contains("for metrics"), "{error}");
        assert!(error.to_string().contains(&address.to_string()), "{error}");
    }
}
