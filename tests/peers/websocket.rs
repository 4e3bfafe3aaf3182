//! WebSocket by the libraries of Python, Node and Rust.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio_tungstenite::client_async;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::protocol::CloseFrame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;

use crate::harness::chain::Chain;
use crate::harness::config::Door;
use crate::harness::peer::{Peer, node, python};
use crate::harness::place::own_address;
use crate::harness::process::{PATIENCE, Server, run};
use crate::harness::proxy::Proxy;

crate::harness::tests![&[Peer::Python("websockets"), Peer::Node("ws")];
    pythons_client_speaks_to_pythons_server,
    pythons_client_speaks_to_nodes_server_through_two_proxies,
    nodes_client_speaks_to_pythons_server_through_two_proxies,
    rusts_client_speaks_to_nodes_server,
    a_websocket_is_upgraded_where_the_protocol_is_detected,
];

/// Functions of `websocket/client.py`.
const CHECKS: [&str; 6] = [
    "echo",
    "fragments",
    "pings",
    "large",
    "compressed",
    "close_codes",
];

fn pythons_client_speaks_to_pythons_server() {
    let server = pythons_server();
    let proxy = Proxy::to(server.address);

    for check in CHECKS {
        python_checks(proxy.at(Door::Http), check);
    }
}

fn pythons_client_speaks_to_nodes_server_through_two_proxies() {
    let server = nodes_server();
    let chain = Chain::pair(server.address);

    for check in CHECKS {
        python_checks(chain.at(Door::Http), check);
    }
}

fn nodes_client_speaks_to_pythons_server_through_two_proxies() {
    let server = pythons_server();
    let chain = Chain::pair(server.address);

    run(&mut with_place(
        node("websocket/client.js"),
        chain.at(Door::Http),
    ))
    .ok();
}

fn rusts_client_speaks_to_nodes_server() {
    let server = nodes_server();
    let proxy = Proxy::to(server.address);
    let runtime = tokio::runtime::Runtime::new().unwrap();

    runtime.block_on(async {
        let talk = rust_checks(proxy.at(Door::Http));
        tokio::time::timeout(PATIENCE, talk).await.expect("in time");
    });
}

async fn rust_checks(at: SocketAddr) {
    let stream = tokio::net::TcpStream::connect(at).await.unwrap();
    let (mut socket, answer) = client_async(format!("ws://{at}/"), stream).await.unwrap();
    assert_eq!(answer.status(), 101);
    let large = vec![7_u8; 1 << 20];
    for message in [Message::text("text"), Message::binary(large)] {
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    socket.send(Message::Ping("there?".into())).await.unwrap();
    let pong = socket.next().await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong("there?".into()));
    socket
        .send(Message::text("close 4002 enough"))
        .await
        .unwrap();
    let close = socket.next().await.unwrap().unwrap();
    let expected = CloseFrame {
        code: CloseCode::Library(4002),
        reason: "enough".into(),
    };
    assert_eq!(close, Message::Close(Some(expected)));
    while let Some(Ok(_)) = socket.next().await {}
}

fn a_websocket_is_upgraded_where_the_protocol_is_detected() {
    let server = pythons_server();
    let proxy = Proxy::to(server.address);

    python_checks(proxy.at(Door::Detecting), "echo");
}

fn pythons_server() -> Server {
    let address = SocketAddr::from((own_address(), 9_001));
    Server::start(address, |_| {
        with_place(python("websocket/server.py"), address)
    })
}

fn nodes_server() -> Server {
    let address = SocketAddr::from((own_address(), 9_001));
    Server::start(address, |_| {
        with_place(node("websocket/server.js"), address)
    })
}

fn python_checks(at: SocketAddr, check: &str) {
    run(with_place(python("websocket/client.py"), at).arg(check)).ok();
}

fn with_place(mut command: std::process::Command, at: SocketAddr) -> std::process::Command {
    command.arg(at.ip().to_string()).arg(at.port().to_string());
    command
}
