//! Bodies that are compressed or decompressed on their way.

use weft_proto::Any;
use weft_proto::envoy::config::core::v3::TypedExtensionConfig;
use weft_proto::envoy::extensions::compression::brotli::compressor::v3::Brotli;
use weft_proto::envoy::extensions::compression::brotli::decompressor::v3::Brotli as BrotliBack;
use weft_proto::envoy::extensions::compression::gzip::compressor::v3::Gzip;
use weft_proto::envoy::extensions::compression::gzip::decompressor::v3::Gzip as GzipBack;
use weft_proto::envoy::extensions::compression::zstd::compressor::v3::Zstd;
use weft_proto::envoy::extensions::compression::zstd::decompressor::v3::Zstd as ZstdBack;
use weft_proto::envoy::extensions::filters::http::compressor::v3::compressor::CommonDirectionConfig;
use weft_proto::envoy::extensions::filters::http::compressor::v3::compressor_per_route::Override;
use weft_proto::envoy::extensions::filters::http::compressor::v3::{
    Compressor, CompressorPerRoute,
};
use weft_proto::envoy::extensions::filters::http::decompressor::v3::Decompressor;
use weft_proto::envoy::extensions::filters::http::decompressor::v3::decompressor::CommonDirectionConfig as Back;

use super::super::at::{At, Invalid, harmless, holds, opened, required, unsupported};
use super::super::text::text_match;
use super::ext_authz::feature;
use crate::config::filter::FilterOverride;
use crate::config::filter::compression::{
    Coding, CompressedBodies, CompressorConfig, DecompressedBodies, DecompressorConfig,
};
use crate::config::filter::live::Live;
use crate::config::matching::TextMatch;

/// Envoy's.
const DEFAULT_MIN_LENGTH: u32 = 30;
/// Envoy's.
const DEFAULT_TYPES: [&str; 18] = [
    "text/html",
    "text/plain",
    "text/css",
    "text/xml",
    "text/javascript",
    "text/x-javascript",
    "text/ecmascript",
    "text/js",
    "text/jscript",
    "text/x-js",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/json",
    "application/x-json",
    "application/xml",
    "application/xhtml+xml",
    "image/svg+xml",
];
/// Envoy's, and zlib's.
const DEFAULT_GZIP_LEVEL: u32 = 6;
/// Envoy's.
const DEFAULT_BROTLI: (u32, u32) = (3, 18);
/// zstd's.
const DEFAULT_ZSTD_LEVEL: i32 = 3;
/// Envoy's.
const DEFAULT_MAX_RATIO: u32 = 100;

/// The filter that compresses.
pub(super) fn compressor(at: &At<'_>, wire: &Compressor) -> Result<CompressorConfig, Invalid> {
    let Compressor {
        content_length,
        content_type,
        disable_on_etag_header,
        remove_accept_encoding_header,
        runtime_enabled,
        compressor_library,
        request_direction_config,
        response_direction_config,
        choose_first,
    } = wire;
    let old = CommonDirectionConfig {
        enabled: runtime_enabled.clone(),
        min_content_length: *content_length,
        content_type: content_type.clone(),
        content_type_matcher: vec![],
    };
    let response = match response_direction_config {
        None => {
            let bodies = bodies(at, &old, true)?;
            bodies.map(|bodies| CompressedBodies {
                spares_etags: *disable_on_etag_header,
                hides_accepted: *remove_accept_encoding_header,
                ..bodies
            })
        }
        Some(wire) => {
            let at = at.field("response_direction_config");
            let status_header_enabled = &wire.status_header_enabled;
            unsupported!(at; status_header_enabled);
            let common = wire.common_config.clone().unwrap_or_default();
            let bodies = bodies(&at.field("common_config"), &common, true)?;
            let statuses = wire.uncompressible_response_codes.iter();
            bodies.map(|bodies| CompressedBodies {
                spares_etags: wire.disable_on_etag_header,
                weakens_etags: wire.weaken_etag_on_compress,
                hides_accepted: wire.remove_accept_encoding_header,
                spared_statuses: statuses
                    .filter_map(|code| u16::try_from(*code).ok())
                    .collect(),
                ..bodies
            })
        }
    };
    let request = match request_direction_config {
        None => None,
        Some(wire) => {
            let at = at.field("request_direction_config");
            let common = wire.common_config.clone().unwrap_or_default();
            bodies(&at.field("common_config"), &common, false)?
        }
    };
    let at_library = at.field("compressor_library");
    let (library, any) = library(&at_library, compressor_library.as_ref())?;
    Ok(CompressorConfig {
        coding: coding(&at_library.field("typed_config"), any)?,
        library: library.into(),
        request,
        response,
        is_first: *choose_first,
        response_prefix: match response_direction_config {
            Some(_) => "response.",
            None => "",
        },
        live: Live::default(),
    })
}

/// For a part of the routes.
pub(super) fn per_route(at: &At<'_>, wire: &CompressorPerRoute) -> Result<FilterOverride, Invalid> {
    let CompressorPerRoute { r#override } = wire;
    match required(&at.field("override"), r#override.as_ref())? {
        Override::Disabled(true) => Ok(FilterOverride::Disabled),
        Override::Disabled(false) => Err(at.field("disabled").refuse("must be true")),
        Override::Overrides(_) => Err(at.field("overrides").refuse("not supported")),
    }
}

/// None where they are not compressed.
fn bodies(
    at: &At<'_>,
    wire: &CommonDirectionConfig,
    default: bool,
) -> Result<Option<CompressedBodies>, Invalid> {
    let CommonDirectionConfig {
        enabled,
        min_content_length,
        content_type,
        content_type_matcher,
    } = wire;
    if !feature(&at.field("enabled"), enabled.as_ref(), default)? {
        return Ok(None);
    }
    let at_matcher = at.field("content_type_matcher");
    let exact = content_type.iter().map(|kind| Ok(content_kind(kind)));
    let matching = content_type_matcher.iter().enumerate();
    let matching = matching.map(|(index, wire)| text_match(&at_matcher.index(index), wire));
    let mut types: Vec<_> = exact.chain(matching).collect::<Result<_, Invalid>>()?;
    if types.is_empty() {
        types = DEFAULT_TYPES.map(content_kind).into();
    }
    Ok(Some(CompressedBodies {
        min_length: min_content_length.unwrap_or(DEFAULT_MIN_LENGTH).into(),
        types,
        spares_etags: false,
        weakens_etags: false,
        hides_accepted: false,
        spared_statuses: vec![],
    }))
}

/// Names of types are the same in upper and lower case (RFC 9110 §8.3.1).
fn content_kind(kind: &str) -> TextMatch {
    TextMatch {
        ignore_case: true,
        ..TextMatch::exact(kind)
    }
}

fn library<'wire>(
    at: &At<'_>,
    wire: Option<&'wire TypedExtensionConfig>,
) -> Result<(&'wire str, &'wire Any), Invalid> {
    let TypedExtensionConfig { name, typed_config } = required(at, wire)?;
    let any = required(&at.field("typed_config"), typed_config.as_ref())?;
    Ok((name, any))
}

fn coding(at: &At<'_>, any: &Any) -> Result<Coding, Invalid> {
    if holds::<Gzip>(any) {
        let wire: Gzip = opened(at, any)?;
        let Gzip {
            memory_level,
            compression_level,
            compression_strategy,
            window_bits,
            chunk_size,
        } = &wire;
        harmless!(at; memory_level, compression_strategy, window_bits, chunk_size);
        return Ok(Coding::Gzip(match u32::try_from(*compression_level) {
            Ok(0) | Err(_) => DEFAULT_GZIP_LEVEL,
            Ok(level) => level.min(9),
        }));
    }
    if holds::<Brotli>(any) {
        let wire: Brotli = opened(at, any)?;
        let (quality, window) = DEFAULT_BROTLI;
        let quality = wire.quality.unwrap_or(quality).min(11);
        let window = wire.window_bits.unwrap_or(window).clamp(10, 24);
        return Ok(Coding::Brotli(quality, window));
    }
    if holds::<Zstd>(any) {
        let wire: Zstd = opened(at, any)?;
        let dictionary = &wire.dictionary;
        unsupported!(at; dictionary);
        let level = wire
            .compression_level
            .and_then(|level| i32::try_from(level).ok());
        return Ok(Coding::Zstd(
            level.unwrap_or(DEFAULT_ZSTD_LEVEL).clamp(1, 22),
        ));
    }
    Err(at.refuse_value(&any.type_url))
}

/// The filter that decompresses.
pub(super) fn decompressor(
    at: &At<'_>,
    wire: &Decompressor,
) -> Result<DecompressorConfig, Invalid> {
    let Decompressor {
        decompressor_library,
        request_direction_config,
        response_direction_config,
    } = wire;
    let at_library = at.field("decompressor_library");
    let (library, any) = library(&at_library, decompressor_library.as_ref())?;
    let (coding, max_ratio) = back(&at_library.field("typed_config"), any)?;
    let at_request = at.field("request_direction_config");
    let at_response = at.field("response_direction_config");
    let request = request_direction_config.as_ref();
    let response = response_direction_config.as_ref();
    Ok(DecompressorConfig {
        coding,
        library: library.into(),
        max_ratio: max_ratio.into(),
        request: direction(
            &at_request.field("common_config"),
            request.and_then(|wire| wire.common_config.as_ref()),
        )?,
        advertises: request
            .and_then(|wire| wire.advertise_accept_encoding)
            .unwrap_or(true),
        response: direction(
            &at_response.field("common_config"),
            response.and_then(|wire| wire.common_config.as_ref()),
        )?,
        live: Live::default(),
    })
}

fn direction(at: &At<'_>, wire: Option<&Back>) -> Result<DecompressedBodies, Invalid> {
    let default = Back::default();
    let Back {
        enabled,
        ignore_no_transform_header,
    } = wire.unwrap_or(&default);
    Ok(DecompressedBodies {
        is_enabled: feature(&at.field("enabled"), enabled.as_ref(), true)?,
        ignores_no_transform: *ignore_no_transform_header,
    })
}

fn back(at: &At<'_>, any: &Any) -> Result<(Coding, u32), Invalid> {
    if holds::<GzipBack>(any) {
        let wire: GzipBack = opened(at, any)?;
        let ratio = wire.max_inflate_ratio.unwrap_or(DEFAULT_MAX_RATIO);
        return Ok((Coding::Gzip(DEFAULT_GZIP_LEVEL), ratio));
    }
    if holds::<BrotliBack>(any) {
        let (quality, window) = DEFAULT_BROTLI;
        return Ok((Coding::Brotli(quality, window), DEFAULT_MAX_RATIO));
    }
    if holds::<ZstdBack>(any) {
        let wire: ZstdBack = opened(at, any)?;
        let dictionaries = &wire.dictionaries;
        unsupported!(at; dictionaries);
        return Ok((Coding::Zstd(DEFAULT_ZSTD_LEVEL), DEFAULT_MAX_RATIO));
    }
    Err(at.refuse_value(&any.type_url))
}
