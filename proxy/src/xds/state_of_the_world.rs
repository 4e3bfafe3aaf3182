//! What one state-of-the-world stream has said so far: names asked for, versions accepted, the last nonce of each kind.
//!
//! Each request names all that is wanted of a kind, and each response of a wildcard kind holds all there is of it:
//! what is missing in it is gone. Of named kinds a response holds what has changed, and nothing is gone by silence.
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#basic-protocol-overview>

use std::collections::{BTreeMap, BTreeSet};

use prost::{Message, Name};
use weft_proto::Any;
use weft_proto::envoy::config::core::v3::Node;
use weft_proto::envoy::service::discovery::v3::{DiscoveryRequest, DiscoveryResponse, Resource};

use super::dialogue::{Dialogue, Receipt, Removal, Update, Variant, detail};
use super::kind::Kind;

/// The state of one stream.
#[derive(Debug)]
pub struct StateOfTheWorld {
    /// Sent with the first request only.
    node: Option<Node>,
    subscribed: BTreeMap<Kind, Subscription>,
    versions: Versions,
}

/// The version of each kind that was accepted last, on whichever stream.
pub type Versions = BTreeMap<Kind, String>;

/// What was said of one kind.
#[derive(Debug, Default)]
struct Subscription {
    names: BTreeSet<String>,
    /// Of the last response; empty before there was one.
    nonce: String,
}

/// The name of any kind of resource: the first field of all of them.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

impl StateOfTheWorld {
    /// A stream on which nothing was said; `versions` were accepted on those before it.
    pub fn new(node: Node, versions: Versions) -> Self {
        Self {
            node: Some(node),
            subscribed: BTreeMap::new(),
            versions,
        }
    }

    /// What was accepted, for the stream after this one.
    pub fn into_versions(self) -> Versions {
        self.versions
    }

    fn request(&mut self, kind: Kind, names: &BTreeSet<String>) -> DiscoveryRequest {
        let subscription = self.subscribed.entry(kind).or_default();
        subscription.names.clone_from(names);
        DiscoveryRequest {
            version_info: self.versions.get(&kind).cloned().unwrap_or_default(),
            node: self.node.take(),
            resource_names: names.iter().cloned().collect(),
            type_url: kind.type_url().to_owned(),
            response_nonce: subscription.nonce.clone(),
            ..DiscoveryRequest::default()
        }
    }
}

impl Dialogue for StateOfTheWorld {
    type Request = DiscoveryRequest;
    type Response = DiscoveryResponse;

    const VARIANT: Variant = Variant::StateOfTheWorld;

    fn subscribe(
        &mut self,
        kind: Kind,
        wanted: &BTreeSet<String>,
        held: impl FnOnce() -> BTreeMap<String, String>,
    ) -> Option<DiscoveryRequest> {
        match self.subscribed.get(&kind) {
            Some(subscription) => {
                if subscription.names == *wanted {
                    return None;
                }
            }
            // A first request without names means all of a kind.
            None if wanted.is_empty() && !kind.is_wildcard() => return None,
            None => {
                let held = held();
                let is_held =
                    kind.is_wildcard() || wanted.iter().all(|name| held.contains_key(name));
                // A server that is told its own version sends nothing: so it must not be told what we lack.
                if !is_held {
                    self.versions.remove(&kind);
                }
            }
        }
        Some(self.request(kind, wanted))
    }

    fn has_subscribed(&self, kind: Kind) -> bool {
        self.subscribed.contains_key(&kind)
    }

    fn read(response: DiscoveryResponse) -> Update {
        let DiscoveryResponse {
            version_info: version,
            resources,
            canary: _,
            type_url,
            nonce,
            control_plane: _,
            resource_errors: _,
        } = response;
        let resources: Vec<_> = resources
            .into_iter()
            .map(|any| enveloped(any, &version))
            .collect();
        let is_all = Kind::of(&type_url).is_some_and(Kind::is_wildcard);
        // One without a name could be any of those that seem to be gone.
        let has_names = resources.iter().all(|resource| !resource.name.is_empty());
        let removal = match is_all && has_names {
            true => Removal::Others,
            false => Removal::Named(vec![]),
        };
        Update {
            receipt: Receipt {
                type_url,
                version,
                nonce,
            },
            resources,
            removal,
        }
    }

    fn answer(
        &mut self,
        receipt: Receipt,
        wanted: &BTreeSet<String>,
        refusal: Option<String>,
    ) -> DiscoveryRequest {
        let Receipt {
            type_url,
            version,
            nonce,
        } = receipt;
        let kind = Kind::of(&type_url).filter(|kind| self.subscribed.contains_key(kind));
        let Some(kind) = kind else {
            return DiscoveryRequest {
                type_url,
                response_nonce: nonce,
                error_detail: refusal.map(detail),
                ..DiscoveryRequest::default()
            };
        };
        if let Some(subscription) = self.subscribed.get_mut(&kind) {
            subscription.nonce = nonce;
        }
        // A refusal goes on telling the version before it.
        if refusal.is_none() {
            self.versions.insert(kind, version);
        }
        DiscoveryRequest {
            error_detail: refusal.map(detail),
            ..self.request(kind, wanted)
        }
    }
}

/// A resource with its name and version, whether the server has put it in an envelope or not.
fn enveloped(any: Any, version: &str) -> Resource {
    let mut resource = match any.type_url == Resource::type_url() {
        true => Resource::decode(any.value.as_ref()).unwrap_or_default(),
        false => Resource {
            resource: Some(any),
            ..Resource::default()
        },
    };
    version.clone_into(&mut resource.version);
    if resource.name.is_empty()
        && let Some(inner) = &resource.resource
    {
        // What cannot be decoded has no name, and is refused where it is translated.
        resource.name = Named::decode(inner.value.as_ref()).unwrap_or_default().name;
    }
    resource
}

#[cfg(test)]
mod tests {
    use weft_proto::any::pack;

    use super::super::testing::{cluster, endpoints};
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn stream() -> StateOfTheWorld {
        let node = Node {
            id: "sidecar~a.default".into(),
            ..Node::default()
        };
        StateOfTheWorld::new(node, Versions::new())
    }

    fn receipt(kind: Kind, version: &str, nonce: &str) -> Receipt {
        Receipt {
            type_url: kind.type_url().into(),
            version: version.into(),
            nonce: nonce.into(),
        }
    }

    fn response(kind: Kind, resources: Vec<Any>) -> DiscoveryResponse {
        DiscoveryResponse {
            version_info: "7".into(),
            type_url: kind.type_url().into(),
            nonce: "n".into(),
            resources,
            ..DiscoveryResponse::default()
        }
    }

    #[test]
    fn an_acknowledgement_tells_version_and_nonce_and_repeats_all_names() {
        let mut stream = stream();
        let first = stream
            .subscribe(Kind::Endpoints, &names(&["a"]), BTreeMap::new)
            .expect("a request");

        let answer = stream.answer(
            receipt(Kind::Endpoints, "7", "n1"),
            &names(&["a", "b"]),
            None,
        );

        assert_eq!(
            (first.version_info.as_str(), first.node.is_some()),
            ("", true)
        );
        assert_eq!(answer.resource_names, ["a", "b"]);
        assert_eq!(
            (answer.version_info.as_str(), answer.response_nonce.as_str()),
            ("7", "n1")
        );
        assert_eq!((answer.error_detail, answer.node), (None, None));
        let again = stream.subscribe(Kind::Endpoints, &names(&["a", "b"]), BTreeMap::new);
        assert_eq!(again, None, "the acknowledgement has asked already");
    }

    #[test]
    fn a_refusal_tells_the_version_before_with_the_nonce_of_what_is_refused() {
        let mut stream = stream();
        stream.subscribe(Kind::Cluster, &names(&[]), BTreeMap::new);
        stream.answer(receipt(Kind::Cluster, "7", "n1"), &names(&[]), None);

        let refused = stream.answer(
            receipt(Kind::Cluster, "8", "n2"),
            &names(&[]),
            Some("cluster a: bad".into()),
        );

        assert_eq!(
            (
                refused.version_info.as_str(),
                refused.response_nonce.as_str()
            ),
            ("7", "n2")
        );
        assert_eq!(
            refused.error_detail.expect("a detail").message,
            "cluster a: bad"
        );
    }

    #[test]
    fn new_names_are_asked_for_with_the_last_nonce() {
        let mut stream = stream();
        stream.subscribe(Kind::Routes, &names(&["a"]), BTreeMap::new);
        stream.answer(receipt(Kind::Routes, "7", "n1"), &names(&["a"]), None);

        let request = stream
            .subscribe(Kind::Routes, &names(&["a", "b"]), BTreeMap::new)
            .expect("a request");

        assert_eq!(request.resource_names, ["a", "b"]);
        assert_eq!(request.response_nonce, "n1");
    }

    #[test]
    fn no_names_of_a_named_kind_are_not_a_wildcard() {
        assert_eq!(
            stream().subscribe(Kind::Routes, &names(&[]), BTreeMap::new),
            None
        );
    }

    #[test]
    fn a_new_stream_tells_a_version_only_where_all_of_it_is_held() {
        let versions = Versions::from([
            (Kind::Cluster, "7".to_owned()),
            (Kind::Endpoints, "8".to_owned()),
            (Kind::Routes, "9".to_owned()),
        ]);
        let mut stream = StateOfTheWorld::new(Node::default(), versions);
        let held = || BTreeMap::from([("a".to_owned(), "8".to_owned())]);

        let clusters = stream.subscribe(Kind::Cluster, &names(&[]), held);
        let endpoints = stream.subscribe(Kind::Endpoints, &names(&["a", "b"]), held);
        let routes = stream.subscribe(Kind::Routes, &names(&["a"]), held);

        let version = |request: Option<DiscoveryRequest>| request.expect("a request").version_info;
        assert_eq!(version(clusters), "7");
        assert_eq!(version(endpoints), "", "b is not held");
        assert_eq!(version(routes), "9");
    }

    #[test]
    fn what_a_wildcard_kind_does_not_name_is_gone_and_endpoints_stay() {
        let clusters = response(Kind::Cluster, vec![pack(&cluster("a"))]);
        let of_cluster = response(Kind::Endpoints, vec![pack(&endpoints("a", &[1]))]);

        let clusters = StateOfTheWorld::read(clusters);
        let of_cluster = StateOfTheWorld::read(of_cluster);

        assert_eq!(clusters.removal, Removal::Others);
        assert_eq!(clusters.resources[0].name, "a");
        assert_eq!(clusters.resources[0].version, "7");
        assert_eq!(of_cluster.removal, Removal::Named(vec![]));
        assert_eq!(of_cluster.resources[0].name, "a");
    }

    #[test]
    fn nothing_is_gone_where_a_resource_has_no_name() {
        let garbage = Any {
            type_url: Kind::Cluster.type_url().into(),
            value: vec![0xff, 0xff].into(),
        };

        let update = StateOfTheWorld::read(response(Kind::Cluster, vec![garbage]));

        assert_eq!(update.removal, Removal::Named(vec![]));
    }

    #[test]
    fn a_resource_may_come_in_an_envelope() {
        let envelope = Resource {
            name: "a".into(),
            resource: Some(pack(&cluster("a"))),
            ..Resource::default()
        };

        let update = StateOfTheWorld::read(response(Kind::Cluster, vec![pack(&envelope)]));

        assert_eq!(update.resources[0].name, "a");
        assert_eq!(update.resources[0].resource, Some(pack(&cluster("a"))));
        assert_eq!(update.resources[0].version, "7");
    }
}
