//! A sandbox for one test: two network namespaces and a veth pair between them.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, unshare};
use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::{Uid, geteuid, gettid, setfsuid};
use weft_injector::rules::Rules;

pub(crate) const OWN: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 2);
pub(crate) const OWN_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd57, 0x6060, 0, 0, 0, 0, 0, 2);
pub(crate) const GATEWAY: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
pub(crate) const GATEWAY_IPV6: Ipv6Addr = Ipv6Addr::new(0xfd57, 0x6060, 0, 0, 0, 0, 0, 1);

/// What is dropped is never answered, so this long is as good as never.
const PATIENCE: Duration = Duration::from_millis(400);
const GENEROUS: Duration = Duration::from_secs(10);

/// Runs the test in a sandbox; an ordinary user's in a user namespace first.
pub(crate) fn in_sandbox(test: &str, body: impl FnOnce(Sandbox) + Send + 'static) {
    if geteuid().is_root() {
        // A thread of its own: the namespace is the thread's.
        let outcome = std::thread::spawn(move || body(Sandbox::make())).join();
        if let Err(panic) = outcome {
            std::panic::resume_unwind(panic);
        }
        return;
    }
    let status = Command::new("unshare")
        .args(["--user", "--map-root-user", "--map-auto"])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .status()
        .expect("unshare(1), of the package util-linux");
    assert!(status.success(), "the test failed in its user namespace");
}

pub(crate) struct Sandbox {
    neighbour: mpsc::Sender<Box<dyn FnOnce() + Send>>,
}

impl Sandbox {
    fn make() -> Self {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        let neighbour = neighbour_thread();
        run("ip link set lo up");
        run("ip address add fd57::6/128 dev lo nodad");
        let thread = on(&neighbour, || gettid().as_raw());
        run(&format!(
            "ip link add eth0 type veth peer name eth0 netns {thread}"
        ));
        configure(OWN, OWN_IPV6);
        on(&neighbour, || configure(GATEWAY, GATEWAY_IPV6));
        run(&format!("ip route add default via {GATEWAY}"));
        run(&format!("ip -6 route add default via {GATEWAY_IPV6}"));
        until_reachable(&[(GATEWAY, 1).into(), (GATEWAY_IPV6, 1).into()]);
        on(&neighbour, || {
            until_reachable(&[(OWN, 1).into(), (OWN_IPV6, 1).into()])
        });
        Self { neighbour }
    }

    pub(crate) fn apply(&self, rules: &Rules) {
        restore("iptables-restore", &rules.ipv4);
        restore("ip6tables-restore", &rules.ipv6);
    }

    pub(crate) fn listen(&self, port: u16) -> Listening {
        listen(port)
    }

    pub(crate) fn neighbour_listens(&self, port: u16) -> Listening {
        on(&self.neighbour, move || listen(port))
    }

    pub(crate) fn neighbour_connects(&self, address: SocketAddr) -> io::Result<TcpStream> {
        on(&self.neighbour, move || connect(address))
    }

    pub(crate) fn neighbour_receives(&self, port: u16) -> Receiving {
        on(&self.neighbour, move || {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
            socket.set_read_timeout(Some(PATIENCE)).unwrap();
            Receiving(socket)
        })
    }
}

/// Listeners of both families on one port.
pub(crate) struct Listening(Vec<TcpListener>);

impl Listening {
    pub(crate) fn new(listeners: Vec<TcpListener>) -> Self {
        for listener in &listeners {
            listener.set_nonblocking(true).unwrap();
        }
        Self(listeners)
    }

    pub(crate) fn accepts(&self) -> bool {
        self.accept(PATIENCE).is_some()
    }

    /// Where the next connection wanted to go before it was redirected.
    pub(crate) fn accept_original(&self) -> SocketAddr {
        let stream = self.accept(GENEROUS).expect("a connection");
        if stream.local_addr().unwrap().is_ipv4() {
            let original = getsockopt(&stream, sockopt::OriginalDst).unwrap();
            let address = Ipv4Addr::from(u32::from_be(original.sin_addr.s_addr));
            return (address, u16::from_be(original.sin_port)).into();
        }
        let original = getsockopt(&stream, sockopt::Ip6tOriginalDst).unwrap();
        let address = Ipv6Addr::from(original.sin6_addr.s6_addr);
        (address, u16::from_be(original.sin6_port)).into()
    }

    fn accept(&self, patience: Duration) -> Option<TcpStream> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(stream) = self.0.iter().find_map(|listener| listener.accept().ok()) {
                return Some(stream.0);
            }
            if Instant::now() > deadline {
                return None;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

pub(crate) struct Receiving(UdpSocket);

impl Receiving {
    pub(crate) fn receives(&self) -> bool {
        self.0.recv(&mut [0; 16]).is_ok()
    }
}

/// Does something with a socket that belongs to the sidecar's user.
pub(crate) fn as_sidecar<T>(action: impl FnOnce() -> T) -> T {
    let before = setfsuid(Uid::from_raw(1337));
    let result = action();
    setfsuid(before);
    result
}

pub(crate) fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    TcpStream::connect_timeout(&address, PATIENCE)
        .map_err(|error| io::Error::new(error.kind(), format!("{address}: {error}")))
}

pub(crate) fn connect_from(source: IpAddr, address: SocketAddr) -> io::Result<TcpStream> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let socket = match source {
            IpAddr::V4(_) => tokio::net::TcpSocket::new_v4()?,
            IpAddr::V6(_) => tokio::net::TcpSocket::new_v6()?,
        };
        socket.bind((source, 0).into())?;
        let connecting = tokio::time::timeout(PATIENCE, socket.connect(address));
        connecting.await.map_err(io::Error::other)??.into_std()
    })
}

fn listen(port: u16) -> Listening {
    let ipv4 = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let ipv6 = runtime.block_on(async {
        let address = SocketAddr::from((Ipv6Addr::UNSPECIFIED, port));
        let socket = tokio::net::TcpSocket::new_v6().unwrap();
        rustix::net::sockopt::set_ipv6_v6only(&socket, true).unwrap();
        socket.bind(address).unwrap();
        socket.listen(16).unwrap().into_std().unwrap()
    });
    Listening::new(vec![ipv4, ipv6])
}

fn configure(ipv4: Ipv4Addr, ipv6: Ipv6Addr) {
    run("ip link set lo up");
    run(&format!("ip address add {ipv4}/16 dev eth0"));
    run(&format!("ip address add {ipv6}/64 dev eth0 nodad"));
    run("ip link set eth0 up");
}

/// A fresh link takes a moment; it is there when the other side refuses a connection.
fn until_reachable(addresses: &[SocketAddr]) {
    let deadline = Instant::now() + GENEROUS;
    for address in addresses {
        while connect(*address).is_err_and(|error| error.kind() != io::ErrorKind::ConnectionRefused)
        {
            assert!(Instant::now() < deadline, "{address} cannot be reached");
        }
    }
}

/// A thread in a network namespace of its own that does what it is sent.
fn neighbour_thread() -> mpsc::Sender<Box<dyn FnOnce() + Send>> {
    let (sender, actions) = mpsc::channel::<Box<dyn FnOnce() + Send>>();
    std::thread::spawn(move || {
        unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace");
        actions.into_iter().for_each(|action| action());
    });
    sender
}

fn on<T: Send + 'static>(
    thread: &mpsc::Sender<Box<dyn FnOnce() + Send>>,
    action: impl FnOnce() -> T + Send + 'static,
) -> T {
    let (sender, result) = mpsc::channel();
    thread
        .send(Box::new(move || {
            let _ = sender.send(action());
        }))
        .expect("the neighbour's thread");
    result
        .recv_timeout(GENEROUS)
        .expect("the neighbour's answer")
}

fn run(command: &str) {
    let mut words = command.split_whitespace();
    let output = Command::new(words.next().unwrap())
        .args(words)
        .output()
        .expect("ip(8), of the package iproute2");
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command}: {error}");
}

fn restore(program: &str, rules: &str) {
    use std::io::Write;
    let mut child = Command::new(program)
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("iptables-restore(8), of the package iptables");
    child
        .stdin
        .take()
        .unwrap()
        .write_all(rules.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {error}\n{rules}");
}
