//! What is fuzzed of `x-forwarded-for`: who is believed to be the client.

use std::net::IpAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue};

use super::{Client, FORWARDED_FOR, client};
use crate::config::http::{HttpConfig, RouteSource};
use crate::fuzzing::Choices;

/// Whoever is believed is the peer, or has a place of their own in what was sent; how the places are spread over lines
/// makes no difference.
pub(in crate::http) fn run(bytes: &[u8]) {
    let mut choices = Choices::new(bytes);
    let mut config = HttpConfig::new("fuzz", RouteSource::Discovered("routes".into()));
    config.use_remote_address = choices.is();
    config.forwarding.trusted_hops = u32::try_from(choices.below(6)).unwrap_or(0);
    let (has_lines, rest) = (choices.is(), choices.rest());
    let peer = IpAddr::from([192, 0, 2, 1]);
    let one = client(&headers([rest]), peer, &config);
    check(rest, peer, one);
    if has_lines {
        let lines = headers(rest.split(|byte| *byte == b','));
        assert_eq!(client(&lines, peer, &config), one);
    }
}

fn headers<'a>(lines: impl IntoIterator<Item = &'a [u8]>) -> HeaderMap {
    let values: Option<Vec<_>> = lines
        .into_iter()
        .map(|line| HeaderValue::from_bytes(line).ok())
        .collect();
    // One line that is no header is none at all.
    let values = values.unwrap_or_default().into_iter();
    values.map(|value| (FORWARDED_FOR, value)).collect()
}

fn check(sent: &[u8], peer: IpAddr, found: Client) {
    if found.address == peer {
        return;
    }
    let text: Arc<str> = String::from_utf8_lossy(sent).into();
    let mut places = text
        .split(',')
        .filter_map(|place| place.trim().parse().ok());
    assert!(
        places.any(|place: IpAddr| place.to_canonical() == found.address),
        "{} is not in {text:?}",
        found.address
    );
}
