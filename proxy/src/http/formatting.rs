//! What operators in the configuration of routes stand for, in the midst of an exchange.

use bytes::Bytes;
use http::HeaderMap;

use super::completion::Completion;
use super::headers::{self, Head};
use crate::config::filter::header_mutation::Change;
use crate::config::headers::HeaderMutations;
use crate::config::matching::RequestLine;
use crate::telemetry::access_log::format::{Format, Template};
use crate::telemetry::access_log::operator::{Exchange, Subject};

/// Changes the headers of a request.
pub(super) fn change_request(
    mutations: &HeaderMutations,
    head: &mut Head,
    completion: &Completion,
) {
    if mutations.is_empty() {
        return;
    }
    let line = RequestLine {
        method: head.method.as_str(),
        path: head.path.as_str(),
        authority: headers::text(head.authority.as_ref()),
        scheme: head.scheme,
    };
    mutations.apply_in(&mut head.headers, |(template, headers)| {
        text(template, completion, |exchange| Exchange {
            line: Some(line),
            request: Some(headers),
            ..exchange
        })
    });
}

/// Changes the headers of a request as a filter says.
pub(super) fn change_request_by(change: &Change, head: &mut Head, completion: &Completion) {
    let line = RequestLine {
        method: head.method.as_str(),
        path: head.path.as_str(),
        authority: headers::text(head.authority.as_ref()),
        scheme: head.scheme,
    };
    change.apply_in(&mut head.headers, |(template, headers)| {
        text(template, completion, |exchange| Exchange {
            line: Some(line),
            request: Some(headers),
            ..exchange
        })
    });
}

/// Changes the headers of a response as a filter says; `request` are those of its request.
pub(super) fn change_response_by(
    change: &Change,
    headers: &mut HeaderMap,
    request: &HeaderMap,
    completion: &Completion,
) {
    change.apply_in(headers, |(template, headers)| {
        response_text(template, (request, headers), completion)
    });
}

/// Changes the headers of an answer that a filter gives to a request.
pub(super) fn change_answer(
    mutations: &HeaderMutations,
    headers: &mut HeaderMap,
    head: &Head,
    completion: &Completion,
) {
    mutations.apply_in(headers, |(template, headers)| {
        text(template, completion, |exchange| Exchange {
            line: Some(head.line()),
            request: Some(&head.headers),
            response: Some(headers),
            ..exchange
        })
    });
}

/// What a template comes to for a response and its request.
pub(super) fn response_text(
    template: &Template,
    (request, response): (&HeaderMap, &HeaderMap),
    completion: &Completion,
) -> String {
    text(template, completion, |exchange| Exchange {
        request: Some(request),
        response: Some(response),
        ..exchange
    })
}

/// What a template comes to for a request.
pub(super) fn request_text(template: &Template, head: &Head, completion: &Completion) -> String {
    text(template, completion, |exchange| Exchange {
        line: Some(head.line()),
        request: Some(&head.headers),
        ..exchange
    })
}

/// Changes the headers of a response; its request is looked up in the report.
pub(super) fn change_response(
    mutations: &HeaderMutations,
    headers: &mut HeaderMap,
    completion: &Completion,
) {
    mutations.apply_in(headers, |(template, headers)| {
        text(template, completion, |exchange| Exchange {
            response: Some(headers),
            ..exchange
        })
    });
}

/// The body of an answer of the proxy's own with these headers; `body` is what it would be otherwise.
pub(super) fn local_body(
    format: &Format,
    body: &[u8],
    headers: &HeaderMap,
    completion: &Completion,
) -> Bytes {
    let body = String::from_utf8_lossy(body);
    completion.report().map_or_else(Bytes::new, |report| {
        let exchange = Exchange {
            response: Some(headers),
            local_body: Some(&body),
            ..Exchange::ended(report)
        };
        format.text(Subject::Exchange(exchange)).into()
    })
}

fn text<'a>(
    template: &Template,
    completion: &'a Completion,
    complete: impl FnOnce(Exchange<'a>) -> Exchange<'a>,
) -> String {
    completion.report().map_or_else(String::new, |report| {
        template.text(Subject::Exchange(complete(Exchange::ended(report))))
    })
}
