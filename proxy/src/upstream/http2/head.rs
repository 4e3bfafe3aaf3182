//! The head of a request as HTTP/2 has it.
//!
//! A proxy ends what is for one connection only when a request arrives; what routes and filters have added is looked
//! through here, since the library refuses a head with any of it (RFC 9113 §8.2.2).

use http::header::{CONNECTION, CONTENT_LENGTH, TE, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, Method, Request};
use http_body::Body;

use crate::present;
use crate::upstream::body::RequestBody;

/// What is for one connection only.
const OF_CONNECTION: [HeaderName; 5] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    TRANSFER_ENCODING,
    UPGRADE,
];

/// Ends what is for one connection only, and tells the length of a body where it is known.
pub(super) fn prepare(request: &mut Request<RequestBody>) {
    if request.headers().keys().any(is_suspect) {
        end_connection(request.headers_mut());
    }
    let length = request.body().size_hint().exact();
    let is_told = |length| length != 0 || expects_body(request.method());
    if let Some(length) = length.filter(|&length| is_told(length))
        && !present::has(request.headers(), &CONTENT_LENGTH)
    {
        request.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}

/// Whether a header may be for one connection only.
fn is_suspect(name: &HeaderName) -> bool {
    *name == TE || OF_CONNECTION.contains(name)
}

fn end_connection(headers: &mut HeaderMap) {
    if headers.get(TE).is_some_and(|te| te != "trailers") {
        headers.remove(TE);
    }
    let named = headers.get(CONNECTION).cloned();
    for name in OF_CONNECTION {
        headers.remove(name);
    }
    let named = named.as_ref().and_then(|named| named.to_str().ok());
    for name in named.iter().flat_map(|named| named.split(',')) {
        headers.remove(name.trim());
    }
}

/// Whether a length of nothing says something (RFC 9110 §8.6).
fn expects_body(method: &Method) -> bool {
    !matches!(
        *method,
        Method::GET | Method::HEAD | Method::DELETE | Method::CONNECT
    )
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use http::HeaderValue;

    use super::*;

    fn request(method: Method, body: RequestBody) -> Request<RequestBody> {
        let mut request = Request::new(body);
        *request.method_mut() = method;
        request
    }

    fn prepared(headers: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut request = request(Method::GET, RequestBody::Empty);
        for (name, value) in headers {
            let value = HeaderValue::from_static(value);
            request.headers_mut().append(*name, value);
        }
        prepare(&mut request);
        request.into_parts().0.headers
    }

    #[test]
    fn what_is_for_one_connection_ends_here() {
        let headers = prepared(&[
            ("connection", "keep-alive, x-mine"),
            ("keep-alive", "5"),
            ("proxy-connection", "close"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "other"),
            ("x-mine", "1"),
            ("x-other", "2"),
        ]);

        assert_eq!(headers.len(), 1, "{headers:?}");
        assert_eq!(headers["x-other"], "2");
    }

    #[test]
    fn te_says_nothing_but_trailers() {
        assert_eq!(prepared(&[("te", "trailers")])["te"], "trailers");
        assert!(prepared(&[("te", "gzip")]).is_empty());
    }

    #[test]
    fn a_length_is_told_where_it_is_known_and_says_something() {
        let length = |method, body| {
            let mut request = request(method, body);
            prepare(&mut request);
            request.headers_mut().remove(CONTENT_LENGTH)
        };
        let three = || RequestBody::Full(Some(Bytes::from_static(b"abc")));

        assert_eq!(length(Method::GET, RequestBody::Empty), None);
        assert_eq!(length(Method::POST, RequestBody::Empty).unwrap(), "0");
        assert_eq!(length(Method::GET, three()).unwrap(), "3");
    }

    #[test]
    fn a_length_that_is_told_already_holds() {
        let mut request = request(Method::POST, RequestBody::Empty);
        let told = HeaderValue::from_static("7");
        request.headers_mut().insert(CONTENT_LENGTH, told);

        prepare(&mut request);

        assert_eq!(request.headers()[CONTENT_LENGTH], "7");
    }
}
