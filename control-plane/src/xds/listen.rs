//! The sockets of xDS and of the identity service.

use std::fs::{self, Permissions};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{TcpListener, UnixListener};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::{TcpListenerStream, UnixListenerStream};
use tokio_util::sync::CancellationToken;
use tonic::transport::server::{Router, Server};
use weft_proto::envoy::service::discovery::v3::aggregated_discovery_service_server::AggregatedDiscoveryServiceServer;
use weft_proto::names;
use weft_proto::weft::identity::v1::identity_service_server::IdentityServiceServer;

use crate::attest::connection::KnownStream;
use crate::identity::Identity;

use super::Discovery;

/// The directory of the sockets that pods see, below the runtime directory.
const PODS: &str = "pods";
/// A dead peer is noticed within this time twice.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// A client that subscribes to thousands of names by name needs some room.
const MAX_REQUEST_BYTES: usize = 16 << 20;
/// One connection carries one stream of xDS and now and then a call; anything beyond is a mistake.
const MAX_STREAMS: u32 = 64;

/// Why the sockets could not be opened, or were lost.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// A file could not be made; the path says where.
    #[error("xDS socket: {action} {path}")]
    File {
        /// What was being done.
        action: &'static str,
        /// With what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The address is taken, or not ours.
    #[error("xDS on {address}: choose another address, or stop what listens there")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The server stopped by itself.
    #[error("xDS server")]
    Serve(#[from] tonic::transport::Error),
}

/// Opens `pods/xds.sock` below the runtime directory for everybody, and the link `xds.sock` to it. A socket that an
/// earlier daemon left is replaced; pods see the new one under the old name.
///
/// # Errors
/// When directory, socket or link cannot be made.
pub fn bind(runtime_directory: &Path) -> Result<UnixListener, ListenError> {
    let pods = runtime_directory.join(PODS);
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o755)
        .create(&pods)
        .map_err(|source| failed("making", &pods, source))?;
    let path = pods.join(names::XDS_SOCKET);
    let listener = bind_in_place(&path)?;
    let link = runtime_directory.join(names::XDS_SOCKET);
    let target = Path::new(PODS).join(names::XDS_SOCKET);
    if fs::read_link(&link).ok().as_deref() != Some(&target) {
        let _ = fs::remove_file(&link);
        symlink(&target, &link).map_err(|source| failed("linking", &link, source))?;
    }
    Ok(listener)
}

/// The socket is made under another name and renamed, so that there is never none, nor one with the wrong mode.
fn bind_in_place(path: &Path) -> Result<UnixListener, ListenError> {
    let beside = path.with_extension("new");
    let _ = fs::remove_file(&beside);
    let listener =
        UnixListener::bind(&beside).map_err(|source| failed("binding", &beside, source))?;
    fs::set_permissions(&beside, Permissions::from_mode(0o666))
        .map_err(|source| failed("opening to all", &beside, source))?;
    fs::rename(&beside, path).map_err(|source| failed("putting in place", path, source))?;
    Ok(listener)
}

/// Serves xDS and identities on a unix socket, until cancelled.
///
/// # Errors
/// When the server fails as a whole; single connections never do that.
pub async fn serve(
    listener: UnixListener,
    discovery: Discovery,
    identity: Identity,
    cancelled: CancellationToken,
) -> Result<(), ListenError> {
    let incoming = UnixListenerStream::new(listener).map(|stream| stream.map(KnownStream::new));
    let served = router(discovery).add_service(IdentityServiceServer::new(identity));
    served
        .serve_with_incoming_shutdown(incoming, cancelled.cancelled_owned())
        .await?;
    Ok(())
}

/// Binds an address for [`serve_insecurely`].
///
/// # Errors
/// When the address is taken or not this machine's.
pub fn bind_tcp(address: SocketAddr) -> Result<TcpListener, ListenError> {
    let bind = || {
        let listener = std::net::TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    };
    bind().map_err(|source| ListenError::Bind { address, source })
}

/// Serves xDS alone, in plaintext, to whoever comes: for trying things out on loopback. `discovery` should be an
/// [insecure](Discovery::insecure) one: nobody who comes by TCP can be attested.
///
/// # Errors
/// When the server fails as a whole.
pub async fn serve_insecurely(
    listener: TcpListener,
    discovery: Discovery,
    cancelled: CancellationToken,
) -> Result<(), ListenError> {
    tracing::warn!(address = ?listener.local_addr(), "xDS is served without authentication");
    router(discovery)
        .serve_with_incoming_shutdown(
            TcpListenerStream::new(listener),
            cancelled.cancelled_owned(),
        )
        .await?;
    Ok(())
}

fn router(discovery: Discovery) -> Router {
    let service = AggregatedDiscoveryServiceServer::new(discovery)
        .max_decoding_message_size(MAX_REQUEST_BYTES);
    Server::builder()
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .max_concurrent_streams(MAX_STREAMS)
        .add_service(service)
}

fn failed(action: &'static str, path: &Path, source: io::Error) -> ListenError {
    ListenError::File {
        action,
        path: path.to_owned(),
        source,
    }
}
