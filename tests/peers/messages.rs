//! Mail, whose server speaks first, and MQTT, whose client does.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};
use std::process::Command;

use crate::harness::chain::Chain;
use crate::harness::config::Door;
use crate::harness::peer::{Peer, program, python};
use crate::harness::place::own_address;
use crate::harness::process::{PATIENCE, Server, run};
use crate::harness::proxy::Proxy;

const SMTP: &[Peer] = &[Peer::Python("aiosmtpd")];
const MQTT: &[Peer] = &[Peer::Program("mosquitto"), Peer::Program("mosquitto_pub")];

/// The tests of this module.
pub(crate) const TESTS: &[crate::harness::Test] = &[
    crate::harness::Test {
        name: "a_mail_server_greets_before_its_client_says_anything",
        peers: SMTP,
        run: mail,
    },
    crate::harness::Test {
        name: "mqtt_messages_are_published_and_received",
        peers: MQTT,
        run: mqtt,
    },
];

/// The first bytes of a server, to a client that says nothing.
pub(crate) fn greeting(at: SocketAddr, length: usize) -> Vec<u8> {
    let mut stream = TcpStream::connect(at).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut greeting = vec![0; length];
    stream
        .read_exact(&mut greeting)
        .unwrap_or_else(|error| panic!("no greeting at {at}: {error}"));
    greeting
}

fn mail() {
    let address = SocketAddr::from((own_address(), 8_025));
    let server = Server::start(address, |folder| {
        let mut server = with_place(python("mail/server.py"), address);
        server.arg(folder);
        server
    });
    let (proxy, chain) = (Proxy::to(server.address), Chain::pair(server.address));

    let doors = [
        proxy.at(Door::Opaque),
        proxy.at(Door::Detecting),
        chain.at(Door::Detecting),
    ];
    for (index, at) in doors.into_iter().enumerate() {
        assert_eq!(greeting(at, 4), b"220 ", "{at}");
        run(&mut with_place(python("mail/client.py"), at)).ok();
        for number in index * 3..index * 3 + 3 {
            let file = server.folder().join(format!("{number}.eml"));
            let mail = std::fs::read_to_string(file).unwrap();
            assert_eq!(mail.matches("a line of text").count(), 5_000, "{at}");
        }
    }
    assert_eq!(proxy.detected("tcp-server-first"), proxy.detections());
}

fn mqtt() {
    let address = SocketAddr::from((own_address(), 1_883));
    let server = Server::start(address, |folder| {
        let file = folder.join("mosquitto.conf");
        let root = "user root\nallow_anonymous true\npersistence false\n";
        let configuration = format!("listener 1883 {}\n{root}", address.ip());
        std::fs::write(&file, configuration).unwrap();
        let mut server = program("mosquitto");
        server.arg("-c").arg(file);
        server
    });
    let (proxy, chain) = (Proxy::to(server.address), Chain::pair(server.address));

    for at in [
        proxy.at(Door::Opaque),
        proxy.at(Door::Detecting),
        chain.at(Door::Detecting),
    ] {
        let place = ["-h", &at.ip().to_string(), "-p", &at.port().to_string()];
        // Retained, so that whoever subscribes later gets it; quality 2 takes four messages for each.
        let topic = ["-V", "mqttv5", "-q", "2", "-t", "door"];
        let message = format!("through {at} {}", "x".repeat(100_000));
        run(program("mosquitto_pub")
            .args(place)
            .args(topic)
            .args(["-r", "-m", &message]))
        .ok();
        let received = run(program("mosquitto_sub")
            .args(place)
            .args(topic)
            .args(["-C", "1"]))
        .ok();
        assert!(received.trim() == message, "{at}");
    }
    assert_eq!(proxy.detected("tcp"), proxy.detections());
}

fn with_place(mut command: Command, at: SocketAddr) -> Command {
    command.arg(at.ip().to_string()).arg(at.port().to_string());
    command
}
