//! What both variants of xDS have in common: requests that subscribe and answer, responses that change resources.
//!
//! `client` drives one of [`Delta`](super::delta::Delta) and
//! [`StateOfTheWorld`](super::state_of_the_world::StateOfTheWorld), each the bookkeeping of one stream, and never
//! asks which of them it is.

use std::collections::{BTreeMap, BTreeSet};

use weft_proto::envoy::service::discovery::v3::Resource;
use weft_proto::google::rpc;

use super::kind::Kind;

/// `INVALID_ARGUMENT`, what a refused response is answered with.
const INVALID_ARGUMENT: i32 = 3;

/// How the control plane is spoken with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Changes alone: `DELTA_GRPC`.
    Delta,
    /// All resources of a kind whenever one of them changes: `GRPC`.
    StateOfTheWorld,
}

/// Which response it is that an answer speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// The kind of its resources, as it came.
    pub type_url: String,
    /// The server's version of the whole.
    pub version: String,
    /// What tells it from other responses.
    pub nonce: String,
}

/// Which resources are no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Removal {
    /// These.
    Named(Vec<String>),
    /// All of the kind that are not in the response.
    Others,
}

/// A response taken apart.
#[derive(Debug, Clone, PartialEq)]
pub struct Update {
    /// What to answer.
    pub receipt: Receipt,
    /// New and changed ones; in the state of the world, unchanged ones, too.
    pub resources: Vec<Resource>,
    /// Those that are gone.
    pub removal: Removal,
}

/// One stream's bookkeeping, made anew for each connection.
pub trait Dialogue: Send {
    /// What is sent.
    type Request: prost::Message + Send + Sync + 'static;
    /// What is received.
    type Response: prost::Message + Default + Send + Sync + 'static;
    /// Which of the two it is.
    const VARIANT: Variant;

    /// The request that makes the stream ask for exactly `wanted`; none where it does so already.
    ///
    /// `held` are the versions of what is in force, told with the first request of a kind. Wildcard kinds are
    /// asked for once, without names.
    fn subscribe(
        &mut self,
        kind: Kind,
        wanted: &BTreeSet<String>,
        held: impl FnOnce() -> BTreeMap<String, String>,
    ) -> Option<Self::Request>;

    /// Whether a kind was asked for.
    fn has_subscribed(&self, kind: Kind) -> bool;

    /// What a response says.
    fn read(response: Self::Response) -> Update;

    /// The acknowledgement of a response, or its refusal with what is wrong. `wanted` is what is asked for now,
    /// which an answer may have to repeat.
    fn answer(
        &mut self,
        receipt: Receipt,
        wanted: &BTreeSet<String>,
        refusal: Option<String>,
    ) -> Self::Request;
}

/// What is wrong with a response, in the protocol's words.
pub(super) fn detail(refusal: String) -> rpc::Status {
    rpc::Status {
        code: INVALID_ARGUMENT,
        message: refusal,
        ..rpc::Status::default()
    }
}
