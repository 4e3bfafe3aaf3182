//! Conversations, request by request, with literal times.

use weft_proto::envoy::config::cluster::v3::Cluster;
use weft_proto::google::rpc::Status;

use crate::translate::resource::{ResourceMap, insert};

use super::*;

use ResourceKind::{Cluster as Clusters, Endpoints, Listener, Route};

/// Resources of one kind: name and content. The message plays no part here.
fn map(resources: &[(&str, &str)]) -> Arc<ResourceMap> {
    let mut map = ResourceMap::new();
    for (name, content) in resources {
        let message = Cluster {
            alt_stat_name: (*content).to_owned(),
            ..Cluster::default()
        };
        insert(&mut map, Resource::encode(name, &message));
    }
    Arc::new(map)
}

fn world(revision: u64, kinds: &[(ResourceKind, &[(&str, &str)])]) -> ProxyResources {
    let maps = kinds
        .iter()
        .map(|(kind, resources)| (*kind, vec![map(resources)]));
    ProxyResources::new(revision, maps.collect())
}

fn ask(kind: ResourceKind, names: &[&str]) -> wire::DeltaDiscoveryRequest {
    wire::DeltaDiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names_subscribe: names.iter().map(|&name| name.to_owned()).collect(),
        ..wire::DeltaDiscoveryRequest::default()
    }
}

fn accept(push: &Push) -> wire::DeltaDiscoveryRequest {
    wire::DeltaDiscoveryRequest {
        response_nonce: push.nonce.clone(),
        ..ask(push.kind, &[])
    }
}

fn refuse(push: &Push, message: &str) -> wire::DeltaDiscoveryRequest {
    wire::DeltaDiscoveryRequest {
        error_detail: Some(Status {
            message: message.to_owned(),
            ..Status::default()
        }),
        ..accept(push)
    }
}

fn ask_for_all(kind: ResourceKind, names: &[&str]) -> wire::DiscoveryRequest {
    wire::DiscoveryRequest {
        type_url: kind.type_url().to_owned(),
        resource_names: names.iter().map(|&name| name.to_owned()).collect(),
        ..wire::DiscoveryRequest::default()
    }
}

fn names(push: &Push) -> Vec<&str> {
    push.resources
        .iter()
        .map(|resource| &*resource.name)
        .collect()
}

fn removed(push: &Push) -> Vec<&str> {
    push.removed.iter().map(|name| &**name).collect()
}

/// Sends and accepts until nothing more comes; what came, in order.
fn settle(session: &mut Session, resources: &ProxyResources, now: Instant) -> Vec<Push> {
    let mut all = Vec::new();
    for _ in 0..20 {
        let pushes = session.poll(resources, now);
        if pushes.is_empty() {
            return all;
        }
        for push in &pushes {
            session.on_delta(&accept(push)).unwrap();
        }
        all.extend(pushes);
    }
    panic!("no end: {all:?}");
}

#[test]
fn a_wildcard_subscription_is_sent_everything_and_then_the_difference() {
    let now = Instant::now();
    let mut session = Session::new(Protocol::Delta);
    session.on_delta(&ask(Clusters, &[])).unwrap();
    let first = settle(
        &mut session,
        &world(1, &[(Clusters, &[("a", "1"), ("b", "1")])]),
        now,
    );

    let second = settle(
        &mut session,
        &world(2, &[(Clusters, &[("a", "1"), ("b", "2")])]),
        now,
    );

    assert_eq!(names(&first[0]), ["a", "b"]);
    assert_eq!(second.len(), 1);
    assert_eq!(names(&second[0]), ["b"]);
    assert_eq!(session.acknowledged(), Some(2));
}

#[test]
fn an_empty_mesh_is_an_answer_too() {
    let mut session = Session::new(Protocol::Delta);
    session.on_delta(&ask(Clusters, &[])).unwrap();

    let pushes = session.poll(&world(1, &[]), Instant::now());

    assert_eq!(pushes.len(), 1);
    assert_eq!(names(&pushes[0]), [""; 0]);
}

#[test]
fn a_name_that_does_not_exist_is_answered_as_removed() {
    let mut session = Session::new(Protocol::Delta);
    session.on_delta(&ask(Route, &["gone"])).unwrap();

    let pushes = session.poll(&world(1, &[]), Instant::now());

    assert_eq!(removed(&pushes[0]), ["gone"]);
}

#[test]
fn a_name_that_comes_into_being_later_is_sent_then() {
    let now = Instant::now();
    let mut session = Session::new(Protocol::Delta);
    session.on_delta(&ask(Route, &["later"])).unwrap();
    settle(&mut session, &world(1, &[]), now);

    let pushes = settle(
        &mut session,
        &world(2, &[(Route, &[("later", "1"), ("other", "1")])]),
        now,
    );

    assert_eq!(names(&pushes[0]), ["later"]);
}

#[test]
fn what_a_client_has_brought_along_is_not_sent_again() {
    let resources = world(1, &[(Clusters, &[("a", "1"), ("b", "1")])]);
    let version = resources.get(Clusters, "a").unwrap().version.to_string();
    let mut session = Session::new(Protocol::Delta);
    let mut first = ask(Clusters, &[]);
    first.initial_resource_versions = [
        ("a".to_owned(), version),
        ("old".to_owned(), "x".to_owned()),
    ]
    .into();
    session.on_delta(&first).unwrap();

    let pushes = settle(&mut session, &resources, Instant::now());

    assert_eq!(names(&pushes[0]), ["b"]);
    assert_eq!(removed(&pushes[1]), ["old"]);
}

#[test]
fn asking_again_for_a_name_sends_it_again() {
    let now = Instant::now();
    let resources = world(1, &[(Endpoints, &[("a", "1")])]);
    let mut session = Session::new(Protocol::Delta);
    session.on_delta(&ask(Endpoints, &["a"])).unwrap();
    settle(&mut session, &resources, now);

    session.on_delta(&ask(Endpoints, &["a"])).unwrap();

    assert_eq!(names(&session.poll(&resources, now)[0]), ["a"]);
}

#[test]
fn a_name_that_is_no_longer_wanted_is_not_sent() {
    let now = Instant::now();
    let mut session = Session::new(Protocol::Delta);
    session.on_delta(&ask(Endpoints, &["a", "b"])).unwrap();
    settle(
        &mut session,
        &world(1, &[(Endpoints, &[("a", "1"), ("b", "1")])]),
        now,
    );
    let mut without = ask(Endpoints, &[]);
    without.resource_names_unsubscribe = vec!["a".to_owned()];
    session.on_delta(&without).unwrap();

    let pushes = settle(
        &mut session,
        &world(2, &[(Endpoints, &[("a", "2"), ("b", "2")])]),
        now,
    );

    assert_eq!(pushes.len(), 1);
    assert_eq!(names(&pushes[0]), ["b"]);
}

#[test]
fn nothing_of_a_type_is_sent_while_an_answer_is_owed() {
    let now = Instant::now();
    let mut session = Session::new(Protocol::Delta);
    session.on_delta(&ask(Clusters, &[])).unwrap();
    let first = session.poll(&world(1, &[(Clusters, &[("a", "1")])]), now);
    for revision in 2..10 {
        let content = revision.to_string();
        let resources = world(revision, &[(Clusters, &[("a", content.as_str())])]);
        assert_eq!(session.poll(&resources, now), []);
    }

    session.on_delta(&accept(&first[0])).unwrap();
    let next = session.poll(&world(10, &[(Clusters, &[("a", "10")])]), now);

    assert_eq!(next.len(), 1);
    assert_eq!(next[0].revision, 10);
}

#[test]
fn what_is_new_comes_in_order_and_what_goes_comes_last() {
    let now = Instant::now();
    let mut session = Session::new(Protocol::Delta);
    session.on_delta(&ask(Listener, &[])).unwrap();
    session.on_delta(&ask(Clusters, &[])).unwrap();
    session.on_delta(&ask(Route, &["r"])).unwrap();
    let old = world(
        1,
        &[
            (Clusters, &[("old", "1")]),
            (Listener, &[("l", "1")]),
            (Route, &[("r", "1")]),
        ],
    );
    settle(&mut session, &old, now);

    let new = world(
        2,
        &[
            (Clusters, &[("new", "1")]),
            (Listener, &[("l", "2")]),
            (Route, &[("r", "2")]),
        ],
    );
    let pushes = settle(&mut session, &new, now);

    let order: Vec<_> = pushes
        .iter()
        .map(|push| (push.kind, names(push), removed(push)))
        .collect();
    assert_eq!(
        order,
        [
            (Clusters, vec!["new"], vec![]),
            (Listener, vec!["l"], vec![]),
            (Route, vec!["r"], vec![]),
            (Clusters, vec![], vec!["old"]),
        ]
    );
}

#[test]
fn a_silent_client_holds_up_other_types_for_five_seconds_only() {
    let now = Instant::now();
    let resources = world(1, &[(Clusters, &[("a", "1")]), (Listener, &[("l", "1")])]);
    let mut session = Session::new(Protocol::Delta);
    session.on_delta(&ask(Clusters, &[])).unwrap();
    session.on_delta(&ask(Listener, &[])).unwrap();
    assert_eq!(session.poll(&resources, now)[0].kind, Clusters);

    assert_eq!(
        session.poll(&resources, now + Duration::from_millis(4999)),
        []
    );
    assert_eq!(session.deadline(now), Some(now + ANSWER_PATIENCE));
    let late = session.poll(&resources, now + ANSWER_PATIENCE);

    assert_eq!(late[0].kind, Listener);
    assert_eq!(session.acknowledged(), None);
}

#[test]
fn a_refused_response_is_reported_and_not_repeated() {
    let now = Instant::now();
    let resources = world(3, &[(Clusters, &[("a", "bad")])]);
    let mut session = Session::new(Protocol::Delta);
    session.on_delta(&ask(Clusters, &[])).unwrap();
    let push = session.poll(&resources, now).remove(0);

    let feedback = session.on_delta(&refuse(&push, "no such field")).unwrap();

    assert_eq!(
        feedback,
        Feedback::Rejected {
            kind: Clusters,
            revision: 3,
            message: "no such field".to_owned()
        }
    );
    assert_eq!(session.poll(&resources, now), []);
    assert_eq!(session.acknowledged(), None);
}

#[test]
fn what_was_refused_comes_again_with_the_next_change() {
    let now = Instant::now();
    let mut session = Session::new(Protocol::Delta);
    session.on_delta(&ask(Clusters, &[])).unwrap();
    let first = world(1, &[(Clusters, &[("bad", "1"), ("good", "1")])]);
    let push = session.poll(&first, now).remove(0);
    session.on_delta(&refuse(&push, "bad")).unwrap();

    let pushes = settle(
        &mut session,
        &world(2, &[(Clusters, &[("bad", "2"), ("good", "1")])]),
        now,
    );

    assert_eq!(names(&pushes[0]), ["bad", "good"]);
    assert_eq!(session.acknowledged(), Some(2));
}

#[test]
fn an_answer_to_an_older_response_counts_for_nothing() {
    let now = Instant::now();
    let mut session = Session::new(Protocol::Delta);
    session.on_delta(&ask(Clusters, &[])).unwrap();
    let push = session
        .poll(&world(1, &[(Clusters, &[("a", "1")])]), now)
        .remove(0);

    let stale = Push {
        nonce: "0".to_owned(),
        ..push.clone()
    };
    assert_eq!(
        session.on_delta(&accept(&stale)).unwrap(),
        Feedback::Nothing
    );

    let acknowledged = Feedback::Acknowledged {
        kind: Clusters,
        revision: 1,
    };
    assert_eq!(session.on_delta(&accept(&push)).unwrap(), acknowledged);
}

#[test]
fn an_unchanged_map_is_not_looked_through_again() {
    let now = Instant::now();
    let clusters = map(&[("a", "1")]);
    let with =
        |revision| ProxyResources::new(revision, [(Clusters, vec![Arc::clone(&clusters)])].into());
    let mut session = Session::new(Protocol::Delta);
    session.on_delta(&ask(Clusters, &[])).unwrap();
    settle(&mut session, &with(1), now);

    assert_eq!(session.poll(&with(2), now), []);
    assert_eq!(session.acknowledged(), Some(2));
}

#[test]
fn state_of_the_world_keeps_what_goes_until_nothing_leads_to_it() {
    let now = Instant::now();
    let mut session = Session::new(Protocol::StateOfTheWorld);
    let answer = |session: &mut Session, push: &Push, names: &[&str]| {
        let mut request = ask_for_all(push.kind, names);
        request.response_nonce = push.nonce.clone();
        session.on_state_of_the_world(&request).unwrap()
    };
    session
        .on_state_of_the_world(&ask_for_all(Clusters, &[]))
        .unwrap();
    session
        .on_state_of_the_world(&ask_for_all(Route, &["r"]))
        .unwrap();
    let old = world(1, &[(Clusters, &[("old", "1")]), (Route, &[("r", "1")])]);
    let first = session.poll(&old, now).remove(0);
    answer(&mut session, &first, &[]);
    let route = session.poll(&old, now).remove(0);
    answer(&mut session, &route, &["r"]);

    let new = world(2, &[(Clusters, &[("new", "1")]), (Route, &[("r", "2")])]);
    let both = session.poll(&new, now).remove(0);
    answer(&mut session, &both, &[]);
    let route = session.poll(&new, now).remove(0);
    answer(&mut session, &route, &["r"]);
    let last = session.poll(&new, now).remove(0);
    answer(&mut session, &last, &[]);

    assert_eq!(names(&both), ["new", "old"]);
    assert_eq!(route.kind, Route);
    assert_eq!(names(&last), ["new"]);
    assert_eq!(session.poll(&new, now), []);
    assert_eq!(session.acknowledged(), Some(2));
}

#[test]
fn state_of_the_world_sends_only_the_endpoints_that_changed() {
    let now = Instant::now();
    let mut session = Session::new(Protocol::StateOfTheWorld);
    session
        .on_state_of_the_world(&ask_for_all(Endpoints, &["a", "b"]))
        .unwrap();
    let first = session
        .poll(&world(1, &[(Endpoints, &[("a", "1"), ("b", "1")])]), now)
        .remove(0);
    let mut accepted = ask_for_all(Endpoints, &["a", "b"]);
    accepted.response_nonce = first.nonce.clone();
    session.on_state_of_the_world(&accepted).unwrap();

    let second = session
        .poll(&world(2, &[(Endpoints, &[("a", "1"), ("b", "2")])]), now)
        .remove(0);

    assert_eq!(names(&first), ["a", "b"]);
    assert_eq!(names(&second), ["b"]);
}

#[test]
fn state_of_the_world_ignores_requests_that_were_overtaken() {
    let now = Instant::now();
    let resources = world(1, &[(Endpoints, &[("a", "1"), ("b", "1")])]);
    let mut session = Session::new(Protocol::StateOfTheWorld);
    session
        .on_state_of_the_world(&ask_for_all(Endpoints, &["a"]))
        .unwrap();
    session.poll(&resources, now);

    let mut overtaken = ask_for_all(Endpoints, &["b"]);
    overtaken.response_nonce = "0".to_owned();
    session.on_state_of_the_world(&overtaken).unwrap();

    let mut accepted = ask_for_all(Endpoints, &["a"]);
    accepted.response_nonce = "1".to_owned();
    session.on_state_of_the_world(&accepted).unwrap();
    assert_eq!(session.poll(&resources, now), []);
}

#[test]
fn a_type_that_is_not_served_is_named() {
    let mut session = Session::new(Protocol::Delta);
    let request = wire::DeltaDiscoveryRequest {
        type_url: "type.googleapis.com/unheard.of".to_owned(),
        ..wire::DeltaDiscoveryRequest::default()
    };

    let feedback = session.on_delta(&request).unwrap();

    assert_eq!(
        feedback,
        Feedback::UnknownType("type.googleapis.com/unheard.of".to_owned())
    );
}

#[test]
fn a_client_cannot_subscribe_without_bounds() {
    let mut session = Session::new(Protocol::Delta);
    let long = "x".repeat(MAX_NAME_BYTES + 1);
    assert_eq!(
        session.on_delta(&ask(Route, &[&long])),
        Err(Abuse::LongName)
    );

    let many: Vec<String> = (0..MAX_NAMES).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    session.on_delta(&ask(Route, &many)).unwrap();
    assert_eq!(
        session.on_delta(&ask(Route, &["one more"])),
        Err(Abuse::TooManyNames)
    );
}
