//! Two proxies of one machine that a broker introduces to each other.

use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UnixListener};
use weft_proto::handoff::{self, BrokerReply, BrokerRequest, Certificates, Introduction};
use weft_proxy::config::cluster::{ClusterConfig, Sharing};
use weft_proxy::config::identity::Identity;
use weft_proxy::config::listener::ListenerConfig;
use weft_proxy::config::route::Forward;
use weft_proxy::upstream::host_network::Broker;
use weft_proxy::upstream::local_channel::{LocalChannels, certificates};

use crate::client::Client;
use crate::config::{LISTENER, all_to, cluster, configuration, filter, http, listener, tcp};
use crate::proxy::{Proxy, known};
use crate::tls::{Authority, PRODUCTPAGE, REVIEWS, inbound, over_tls};
use crate::upstream::Upstream;

/// What a broker says of the two: the paths of their SPIFFE ids.
struct Told {
    client: &'static str,
    server: &'static str,
}

const TRUTH: Told = Told {
    client: "/ns/default/sa/productpage",
    server: "/ns/default/sa/reviews",
};

/// A server that takes connections which were redirected to it: those of this test are not, so that whatever
/// arrives has come over a channel.
async fn server(identity: Identity, app: std::net::SocketAddr) -> Proxy {
    let redirected = ListenerConfig {
        use_original_destination: true,
        ..inbound()
    };
    let configuration = configuration([redirected], [cluster("app", &[app])]);
    Proxy::start_as(configuration, known(identity)).await
}

/// Introduces whoever asks to one server, as it is told to.
struct Matchmaker {
    folder: tempfile::TempDir,
    task: tokio::task::JoinHandle<()>,
}

impl Matchmaker {
    fn of(server: &Proxy, shown: Certificates, told: &'static Told) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let socket = UnixListener::bind(folder.path().join("broker.sock")).unwrap();
        let data_plane = Arc::clone(&server.data_plane);
        let task = tokio::spawn(async move {
            while let Ok((mut caller, _)) = socket.accept().await {
                while let Ok((request, _)) = handoff::receive(&mut caller).await {
                    let BrokerRequest::Introduce {
                        destination,
                        protocol,
                        server_name,
                        certificates,
                    } = request
                    else {
                        break;
                    };
                    let introduction = |workload: &str, certificates| Introduction {
                        workload: workload.to_owned(),
                        certificates,
                        source: [10, 96, 0, 2].into(),
                        destination,
                        protocol: protocol.clone(),
                        server_name: server_name.clone(),
                    };
                    let (near, far) = UnixStream::pair().unwrap();
                    data_plane.serve_introduced(far, introduction(told.client, certificates));
                    let reply = BrokerReply::Introduced(introduction(told.server, shown.clone()));
                    handoff::send(&mut caller, &reply, Some(near.as_fd()))
                        .await
                        .unwrap();
                }
            }
        });
        Matchmaker { folder, task }
    }

    fn channels(&self) -> Option<LocalChannels> {
        let broker = Broker::at(self.folder.path().join("broker.sock"));
        Some(LocalChannels::of(Arc::new(broker)))
    }
}

impl Drop for Matchmaker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A client's side that sends requests there.
async fn client(
    authority: &Authority,
    reviews: ClusterConfig,
    channels: Option<LocalChannels>,
) -> Proxy {
    let requests = filter(http(all_to(Forward::to("reviews"))));
    let outbound = configuration([listener(requests)], [reviews]);
    let identity = known(authority.identity(PRODUCTPAGE));
    Proxy::start_near(outbound, identity, channels).await
}

fn channels_taken(server: &Proxy) -> u64 {
    let snapshot = server.data_plane.snapshot();
    let live = &snapshot.listeners[LISTENER].live;
    live.local_channels.load(Ordering::Relaxed)
}

#[tokio::test]
async fn requests_over_a_channel_are_those_of_mutual_tls() {
    let (authority, app) = (Authority::new(), Upstream::echoing().await);
    let reviews = authority.identity(REVIEWS);
    let shown = certificates(&reviews);
    let server = server(reviews, app.address).await;
    let matchmaker = Matchmaker::of(&server, shown, &TRUTH);
    let reviews = over_tls(server.address, REVIEWS);
    let client = client(&authority, reviews, matchmaker.channels()).await;

    for (mut caller, version) in [
        (Client::http1(client.address).await, "HTTP/1.1"),
        (Client::http2(client.address).await, "HTTP/2.0"),
    ] {
        let got = caller.get("/x").await;

        assert_eq!(got.status, 200, "{got:?}");
        let line = got.body.lines().next().unwrap();
        assert!(line.ends_with(version), "{}", got.body);
        let by = format!("x-forwarded-client-cert: By={REVIEWS};Hash=");
        assert!(got.body.contains(&by), "{}", got.body);
        let of = format!(";URI={PRODUCTPAGE}\n");
        assert!(got.body.contains(&of), "{}", got.body);
    }
    assert_eq!(channels_taken(&server), 2);
    let report = server.reports.request(0).await;
    assert_eq!(report.downstream.principal.as_deref(), Some(PRODUCTPAGE));
    let sent = client.reports.request(0).await;
    assert!(sent.upstream.unwrap().is_mutual_tls);
}

#[tokio::test]
async fn requests_of_http1_share_a_channel_where_they_may() {
    let (authority, app) = (Authority::new(), Upstream::echoing().await);
    let reviews = authority.identity(REVIEWS);
    let shown = certificates(&reviews);
    let server = server(reviews, app.address).await;
    let matchmaker = Matchmaker::of(&server, shown, &TRUTH);
    let sharing = ClusterConfig {
        sharing: Sharing::Always,
        ..over_tls(server.address, REVIEWS)
    };
    let client = client(&authority, sharing, matchmaker.channels()).await;
    let mut callers = vec![];
    for _ in 0..6 {
        callers.push(Client::http1(client.address).await);
    }

    for caller in &mut callers {
        let got = caller.get("/x").await;

        let line = got.body.lines().next().unwrap();
        assert!(line.ends_with("HTTP/1.1"), "{}", got.body);
        let of = format!(";URI={PRODUCTPAGE}\n");
        assert!(got.body.contains(&of), "{}", got.body);
    }
    // One for each worker, at most.
    assert!((1..=2).contains(&channels_taken(&server)));
}

#[tokio::test]
async fn a_channel_whose_peer_has_not_heard_of_sharing_is_not_used() {
    let (authority, app) = (Authority::new(), Upstream::echoing().await);
    let reviews = authority.identity(REVIEWS);
    let shown = certificates(&reviews);
    let configured = configuration([inbound()], [cluster("app", &[app.address])]);
    let server = Proxy::start_as(configured, known(reviews)).await;
    // Welcomes whoever comes, and has no idea of what they say.
    let folder = tempfile::tempdir().unwrap();
    let socket = UnixListener::bind(folder.path().join("broker.sock")).unwrap();
    let introduced = tokio::spawn(async move {
        let (mut caller, _) = socket.accept().await.unwrap();
        let (request, _) = handoff::receive(&mut caller).await.unwrap();
        let BrokerRequest::Introduce {
            destination,
            protocol,
            ..
        } = request
        else {
            panic!("{request:?}");
        };
        let (near, mut far) = UnixStream::pair().unwrap();
        let reply = BrokerReply::Introduced(Introduction {
            workload: TRUTH.server.to_owned(),
            certificates: shown,
            source: [10, 96, 0, 2].into(),
            destination,
            protocol,
            server_name: None,
        });
        let attached = Some(near.as_fd());
        handoff::send(&mut caller, &reply, attached).await.unwrap();
        std::io::Write::write_all(&mut far, &[handoff::WELCOME]).unwrap();
        far
    });
    let broker = Broker::at(folder.path().join("broker.sock"));
    let sharing = ClusterConfig {
        sharing: Sharing::Always,
        ..over_tls(server.address, REVIEWS)
    };
    let client = client(
        &authority,
        sharing,
        Some(LocalChannels::of(Arc::new(broker))),
    )
    .await;

    let got = client.get("/").await;

    assert_eq!(got.status, 200, "over TLS: {got:?}");
    let mut far = introduced.await.unwrap();
    let mut said = vec![];
    std::io::Read::read_to_end(&mut far, &mut said).unwrap();
    assert!(said.is_empty(), "nothing was said to it: {said:?}");
}

#[tokio::test]
async fn opaque_bytes_over_a_channel_may_end_in_one_direction_first() {
    let authority = Authority::new();
    let app = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let reviews = authority.identity(REVIEWS);
    let shown = certificates(&reviews);
    let server = server(reviews, app.local_addr().unwrap()).await;
    let matchmaker = Matchmaker::of(&server, shown, &TRUTH);
    let client = Proxy::start_near(
        configuration(
            [listener(tcp("reviews"))],
            [over_tls(server.address, REVIEWS)],
        ),
        known(authority.identity(PRODUCTPAGE)),
        matchmaker.channels(),
    )
    .await;

    let mut caller = TcpStream::connect(client.address).await.unwrap();
    let (mut served, _) = app.accept().await.unwrap();
    caller.write_all(b"question").await.unwrap();
    caller.shutdown().await.unwrap();
    let mut question = String::new();
    served.read_to_string(&mut question).await.unwrap();
    served.write_all(b"an answer").await.unwrap();
    drop(served);
    let mut answer = String::new();
    caller.read_to_string(&mut answer).await.unwrap();

    assert_eq!(
        (question.as_str(), answer.as_str()),
        ("question", "an answer")
    );
    assert_eq!(channels_taken(&server), 1);
}

#[tokio::test]
async fn neither_side_speaks_to_somebody_else() {
    static BORROWED_BY_CLIENT: Told = Told {
        client: "/ns/default/sa/ratings",
        ..TRUTH
    };
    static BORROWED_BY_SERVER: Told = Told {
        server: "/ns/default/sa/ratings",
        ..TRUTH
    };
    let (authority, app) = (Authority::new(), Upstream::echoing().await);
    for told in [&BORROWED_BY_CLIENT, &BORROWED_BY_SERVER] {
        let reviews = authority.identity(REVIEWS);
        let shown = certificates(&reviews);
        let server = server(reviews, app.address).await;
        let matchmaker = Matchmaker::of(&server, shown, told);
        let requests = filter(http(all_to(Forward::to("reviews"))));
        let client = Proxy::start_near(
            configuration([listener(requests)], [over_tls(server.address, REVIEWS)]),
            known(authority.identity(PRODUCTPAGE)),
            matchmaker.channels(),
        )
        .await;

        let got = client.get("/").await;

        // There is no other way to this server.
        assert_eq!(got.status, 503, "{got:?}");
    }
    assert_eq!(app.requests(), 0);
}

#[tokio::test]
async fn where_there_is_no_broker_the_connection_has_tls() {
    let (authority, app) = (Authority::new(), Upstream::echoing().await);
    let configured = configuration([inbound()], [cluster("app", &[app.address])]);
    let server = Proxy::start_as(configured, known(authority.identity(REVIEWS))).await;
    let requests = filter(http(all_to(Forward::to("reviews"))));
    let nobody = LocalChannels::of(Arc::new(Broker::at("/nonexistent/broker.sock".into())));
    let client = Proxy::start_near(
        configuration([listener(requests)], [over_tls(server.address, REVIEWS)]),
        known(authority.identity(PRODUCTPAGE)),
        Some(nobody),
    )
    .await;

    assert_eq!(client.get("/").await.status, 200);
    assert_eq!(channels_taken(&server), 0);
}
