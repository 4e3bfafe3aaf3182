//! Who has sent a request, and what either side is told of the way it takes: `x-forwarded-for` and its like, the
//! request's id, `via`, `server`.
//!
//! `exchange.rs` calls it at the beginning and at the end of each request. As in Envoy: only proxies that are
//! configured to be in front are believed, and what comes from outside is told apart from what comes from inside.

#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;

use std::net::IpAddr;

use http::header::{self, HeaderName};
use http::{HeaderMap, HeaderValue, Response};

use super::HttpConnection;
use super::asked::INTERNAL_ONLY;
use super::completion::Completion;
use super::headers::{
    self, FORWARDED_FOR, FORWARDED_PROTO, Head, REQUEST_ID, known_scheme, scheme, text,
};
use crate::config::http::{ForwardingOptions, HttpConfig, ServerHeader};
use crate::present;

const INTERNAL: HeaderName = HeaderName::from_static("x-envoy-internal");
const EXTERNAL_ADDRESS: HeaderName = HeaderName::from_static("x-envoy-external-address");

/// What nobody outside may say to a proxy at the edge.
const EDGE_ONLY: [HeaderName; 4] = [
    HeaderName::from_static("x-envoy-decorator-operation"),
    HeaderName::from_static("x-envoy-downstream-service-cluster"),
    HeaderName::from_static("x-envoy-downstream-service-node"),
    HeaderName::from_static("x-envoy-original-path"),
];

/// Whom a request is believed to come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Client {
    /// The peer of the connection, or whom a proxy in front names.
    address: IpAddr,
    /// Whether nobody passed it on before.
    is_first_hop: bool,
}

/// Tells the upstream who has sent a request; says who it is, where it is not the peer of the connection.
pub(super) fn receive(
    head: &mut Head,
    connection: &HttpConnection,
    config: &HttpConfig,
) -> Option<IpAddr> {
    let headers = &mut head.headers;
    let options = &config.forwarding;
    let peer = connection.downstream.peer.ip().to_canonical();
    let client = client(headers, peer, config);
    present::remove(headers, &INTERNAL);
    if config.use_remote_address && options.appends_peer {
        append(headers, &FORWARDED_FOR, &peer.to_string(), ",");
    }
    let told = tell_scheme(headers, connection.is_tls, config);
    if options.scheme.is_some() || head.scheme.is_empty() {
        head.scheme = told;
    }
    let is_internal = client.is_first_hop && is_inside(config, client.address);
    tell_from_where(headers, client, is_internal, config.use_remote_address);
    let is_from_outside = config.use_remote_address && !is_internal;
    if config.generate_request_id {
        let is_replaced = is_from_outside && !options.preserves_request_id;
        if is_replaced || !present::has(headers, &REQUEST_ID) {
            headers.insert(REQUEST_ID, headers::random_request_id());
        }
    }
    if let Some(via) = &options.via {
        append(headers, &header::VIA, via, ", ");
    }
    (client.address != peer).then_some(client.address)
}

/// Tells the upstream by which scheme a request has come, and says so.
fn tell_scheme(headers: &mut HeaderMap, is_tls: bool, config: &HttpConfig) -> &'static str {
    let options = &config.forwarding;
    let own = scheme(is_tls);
    // Who is believed to be the client is believed about its scheme, too.
    let is_peer_the_client = config.use_remote_address && options.trusted_hops == 0;
    let told = match present::value(headers, &FORWARDED_PROTO) {
        Some(told) if !is_peer_the_client && options.scheme.is_none() => {
            return known_scheme(text(Some(told))).unwrap_or(own);
        }
        _ => options.scheme.unwrap_or(own),
    };
    headers.insert(FORWARDED_PROTO, HeaderValue::from_static(told));
    told
}

fn is_inside(config: &HttpConfig, address: IpAddr) -> bool {
    let mut networks = config.internal_addresses.iter();
    networks.any(|network| network.contains(&address))
}

/// Marks a request from inside; takes what others may not say away from one from outside.
fn tell_from_where(headers: &mut HeaderMap, client: Client, is_internal: bool, is_edge: bool) {
    if is_internal {
        headers.insert(INTERNAL, HeaderValue::from_static("true"));
        return;
    }
    let ask_something = headers::ask_something(headers);
    if ask_something {
        for name in INTERNAL_ONLY {
            headers.remove(name);
        }
    }
    if !is_edge {
        return;
    }
    if ask_something {
        for name in EDGE_ONLY {
            headers.remove(name);
        }
    }
    if let Ok(address) = HeaderValue::try_from(client.address.to_string()) {
        headers.insert(EXTERNAL_ADDRESS, address);
    }
}

/// Where the peer is the client, proxies that are configured to be in front are believed; else whoever comes last.
fn client(headers: &HeaderMap, peer: IpAddr, config: &HttpConfig) -> Client {
    if !config.use_remote_address && !present::has(headers, &FORWARDED_FOR) {
        return Client {
            address: peer,
            is_first_hop: false,
        };
    }
    let hops = config.forwarding.trusted_hops as usize;
    if config.use_remote_address {
        let named = hops.checked_sub(1).and_then(|skipped| {
            let before = joined(headers)?;
            from_the_end(&before, skipped)
        });
        return Client {
            address: named.unwrap_or(peer),
            is_first_hop: !headers.contains_key(FORWARDED_FOR),
        };
    }
    let before = joined(headers).unwrap_or_default();
    let named = from_the_end(&before, hops);
    Client {
        address: named.unwrap_or(peer),
        is_first_hop: named.is_some() && hops == 0 && !before.contains(','),
    }
}

/// The address that is so many places before the last.
fn from_the_end(addresses: &str, skipped: usize) -> Option<IpAddr> {
    let address: IpAddr = addresses.rsplit(',').nth(skipped)?.trim().parse().ok()?;
    Some(address.to_canonical())
}

/// All lines of `x-forwarded-for` in one; nothing where one is no text.
fn joined(headers: &HeaderMap) -> Option<String> {
    let lines = headers.get_all(FORWARDED_FOR).iter();
    let lines: Result<Vec<&str>, _> = lines.map(HeaderValue::to_str).collect();
    Some(lines.ok()?.join(","))
}

/// Makes all lines of a header one, and this its end.
fn append(headers: &mut HeaderMap, name: &HeaderName, value: &str, separator: &str) {
    let mut line = Vec::new();
    for before in headers.get_all(name) {
        if !line.is_empty() {
            line.extend(separator.bytes());
        }
        line.extend(before.as_bytes());
    }
    if !line.is_empty() {
        line.extend(separator.bytes());
    }
    line.extend(value.bytes());
    if let Ok(line) = HeaderValue::from_bytes(&line) {
        headers.insert(name.clone(), line);
    }
}

/// Tells the client what it passed through.
pub(super) fn send_back<B>(
    response: &mut Response<B>,
    options: &ForwardingOptions,
    completion: &Completion,
) {
    let headers = response.headers_mut();
    if let Some(via) = &options.via {
        append(headers, &header::VIA, via, ", ");
    }
    match &options.server {
        ServerHeader::Upstreams => {}
        ServerHeader::Overwritten(name) => drop(headers.insert(header::SERVER, name.clone())),
        ServerHeader::IfAbsent(name) => {
            headers.entry(header::SERVER).or_insert(name.clone());
        }
    }
    if options.returns_request_id
        && let Some(id) = completion.request_id()
    {
        headers.insert(REQUEST_ID, id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_counted_from_the_end() {
        let address = |text: &str| Some(text.parse::<IpAddr>().expect("an address"));

        assert_eq!(from_the_end("1.2.3.4, 5.6.7.8", 0), address("5.6.7.8"));
        assert_eq!(from_the_end("1.2.3.4, 5.6.7.8", 1), address("1.2.3.4"));
        assert_eq!(from_the_end("1.2.3.4, 5.6.7.8", 2), None);
        assert_eq!(from_the_end("1.2.3.4, unknown", 0), None);
        assert_eq!(from_the_end("", 0), None);
    }

    #[test]
    fn lines_of_a_header_become_one() {
        let mut headers = HeaderMap::new();
        headers.append(FORWARDED_FOR, HeaderValue::from_static("1.2.3.4"));
        headers.append(FORWARDED_FOR, HeaderValue::from_static("5.6.7.8"));

        append(&mut headers, &FORWARDED_FOR, "9.9.9.9", ",");

        let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
        assert_eq!(lines, ["1.2.3.4,5.6.7.8,9.9.9.9"]);
    }
}
