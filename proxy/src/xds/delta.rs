//! What one delta stream has said so far: which names it asked for, which nonces it owes an answer.
//!
//! Pure bookkeeping, made anew for each connection; `client.rs` moves the messages. The first request of each
//! kind carries the versions already held, so that an unchanged resource is not sent again.
//!
//! <https://www.envoyproxy.io/docs/envoy/latest/api-docs/xds_protocol#incremental-xds>

use std::collections::{BTreeMap, BTreeSet};

use weft_proto::envoy::config::core::v3::Node;
use weft_proto::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

use super::dialogue::{Dialogue, Receipt, Removal, Update, Variant, detail};
use super::kind::Kind;

/// The state of one stream.
#[derive(Debug)]
pub struct Delta {
    /// Sent with the first request only.
    node: Option<Node>,
    subscribed: BTreeMap<Kind, BTreeSet<String>>,
}

impl Delta {
    /// A stream on which nothing was said.
    pub fn new(node: Node) -> Self {
        Self {
            node: Some(node),
            subscribed: BTreeMap::new(),
        }
    }

    fn first_request(
        &mut self,
        kind: Kind,
        wanted: &BTreeSet<String>,
        held: impl FnOnce() -> BTreeMap<String, String>,
    ) -> Option<DeltaDiscoveryRequest> {
        // A first request without names means all of a kind; so of kinds by name nothing is asked until a name is.
        if wanted.is_empty() && !kind.is_wildcard() {
            return None;
        }
        self.subscribed.insert(kind, wanted.clone());
        let mut held = held();
        held.retain(|name, _| kind.is_wildcard() || wanted.contains(name));
        Some(DeltaDiscoveryRequest {
            node: self.node.take(),
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: wanted.iter().cloned().collect(),
            initial_resource_versions: held,
            ..DeltaDiscoveryRequest::default()
        })
    }
}

impl Dialogue for Delta {
    type Request = DeltaDiscoveryRequest;
    type Response = DeltaDiscoveryResponse;

    const VARIANT: Variant = Variant::Delta;

    fn subscribe(
        &mut self,
        kind: Kind,
        wanted: &BTreeSet<String>,
        held: impl FnOnce() -> BTreeMap<String, String>,
    ) -> Option<DeltaDiscoveryRequest> {
        let Some(subscribed) = self.subscribed.get_mut(&kind) else {
            return self.first_request(kind, wanted, held);
        };
        let request = DeltaDiscoveryRequest {
            type_url: kind.type_url().to_owned(),
            resource_names_subscribe: wanted.difference(subscribed).cloned().collect(),
            resource_names_unsubscribe: subscribed.difference(wanted).cloned().collect(),
            ..DeltaDiscoveryRequest::default()
        };
        subscribed.clone_from(wanted);
        let is_unchanged = request.resource_names_subscribe.is_empty()
            && request.resource_names_unsubscribe.is_empty();
        (!is_unchanged).then_some(request)
    }

    fn has_subscribed(&self, kind: Kind) -> bool {
        self.subscribed.contains_key(&kind)
    }

    fn read(response: DeltaDiscoveryResponse) -> Update {
        let DeltaDiscoveryResponse {
            system_version_info: version,
            resources,
            type_url,
            nonce,
            removed_resources: mut removed,
            control_plane: _,
            removed_resource_names,
            resource_errors: _,
        } = response;
        removed.extend(removed_resource_names.into_iter().map(|name| name.name));
        Update {
            receipt: Receipt {
                type_url,
                version,
                nonce,
            },
            resources,
            removal: Removal::Named(removed),
        }
    }

    fn answer(
        &mut self,
        receipt: Receipt,
        _wanted: &BTreeSet<String>,
        refusal: Option<String>,
    ) -> DeltaDiscoveryRequest {
        DeltaDiscoveryRequest {
            type_url: receipt.type_url,
            response_nonce: receipt.nonce,
            error_detail: refusal.map(detail),
            ..DeltaDiscoveryRequest::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    fn stream() -> Delta {
        Delta::new(Node {
            id: "sidecar~a.default".into(),
            ..Node::default()
        })
    }

    #[test]
    fn only_the_first_request_of_a_stream_names_the_node() {
        let mut stream = stream();

        let clusters = stream.subscribe(Kind::Cluster, &names(&[]), BTreeMap::new);
        let listeners = stream.subscribe(Kind::Listener, &names(&[]), BTreeMap::new);

        assert_eq!(
            clusters
                .and_then(|request| request.node)
                .map(|node| node.id),
            Some("sidecar~a.default".into())
        );
        assert_eq!(listeners.and_then(|request| request.node), None);
    }

    #[test]
    fn the_first_request_of_a_kind_tells_the_versions_of_what_it_asks_for() {
        let held = || {
            BTreeMap::from([
                ("reviews".to_owned(), "7".to_owned()),
                ("forgotten".to_owned(), "1".to_owned()),
            ])
        };

        let request = stream()
            .subscribe(Kind::Endpoints, &names(&["ratings", "reviews"]), held)
            .expect("a request");

        assert_eq!(
            request.initial_resource_versions,
            BTreeMap::from([("reviews".to_owned(), "7".to_owned())])
        );
        assert_eq!(request.resource_names_subscribe, ["ratings", "reviews"]);
    }

    #[test]
    fn no_names_of_a_named_kind_are_not_a_wildcard() {
        assert_eq!(
            stream().subscribe(Kind::Routes, &names(&[]), BTreeMap::new),
            None
        );
    }

    #[test]
    fn later_requests_carry_only_the_difference() {
        let mut stream = stream();
        stream.subscribe(Kind::Endpoints, &names(&["a", "b"]), BTreeMap::new);

        let request = stream
            .subscribe(Kind::Endpoints, &names(&["b", "c"]), BTreeMap::new)
            .expect("a request");
        let again = stream.subscribe(Kind::Endpoints, &names(&["b", "c"]), BTreeMap::new);

        assert_eq!(request.resource_names_subscribe, ["c"]);
        assert_eq!(request.resource_names_unsubscribe, ["a"]);
        assert_eq!(again, None);
    }

    #[test]
    fn a_refusal_says_what_is_wrong() {
        let refusal = Some("cluster reviews: lb_policy".into());

        let receipt = Receipt {
            type_url: Kind::Cluster.type_url().into(),
            version: "7".into(),
            nonce: "n1".into(),
        };

        let request = stream().answer(receipt, &names(&[]), refusal);

        assert_eq!(request.response_nonce, "n1");
        let detail = request.error_detail.expect("a detail");
        assert_eq!(
            (detail.code, detail.message.as_str()),
            (3, "cluster reviews: lb_policy")
        );
    }
}
