//! TLS that is not opened here: it goes where the name says that its client asks for.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::config::listener::{
    ChainMatch, FilterChain, ListenerConfig, ServerNameMatch, TransportProtocol,
};

use crate::config::{chain, cluster, configuration, listener, tcp};
use crate::proxy::Proxy;

/// A server that tells its name after whatever it is told first, and sends that back.
async fn named(name: &'static str) -> SocketAddr {
    let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = server.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = server.accept().await {
            let mut said = vec![0; 16 * 1024];
            let count = stream.read(&mut said).await.unwrap();
            stream.write_all(&said[..count]).await.unwrap();
            stream.write_all(name.as_bytes()).await.unwrap();
        }
    });
    address
}

/// The first flight of a TLS client that asks for a name.
fn hello(name: &'static str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = name.try_into().unwrap();
    let mut client = rustls::ClientConnection::new(Arc::new(config), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

fn chain_for(names: Vec<ServerNameMatch>, cluster: &str) -> FilterChain {
    FilterChain {
        name: cluster.into(),
        matches: ChainMatch {
            server_names: names,
            transport: Some(TransportProtocol::Tls),
            ..ChainMatch::default()
        },
        ..chain(tcp(cluster))
    }
}

/// What comes back for a hello: the bytes that the server was sent, and its name. Nothing from nobody.
async fn ask(proxy: SocketAddr, hello: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(proxy).await.unwrap();
    stream.write_all(hello).await.unwrap();
    let mut answer = Vec::new();
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

#[tokio::test]
async fn tls_goes_unopened_where_its_server_name_says() {
    let (one, rest) = (named("one").await, named("rest").await);
    let exact = ServerNameMatch::Exact("one.test".into());
    let suffix = ServerNameMatch::Suffix(".test".into());
    let config = ListenerConfig {
        filter_chains: vec![
            chain_for(vec![exact], "one"),
            chain_for(vec![suffix], "rest"),
        ],
        default_chain: None,
        inspect_tls: true,
        ..listener(tcp("one"))
    };
    let clusters = [cluster("one", &[one]), cluster("rest", &[rest])];
    let proxy = Proxy::start(configuration([config], clusters)).await;

    for (name, server) in [("one.test", "one"), ("other.test", "rest")] {
        let hello = hello(name);
        let answer = ask(proxy.address, &hello).await;
        assert_eq!(&answer[..hello.len()], hello, "unchanged");
        assert_eq!(&answer[hello.len()..], server.as_bytes());
    }
    assert!(
        ask(proxy.address, &hello("elsewhere.example"))
            .await
            .is_empty()
    );
}
