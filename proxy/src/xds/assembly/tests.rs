//! Resources that arrive in any order, and go.

use std::time::UNIX_EPOCH;

use weft_proto::any::pack;

use super::*;
use crate::config::runtime::Runtime;
use crate::config::tls::Shown;
use crate::xds::cache::Cache;
use crate::xds::origin::Origins;
use crate::xds::references;
use crate::xds::statics::{StaticResource, Statics};
use crate::xds::testing::{
    cluster, eds_cluster, endpoints, listener, listener_with_secret, resource, routes, secret,
};

fn take<T: prost::Name>(cache: &mut Cache, kind: Kind, message: &T) {
    cache
        .take(kind, resource("1", message), UNIX_EPOCH)
        .expect("valid");
}

/// A listener, its routes, their cluster and its endpoints.
fn whole() -> Cache {
    let mut cache = Cache::default();
    take(&mut cache, Kind::Cluster, &eds_cluster("a"));
    take(&mut cache, Kind::Endpoints, &endpoints("a", &[1]));
    take(&mut cache, Kind::Listener, &listener("web", "web"));
    take(&mut cache, Kind::Routes, &routes("web", "a"));
    cache
}

fn forwards_to(configuration: &Configuration) -> String {
    references::route_clusters(&configuration.routes["web"])[0].to_string()
}

#[test]
fn what_is_whole_joins_at_once() {
    let assembled = Assembly::default().assemble(&whole(), Instant::now());

    assert!(assembled.waiting.is_empty());
    assert_eq!(assembled.again_at, None);
    let configuration = assembled.configuration;
    assert_eq!(configuration.listeners.len(), 1);
    assert_eq!(configuration.endpoints.len(), 1);
}

#[test]
fn a_listener_waits_for_its_routes_and_these_for_their_cluster_and_it_for_its_endpoints() {
    let now = Instant::now();
    let mut cache = Cache::default();
    let mut assembly = Assembly::default();
    take(&mut cache, Kind::Listener, &listener("web", "web"));
    take(&mut cache, Kind::Routes, &routes("web", "a"));
    take(&mut cache, Kind::Cluster, &eds_cluster("a"));

    let waiting = assembly.assemble(&cache, now);
    take(&mut cache, Kind::Endpoints, &endpoints("a", &[]));
    let joined = assembly.assemble(&cache, now);

    assert_eq!(waiting.waiting.len(), 3);
    assert!(waiting.configuration.listeners.is_empty());
    assert_eq!(waiting.again_at, Some(now + LIMIT));
    assert!(joined.waiting.is_empty());
    assert_eq!(joined.configuration.listeners.len(), 1);
}

#[test]
fn resources_that_come_again_unchanged_are_the_same_configuration() {
    let now = Instant::now();
    let first = Assembly::default().assemble(&whole(), now).configuration;
    let again = Assembly::default().assemble(&whole(), now).configuration;
    let mut changed = again.clone();
    changed.endpoints.clear();

    assert!(is_same(&first, &again));
    assert!(!is_same(&first, &changed));
}

#[test]
fn a_listener_is_served_without_routes_that_do_not_come() {
    let now = Instant::now();
    let mut cache = Cache::default();
    let mut assembly = Assembly::default();
    take(&mut cache, Kind::Listener, &listener("web", "web"));
    let waiting = assembly.assemble(&cache, now);

    let over = assembly.assemble(&cache, waiting.again_at.expect("a limit"));

    assert!(over.waiting.is_empty());
    assert_eq!(over.configuration.listeners.len(), 1);
}

#[test]
fn routes_to_a_cluster_that_is_not_there_yet_leave_those_before_in_force() {
    let now = Instant::now();
    let mut cache = whole();
    let mut assembly = Assembly::default();
    assembly.assemble(&cache, now);

    take(&mut cache, Kind::Routes, &routes("web", "b"));
    let waiting = assembly.assemble(&cache, now);
    take(&mut cache, Kind::Cluster, &cluster("b"));
    let joined = assembly.assemble(&cache, now);

    assert_eq!(forwards_to(&waiting.configuration), "a");
    assert_eq!(
        waiting.waiting,
        BTreeSet::from([(Kind::Routes, "web".into())])
    );
    assert_eq!(forwards_to(&joined.configuration), "b");
}

#[test]
fn a_cluster_that_is_removed_stays_while_routes_name_it() {
    let now = Instant::now();
    let mut cache = whole();
    let mut assembly = Assembly::default();
    assembly.assemble(&cache, now);

    cache.remove(Kind::Cluster, "a");
    cache.keep_wanted(Kind::Endpoints, &BTreeSet::new());
    let lingering = assembly.assemble(&cache, now);
    take(&mut cache, Kind::Cluster, &cluster("b"));
    take(&mut cache, Kind::Routes, &routes("web", "b"));
    let gone = assembly.assemble(&cache, now);

    assert!(lingering.configuration.clusters.contains_key("a"));
    assert!(lingering.configuration.endpoints.contains_key("a"));
    assert_eq!(
        gone.configuration
            .clusters
            .keys()
            .map(|name| &**name)
            .collect::<Vec<_>>(),
        ["b"]
    );
    assert!(gone.configuration.endpoints.is_empty());
}

#[test]
fn a_cluster_that_changes_serves_on_until_the_new_endpoints_are_there() {
    let now = Instant::now();
    let mut cache = whole();
    let mut assembly = Assembly::default();
    let before = assembly.assemble(&cache, now).configuration;

    let mut moved = eds_cluster("a");
    moved.eds_cluster_config.as_mut().expect("eds").service_name = "elsewhere".into();
    take(&mut cache, Kind::Cluster, &moved);
    let waiting = assembly.assemble(&cache, now).configuration;

    assert!(Arc::ptr_eq(&before.clusters["a"], &waiting.clusters["a"]));
    assert!(waiting.endpoints.contains_key("a"));
}

#[test]
fn a_secret_takes_the_place_of_its_name_and_changes_nothing_when_it_comes_again() {
    let now = Instant::now();
    let mut cache = Cache::default();
    let mut assembly = Assembly::default();
    take(
        &mut cache,
        Kind::Listener,
        &listener_with_secret("web", "mine"),
    );
    take(&mut cache, Kind::Routes, &routes("web", "a"));
    take(&mut cache, Kind::Cluster, &cluster("a"));
    let shown = |configuration: &Configuration| {
        let chain = configuration.listeners["web"]
            .chains()
            .next()
            .expect("a chain");
        chain.tls.as_ref().expect("TLS").shows.clone()
    };

    let wanted: Vec<_> = cache.wanted(Kind::Secret).into_keys().collect();
    let before = assembly.assemble(&cache, now).configuration;
    take(&mut cache, Kind::Secret, &secret("mine"));
    let after = assembly.assemble(&cache, now).configuration;
    let again = assembly.assemble(&cache, now).configuration;

    assert_eq!(wanted, ["mine"]);
    assert_eq!(shown(&before), Shown::Secret("mine".into()));
    assert!(matches!(shown(&after), Shown::Certificates(_)));
    assert!(Arc::ptr_eq(
        &after.listeners["web"],
        &again.listeners["web"]
    ));
}

/// Resources of a bootstrap, and no others.
fn own(resources: impl IntoIterator<Item = (Kind, weft_proto::Any)>) -> Cache {
    let (origins, runtime) = (Origins::default(), Runtime::default());
    let mut statics = Statics::default();
    for (kind, wire) in resources {
        let reading = origins.read(kind, &wire, &runtime).expect("valid");
        let resource = StaticResource {
            kind,
            field: kind.word().into(),
            wire,
            reading,
        };
        statics.add(resource).expect("one of its name");
    }
    Cache::new([], statics, origins, runtime)
}

#[test]
fn the_bootstraps_own_are_in_every_configuration() {
    let mut cache = own([(Kind::Cluster, pack(&cluster("own")))]);
    take(&mut cache, Kind::Cluster, &cluster("a"));

    let assembled = Assembly::default().assemble(&cache, Instant::now());

    let names: Vec<_> = assembled.configuration.clusters.keys().collect();
    assert_eq!(names, [&Arc::from("a"), &Arc::from("own")]);
}

#[test]
fn the_bootstraps_own_wait_for_what_they_discover_and_for_nothing_else() {
    let now = Instant::now();
    let mut cache = own([
        (Kind::Cluster, pack(&eds_cluster("a"))),
        (Kind::Listener, pack(&listener("web", "web"))),
    ]);
    let mut assembly = Assembly::default();

    let names = |kind| cache.wanted(kind).into_keys().collect::<Vec<_>>();
    assert_eq!(names(Kind::Endpoints), ["a"]);
    assert_eq!(names(Kind::Routes), ["web"]);
    let waiting = assembly.assemble(&cache, now);
    assert_eq!(waiting.waiting.len(), 2);
    assert!(waiting.configuration.listeners.is_empty());

    take(&mut cache, Kind::Endpoints, &endpoints("a", &[1]));
    take(&mut cache, Kind::Routes, &routes("web", "a"));
    let joined = assembly.assemble(&cache, now);

    assert!(joined.waiting.is_empty());
    assert_eq!(joined.configuration.listeners.len(), 1);
    assert_eq!(joined.configuration.endpoints.len(), 1);
}

#[test]
fn what_is_discovered_is_waited_for_as_long_as_its_source_says() {
    let now = Instant::now();
    let of_limit = |limit: Option<i64>| {
        let mut waits = eds_cluster("a");
        let eds = waits.eds_cluster_config.as_mut().expect("EDS");
        let source = eds.eds_config.as_mut().expect("a source");
        source.initial_fetch_timeout =
            limit.map(|seconds| prost_types::Duration { seconds, nanos: 0 });
        let mut cache = Cache::default();
        take(&mut cache, Kind::Cluster, &waits);
        let mut assembly = Assembly::default();
        let first = assembly.assemble(&cache, now);
        assert!(first.configuration.clusters.is_empty());
        let later = first.again_at.map(|at| assembly.assemble(&cache, at));
        let joined = later.map(|later| later.configuration.clusters.len());
        (first.again_at.map(|at| at - now), joined)
    };
    let seconds = Duration::from_secs;

    assert_eq!(of_limit(None), (Some(seconds(15)), Some(1)));
    assert_eq!(of_limit(Some(2)), (Some(seconds(2)), Some(1)));
    assert_eq!(of_limit(Some(0)), (None, None));
}
