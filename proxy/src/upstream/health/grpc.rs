//! Health checks by gRPC: `grpc.health.v1.Health/Check`.

#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};

use super::http::HttpAsker;
use super::probe::{Place, Unwell};
use crate::cluster::health::Checked;
use crate::config::headers::HeaderMutations;

const METHOD: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: u64 = 1;
/// No longer answers are read.
const MAX_ANSWER: usize = 64 * 1024;

/// Asks for a service.
pub(super) async fn ask(
    asker: &mut HttpAsker,
    place: &Place<'_>,
    service: &str,
    authority: Option<&str>,
    headers: &HeaderMutations,
) -> Result<Checked, Unwell> {
    let mut request = Request::builder()
        .method(http::Method::POST)
        .uri(METHOD)
        .header(header::CONTENT_TYPE, "application/grpc")
        .header(header::TE, HeaderValue::from_static("trailers"))
        .header(header::USER_AGENT, HeaderValue::from_static("Envoy/HC"))
        .body(Full::new(question(service)))?;
    headers.apply(request.headers_mut());
    let host = place.host(authority).to_owned();
    let response = asker.send(request, &host).await?;
    if response.status() != StatusCode::OK {
        return Err(Unwell::Answer(format!("status {}", response.status())));
    }
    // A call that fails at once has its status among the headers.
    is_ok(response.headers(), "")?;
    let body = Limited::new(response.into_body(), MAX_ANSWER)
        .collect()
        .await;
    let body = body.map_err(|error| Unwell::Answer(error.to_string()))?;
    is_ok(body.trailers().unwrap_or(&HeaderMap::new()), "0")?;
    match serving_status(&body.to_bytes()) {
        Some(SERVING) => Ok(Checked::Passed),
        Some(other) => Err(Unwell::Answer(format!("serving status {other}"))),
        None => Err(Unwell::Answer("what is no health check response".into())),
    }
}

/// Where there is a status, it must be 0.
fn is_ok(headers: &HeaderMap, required: &str) -> Result<(), Unwell> {
    let status = headers
        .get("grpc-status")
        .and_then(|status| status.to_str().ok());
    match status {
        Some("0") => Ok(()),
        None if required.is_empty() => Ok(()),
        other => Err(Unwell::Answer(format!(
            "grpc-status {}",
            other.unwrap_or("missing")
        ))),
    }
}

/// `HealthCheckRequest { string service = 1; }`, in a frame.
fn question(service: &str) -> Bytes {
    let mut message = BytesMut::new();
    if !service.is_empty() {
        message.put_u8(0x0a);
        prost::encoding::encode_varint(service.len() as u64, &mut message);
        message.put_slice(service.as_bytes());
    }
    let mut frame = BytesMut::with_capacity(5 + message.len());
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.put_slice(&message);
    frame.freeze()
}

/// `HealthCheckResponse { ServingStatus status = 1; }`, in a frame that is not compressed.
fn serving_status(frame: &[u8]) -> Option<u64> {
    let (prefix, message) = frame.split_at_checked(5)?;
    let length = u32::from_be_bytes([prefix[1], prefix[2], prefix[3], prefix[4]]);
    if prefix[0] != 0 || usize::try_from(length).ok()? != message.len() {
        return None;
    }
    let mut rest = message;
    let mut status = 0;
    while !rest.is_empty() {
        let key = prost::encoding::decode_varint(&mut rest).ok()?;
        let value = prost::encoding::decode_varint(&mut rest).ok()?;
        match key {
            0x08 => status = value,
            // Other numbers are passed over; what has a length, the message has not.
            key if key & 7 == 0 => {}
            _ => return None,
        }
    }
    Some(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_question_is_what_the_protocol_says() {
        assert_eq!(&*question(""), b"\0\0\0\0\0");
        assert_eq!(&*question("a.B"), b"\0\0\0\0\x05\x0a\x03a.B");
    }

    #[test]
    fn the_answer_is_read_and_no_bytes_make_that_panic() {
        assert_eq!(serving_status(b"\0\0\0\0\x02\x08\x01"), Some(SERVING));
        assert_eq!(serving_status(b"\0\0\0\0\0"), Some(0));
        for length in 0..8 {
            for byte in 0..=u8::MAX {
                let _ = serving_status(&vec![byte; length]);
                let mut frame = b"\0\0\0\0\x02\x08\x01".to_vec();
                if let Some(place) = frame.get_mut(length) {
                    *place = byte;
                }
                let _ = serving_status(&frame);
            }
        }
    }
}
