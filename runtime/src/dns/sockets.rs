//! The sockets of the mesh DNS. The holder opens them once and gives every server copies: questions that come while
//! one server is dead wait for the next, in place of being refused.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};
use tokio::net::{TcpListener, UdpSocket};

use crate::network::addresses::{GATEWAY_IPV4, GATEWAY_IPV6};
use crate::network::has_ipv6;

const PORT: u16 = 53;
/// Connections that wait for a server.
const BACKLOG: i32 = 128;
/// UDP and TCP, on two addresses.
const MOST: usize = 4;

/// Listening sockets, one for UDP and one for TCP on each address.
#[derive(Debug)]
pub(crate) struct DnsSockets {
    udp: Vec<OwnedFd>,
    tcp: Vec<OwnedFd>,
}

impl DnsSockets {
    /// Opens them on the gateway, which need not have its addresses yet.
    pub(crate) fn open() -> io::Result<Self> {
        let mut sockets = Self {
            udp: Vec::new(),
            tcp: Vec::new(),
        };
        let gateways = [IpAddr::V4(GATEWAY_IPV4), IpAddr::V6(GATEWAY_IPV6)];
        for gateway in gateways.into_iter().filter(|ip| ip.is_ipv4() || has_ipv6()) {
            let address = SocketAddr::new(gateway, PORT);
            sockets.udp.push(bind(address, SocketType::DGRAM)?);
            let listener = bind(address, SocketType::STREAM)?;
            rustix::net::listen(&listener, BACKLOG)?;
            sockets.tcp.push(listener);
        }
        Ok(sockets)
    }

    /// What a server's standard input has to be so that it can [take](Self::take) copies.
    pub(crate) fn for_stdin(&self) -> io::Result<OwnedFd> {
        let (ours, theirs) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        let descriptors: Vec<BorrowedFd<'_>> =
            self.udp.iter().chain(&self.tcp).map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        ancillary.push(SendAncillaryMessage::ScmRights(&descriptors));
        // As many bytes as there are addresses; of each kind there is one socket for each.
        let body = vec![0; self.udp.len()];
        rustix::net::sendmsg(
            &ours,
            &[IoSlice::new(&body)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        Ok(theirs)
    }

    /// Takes the copies that came by this process's standard input, and leaves /dev/null in its place.
    pub(crate) fn take() -> io::Result<Self> {
        let mut body = [0; MOST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let stdin = io::stdin();
        let received = rustix::net::recvmsg(
            stdin.as_fd(),
            &mut [IoSliceMut::new(&mut body)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT,
        )?;
        rustix::stdio::dup2_stdin(std::fs::File::open("/dev/null")?.as_fd())?;
        let mut udp: Vec<OwnedFd> = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                udp.extend(descriptors);
            }
        }
        if received.bytes == 0 || udp.len() != 2 * received.bytes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let tcp = udp.split_off(received.bytes);
        Ok(Self { udp, tcp })
    }

    /// As the runtime wants them. Must be called on one.
    pub(super) fn into_tokio(self) -> io::Result<(Vec<UdpSocket>, Vec<TcpListener>)> {
        let udp = self.udp.into_iter().map(std::net::UdpSocket::from);
        let tcp = self.tcp.into_iter().map(std::net::TcpListener::from);
        let udp = udp.map(UdpSocket::from_std).collect::<Result<_, _>>()?;
        let tcp = tcp.map(TcpListener::from_std).collect::<Result<_, _>>()?;
        Ok((udp, tcp))
    }
}

fn bind(address: SocketAddr, kind: SocketType) -> io::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::INET,
        SocketAddr::V6(_) => AddressFamily::INET6,
    };
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket = rustix::net::socket_with(family, kind, flags, None)?;
    match address {
        SocketAddr::V4(_) => sockopt::set_ip_freebind(&socket, true)?,
        SocketAddr::V6(_) => sockopt::set_ipv6_freebind(&socket, true)?,
    }
    if kind == SocketType::STREAM {
        // Connections of an earlier server may linger.
        sockopt::set_socket_reuseaddr(&socket, true)?;
    }
    rustix::net::bind(&socket, &address)?;
    Ok(socket)
}
