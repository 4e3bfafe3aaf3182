//! What the configuration makes of the proxy's own answers: Envoy's `local_reply_config`.

use http::{HeaderValue, header};

use super::Reply;
use crate::config::access_log::Moment;
use crate::config::body_format::{BodyFormat, TEXT};
use crate::config::local_replies::LocalReplies;
use crate::http::completion::Completion;
use crate::http::formatting;
use crate::telemetry::access_log::filter::passes;
use crate::telemetry::access_log::operator::Entry;

/// Changes an answer; says what its body is called now, and whether that holds whatever it was called before.
pub(super) fn change(
    reply: &mut Reply,
    replies: &LocalReplies,
    completion: &mut Completion,
) -> (HeaderValue, bool) {
    completion.measure();
    let (body, called) = (reply.body.clone(), content_type(reply));
    let mut format = replies.body_format.as_ref();
    let mapper = replies.mappers.iter().find(|mapper| {
        let report = completion.report();
        report.is_some_and(|report| passes(&mapper.filter, Entry::Request(report), Moment::Reply))
    });
    if let Some(mapper) = mapper {
        // As in Envoy, headers tell the status that was meant before, and bodies the one that is sent.
        formatting::change_response(&mapper.headers, &mut reply.headers, completion);
        if let Some(body) = &mapper.body {
            reply.body = body.clone();
        }
        if let Some(status) = mapper.status {
            reply.status = status;
            completion.status(status);
        }
        format = mapper.body_format.as_ref().or(format);
    }
    if let Some(BodyFormat { format, .. }) = format {
        reply.body = formatting::local_body(format, &reply.body, &reply.headers, completion);
    }
    let default = format.map_or(TEXT, |format| format.content_type.clone());
    let is_other = reply.body != body && content_type(reply) == called;
    (default, is_other)
}

fn content_type(reply: &Reply) -> Option<HeaderValue> {
    reply.headers.get(header::CONTENT_TYPE).cloned()
}
