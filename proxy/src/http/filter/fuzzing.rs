//! What is fuzzed of filters: bodies that they change, and headers that they read.

use super::{compression, grpc_web, jwt_authn, stateful_session};
use crate::fuzzing::Target;

pub(in crate::http) const TARGETS: [Target; 6] = [
    Target::new("grpc_web", grpc_web::fuzzing::run),
    Target::new("decompress", compression::fuzzing::decompress),
    Target::new("accept_encoding", compression::fuzzing::accept_encoding),
    Target::new("session", stateful_session::fuzzing::run),
    Target::new("jwt", jwt_authn::fuzzing::token),
    Target::new("jwks", jwt_authn::fuzzing::keys),
];
