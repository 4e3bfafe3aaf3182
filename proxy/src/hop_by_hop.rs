//! Headers that are for one connection only (RFC 9110 §7.6.1): they end where it does.
//!
//! HTTP/2 has none of them but `TE`, and the library refuses a head with any (RFC 9113 §8.2.2).

use http::header::{CONNECTION, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");

/// Ends what is for one connection only, and what `Connection` says is.
pub fn end(headers: &mut HeaderMap) {
    if !headers.keys().any(is_of_connection) {
        return;
    }
    // As often as it comes: what a line that is passed over names would go on.
    let others: Vec<_> = headers
        .get_all(CONNECTION)
        .iter()
        .skip(1)
        .cloned()
        .collect();
    let first = headers.remove(CONNECTION);
    for connection in first.iter().chain(&others) {
        let named = connection
            .to_str()
            .unwrap_or_default()
            .split(',')
            .map(str::trim);
        for name in named.filter(|name| !name.is_empty()) {
            // TE is for this connection, and what it may say is checked below.
            if !name.eq_ignore_ascii_case("te") {
                headers.remove(name);
            }
        }
    }
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TRANSFER_ENCODING, UPGRADE] {
        headers.remove(name);
    }
    only_trailers(headers);
}

/// Whether a header is for one connection only, whatever `Connection` says.
fn is_of_connection(name: &HeaderName) -> bool {
    matches!(
        name.as_str(),
        "connection" | "keep-alive" | "proxy-connection" | "te" | "transfer-encoding" | "upgrade"
    )
}

/// Trailers are forwarded, and gRPC insists on being told; of anything else that `TE` says nothing is.
fn only_trailers(headers: &mut HeaderMap) {
    let mut lines = headers.get_all(TE).iter();
    let Some(first) = lines.next() else { return };
    if lines.next().is_none() && first.as_bytes().eq_ignore_ascii_case(b"trailers") {
        return;
    }
    let has_trailers = headers.get_all(TE).iter().any(|line| {
        let line = line.as_bytes().to_ascii_lowercase();
        line.windows(8).any(|part| part == b"trailers")
    });
    headers.remove(TE);
    if has_trailers {
        headers.insert(TE, HeaderValue::from_static("trailers"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        fields
            .iter()
            .map(|(name, value)| {
                (
                    HeaderName::from_static(name),
                    HeaderValue::from_static(value),
                )
            })
            .collect()
    }

    #[test]
    fn what_connection_names_ends_here() {
        let mut headers = headers(&[
            ("connection", "close, X-Private"),
            ("x-private", "1"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("te", "trailers"),
            ("x-public", "1"),
        ]);

        end(&mut headers);

        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["te", "x-public"]);
    }

    #[test]
    fn a_second_line_of_connection_is_as_good_as_the_first() {
        let mut headers = headers(&[("x-private", "1"), ("x-other", "1")]);
        for named in ["keep-alive", "x-private", "x-other"] {
            headers.append("connection", HeaderValue::from_static(named));
        }
        for coding in ["gzip", "trailers"] {
            headers.append("te", HeaderValue::from_static(coding));
        }

        end(&mut headers);

        assert_eq!(headers.len(), 1, "{headers:?}");
        assert_eq!(headers["te"], "trailers");
    }

    #[test]
    fn of_te_only_trailers_are_forwarded() {
        let mut mixed = headers(&[("te", "gzip, trailers;q=0.5")]);
        let mut other = headers(&[("te", "gzip")]);

        end(&mut mixed);
        end(&mut other);

        assert_eq!(
            mixed.get("te").map(HeaderValue::as_bytes),
            Some(&b"trailers"[..])
        );
        assert!(other.is_empty());
    }
}
