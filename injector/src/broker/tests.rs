//! The broker over its socket, descriptors and all.

use std::io::{Read, Write};
use std::net::{IpAddr, TcpListener, TcpStream};

use super::*;

/// Takes everyone for a pod of one namespace, or nobody.
struct Pretend(Option<u64>);

impl Attest for Pretend {
    fn attest(&self, pid: i32) -> Result<Caller, AttestError> {
        self.0
            .map(|network_namespace| Caller { network_namespace })
            .ok_or(AttestError::Stranger { pid })
    }
}

struct Running {
    broker: Broker,
    folder: tempfile::TempDir,
    shutdown: CancellationToken,
}

impl Running {
    fn start(attestor: Pretend) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let broker = Broker::bind(BrokerOptions {
            socket: folder.path().join("broker.sock"),
            attestor: Arc::new(attestor),
            dial: DialPolicy::default(),
            has_local_channels: true,
            resolv_conf: folder.path().join("resolv.conf"),
        })
        .unwrap();
        let shutdown = CancellationToken::new();
        let serving = broker.clone();
        let until = shutdown.clone();
        tokio::spawn(async move { serving.serve(until).await });
        Self {
            broker,
            folder,
            shutdown,
        }
    }

    async fn ask(&self, request: BrokerRequest) -> (BrokerReply, Option<OwnedFd>) {
        let path = self.folder.path().join("broker.sock");
        let mut stream = UnixStream::connect(path).await.unwrap();
        handoff::send(&mut stream, &request, None).await.unwrap();
        tokio::time::timeout(Duration::from_secs(20), handoff::receive(&mut stream))
            .await
            .unwrap()
            .unwrap()
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.shutdown.cancel();
    }
}

fn free_address() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
}

#[tokio::test]
async fn a_sidecar_gets_the_socket_of_its_published_port() {
    let running = Running::start(Pretend(Some(7)));
    let address = free_address();
    running.broker.publish(7, &[address], Claim::Fresh).unwrap();

    let (reply, socket) = running.ask(BrokerRequest::Listen { address }).await;

    assert_eq!(reply, BrokerReply::Socket);
    let listener = TcpListener::from(socket.unwrap());
    listener.set_nonblocking(false).unwrap();
    let mut client = TcpStream::connect(address).unwrap();
    client.write_all(b"hello").unwrap();
    let (mut served, _) = listener.accept().unwrap();
    let mut text = [0; 5];
    served.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
}

#[tokio::test]
async fn a_sidecar_that_restarts_gets_the_same_socket_again() {
    let running = Running::start(Pretend(Some(7)));
    let address = free_address();
    running.broker.publish(7, &[address], Claim::Fresh).unwrap();
    let (_, first) = running.ask(BrokerRequest::Listen { address }).await;
    drop(first);
    // Waits in the queue of the socket that the broker kept.
    let _client = TcpStream::connect(address).unwrap();

    let (_, second) = running.ask(BrokerRequest::Listen { address }).await;

    let listener = TcpListener::from(second.unwrap());
    listener.set_nonblocking(false).unwrap();
    assert!(listener.accept().is_ok());
}

#[tokio::test]
async fn a_sidecar_cannot_take_a_port_that_its_pod_did_not_publish() {
    let running = Running::start(Pretend(Some(7)));
    let address = free_address();

    let (reply, socket) = running.ask(BrokerRequest::Listen { address }).await;

    assert!(socket.is_none());
    let BrokerReply::Failed { reason, .. } = reply else {
        panic!("{reply:?}");
    };
    assert!(reason.contains("not published by this pod"), "{reason}");
}

#[tokio::test]
async fn a_stranger_is_turned_away() {
    let running = Running::start(Pretend(None));

    let (reply, socket) = running
        .ask(BrokerRequest::Resolve { name: "x".into() })
        .await;

    assert!(socket.is_none());
    let BrokerReply::Failed { reason, .. } = reply else {
        panic!("{reply:?}");
    };
    assert!(reason.contains("not part of the mesh"), "{reason}");
}

#[tokio::test]
async fn a_dialled_connection_arrives_connected() {
    let running = Running::start(Pretend(Some(7)));
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    running.broker.allow(address);

    let (reply, socket) = running
        .ask(BrokerRequest::Dial {
            address,
            timeout_millis: 5_000,
        })
        .await;

    assert_eq!(reply, BrokerReply::Socket);
    let mut client = TcpStream::from(socket.unwrap());
    client.write_all(b"out").unwrap();
    let mut text = [0; 3];
    server.accept().unwrap().0.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"out");
}

#[tokio::test]
async fn a_refused_connection_says_what_the_system_said() {
    let running = Running::start(Pretend(Some(7)));
    let address = free_address();
    running.broker.allow(address);

    let (reply, _) = running
        .ask(BrokerRequest::Dial {
            address,
            timeout_millis: 5_000,
        })
        .await;

    let BrokerReply::Failed { errno, .. } = reply else {
        panic!("{reply:?}");
    };
    assert_eq!(errno, rustix::io::Errno::CONNREFUSED.raw_os_error());
}

#[tokio::test]
async fn one_connection_carries_many_requests() {
    let running = Running::start(Pretend(Some(7)));
    let path = running.folder.path().join("broker.sock");
    let mut stream = UnixStream::connect(path).await.unwrap();

    for _ in 0..3 {
        let request = BrokerRequest::Resolve {
            name: String::new(),
        };
        handoff::send(&mut stream, &request, None).await.unwrap();
        let (reply, _) = handoff::receive::<BrokerReply>(&mut stream).await.unwrap();
        assert_eq!(reply, BrokerReply::NoSuchName);
    }
}

#[tokio::test]
async fn a_channel_reaches_the_sidecar_that_receives() {
    // The pretended attestor takes everyone for one pod, which is thus introduced to itself.
    let running = Running::start(Pretend(Some(7)));
    let address = IpAddr::from([10, 96, 0, 7]);
    let resident = Resident {
        workload: "/ns/default/sa/a".to_owned(),
        addresses: vec![address],
    };
    running.broker.settle(7, resident);
    let path = running.folder.path().join("broker.sock");
    let mut receiver = UnixStream::connect(path).await.unwrap();
    let certificates = |text: &str| Certificates(vec![text.as_bytes().to_vec()]);
    let receive = |text: &str| BrokerRequest::Receive {
        certificates: certificates(text),
    };
    handoff::send(&mut receiver, &receive("old"), None)
        .await
        .unwrap();
    handoff::send(&mut receiver, &receive("new"), None)
        .await
        .unwrap();
    let introduce = || BrokerRequest::Introduce {
        destination: SocketAddr::new(address, 80),
        protocol: None,
        server_name: None,
        certificates: certificates("caller"),
    };

    let host = loop {
        match running.ask(introduce()).await {
            (BrokerReply::Introduced(host), Some(_))
                if host.certificates == certificates("new") =>
            {
                break host;
            }
            _ => tokio::task::yield_now().await,
        }
    };
    let (guest, socket) = handoff::receive::<BrokerReply>(&mut receiver)
        .await
        .unwrap();

    assert_eq!(host.workload, "/ns/default/sa/a");
    let BrokerReply::Introduced(guest) = guest else {
        panic!("{guest:?}");
    };
    assert_eq!(guest.certificates, certificates("caller"));
    assert!(socket.is_some());
}
