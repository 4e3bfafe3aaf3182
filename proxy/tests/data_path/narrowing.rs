//! Which endpoint a connection or a share of the requests goes to, where more than the route decides.

use std::collections::BTreeSet;
use std::sync::Arc;

use weft_proxy::config::balancing::Criteria;
use weft_proxy::config::cluster::ClusterConfig;
use weft_proxy::config::listener::{NetworkFilter, TcpConfig, TcpTarget};
use weft_proxy::config::route::{Forward, Target, WeightedCluster, WeightedClusters};

use crate::balancing::{addresses, maglev, three, versioned};
use crate::client::Client;
use crate::config::{configuration, listener};
use crate::proxy::Proxy;

fn of_version(version: &str) -> Option<Arc<Criteria>> {
    let pair = ("version".into(), format!("\"{version}\"").into());
    Some(Arc::new(Criteria::new([pair])))
}

async fn opaque(cluster: ClusterConfig, change: impl FnOnce(&mut TcpConfig)) -> Proxy {
    let mut config = TcpConfig {
        stat_prefix: "test".into(),
        target: TcpTarget::Cluster("c".into()),
        buffer_bytes: 64 * 1024,
        idle_timeout: None,
        longest: None,
        subset: None,
        tunnel: None,
        hashes_source: false,
        access_logs: Arc::new([]),
    };
    change(&mut config);
    let filter = NetworkFilter::Tcp(Arc::new(config));
    Proxy::start(configuration([listener(filter)], [cluster])).await
}

/// Who answers on connections of their own.
async fn reached(proxy: &Proxy) -> BTreeSet<String> {
    let mut reached = BTreeSet::new();
    for _ in 0..9 {
        reached.insert(Client::http1(proxy.address).await.get("/").await.body);
    }
    reached
}

#[tokio::test]
async fn each_of_several_clusters_may_ask_for_labels_of_its_own() {
    let upstreams = three().await;
    let weighted = |version, weight| WeightedCluster {
        subset: of_version(version),
        ..WeightedCluster::new("c", weight)
    };
    let target = WeightedClusters::new(vec![weighted("v2", 1), weighted("v1", 0)]);
    let forward = Forward {
        target: Target::Weighted(target.unwrap()),
        ..Forward::to("c")
    };
    let proxy = Proxy::with(forward, versioned(&addresses(&upstreams))).await;

    assert_eq!(reached(&proxy).await, BTreeSet::from(["b".to_owned()]));
}

#[tokio::test]
async fn opaque_connections_go_to_endpoints_with_the_labels() {
    let upstreams = three().await;
    let cluster = versioned(&addresses(&upstreams));
    let proxy = opaque(cluster, |config| config.subset = of_version("v3")).await;

    assert_eq!(reached(&proxy).await, BTreeSet::from(["c".to_owned()]));
}

#[tokio::test]
async fn opaque_connections_of_one_client_go_to_one_endpoint() {
    let upstreams = three().await;
    let cluster = maglev(&addresses(&upstreams));
    let proxy = opaque(cluster, |config| config.hashes_source = true).await;

    assert_eq!(reached(&proxy).await.len(), 1);
}
