//! Sessions that stay at one endpoint: its address is in a cookie or a header of the client's.

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use http::{HeaderMap, HeaderValue, header};
use prost::Message;

use super::{Passing, Returning};
use crate::cluster::Session;
use crate::config::filter::stateful_session::{SessionState, StatefulSessionConfig};

/// What is in a cookie; Envoy's message, so that both read each other's.
#[derive(Clone, PartialEq, Message)]
struct Told {
    #[prost(string, tag = "1")]
    address: String,
    /// In seconds; 0: never.
    #[prost(uint64, tag = "2")]
    expires: u64,
}

/// Reads where the session is; when the response comes, tells where it is now.
pub(super) fn request(config: &Arc<StatefulSessionConfig>, passing: &mut Passing<'_>) {
    let told = read(&config.state, &passing.head.headers, now());
    passing.passage.session = told.map(|address| Session {
        address,
        is_strict: config.is_strict,
    });
    let config = Arc::clone(config);
    passing
        .passage
        .on_response(move |returning| tell(&config.state, told, returning));
}

fn tell(state: &SessionState, told: Option<SocketAddr>, returning: &mut Returning<'_>) {
    let Some(address) = returning.completion.endpoint_address() else {
        return;
    };
    if told == Some(address) {
        return;
    }
    let headers = returning.response.headers_mut();
    match state {
        SessionState::None => {}
        SessionState::Header(name) => {
            let encoded = BASE64_STANDARD.encode(address.to_string());
            if let Ok(value) = HeaderValue::try_from(encoded) {
                headers.insert(name, value);
            }
        }
        SessionState::Cookie { .. } => {
            if let Some(cookie) = cookie(state, address, now()) {
                headers.append(header::SET_COOKIE, cookie);
            }
        }
    }
}

fn read(state: &SessionState, headers: &HeaderMap, now: u64) -> Option<SocketAddr> {
    match state {
        SessionState::None => None,
        SessionState::Header(name) => {
            let decoded = BASE64_STANDARD.decode(headers.get(name)?).ok()?;
            std::str::from_utf8(&decoded).ok()?.parse().ok()
        }
        SessionState::Cookie { name, .. } => {
            let lines = headers.get_all(header::COOKIE).iter();
            let lines = lines.filter_map(|line| line.to_str().ok());
            let value = lines.flat_map(|line| line.split(';')).find_map(|pair| {
                let (key, value) = pair.trim().split_once('=')?;
                (key == &**name).then(|| value.trim_matches('"'))
            })?;
            let decoded = BASE64_STANDARD.decode(value).ok()?;
            // An address alone is what older Envoys have told.
            if let Some(address) = std::str::from_utf8(&decoded)
                .ok()
                .and_then(|text| text.parse().ok())
            {
                return Some(address);
            }
            let Told { address, expires } = Told::decode(&*decoded).ok()?;
            (expires == 0 || now < expires)
                .then(|| address.parse().ok())
                .flatten()
        }
    }
}

fn cookie(state: &SessionState, address: SocketAddr, now: u64) -> Option<HeaderValue> {
    let SessionState::Cookie {
        name,
        ttl,
        path,
        attributes,
    } = state
    else {
        return None;
    };
    let told = Told {
        address: address.to_string(),
        expires: match ttl.as_secs() {
            0 => 0,
            seconds => now.saturating_add(seconds),
        },
    };
    let mut text = format!(
        "{name}=\"{}\"",
        BASE64_STANDARD.encode(told.encode_to_vec())
    );
    if !ttl.is_zero() {
        text.push_str(&format!("; Max-Age={}", ttl.as_secs()));
    }
    if !path.is_empty() {
        text.push_str(&format!("; Path={path}"));
    }
    for (name, value) in attributes {
        text.push_str(&match value.is_empty() {
            true => format!("; {name}"),
            false => format!("; {name}={value}"),
        });
    }
    text.push_str("; HttpOnly");
    HeaderValue::try_from(text).ok()
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn in_cookie() -> SessionState {
        SessionState::Cookie {
            name: "at".into(),
            ttl: Duration::from_secs(60),
            path: "/".into(),
            attributes: vec![],
        }
    }

    fn told_back(now: u64, later: u64) -> Option<SocketAddr> {
        let address = ([10, 0, 0, 1], 80).into();
        let cookie = cookie(&in_cookie(), address, now).expect("a cookie");
        let pair = cookie
            .to_str()
            .expect("text")
            .split(';')
            .next()
            .expect("a pair");
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::try_from(pair).expect("valid"));
        read(&in_cookie(), &headers, later)
    }

    #[test]
    fn what_is_told_in_a_cookie_is_read_back_until_it_expires() {
        assert_eq!(told_back(1000, 1059), Some(([10, 0, 0, 1], 80).into()));
        assert_eq!(told_back(1000, 1060), None);
    }

    #[test]
    fn what_is_no_address_is_passed_over() {
        for value in ["", "at", "at=", "at=####", "at=aGVsbG8=", "at=CgNhYmM="] {
            let mut headers = HeaderMap::new();
            headers.insert(header::COOKIE, HeaderValue::from_static(value));
            assert_eq!(read(&in_cookie(), &headers, 0), None, "{value}");
        }
    }
}
