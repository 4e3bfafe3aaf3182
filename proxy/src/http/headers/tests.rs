//! Headers that end here, go on, and are written.

use super::*;

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
