//! What is fuzzed of sessions.

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::config::filter::stateful_session::SessionState;

/// A session is at an address or nowhere, and is read as it was told.
pub(in crate::http::filter) fn run(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for value in [bytes, BASE64_STANDARD.encode(bytes).as_bytes()] {
        let cookie = [b"b=c; a=", value].concat();
        if let (Ok(value), Ok(cookie)) = (
            HeaderValue::from_bytes(value),
            HeaderValue::from_bytes(&cookie),
        ) {
            headers.insert("x-session", value);
            headers.insert(header::COOKIE, cookie);
        }
        let cookie = SessionState::Cookie {
            name: "a".into(),
            ttl: Duration::from_secs(u64::MAX),
            path: "".into(),
            attributes: vec![],
        };
        let in_header = SessionState::Header(HeaderName::from_static("x-session"));
        for state in [&cookie, &in_header] {
            let Some(address) = super::read(state, &headers, 7) else {
                continue;
            };
            check_told(&cookie, address);
        }
    }
}

fn check_told(state: &SessionState, address: SocketAddr) {
    let told = super::cookie(state, address, 7).expect("a header");
    let pair = told.to_str().expect("text").split(';').next();
    let mut headers = HeaderMap::new();
    let pair = HeaderValue::from_str(pair.expect("one")).expect("a header");
    headers.insert(header::COOKIE, pair);
    assert_eq!(super::read(state, &headers, 7), Some(address));
}
