//! What a route calls the operation of its requests: the span's name, which the proxies on both ends of a call tell each
//! other in `x-envoy-decorator-operation`.
//!
//! `exchange.rs` calls it, once the route is known and with the response. As in Envoy, there is nothing of it where
//! requests are not traced: a caller's proxy tells the callee's by the request, and is told by the response; who is told
//! keeps the header for itself.

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};

use super::completion::Completion;
use super::headers::text;
use crate::config::route::Decorator;

const OPERATION: HeaderName = HeaderName::from_static("x-envoy-decorator-operation");

/// What is done to a request on its way to the upstream.
pub(super) fn receive(
    headers: &mut HeaderMap,
    decorator: Option<&Decorator>,
    completion: &mut Completion,
) {
    let Some(is_egress) = completion.traced_as_egress() else {
        return;
    };
    if let Some(decorator) = decorator {
        completion.named(Arc::clone(&decorator.operation));
    }
    let told = decorator.filter(|decorator| decorator.is_told);
    let value = told.and_then(|told| HeaderValue::from_str(&told.operation).ok());
    if is_egress {
        if let Some(value) = value {
            headers.insert(OPERATION, value);
        }
        return;
    }
    // The caller's name for it goes before the route's, and then the caller knows it.
    match headers.remove(OPERATION) {
        Some(asked) if !asked.is_empty() => completion.named(text(Some(&asked)).into()),
        _ => completion.answer_operation(value),
    }
}

/// What is done to a response on its way to the client.
pub(super) fn send_back(headers: &mut HeaderMap, completion: &mut Completion) {
    let Some(is_egress) = completion.traced_as_egress() else {
        return;
    };
    if is_egress {
        let told = headers.remove(OPERATION);
        if let Some(told) = told.filter(|told| !told.is_empty()) {
            completion.named(text(Some(&told)).into());
        }
    } else if let Some(operation) = completion.operation_to_answer() {
        headers.insert(OPERATION, operation);
    }
}
