//! Messages with open sockets attached, over a unix stream socket.
//!
//! Two conversations use it: a sidecar asks the socket broker to bind and dial in the host's network and to be
//! introduced to other sidecars, and the daemon asks the node for a connection into a sandbox. A message is a length (u32, big-endian), then that many
//! bytes of JSON; descriptors travel with the first byte (unix(7), SCM_RIGHTS). Messages are bounded, and a
//! receiver never holds more descriptors than it asked for.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::UnixStream;

/// What a sidecar asks of the socket broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum BrokerRequest {
    /// The listening socket of a published port; the reply carries it.
    Listen {
        /// The address in the host's network.
        address: SocketAddr,
    },
    /// A TCP connection out of the mesh; the reply carries it, connected.
    Dial {
        /// The destination in the host's network.
        address: SocketAddr,
        /// How long to try.
        timeout_millis: u32,
    },
    /// The addresses of a name outside the mesh.
    Resolve {
        /// A fully qualified name.
        name: String,
    },
    /// A local channel to the sidecar of a pod on this machine; the reply is `Introduced`, with the channel.
    Introduce {
        /// Where the connection would have gone.
        destination: SocketAddr,
        /// What will be spoken, as ALPN calls it.
        protocol: Option<String>,
        /// The name that a TLS handshake would have asked for.
        server_name: Option<String>,
        /// The caller's certificates, leaf first.
        certificates: Certificates,
    },
    /// Local channels to the caller are welcome from now on: each comes with an `Introduced` of its own, for as long
    /// as the conversation lasts. Asked again, it replaces the certificates.
    Receive {
        /// The caller's certificates, leaf first.
        certificates: Certificates,
    },
}

/// Certificates in DER, leaf first; in JSON, base64.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Vec<String>", into = "Vec<String>")]
pub struct Certificates(pub Vec<Vec<u8>>);

impl TryFrom<Vec<String>> for Certificates {
    type Error = base64::DecodeError;

    fn try_from(texts: Vec<String>) -> Result<Self, Self::Error> {
        let decoded = texts.iter().map(|text| BASE64.decode(text));
        decoded.collect::<Result<_, _>>().map(Certificates)
    }
}

impl From<Certificates> for Vec<String> {
    fn from(certificates: Certificates) -> Self {
        let encoded = certificates.0.iter().map(|each| BASE64.encode(each));
        encoded.collect()
    }
}

/// The broker's answer; a socket comes with `Socket` and with `Introduced`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case", deny_unknown_fields)]
pub enum BrokerReply {
    /// The socket that was asked for is attached.
    Socket,
    /// The answer to `Resolve`.
    Addresses {
        /// Empty where the name exists without addresses.
        addresses: Vec<IpAddr>,
        /// How long they hold.
        ttl_seconds: u32,
    },
    /// The name does not exist.
    NoSuchName,
    /// A local channel is attached: one end of a socket pair, whose other end the other sidecar has.
    Introduced(Introduction),
    /// It could not be done.
    Failed {
        /// An `errno` where the system said no, else 0.
        errno: i32,
        /// For people.
        reason: String,
    },
}

/// Who is at the other end of a local channel. The broker vouches for `workload`; the certificates are what that
/// workload says of itself, and whoever is introduced checks them as in a TLS handshake.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct Introduction {
    /// The path of its SPIFFE id: `/ns/<namespace>/sa/<service-account>`.
    pub workload: String,
    /// Its certificates.
    pub certificates: Certificates,
    /// The address of the pod that asked for the channel.
    pub source: IpAddr,
    /// Where the connection would have gone.
    pub destination: SocketAddr,
    /// What will be spoken, as ALPN calls it.
    pub protocol: Option<String>,
    /// The name that a TLS handshake would have asked for.
    pub server_name: Option<String>,
}

/// What the receiver of a local channel writes first, once it believes its peer and has a filter chain for it.
pub const WELCOME: u8 = 1;
/// What it writes in its place where requests of HTTP/1.1 will share the channel ([`crate::names::ALPN_HTTP1_STREAMS`]): whoever does
/// not know that word would take what comes for something else.
pub const WELCOME_STREAMS: u8 = 2;

/// What the receiver of a local channel for this protocol writes first.
pub fn welcome(protocol: Option<&str>) -> u8 {
    match protocol {
        Some(crate::names::ALPN_HTTP1_STREAMS) => WELCOME_STREAMS,
        _ => WELCOME,
    }
}

/// What the daemon asks of the node's hand-off socket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case", deny_unknown_fields)]
pub enum NodeRequest {
    /// A TCP connection to an address as seen from inside a sandbox; the reply is a [`BrokerReply`].
    Dial {
        /// Which sandbox.
        sandbox: String,
        /// Usually loopback, or the sandbox's own address.
        address: SocketAddr,
        /// How long to try.
        timeout_millis: u32,
    },
}

/// No message is larger.
const MAX_MESSAGE_BYTES: usize = 64 * 1024;

/// Sends one message, with a descriptor where given.
pub async fn send<T: Serialize>(
    stream: &mut UnixStream,
    message: &T,
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "message too large",
        ));
    }
    let mut frame = Vec::with_capacity(4 + body.len());
    frame.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_be_bytes());
    frame.extend_from_slice(&body);

    let sent = stream
        .async_io(Interest::WRITABLE, || {
            send_once(stream.as_fd(), &frame, descriptor)
        })
        .await?;
    stream.write_all(&frame[sent..]).await
}

/// Receives one message and the descriptor that came with it.
///
/// # Errors
/// `UnexpectedEof` where the peer has closed; `InvalidData` for anything that is not a message.
pub async fn receive<T: DeserializeOwned>(
    stream: &mut UnixStream,
) -> io::Result<(T, Option<OwnedFd>)> {
    let mut length = [0_u8; 4];
    let (read, descriptor) = stream
        .async_io(Interest::READABLE, || {
            receive_once(stream.as_fd(), &mut length)
        })
        .await?;
    if read == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    stream.read_exact(&mut length[read..]).await?;
    let length = u32::from_be_bytes(length) as usize;
    if length > MAX_MESSAGE_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "message too large",
        ));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    Ok((serde_json::from_slice(&body)?, descriptor))
}

/// Returns once there is something to receive, or the peer has closed. Nothing is lost when it is dropped before.
pub async fn until_spoken_to(stream: &UnixStream) -> io::Result<()> {
    let looked = stream.async_io(Interest::READABLE, || {
        let flags = RecvFlags::PEEK | RecvFlags::DONTWAIT;
        rustix::net::recv(stream, &mut [0_u8; 1], flags).map_err(io::Error::from)
    });
    looked.await.map(drop)
}

fn send_once(
    socket: BorrowedFd<'_>,
    frame: &[u8],
    descriptor: Option<BorrowedFd<'_>>,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    let descriptors: &[BorrowedFd<'_>] = &descriptor.map_or(vec![], |fd| vec![fd]);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let sent = rustix::net::sendmsg(
        socket,
        &[IoSlice::new(frame)],
        &mut ancillary,
        SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    )?;
    Ok(sent)
}

fn receive_once(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = rustix::net::recvmsg(
        socket,
        &mut [IoSliceMut::new(buffer)],
        &mut ancillary,
        RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
    )?;
    let mut descriptor = None;
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            for received in descriptors {
                descriptor = Some(received);
            }
        }
    }
    Ok((received.bytes, descriptor))
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Seek, Write};

    use super::*;

    #[tokio::test]
    async fn a_descriptor_arrives_with_its_message() {
        let (mut here, mut there) = UnixStream::pair().expect("pair");
        let mut file = tempfile::tempfile().expect("file");
        file.write_all(b"hello").expect("write");

        send(&mut here, &BrokerReply::Socket, Some(file.as_fd()))
            .await
            .expect("send");
        let (reply, descriptor) = receive::<BrokerReply>(&mut there).await.expect("receive");

        assert_eq!(reply, BrokerReply::Socket);
        let mut received = std::fs::File::from(descriptor.expect("a descriptor"));
        let mut text = String::new();
        received.rewind().expect("rewind");
        received.read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
    }

    #[test]
    fn certificates_are_base64_on_the_wire() {
        let request = BrokerRequest::Receive {
            certificates: Certificates(vec![vec![0, 1, 2]]),
        };

        let text = serde_json::to_string(&request).expect("JSON");

        assert_eq!(text, r#"{"request":"receive","certificates":["AAEC"]}"#);
        let read: BrokerRequest = serde_json::from_str(&text).expect("the same");
        assert_eq!(read, request);
        let wrong = r#"{"request":"receive","certificates":["~"]}"#;
        assert!(serde_json::from_str::<BrokerRequest>(wrong).is_err());
    }

    #[tokio::test]
    async fn an_oversized_message_is_refused_before_it_is_read() {
        let (mut here, mut there) = UnixStream::pair().expect("pair");
        here.write_all(&u32::MAX.to_be_bytes())
            .await
            .expect("write");

        let error = receive::<BrokerReply>(&mut there)
            .await
            .expect_err("too large");

        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
