//! Local channels: two sidecars of one machine are each given one end of a socket pair, and told who has the other.
//!
//! It stands for TCP and TLS between them. Nobody but the two processes can read or write a socket pair, so nothing
//! has to be encrypted; who they are is the kernel's word on their network namespaces and the launcher's on which
//! pod each namespace is. A sidecar that gets no channel makes a connection with TLS instead.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;

use rustix::net::{AddressFamily, SocketFlags, SocketType};
use tokio::sync::mpsc;
use weft_proto::handoff::{Certificates, Introduction};

/// How many channels may wait for a sidecar to take them.
const MAX_WAITING: usize = 64;

/// A pod of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resident {
    /// The path of its SPIFFE id: `/ns/<namespace>/sa/<service-account>`.
    pub workload: String,
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
}

/// What a caller wants a channel for.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) destination: SocketAddr,
    pub(super) protocol: Option<String>,
    pub(super) server_name: Option<String>,
    pub(super) certificates: Certificates,
}

/// A channel on its way to a sidecar.
pub(super) type Arrival = (Introduction, OwnedFd);

/// Why there is no channel. No failure of anything: the caller takes the ordinary way.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotIntroduced {
    /// The operator has turned local channels off.
    #[error("local channels are turned off")]
    TurnedOff,
    /// The caller is in no sandbox that the launcher made.
    #[error("the caller is no pod of this machine")]
    UnknownCaller,
    /// The destination is elsewhere.
    #[error("no pod of this machine has the address {0}")]
    Elsewhere(IpAddr),
    /// Its sidecar has not asked for channels, or has no room for more.
    #[error("the sidecar at {0} takes no channels now")]
    NotReceiving(IpAddr),
    /// The system said no.
    #[error("making a socket pair")]
    System(#[source] std::io::Error),
}

impl NotIntroduced {
    pub(super) fn errno(&self) -> i32 {
        use rustix::io::Errno;
        match self {
            Self::TurnedOff => Errno::OPNOTSUPP.raw_os_error(),
            Self::UnknownCaller => Errno::ACCESS.raw_os_error(),
            Self::Elsewhere(_) => Errno::HOSTUNREACH.raw_os_error(),
            Self::NotReceiving(_) => Errno::AGAIN.raw_os_error(),
            Self::System(source) => source.raw_os_error().unwrap_or(0),
        }
    }
}

/// Who lives here, and who takes channels.
#[derive(Debug)]
pub(super) struct Introductions {
    is_on: bool,
    residents: HashMap<u64, Resident>,
    receivers: HashMap<u64, Receiver>,
    next_receiver: u64,
}

#[derive(Debug)]
struct Receiver {
    /// Tells a conversation from one that took its place.
    number: u64,
    certificates: Certificates,
    arrivals: mpsc::Sender<Arrival>,
}

impl Introductions {
    pub(super) fn new(is_on: bool) -> Self {
        Self {
            is_on,
            residents: HashMap::new(),
            receivers: HashMap::new(),
            next_receiver: 0,
        }
    }

    pub(super) fn settle(&mut self, network_namespace: u64, resident: Resident) {
        self.residents.insert(network_namespace, resident);
    }

    pub(super) fn leave(&mut self, network_namespace: u64) {
        self.residents.remove(&network_namespace);
        self.receivers.remove(&network_namespace);
    }

    /// Channels for a sidecar come here from now on; who asked before gets no more.
    pub(super) fn receive(
        &mut self,
        network_namespace: u64,
        certificates: Certificates,
    ) -> (u64, mpsc::Receiver<Arrival>) {
        let (arrivals, arriving) = mpsc::channel(MAX_WAITING);
        self.next_receiver += 1;
        let receiver = Receiver {
            number: self.next_receiver,
            certificates,
            arrivals,
        };
        self.receivers.insert(network_namespace, receiver);
        (self.next_receiver, arriving)
    }

    /// A sidecar has new certificates.
    pub(super) fn renew(
        &mut self,
        network_namespace: u64,
        number: u64,
        certificates: Certificates,
    ) {
        let receiver = self.receivers.get_mut(&network_namespace);
        if let Some(receiver) = receiver.filter(|receiver| receiver.number == number) {
            receiver.certificates = certificates;
        }
    }

    /// A conversation is over; one that took its place stays.
    pub(super) fn stop_receiving(&mut self, network_namespace: u64, number: u64) {
        let receiver = self.receivers.get(&network_namespace);
        if receiver.is_some_and(|receiver| receiver.number == number) {
            self.receivers.remove(&network_namespace);
        }
    }

    /// One end of a new channel for the caller; the other is on its way to the sidecar at the destination.
    pub(super) fn introduce(&self, caller: u64, wish: Wish) -> Result<Arrival, NotIntroduced> {
        if !self.is_on {
            return Err(NotIntroduced::TurnedOff);
        }
        let address = wish.destination.ip();
        let guest = self.residents.get(&caller);
        let guest = guest.ok_or(NotIntroduced::UnknownCaller)?;
        let (namespace, host) = self.at(address).ok_or(NotIntroduced::Elsewhere(address))?;
        let receiver = self.receivers.get(&namespace);
        let receiver = receiver.ok_or(NotIntroduced::NotReceiving(address))?;
        let source = guest.address_like(address);
        let introduction = |resident: &Resident, certificates| Introduction {
            workload: resident.workload.clone(),
            certificates,
            source,
            destination: wish.destination,
            protocol: wish.protocol.clone(),
            server_name: wish.server_name.clone(),
        };
        let (near, far) = socket_pair().map_err(NotIntroduced::System)?;
        let arrival = (introduction(guest, wish.certificates.clone()), far);
        receiver
            .arrivals
            .try_send(arrival)
            .map_err(|_| NotIntroduced::NotReceiving(address))?;
        Ok((introduction(host, receiver.certificates.clone()), near))
    }

    fn at(&self, address: IpAddr) -> Option<(u64, &Resident)> {
        let mut residents = self.residents.iter();
        let (namespace, resident) =
            residents.find(|(_, resident)| resident.addresses.contains(&address))?;
        Some((*namespace, resident))
    }
}

impl Resident {
    /// Its address of the same family, where it has one.
    fn address_like(&self, other: IpAddr) -> IpAddr {
        let mut addresses = self.addresses.iter();
        let same = addresses.find(|address| address.is_ipv4() == other.is_ipv4());
        let first = same.or(self.addresses.first());
        first.copied().unwrap_or(other)
    }
}

fn socket_pair() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let pair = rustix::net::socketpair(
        AddressFamily::UNIX,
        SocketType::STREAM,
        SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
        None,
    )?;
    Ok(pair)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::os::unix::net::UnixStream;

    use super::*;

    fn certificates(text: &str) -> Certificates {
        Certificates(vec![text.as_bytes().to_vec()])
    }

    fn two_pods() -> Introductions {
        let mut introductions = Introductions::new(true);
        for (namespace, name) in [(1_u8, "front"), (2, "back")] {
            let resident = Resident {
                workload: format!("/ns/default/sa/{name}"),
                addresses: vec![[10, 96, 0, namespace].into()],
            };
            introductions.settle(namespace.into(), resident);
        }
        introductions
    }

    fn back() -> SocketAddr {
        ([10, 96, 0, 2], 8080).into()
    }

    fn wish(destination: SocketAddr, certificates: Certificates) -> Wish {
        Wish {
            destination,
            protocol: Some("h2".into()),
            server_name: None,
            certificates,
        }
    }

    #[test]
    fn each_is_told_who_has_the_other_end() {
        let mut introductions = two_pods();
        let (_, mut arriving) = introductions.receive(2, certificates("of back"));

        let (host, near) = introductions
            .introduce(1, wish(back(), certificates("of front")))
            .expect("a channel");
        let (guest, far) = arriving.try_recv().expect("the other end");

        assert_eq!(host.workload, "/ns/default/sa/back");
        assert_eq!(host.certificates, certificates("of back"));
        assert_eq!(guest.workload, "/ns/default/sa/front");
        assert_eq!(guest.certificates, certificates("of front"));
        assert_eq!(guest.source, IpAddr::from([10, 96, 0, 1]));
        assert_eq!(guest.destination, back());
        assert_eq!(guest.protocol.as_deref(), Some("h2"));
        let (mut near, mut far) = (UnixStream::from(near), UnixStream::from(far));
        near.write_all(b"hello").expect("written");
        let mut text = [0; 5];
        far.read_exact(&mut text).expect("read");
        assert_eq!(&text, b"hello");
    }

    #[test]
    fn who_is_unknown_elsewhere_or_not_receiving_is_not_introduced() {
        let mut introductions = two_pods();
        let ask = |introductions: &Introductions, caller, destination| {
            introductions
                .introduce(caller, wish(destination, Certificates::default()))
                .map(drop)
                .map_err(|refused| refused.to_string())
        };

        assert!(
            ask(&introductions, 1, back())
                .unwrap_err()
                .contains("takes no channels")
        );
        let (number, _arriving) = introductions.receive(2, Certificates::default());
        assert_eq!(ask(&introductions, 1, back()), Ok(()));
        assert!(
            ask(&introductions, 9, back())
                .unwrap_err()
                .contains("no pod")
        );
        let elsewhere = ([10, 96, 0, 9], 80).into();
        assert!(
            ask(&introductions, 1, elsewhere)
                .unwrap_err()
                .contains("10.96.0.9")
        );

        introductions.stop_receiving(2, number);
        assert!(ask(&introductions, 1, back()).is_err());
        let off = Introductions::new(false);
        assert!(ask(&off, 1, back()).unwrap_err().contains("turned off"));
    }

    #[test]
    fn a_conversation_that_ends_late_does_not_end_its_successor() {
        let mut introductions = two_pods();
        let (first, _) = introductions.receive(2, certificates("old"));
        let (_, _arriving) = introductions.receive(2, certificates("new"));

        introductions.renew(2, first, certificates("older"));
        introductions.stop_receiving(2, first);

        let (host, _near) = introductions
            .introduce(1, wish(back(), Certificates::default()))
            .expect("a channel");
        assert_eq!(host.certificates, certificates("new"));
    }

    #[test]
    fn no_more_channels_wait_than_may() {
        let mut introductions = two_pods();
        let (_, _arriving) = introductions.receive(2, Certificates::default());
        let ask = || introductions.introduce(1, wish(back(), Certificates::default()));

        for _ in 0..MAX_WAITING {
            ask().expect("a channel");
        }

        assert!(matches!(ask(), Err(NotIntroduced::NotReceiving(_))));
    }
}
