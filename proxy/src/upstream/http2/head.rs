//! The head of a request as HTTP/2 has it.
//!
//! A proxy ends what is for one connection only when a request arrives; what routes and filters have added is looked
//! through here, since the library refuses a head with any of it (RFC 9113 §8.2.2).

use http::header::{CONTENT_LENGTH, HOST};
use http::uri::{Authority, Parts, Scheme};
use http::{Method, Request, Uri};
use http_body::Body;

use crate::hop_by_hop;
use crate::present;
use crate::upstream::HttpVersion;
use crate::upstream::body::RequestBody;

/// Ends what is for one connection only, and tells the length of a body where it is known. `version`: of which the request is.
pub(super) fn prepare(request: &mut Request<RequestBody>, version: HttpVersion) {
    hop_by_hop::end(request.headers_mut());
    let length = request.body().size_hint().exact();
    // One of HTTP/1.1 that has no body says so by saying nothing.
    let tells_nothing = version == HttpVersion::Http2 && expects_body(request.method());
    let is_told = |length| length != 0 || tells_nothing;
    if let Some(length) = length.filter(|&length| is_told(length))
        && !present::has(request.headers(), &CONTENT_LENGTH)
    {
        request.headers_mut().insert(CONTENT_LENGTH, length.into());
    }
}

/// A request of HTTP/1.1 as one of HTTP/2, whose other end makes it what it was. Its body is taken, its head is copied.
/// `None`: its host or path has no place there.
pub(super) fn of_http1(request: &mut Request<RequestBody>) -> Option<Request<RequestBody>> {
    let mut target = Parts::default();
    target.scheme = Some(Scheme::HTTP);
    target.authority = Authority::try_from(request.headers().get(HOST)?.as_bytes()).ok();
    target.path_and_query = request.uri().path_and_query().cloned();
    let mut shared = Request::new(std::mem::take(request.body_mut()));
    let Ok(target) = Uri::from_parts(target) else {
        *request.body_mut() = shared.into_body();
        return None;
    };
    *shared.uri_mut() = target;
    *shared.method_mut() = request.method().clone();
    *shared.headers_mut() = request.headers().clone();
    shared.headers_mut().remove(HOST);
    Some(shared)
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

    #[test]
    fn what_is_for_one_connection_ends_here() {
        let mut request = request(Method::GET, RequestBody::Empty);
        for (name, value) in [("connection", "x-mine"), ("x-mine", "1"), ("te", "gzip")] {
            let value = HeaderValue::from_static(value);
            request.headers_mut().append(name, value);
        }

        prepare(&mut request, HttpVersion::Http2);

        assert!(request.headers().is_empty());
    }

    #[test]
    fn a_length_is_told_where_it_is_known_and_says_something() {
        let length = |method, body| {
            let mut request = request(method, body);
            prepare(&mut request, HttpVersion::Http2);
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

        prepare(&mut request, HttpVersion::Http2);

        assert_eq!(request.headers()[CONTENT_LENGTH], "7");
    }
}
