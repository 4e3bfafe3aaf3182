//! TLS of a downstream connection: the client's hello chooses the chain, the handshake tells who the client is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::HeaderValue;
use rustls::pki_types::CertificateDer;
use rustls::server::{Accepted, Acceptor};
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::TcpStream;
use tokio_rustls::StartHandshake;
use tokio_rustls::server::TlsStream;
use weft_proto::names;

use super::Connection;
use super::detect::Seen;
use super::forwarded;
use super::io::DownstreamIo;
use crate::certificate::Names;
use crate::config::http::{ForwardClientCertificate, HttpConfig};
use crate::config::identity::IdentityReceiver;
use crate::config::listener::TransportProtocol;
use crate::config::tls::{NameKind, Shown};
use crate::http::Spoken;
use crate::snapshot::chain::{Chain, Service, TlsTermination};
use crate::tcp::{Dialled, TcpFailure};
use crate::telemetry::session::Session;
use crate::tls;
use crate::upstream::{HttpVersion, explain};

/// From the first byte to the end of the handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// No larger hello is read.
const MAX_HELLO_BYTES: usize = 32 * 1024;

/// Who the client is, by its certificate.
#[derive(Debug, Clone, Default)]
pub(super) struct Peer {
    pub(super) principal: Option<Arc<str>>,
    pub(super) server_name: Option<Arc<str>>,
    /// Its certificates, leaf first.
    pub(super) certificates: Vec<CertificateDer<'static>>,
    /// Our own identity, as the client saw it.
    pub(super) own: Option<Arc<str>>,
    /// Where TLS has ended here.
    pub(super) session: Option<Box<Session>>,
}

impl Peer {
    /// As an element of `x-forwarded-client-cert`, where it is asked for.
    pub(super) fn forwarded(&self, config: &HttpConfig) -> Option<HeaderValue> {
        match config.client_certificate {
            ForwardClientCertificate::Sanitize | ForwardClientCertificate::AlwaysForwardOnly => {
                None
            }
            _ => {
                let details = config.client_certificate_details;
                forwarded::element(&self.certificates, self.own.as_deref(), details)
            }
        }
    }
}

/// What a client's hello says.
pub(super) struct Hello {
    accepted: Accepted,
    pub(super) protocols: Vec<String>,
    pub(super) server_name: Option<String>,
}

/// What is inside a connection whose handshake is over.
pub(super) struct Secured {
    connection: Connection,
    io: DownstreamIo,
    chain: Arc<Chain>,
    agreed: Agreed,
    peer: Peer,
}

/// What a handshake says of the bytes inside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agreed {
    /// Nothing.
    Nothing,
    /// They are HTTP.
    Http(Spoken),
    /// Streams, each a connection of opaque bytes.
    Streams,
}

impl Agreed {
    pub(super) fn by(protocol: Option<&str>) -> Self {
        match protocol {
            Some(names::ALPN_HTTP2) => Agreed::Http(HttpVersion::Http2.into()),
            Some(names::ALPN_HTTP1) => Agreed::Http(HttpVersion::Http1.into()),
            Some(names::ALPN_HTTP1_STREAMS) => Agreed::Http(Spoken::SHARED_HTTP1),
            Some(names::ALPN_STREAMS) => Agreed::Streams,
            _ => Agreed::Nothing,
        }
    }
}

impl Secured {
    /// Serves it to its end.
    pub(super) async fn serve(self) {
        let Secured {
            connection,
            io,
            chain,
            agreed,
            peer,
        } = self;
        let served = connection.serve_secured(io, chain, agreed, peer);
        Box::pin(served).await;
    }
}

/// What chains know by another name: requests of HTTP/1.1, whatever carries them.
pub(super) fn inside(protocol: &str) -> &str {
    match protocol {
        names::ALPN_HTTP1_STREAMS => names::ALPN_HTTP1,
        protocol => protocol,
    }
}

/// Why a handshake did not come to its end.
enum Unfinished {
    /// For this reason.
    Failed(String),
    /// It took too long.
    Late,
}

/// How long a handshake may take.
fn limit(termination: &TlsTermination) -> Duration {
    let config = &termination.config;
    config.handshake_timeout.unwrap_or(HANDSHAKE_TIMEOUT)
}

impl Connection {
    /// A connection that begins with a TLS handshake: ended here or passed through, as its chain says. Where it is ended
    /// here, what is inside is returned, to be served.
    pub(super) async fn open_tls(
        self,
        mut stream: TcpStream,
        first: Bytes,
        dialled: Option<Result<Dialled, TcpFailure>>,
    ) -> Option<Secured> {
        let mut buffer = BytesMut::from(first);
        let reading = read_hello(&mut stream, &mut buffer);
        let hello = match tokio::time::timeout(HANDSHAKE_TIMEOUT, reading).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(error)) => {
                // As in Envoy: what is no TLS is anything else.
                tracing::debug!(peer = %self.peer, %error, "no TLS client hello");
                let first = buffer.freeze();
                // Boxed, as it is rare.
                let raw = self.serve_raw(Seen::Opaque, stream, first, dialled);
                Box::pin(raw).await;
                return None;
            }
            Err(_) => {
                self.give_up_hello("the client hello did not come in time");
                return None;
            }
        };
        let protocols: Vec<&str> = hello.protocols.iter().map(|word| inside(word)).collect();
        let server_name = hello.server_name.as_deref();
        let arrival = self.arrival(Some(TransportProtocol::Tls), &protocols, server_name);
        let Some(chain) = self.listener.chain(&arrival).cloned() else {
            self.refuse(Some(Seen::Tls));
            return None;
        };
        if chain.tls.is_some() {
            return self.finish_handshake(chain, hello, stream).await;
        }
        let asked_for = hello.server_name.map(Arc::from);
        let io = DownstreamIo::plain(buffer.freeze(), stream);
        self.pass_through(chain, (io, asked_for), dialled).await;
        None
    }

    /// TLS that was to be expected, without a look at the bytes before.
    pub(super) async fn terminate(
        self,
        chain: Arc<Chain>,
        mut stream: TcpStream,
        first: Bytes,
    ) -> Option<Secured> {
        let mut buffer = BytesMut::from(first);
        let reading = read_hello(&mut stream, &mut buffer);
        let limit = chain.tls.as_deref().map_or(HANDSHAKE_TIMEOUT, limit);
        match tokio::time::timeout(limit, reading).await {
            Ok(Ok(hello)) => return self.finish_handshake(chain, hello, stream).await,
            Ok(Err(error)) => self.refuse_handshake(&error.to_string()),
            Err(_) => self.give_up_handshake("the client hello did not come in time"),
        }
        None
    }

    /// TLS of the client's own, with somebody further on.
    async fn pass_through(
        self,
        chain: Arc<Chain>,
        (io, server_name): (DownstreamIo, Option<Arc<str>>),
        dialled: Option<Result<Dialled, TcpFailure>>,
    ) {
        match &chain.service {
            Service::Tcp(config) => {
                let config = Arc::clone(config);
                // All that is known of the client is whom it asks for.
                let peer = Peer {
                    server_name,
                    ..Peer::default()
                };
                let proxied = self.proxy(io, (&chain, &config), dialled, Some(peer));
                Box::pin(proxied).await;
            }
            // A chain for HTTP in the clear: TLS is none.
            Service::Http(_) => self.refuse(Some(Seen::Tls)),
        }
    }

    async fn finish_handshake(
        self,
        chain: Arc<Chain>,
        hello: Hello,
        stream: TcpStream,
    ) -> Option<Secured> {
        let Some(termination) = &chain.tls else {
            self.refuse(Some(Seen::Tls));
            return None;
        };
        let server_name = hello.server_name.as_deref().map(Arc::from);
        let (stream, own) = match self.handshake(termination, hello, stream).await {
            Ok(done) => done,
            Err(Unfinished::Failed(reason)) => {
                self.refuse_handshake(&reason);
                return None;
            }
            Err(Unfinished::Late) => {
                self.give_up_handshake("it did not end in time");
                return None;
            }
        };
        let peer = peer(&stream, own, server_name);
        let agreed = stream.get_ref().1.alpn_protocol();
        let agreed = Agreed::by(agreed.and_then(|word| std::str::from_utf8(word).ok()));
        Some(Secured {
            io: DownstreamIo::tls(stream),
            connection: self,
            chain,
            agreed,
            peer,
        })
    }

    /// What is inside a connection whose peer has been believed; `None`: only its bytes tell what they are.
    pub(super) async fn serve_secured(
        self,
        io: DownstreamIo,
        chain: Arc<Chain>,
        agreed: Agreed,
        peer: Peer,
    ) {
        match (&chain.service, agreed) {
            (Service::Tcp(config), Agreed::Streams) => {
                let config = Arc::clone(config);
                let served = self.serve_streams(io, (chain, config), peer);
                Box::pin(served).await;
            }
            (Service::Tcp(config), _) => {
                let config = Arc::clone(config);
                let proxied = self.proxy(io, (&chain, &config), None, Some(peer));
                Box::pin(proxied).await;
            }
            (Service::Http(service), Agreed::Http(spoken)) => {
                let service = Arc::clone(service);
                let managed = self.managed(&service, Some(&peer));
                let service = (service, managed);
                self.serve_http(io, chain, service, spoken, Some(peer))
                    .await;
            }
            (Service::Http(service), Agreed::Nothing | Agreed::Streams) => {
                let service = Arc::clone(service);
                self.serve_http_of_any_version(io, chain, service, Some(peer))
                    .await;
            }
        }
    }

    async fn handshake(
        &self,
        termination: &TlsTermination,
        hello: Hello,
        stream: TcpStream,
    ) -> Result<(TlsStream<TcpStream>, Option<Arc<str>>), Unfinished> {
        let identity = &self.environment.upstreams.identity;
        if termination.config.require_server_name && hello.server_name.is_none() {
            return Err(Unfinished::Failed(
                "the client asked for no name".to_owned(),
            ));
        }
        let own = own_name(termination, identity);
        let config = tls::server::config(termination, identity, &hello.protocols)
            .map_err(|error| Unfinished::Failed(explain(&error)))?;
        let start = StartHandshake::from_parts(hello.accepted, stream);
        match tokio::time::timeout(limit(termination), start.into_stream(config)).await {
            Ok(Ok(stream)) => Ok((stream, own)),
            Ok(Err(error)) => Err(Unfinished::Failed(explain(&error))),
            Err(_) => Err(Unfinished::Late),
        }
    }
}

/// Reads until the hello is whole. What has been read stays in the buffer, too.
pub(super) async fn read_hello(
    stream: &mut (impl AsyncRead + Unpin),
    buffer: &mut BytesMut,
) -> io::Result<Hello> {
    let mut acceptor = Acceptor::default();
    let mut fed = 0;
    loop {
        while fed < buffer.len() {
            fed += acceptor.read_tls(&mut &buffer[fed..])?;
            match acceptor.accept() {
                Ok(Some(accepted)) => return Ok(hello(accepted)),
                Ok(None) => {}
                Err((error, _alert)) => {
                    return Err(io::Error::new(io::ErrorKind::InvalidData, error));
                }
            }
        }
        if buffer.len() >= MAX_HELLO_BYTES {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "it is too large",
            ));
        }
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

fn hello(accepted: Accepted) -> Hello {
    let hello = accepted.client_hello();
    let protocols = hello
        .alpn()
        .into_iter()
        .flatten()
        .map(|protocol| String::from_utf8_lossy(protocol).into_owned())
        .collect();
    let server_name = hello.server_name().map(str::to_ascii_lowercase);
    Hello {
        protocols,
        server_name,
        accepted,
    }
}

fn peer(
    stream: &TlsStream<TcpStream>,
    own: Option<Arc<str>>,
    server_name: Option<Arc<str>>,
) -> Peer {
    let tls = stream.get_ref().1;
    let certificates = tls.peer_certificates();
    let certificates = certificates.unwrap_or_default().to_vec();
    let names = certificates.first().map(Names::of);
    let principal = names.as_ref().and_then(Names::principal);
    let cipher = tls.negotiated_cipher_suite().map(|suite| suite.suite());
    let session = Session::new(tls.protocol_version(), cipher, certificates.first());
    Peer {
        session: Some(Box::new(session)),
        principal: principal.map(Arc::from),
        server_name,
        certificates,
        own,
    }
}

/// What the certificate that is shown calls us, where it is only one.
fn own_name(termination: &TlsTermination, identity: &IdentityReceiver) -> Option<Arc<str>> {
    match &termination.config.shows {
        Shown::Workload => {
            let identity = identity.borrow();
            identity.as_ref().map(|one| Arc::clone(&one.spiffe_id))
        }
        Shown::Certificates(certificates) => match certificates.as_slice() {
            [one] => {
                let names = Names::of(one.key.cert.first()?);
                names.first(NameKind::Uri).map(Arc::from)
            }
            _ => None,
        },
        Shown::Nothing | Shown::Secret(_) => None,
    }
}
