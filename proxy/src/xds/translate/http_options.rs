//! Options of HTTP that listeners and clusters share.

use std::time::Duration;

use weft_proto::envoy::config::core::v3::http_protocol_options::HeadersWithUnderscoresAction;
use weft_proto::envoy::config::core::v3::{
    Http2ProtocolOptions, HttpProtocolOptions, KeepaliveSettings,
};

use super::at::{At, Invalid, duration, enumeration, harmless, limit, unsupported};
use super::share::percent;
use crate::config::http::{
    DEFAULT_MAX_HEADER_BYTES, DEFAULT_MAX_HEADERS, Http2Options, UnderscoredNames,
};
use crate::config::lifespan::Lifespan;
use crate::config::percent::Percent;

/// Options of every version of HTTP.
#[derive(Debug, Clone)]
pub(super) struct CommonOptions {
    /// How long a connection may be without requests.
    pub(super) idle_timeout: Option<Duration>,
    /// How long a connection is used.
    pub(super) lifespan: Lifespan,
    /// From the beginning of a request to the end of its response.
    pub(super) max_stream_duration: Option<Duration>,
    /// What becomes of header names with underscores.
    pub(super) underscored_names: UnderscoredNames,
    /// How many headers a message may have.
    pub(super) max_headers: usize,
    /// Header bytes of a response.
    pub(super) max_response_header_bytes: u32,
}

/// Options of every version of HTTP; `idle_timeout` holds where they say nothing.
pub(super) fn common_options(
    at: &At<'_>,
    wire: Option<&HttpProtocolOptions>,
    idle_timeout: Option<Duration>,
) -> Result<CommonOptions, Invalid> {
    let Some(wire) = wire else {
        return Ok(CommonOptions {
            idle_timeout,
            lifespan: Lifespan::default(),
            max_stream_duration: None,
            underscored_names: UnderscoredNames::default(),
            max_headers: DEFAULT_MAX_HEADERS,
            max_response_header_bytes: DEFAULT_MAX_HEADER_BYTES,
        });
    };
    let HttpProtocolOptions {
        idle_timeout: idle,
        max_connection_duration,
        max_connection_duration_jitter,
        max_headers_count,
        max_response_headers_kb,
        max_stream_duration,
        headers_with_underscores_action,
        max_requests_per_connection,
    } = wire;
    let at_action = at.field("headers_with_underscores_action");
    let underscored_names = match enumeration(&at_action, *headers_with_underscores_action)? {
        HeadersWithUnderscoresAction::Allow => UnderscoredNames::Kept,
        HeadersWithUnderscoresAction::RejectRequest => UnderscoredNames::Refused,
        HeadersWithUnderscoresAction::DropHeader => UnderscoredNames::Dropped,
    };
    Ok(CommonOptions {
        idle_timeout: limit(&at.field("idle_timeout"), idle.as_ref(), idle_timeout)?,
        lifespan: Lifespan {
            max_requests: max_requests_per_connection.filter(|max| *max > 0),
            max_duration: limit(
                &at.field("max_connection_duration"),
                max_connection_duration.as_ref(),
                None,
            )?,
            jitter: max_connection_duration_jitter
                .as_ref()
                .map_or(Ok(Percent::ZERO), |wire| {
                    percent(&at.field("max_connection_duration_jitter"), wire)
                })?,
            waits_for_response: false,
        },
        max_stream_duration: limit(
            &at.field("max_stream_duration"),
            max_stream_duration.as_ref(),
            None,
        )?,
        underscored_names,
        max_headers: max_headers_count.map_or(DEFAULT_MAX_HEADERS, |max| max as usize),
        max_response_header_bytes: max_response_headers_kb
            .map_or(DEFAULT_MAX_HEADER_BYTES, |kilobytes| {
                kilobytes.saturating_mul(1024)
            }),
    })
}

/// Options of HTTP/2.
pub(super) fn http2_options(
    at: &At<'_>,
    wire: Option<&Http2ProtocolOptions>,
) -> Result<Http2Options, Invalid> {
    let Some(wire) = wire else {
        return Ok(Http2Options::default());
    };
    let Http2ProtocolOptions {
        hpack_table_size,
        max_concurrent_streams,
        initial_stream_window_size,
        initial_connection_window_size,
        allow_connect,
        allow_metadata,
        max_outbound_frames,
        max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload,
        max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent,
        stream_error_on_invalid_http_messaging,
        override_stream_error_on_invalid_http_message,
        custom_settings_parameters,
        connection_keepalive,
        use_oghttp2_codec,
        max_metadata_size,
        enable_huffman_encoding,
        max_header_field_size_kb,
        disallow_obs_text,
        stream_reset_burst,
        stream_reset_rate,
    } = wire;
    unsupported!(at; allow_metadata, custom_settings_parameters);
    harmless!(at; hpack_table_size, max_outbound_frames, max_outbound_control_frames,
        max_consecutive_inbound_frames_with_empty_payload, max_inbound_priority_frames_per_stream,
        max_inbound_window_update_frames_per_data_frame_sent, use_oghttp2_codec, max_metadata_size,
        enable_huffman_encoding, max_header_field_size_kb, disallow_obs_text, stream_reset_burst,
        stream_reset_rate);
    // A malformed message ends its stream and nothing else, as these ask for; only to be asked for the opposite is news.
    let _ = stream_error_on_invalid_http_messaging;
    if *override_stream_error_on_invalid_http_message == Some(false) {
        at.field("override_stream_error_on_invalid_http_message")
            .note();
    }
    let mut options = Http2Options {
        max_concurrent_streams: *max_concurrent_streams,
        initial_stream_window: *initial_stream_window_size,
        initial_connection_window: *initial_connection_window_size,
        allows_connect: *allow_connect,
        ..Http2Options::default()
    };
    if let Some(wire) = connection_keepalive {
        keepalive(&at.field("connection_keepalive"), wire, &mut options)?;
    }
    Ok(options)
}

fn keepalive(
    at: &At<'_>,
    wire: &KeepaliveSettings,
    options: &mut Http2Options,
) -> Result<(), Invalid> {
    let KeepaliveSettings {
        interval,
        timeout,
        interval_jitter,
        connection_idle_interval,
    } = wire;
    harmless!(at; interval_jitter);
    let at_idle = at.field("connection_idle_interval");
    options.longest_silence = limit(&at_idle, connection_idle_interval.as_ref(), None)?;
    options.keepalive_interval = limit(&at.field("interval"), interval.as_ref(), None)?;
    options.keepalive_timeout = duration(&at.field("timeout"), timeout.as_ref())?;
    Ok(())
}
