//! What is fuzzed of answers to health checks of gRPC.

use prost::Message;

use super::serving_status;

/// `grpc.health.v1.HealthCheckResponse`, with its enumeration as a number.
#[derive(Message)]
struct Answer {
    #[prost(uint64, tag = "1")]
    status: u64,
}

/// What is read of an answer is what a decoder of all of Protobuf reads of it, and a frame is whole or none.
pub(crate) fn run(bytes: &[u8]) {
    let Some(status) = serving_status(bytes) else {
        return;
    };
    if let Ok(answer) = Answer::decode(&bytes[5..]) {
        assert_eq!(answer.status, status);
    }
    assert_eq!(serving_status(&bytes[..bytes.len() - 1]), None);
    assert_eq!(serving_status(&[bytes, &[0]].concat()), None);
}
