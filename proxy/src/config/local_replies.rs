//! What becomes of answers of the proxy's own: Envoy's `local_reply_config`.
//!
//! `http/reply/mapped.rs` carries it out, once for each answer that no upstream has given.

use bytes::Bytes;
use http::StatusCode;

use super::access_log::AccessLogFilter;
use super::body_format::BodyFormat;
use super::headers::HeaderMutations;

/// Changes of the proxy's own answers.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LocalReplies {
    /// The first whose filter an answer passes changes it; the others are not asked.
    pub mappers: Vec<ReplyMapper>,
    /// What bodies are made of where that one says nothing; none: they stay as they are.
    pub body_format: Option<BodyFormat>,
}

/// A change of some of them.
#[derive(Debug, Clone, PartialEq)]
pub struct ReplyMapper {
    /// Which.
    pub filter: AccessLogFilter,
    /// Another status.
    pub status: Option<StatusCode>,
    /// Another body, of which the format's is made.
    pub body: Option<Bytes>,
    /// What the body is made of.
    pub body_format: Option<BodyFormat>,
    /// Headers to add.
    pub headers: HeaderMutations,
}

impl LocalReplies {
    /// Whether a change, or the choice of one, depends on request headers of the configuration's choosing.
    pub fn needs_request_headers(&self) -> bool {
        let formats = |format: &Option<BodyFormat>| {
            let mut format = format.iter();
            format.any(|body| body.format.needs_request_headers())
        };
        formats(&self.body_format)
            || self.mappers.iter().any(|mapper| {
                mapper.filter.looks_at_headers()
                    || mapper.headers.is_formatted()
                    || formats(&mapper.body_format)
            })
    }
}
