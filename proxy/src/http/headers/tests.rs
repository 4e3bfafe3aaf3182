//! Headers that end here, go on, and are written.

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

    end_hop_by_hop(&mut headers);

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

    end_hop_by_hop(&mut headers);

    assert_eq!(headers.len(), 1, "{headers:?}");
    assert_eq!(headers["te"], "trailers");
}

#[test]
fn of_te_only_trailers_are_forwarded() {
    let mut mixed = headers(&[("te", "gzip, trailers;q=0.5")]);
    let mut other = headers(&[("te", "gzip")]);

    end_hop_by_hop(&mut mixed);
    end_hop_by_hop(&mut other);

    assert_eq!(
        mixed.get("te").map(HeaderValue::as_bytes),
        Some(&b"trailers"[..])
    );
    assert!(other.is_empty());
}

#[test]
fn the_host_before_is_told_once() {
    let mut headers = HeaderMap::new();
    let before = HeaderValue::from_static("a");

    remember_host(&mut headers, Some(&before), true, true);
    remember_host(&mut headers, Some(&before), true, true);
    assert_eq!(headers["x-forwarded-host"], "a");
    assert_eq!(headers["x-envoy-original-host"], "a");

    remember_host(
        &mut headers,
        Some(&HeaderValue::from_static("b")),
        false,
        true,
    );
    assert_eq!(headers["x-forwarded-host"], "a,b");
    assert_eq!(headers["x-envoy-original-host"], "a");
}

#[test]
fn a_small_number_reads_as_a_large_one_does() {
    for count in [0, 9, 10, 10, 12_345, 10, u64::MAX] {
        assert_eq!(number(count), count.to_string());
    }
}

#[test]
fn no_request_id_changes_when_others_are_made() {
    let ids: Vec<_> = (0..100).map(|_| random_request_id()).collect();

    let different: std::collections::HashSet<_> = ids.iter().collect();
    assert_eq!(different.len(), ids.len());
    assert!(ids.iter().all(|id| id.len() == 36), "{ids:?}");
}

#[test]
fn a_request_id_is_a_random_uuid() {
    let id = random_request_id();
    let text = id.to_str().expect("text");

    assert_eq!(text.len(), 36);
    for (position, byte) in text.bytes().enumerate() {
        let is_dash = matches!(position, 8 | 13 | 18 | 23);
        assert_eq!(byte == b'-', is_dash, "{text}");
        assert!(is_dash || byte.is_ascii_hexdigit(), "{text}");
    }
    assert_eq!(&text[14..15], "4");
    assert!(matches!(&text[19..20], "8" | "9" | "a" | "b"));
    assert_ne!(id, random_request_id());
}
