//! Resources that come, are refused, and go.

use std::time::UNIX_EPOCH;

use super::*;
use crate::xds::testing::{cluster, eds_cluster, endpoints, resource};

#[test]
fn a_refused_resource_leaves_what_was_in_force() {
    let mut cache = Cache::default();
    cache
        .take(Kind::Cluster, resource("1", &cluster("a")), UNIX_EPOCH)
        .expect("valid");
    let mut bad = cluster("a");
    bad.use_tcp_for_dns_lookups = true;

    let refusal = cache.take(Kind::Cluster, resource("2", &bad), UNIX_EPOCH);

    assert!(refusal.is_err());
    assert_eq!(
        cache
            .accepted(Kind::Cluster, "a")
            .expect("in force")
            .version,
        "1"
    );
    let (_, entry) = cache.of_kind(Kind::Cluster).next().expect("an entry");
    let refused = entry.refused.as_ref().expect("refused");
    assert_eq!(refused.version, "2");
    assert_eq!(
        refused.reason,
        "use_tcp_for_dns_lookups: true is not supported"
    );
}

#[test]
fn what_is_sent_again_unchanged_has_a_new_version_and_its_old_age() {
    let mut cache = Cache::default();
    let sent = |version| {
        let mut wire = resource(version, &cluster("a"));
        wire.name = "a".into();
        wire
    };
    let later = UNIX_EPOCH + std::time::Duration::from_secs(1);
    cache
        .take(Kind::Cluster, sent("1"), UNIX_EPOCH)
        .expect("valid");

    cache.take(Kind::Cluster, sent("2"), later).expect("valid");

    let accepted = cache.accepted(Kind::Cluster, "a").expect("in force");
    assert_eq!(accepted.version, "2");
    assert_eq!(accepted.since, UNIX_EPOCH);
}

#[test]
fn a_resource_under_another_name_is_refused() {
    let mut cache = Cache::default();
    let mut wire = resource("1", &cluster("a"));
    wire.name = "b".into();

    assert_eq!(
        cache.take(Kind::Cluster, wire, UNIX_EPOCH),
        Err(Refusal::Name("a".into()))
    );
}

#[test]
fn the_bootstraps_own_clusters_are_not_replaced() {
    let mut cache = Cache::new(
        [(Kind::Cluster, "xds".to_owned())],
        Statics::default(),
        Origins::default(),
        Runtime::default(),
    );

    let taken = cache.take(Kind::Cluster, resource("1", &cluster("xds")), UNIX_EPOCH);

    assert_eq!(taken, Err(Refusal::Static));
    assert!(cache.accepted(Kind::Cluster, "xds").is_none());
}

#[test]
fn endpoints_are_wanted_as_long_as_a_cluster_names_them() {
    let mut cache = Cache::default();
    cache
        .take(Kind::Cluster, resource("1", &eds_cluster("a")), UNIX_EPOCH)
        .expect("valid");
    cache
        .take(
            Kind::Endpoints,
            resource("1", &endpoints("a", &[])),
            UNIX_EPOCH,
        )
        .expect("valid");

    assert_eq!(
        cache.wanted(Kind::Endpoints),
        BTreeMap::from([("a".to_owned(), &Origin::Aggregated)])
    );

    cache.remove(Kind::Cluster, "a");
    let wanted = cache.wanted(Kind::Endpoints).into_keys().collect();
    cache.keep_wanted(Kind::Endpoints, &wanted);
    assert!(cache.accepted(Kind::Endpoints, "a").is_none());
}

#[test]
fn what_is_stored_comes_back_with_its_versions() {
    let mut cache = Cache::default();
    cache
        .take(Kind::Cluster, resource("7", &eds_cluster("a")), UNIX_EPOCH)
        .expect("valid");
    cache
        .take(
            Kind::Endpoints,
            resource("8", &endpoints("a", &[])),
            UNIX_EPOCH,
        )
        .expect("valid");

    let mut again = Cache::default();
    let taken = again.take_stored(cache.to_stored("n"), UNIX_EPOCH);

    assert_eq!(taken, 2);
    assert_eq!(again.versions(Kind::Cluster), cache.versions(Kind::Cluster));
    assert_eq!(
        again.versions(Kind::Endpoints),
        cache.versions(Kind::Endpoints)
    );
}

#[test]
fn a_note_is_the_same_whichever_place_it_is_in() {
    assert_eq!(
        without_indices("filter_chains[2].filters[0].typed_config[\"a\"].via"),
        "filter_chains.filters.typed_config.via"
    );
}
