//! Compression and decompression of bodies, one frame at a time.
//!
//! What a client accepts decides which of the chain's compressors, if any, is for its response.

mod body;
mod codec;
#[cfg(any(test, feature = "fuzzing"))]
pub(super) mod fuzzing;

use http::header::{self, HeaderMap, HeaderName};
use http::{HeaderValue, StatusCode};
use http_body::Body as _;

use self::body::Recoded;
use self::codec::{Decoder, Encoder};
use super::Passing;
use crate::config::filter::FilterKind;
use crate::config::filter::compression::{
    CompressedBodies, CompressorConfig, DecompressedBodies, DecompressorConfig,
};
use crate::telemetry::counters::counted;
use crate::upstream::body::BodyError;

counted! {
    /// What is counted of bodies that may be compressed.
    pub(super) struct Compressed { compressed, not_compressed, total_uncompressed_bytes, total_compressed_bytes }
}
counted! {
    /// What is counted of bodies that may be compressed already.
    struct Decompressed { decompressed, not_decompressed }
}

/// Of both directions.
struct DecompressorStats {
    request: Decompressed,
    response: Decompressed,
}

/// Compresses a request's body, and its response's when it comes.
pub(super) fn compress(config: &CompressorConfig, passing: &mut Passing<'_>) {
    if let Some(bodies) = &config.request {
        compress_request(config, bodies, passing);
    }
    let Some(bodies) = &config.response else {
        return;
    };
    let is_accepted = is_chosen(config, passing);
    if bodies.hides_accepted {
        passing.head.headers.remove(header::ACCEPT_ENCODING);
    }
    let stats = stats(config, config.response_prefix, passing);
    let (coding, bodies) = (config.coding, bodies.clone());
    passing.passage.on_response(move |returning| {
        let status = returning.response.status();
        let has_body = !returning.response.body().is_end_stream();
        let headers = returning.response.headers_mut();
        let is_spared = bodies.spared_statuses.contains(&status.as_u16())
            || status == StatusCode::SWITCHING_PROTOCOLS;
        let is_compressible = !is_spared && is_compressible(&bodies, headers);
        if is_compressible {
            // Caches must know that another client may get it compressed; also from a response without its body.
            vary_by_accepted(headers);
        }
        if !is_compressible || !is_accepted || !has_body {
            stats.not_compressed.increment();
            return;
        }
        stats.compressed.increment();
        mark_compressed(&bodies, coding.name(), headers);
        let body = returning.response.body_mut();
        body.filtered(|inner| {
            let to_error = crate::http::body::SourceError::Filter;
            Recoded::new(inner, Encoder::new(coding, stats), to_error)
        });
    });
}

fn compress_request(
    config: &CompressorConfig,
    bodies: &CompressedBodies,
    passing: &mut Passing<'_>,
) {
    let stats = stats(config, "request.", passing);
    let headers = &mut passing.head.headers;
    if passing.body.is_end_stream() || !is_compressible(bodies, headers) {
        stats.not_compressed.increment();
        return;
    }
    stats.compressed.increment();
    headers.remove(header::CONTENT_LENGTH);
    let name = HeaderValue::from_static(config.coding.name());
    headers.insert(header::CONTENT_ENCODING, name);
    let encoder = Encoder::new(config.coding, stats);
    let body = std::mem::take(passing.body);
    *passing.body = body.filtered(|inner| Recoded::new(inner, encoder, BodyError::Filter));
}

fn stats(config: &CompressorConfig, direction: &str, passing: &Passing<'_>) -> Compressed {
    let prefix = format!(
        "http.{}.compressor.{}.{}.{direction}",
        passing.stat_prefix(),
        config.library,
        config.coding.stat_name(),
    );
    Compressed::new(&passing.connection.environment.counters, &prefix)
}

/// Whether the client prefers this compressor of the chain to the others, and to none.
fn is_chosen(config: &CompressorConfig, passing: &Passing<'_>) -> bool {
    let Some(accepted) = accepted(&passing.head.headers) else {
        return false;
    };
    let own = weight(&accepted, config.coding.name());
    if own == 0 || prefers_identity(&accepted, config.coding.name()) {
        return false;
    }
    let filters = passing.scene.service.filters.iter();
    let others = filters.filter_map(|filter| match &filter.kind {
        FilterKind::Compressor(other) if other.coding.name() != config.coding.name() => Some(other),
        _ => None,
    });
    others.into_iter().all(|other| {
        let weight = weight(&accepted, other.coding.name());
        weight < own || (weight == own && (config.is_first || !other.is_first))
    })
}

/// Whether a client likes a body as it is better than in this coding, or says so first.
fn prefers_identity(accepted: &[(String, u32)], coding: &str) -> bool {
    let of = |name: &str| accepted.iter().position(|(one, _)| one == name);
    let place = |position: usize| (std::cmp::Reverse(accepted[position].1), position);
    let coding = of(coding).or_else(|| of("*"));
    match (of("identity"), coding) {
        (Some(identity), Some(coding)) => place(identity) < place(coding),
        _ => false,
    }
}

/// Codings and their weights in thousandths (RFC 9110 §12.5.3).
fn accepted(headers: &HeaderMap) -> Option<Vec<(String, u32)>> {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter();
    let texts: Vec<_> = values.filter_map(|value| value.to_str().ok()).collect();
    if texts.is_empty() {
        return None;
    }
    let parts = texts.iter().flat_map(|text| text.split(','));
    Some(parts.filter_map(one_accepted).collect())
}

fn one_accepted(part: &str) -> Option<(String, u32)> {
    let mut pieces = part.split(';');
    let name = pieces.next()?.trim().to_ascii_lowercase();
    let weight = pieces.find_map(|piece| piece.trim().strip_prefix("q="));
    let weight = match weight {
        None => 1000,
        Some(text) => thousandths(text)?,
    };
    (!name.is_empty()).then_some((name, weight))
}

fn thousandths(text: &str) -> Option<u32> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let rest = format!("{rest:0<3}");
    let whole: u32 = whole.parse().ok()?;
    let weight = whole
        .checked_mul(1000)?
        .checked_add(rest.get(..3)?.parse().ok()?)?;
    (weight <= 1000).then_some(weight)
}

fn weight(accepted: &[(String, u32)], name: &str) -> u32 {
    let of = |name: &str| accepted.iter().find(|(one, _)| one == name);
    of(name)
        .or_else(|| of("*"))
        .map_or(0, |(_, weight)| *weight)
}

fn is_compressible(bodies: &CompressedBodies, headers: &HeaderMap) -> bool {
    let text = |name: HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let length: Option<u64> = text(header::CONTENT_LENGTH).and_then(|text| text.parse().ok());
    let kind = text(header::CONTENT_TYPE).map(|kind| kind.split(';').next().unwrap_or(kind).trim());
    !headers.contains_key(header::CONTENT_ENCODING)
        && length.is_none_or(|length| length >= bodies.min_length)
        && kind.is_none_or(|kind| bodies.types.iter().any(|test| test.is_match(kind)))
        && !(bodies.spares_etags && headers.contains_key(header::ETAG))
        && !must_stay(headers)
}

fn must_stay(headers: &HeaderMap) -> bool {
    let values = headers.get_all(header::CACHE_CONTROL).iter();
    let mut texts = values.filter_map(|value| value.to_str().ok());
    texts.any(|text| text.to_ascii_lowercase().contains("no-transform"))
}

fn mark_compressed(bodies: &CompressedBodies, name: &'static str, headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_LENGTH);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static(name));
    // A strong tag is of the very bytes (RFC 9110 §8.8.3), which are others now.
    let tag = headers.get(header::ETAG).and_then(|tag| tag.to_str().ok());
    let Some(strong) = tag.filter(|tag| !tag.starts_with("W/")) else {
        return;
    };
    match HeaderValue::try_from(format!("W/{strong}")) {
        Ok(weak) if bodies.weakens_etags => {
            headers.insert(header::ETAG, weak);
        }
        _ => {
            headers.remove(header::ETAG);
        }
    }
}

fn vary_by_accepted(headers: &mut HeaderMap) {
    let accept = HeaderValue::from_static("Accept-Encoding");
    let vary = headers
        .get(header::VARY)
        .and_then(|vary| vary.to_str().ok());
    let varied = match vary {
        None => Some(accept),
        // As in Envoy, which does not find it in small letters.
        Some(vary) if vary.contains("Accept-Encoding") => None,
        Some(vary) => HeaderValue::try_from(format!("{vary}, Accept-Encoding")).ok(),
    };
    if let Some(varied) = varied {
        headers.insert(header::VARY, varied);
    }
}

/// Decompresses a request's body, and its response's when it comes.
pub(super) fn decompress(config: &DecompressorConfig, passing: &mut Passing<'_>) {
    let stats = config.live.get_or_init(|| {
        let all = format!(
            "http.{}.decompressor.{}.{}.",
            passing.stat_prefix(),
            config.library,
            config.coding.stat_name(),
        );
        let counters = &passing.connection.environment.counters;
        DecompressorStats {
            request: Decompressed::new(counters, &format!("{all}request.")),
            response: Decompressed::new(counters, &format!("{all}response.")),
        }
    });
    let (coding, ratio) = (config.coding, config.max_ratio);
    let headers = &mut passing.head.headers;
    if config.advertises {
        advertise(coding.name(), headers);
    }
    let is_coded = is_coded(config.request, coding.name(), headers);
    if is_coded && !passing.body.is_end_stream() {
        stats.request.decompressed.increment();
        mark_decompressed(headers);
        let body = std::mem::take(passing.body);
        let decoder = Decoder::new(coding, ratio);
        *passing.body = body.filtered(|inner| Recoded::new(inner, decoder, BodyError::Filter));
    } else {
        stats.request.not_decompressed.increment();
    }
    let bodies = config.response;
    let (done, spared) = (
        std::sync::Arc::clone(&stats.response.decompressed),
        std::sync::Arc::clone(&stats.response.not_decompressed),
    );
    passing.passage.on_response(move |returning| {
        let has_body = !returning.response.body().is_end_stream();
        let headers = returning.response.headers_mut();
        if !has_body || !self::is_coded(bodies, coding.name(), headers) {
            return spared.increment();
        }
        done.increment();
        mark_decompressed(headers);
        let body = returning.response.body_mut();
        body.filtered(|inner| {
            let to_error = crate::http::body::SourceError::Filter;
            Recoded::new(inner, Decoder::new(coding, ratio), to_error)
        });
    });
}

fn is_coded(bodies: DecompressedBodies, name: &str, headers: &HeaderMap) -> bool {
    let coding = headers.get(header::CONTENT_ENCODING);
    let is_it =
        coding.is_some_and(|coding| coding.as_bytes().eq_ignore_ascii_case(name.as_bytes()));
    bodies.is_enabled && is_it && (bodies.ignores_no_transform || !must_stay(headers))
}

fn mark_decompressed(headers: &mut HeaderMap) {
    headers.remove(header::CONTENT_ENCODING);
    headers.remove(header::CONTENT_LENGTH);
}

fn advertise(name: &'static str, headers: &mut HeaderMap) {
    let before = headers.get(header::ACCEPT_ENCODING);
    let before = before.and_then(|value| value.to_str().ok());
    let accepted = match before {
        None | Some("") => Ok(HeaderValue::from_static(name)),
        Some(before) if before.split(',').any(|one| one.trim() == name) => return,
        Some(before) => HeaderValue::try_from(format!("{before},{name}")),
    };
    if let Ok(accepted) = accepted {
        headers.insert(header::ACCEPT_ENCODING, accepted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::matching::TextMatch;

    fn headers(fields: &[(HeaderName, &'static str)]) -> HeaderMap {
        let fields = fields.iter().cloned();
        fields
            .map(|(name, value)| (name, HeaderValue::from_static(value)))
            .collect()
    }

    fn bodies() -> CompressedBodies {
        CompressedBodies {
            min_length: 30,
            types: vec![TextMatch::exact("text/plain")],
            spares_etags: false,
            weakens_etags: false,
            hides_accepted: false,
            spared_statuses: vec![],
        }
    }

    #[test]
    fn what_a_client_accepts_has_a_weight() {
        let all = headers(&[(header::ACCEPT_ENCODING, "gzip;q=0.5, br, zstd;q=0, *;q=0.1")]);
        let accepted = accepted(&all).expect("some");

        assert_eq!(weight(&accepted, "gzip"), 500);
        assert_eq!(weight(&accepted, "br"), 1000);
        assert_eq!(weight(&accepted, "zstd"), 0);
        assert_eq!(weight(&accepted, "deflate"), 100);
        assert_eq!(thousandths("2"), None);
        assert_eq!(thousandths("x"), None);
    }

    #[test]
    fn only_what_is_worth_it_and_may_be_is_compressed() {
        let plain = (header::CONTENT_TYPE, "text/plain; charset=utf-8");
        let with = |more| is_compressible(&bodies(), &headers(&[plain.clone(), more]));

        assert!(with((header::CONTENT_LENGTH, "30")));
        assert!(!with((header::CONTENT_LENGTH, "29")));
        assert!(!with((header::CONTENT_ENCODING, "br")));
        assert!(!with((header::CACHE_CONTROL, "private, no-transform")));
        assert!(!is_compressible(
            &bodies(),
            &headers(&[(header::CONTENT_TYPE, "image/png")])
        ));
    }

    #[test]
    fn a_strong_tag_does_not_outlive_compression() {
        let mut strong = headers(&[(header::ETAG, "\"a\""), (header::VARY, "Origin")]);
        mark_compressed(&bodies(), "gzip", &mut strong);
        vary_by_accepted(&mut strong);
        assert!(!strong.contains_key(header::ETAG));
        assert_eq!(strong[header::VARY], "Origin, Accept-Encoding");

        let mut weak = headers(&[(header::ETAG, "W/\"a\"")]);
        mark_compressed(&bodies(), "gzip", &mut weak);
        assert_eq!(weak[header::ETAG], "W/\"a\"");
    }
}
