//! The proxy and a control plane: what is asked, what is answered, and what is served meanwhile.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[path = "xds/mesh.rs"]
mod mesh;
#[path = "xds/server.rs"]
mod server;

use std::path::{Path, PathBuf};
use std::time::Duration;

use mesh::{
    Application, cluster, endpoints, get, listener, listening, proxy, ready, routes, until_answered,
};
use server::{Conversation, Server, resource};
use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::envoy::config::endpoint::v3::ClusterLoadAssignment;
use weft_proto::envoy::config::listener::v3::Listener;
use weft_proto::envoy::config::route::v3::RouteConfiguration;

fn socket(dir: &Path) -> PathBuf {
    dir.join("xds.sock")
}

/// Sends a listener `web`, routes to cluster `app`, and its endpoint, as they are asked for.
async fn configure(stream: &mut Conversation, application: &Application) {
    stream
        .accepted::<Cluster>(vec![resource("app", "c1", &cluster("app"))])
        .await;
    let asked = stream.subscription::<ClusterLoadAssignment>().await;
    assert_eq!(asked.resource_names_subscribe, ["app"]);
    let one = resource("app", "e1", &endpoints("app", application.address));
    stream.accepted::<ClusterLoadAssignment>(vec![one]).await;
    stream
        .accepted::<Listener>(vec![resource("web", "l1", &listener("web", "web"))])
        .await;
    let asked = stream.subscription::<RouteConfiguration>().await;
    assert_eq!(asked.resource_names_subscribe, ["web"]);
    let one = resource("web", "r1", &routes("web", "app"));
    stream.accepted::<RouteConfiguration>(vec![one]).await;
}

#[tokio::test]
async fn the_first_configuration_is_asked_for_acknowledged_and_served() {
    let dir = tempfile::tempdir().unwrap();
    let application = Application::start("app").await;
    let mut server = Server::start(&socket(dir.path()));
    let proxy = proxy(&socket(dir.path()), dir.path()).await;

    let mut stream = server.stream().await;
    let first = stream.request().await;
    assert_eq!(
        first.node.map(|node| node.id),
        Some("sidecar~reviews-x1y2z.default".into())
    );
    assert!(first.resource_names_subscribe.is_empty(), "a wildcard");
    assert!(!proxy.is_ready(), "nothing was said yet");
    configure(&mut stream, &application).await;

    ready(&proxy).await;
    until_answered(listening(&proxy, "web").await, "app").await;
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn new_endpoints_take_over_and_no_request_is_lost() {
    let dir = tempfile::tempdir().unwrap();
    let (blue, green) = (
        Application::start("blue").await,
        Application::start("green").await,
    );
    let mut server = Server::start(&socket(dir.path()));
    let proxy = proxy(&socket(dir.path()), dir.path()).await;
    let mut stream = server.stream().await;
    configure(&mut stream, &blue).await;
    let web = listening(&proxy, "web").await;
    until_answered(web, "blue").await;

    let asking = tokio::spawn(async move {
        loop {
            let (status, body) = get(web, "/").await;
            assert_eq!(status, 200, "{body}");
            if body == "green" {
                return;
            }
        }
    });
    let one = resource("app", "e2", &endpoints("app", green.address));
    stream.accepted::<ClusterLoadAssignment>(vec![one]).await;

    tokio::time::timeout(server::PATIENCE, asking)
        .await
        .expect("green in time")
        .unwrap();
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn routes_to_a_new_cluster_wait_for_it_while_the_old_ones_serve() {
    let dir = tempfile::tempdir().unwrap();
    let (blue, green) = (
        Application::start("blue").await,
        Application::start("green").await,
    );
    let mut server = Server::start(&socket(dir.path()));
    let proxy = proxy(&socket(dir.path()), dir.path()).await;
    let mut stream = server.stream().await;
    configure(&mut stream, &blue).await;
    let web = listening(&proxy, "web").await;
    until_answered(web, "blue").await;

    let moved = resource("web", "r2", &routes("web", "next"));
    stream.accepted::<RouteConfiguration>(vec![moved]).await;
    assert_eq!(get(web, "/").await, (200, "blue".into()));
    // Removed before the routes that replace it are in force.
    stream
        .say::<Cluster>(vec![resource("next", "c1", &cluster("next"))], &["app"])
        .await;
    assert_eq!(get(web, "/").await, (200, "blue".into()));
    let one = resource("next", "e1", &endpoints("next", green.address));
    stream.accepted::<ClusterLoadAssignment>(vec![one]).await;

    until_answered(web, "green").await;
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_bad_resource_is_refused_by_name_and_field_while_the_others_are_taken() {
    let dir = tempfile::tempdir().unwrap();
    let application = Application::start("app").await;
    let mut server = Server::start(&socket(dir.path()));
    let proxy = proxy(&socket(dir.path()), dir.path()).await;
    let mut stream = server.stream().await;
    configure(&mut stream, &application).await;
    let web = listening(&proxy, "web").await;
    until_answered(web, "app").await;

    let mut bad = cluster("app");
    bad.eds_cluster_config.as_mut().unwrap().eds_config = None;
    let (answer, _) = stream
        .say::<Cluster>(
            vec![
                resource("app", "c2", &bad),
                resource("good", "c2", &cluster("good")),
            ],
            &[],
        )
        .await;

    let detail = answer.error_detail.expect("a refusal");
    assert_eq!(
        detail.message,
        "cluster app: eds_cluster_config.eds_config: missing"
    );
    let asked = stream.subscription::<ClusterLoadAssignment>().await;
    assert_eq!(
        asked.resource_names_subscribe,
        ["good"],
        "the good one is taken"
    );
    assert_eq!(
        get(web, "/").await,
        (200, "app".into()),
        "what was in force stays"
    );
    let admin = proxy.admin_address().expect("an admin port");
    let (_, dump) = get(admin, "/config_dump?resource=dynamic_active_clusters").await;
    assert!(
        dump.contains("eds_cluster_config.eds_config: missing"),
        "{dump}"
    );
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn what_was_never_asked_for_is_refused_and_the_stream_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let application = Application::start("app").await;
    let mut server = Server::start(&socket(dir.path()));
    let proxy = proxy(&socket(dir.path()), dir.path()).await;
    let mut stream = server.stream().await;

    use weft_proto::envoy::config::core::v3::TypedExtensionConfig;
    let (answer, _) = stream.say::<TypedExtensionConfig>(vec![], &[]).await;
    assert!(
        answer
            .error_detail
            .expect("a refusal")
            .message
            .contains("was not subscribed to")
    );

    configure(&mut stream, &application).await;
    ready(&proxy).await;
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_new_stream_tells_what_is_held_and_traffic_never_stops() {
    let dir = tempfile::tempdir().unwrap();
    let application = Application::start("app").await;
    let mut server = Server::start(&socket(dir.path()));
    let proxy = proxy(&socket(dir.path()), dir.path()).await;
    let mut stream = server.stream().await;
    configure(&mut stream, &application).await;
    let web = listening(&proxy, "web").await;
    until_answered(web, "app").await;

    drop(stream);
    assert_eq!(get(web, "/").await, (200, "app".into()));
    let mut stream = server.stream().await;
    let clusters = stream.subscription::<Cluster>().await;
    let endpoints = stream.subscription::<ClusterLoadAssignment>().await;
    let listeners = stream.subscription::<Listener>().await;
    let routes = stream.subscription::<RouteConfiguration>().await;

    assert!(clusters.node.is_some());
    assert_eq!(clusters.initial_resource_versions["app"], "c1");
    assert_eq!(endpoints.initial_resource_versions["app"], "e1");
    assert_eq!(endpoints.resource_names_subscribe, ["app"]);
    assert_eq!(listeners.initial_resource_versions["web"], "l1");
    assert_eq!(routes.initial_resource_versions["web"], "r1");
    assert_eq!(get(web, "/").await, (200, "app".into()));
    proxy.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_restarted_proxy_serves_without_its_control_plane() {
    let dir = tempfile::tempdir().unwrap();
    let application = Application::start("app").await;
    {
        let mut server = Server::start(&socket(dir.path()));
        let proxy = proxy(&socket(dir.path()), dir.path()).await;
        configure(&mut server.stream().await, &application).await;
        ready(&proxy).await;
        proxy.shutdown(Duration::ZERO).await;
    }

    std::fs::remove_file(socket(dir.path())).unwrap();
    let again = proxy(&socket(dir.path()), dir.path()).await;

    ready(&again).await;
    until_answered(listening(&again, "web").await, "app").await;
    again.shutdown(Duration::ZERO).await;
}

#[tokio::test]
async fn a_listener_that_is_removed_is_no_longer_there() {
    let dir = tempfile::tempdir().unwrap();
    let application = Application::start("app").await;
    let mut server = Server::start(&socket(dir.path()));
    let proxy = proxy(&socket(dir.path()), dir.path()).await;
    let mut stream = server.stream().await;
    configure(&mut stream, &application).await;
    let web = listening(&proxy, "web").await;
    until_answered(web, "app").await;

    let (answer, _) = stream.say::<Listener>(vec![], &["web"]).await;

    assert_eq!(answer.error_detail, None);
    let gone = async {
        while get(web, "/").await.0 != 0 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(server::PATIENCE, gone)
        .await
        .expect("gone in time");
    proxy.shutdown(Duration::ZERO).await;
}
