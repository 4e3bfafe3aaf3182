//! The head of a request, kept in few bytes for the case that it has to be made again.
//!
//! The library takes the head that it sends, and hardly any is needed twice: what is kept is written into memory that many
//! share, and read only then.

use bytes::{Bytes, BytesMut};
use http::uri::{self, PathAndQuery};
use http::{Extensions, HeaderMap, HeaderName, HeaderValue, Method, Request, Uri};

use crate::http1::text::stored;

/// What a head is made of again.
#[derive(Debug)]
pub(super) struct HeadLines {
    method: Method,
    extensions: Extensions,
    /// A line for each part of the target, then one for each header. None of them has the end of a line in it.
    lines: Bytes,
}

/// Between the name of a header and its value: neither is part of a name.
const SHOWN: u8 = b':';
const SENSITIVE: u8 = b';';

impl HeadLines {
    /// Of a request that will be sent.
    pub(super) fn of<B>(request: &Request<B>) -> Self {
        let uri = request.uri();
        let lines = stored(|lines| {
            put_line(lines, uri.scheme_str());
            put_line(lines, uri.authority().map(uri::Authority::as_str));
            put_line(lines, uri.path_and_query().map(PathAndQuery::as_str));
            for (name, value) in request.headers() {
                put_header(lines, name, value);
            }
        });
        HeadLines {
            method: request.method().clone(),
            extensions: request.extensions().clone(),
            lines,
        }
    }

    /// The head once more.
    pub(super) fn again<B: Default>(self) -> Option<Request<B>> {
        let mut lines = self.lines.split(|&byte| byte == b'\n');
        let mut request = Request::new(B::default());
        *request.uri_mut() = target([lines.next()?, lines.next()?, lines.next()?])?;
        *request.headers_mut() = headers(lines)?;
        *request.method_mut() = self.method;
        *request.extensions_mut() = self.extensions;
        Some(request)
    }
}

fn put_line(lines: &mut BytesMut, text: Option<&str>) {
    lines.extend_from_slice(text.unwrap_or_default().as_bytes());
    lines.extend_from_slice(b"\n");
}

fn put_header(lines: &mut BytesMut, name: &HeaderName, value: &HeaderValue) {
    let kind = if value.is_sensitive() {
        SENSITIVE
    } else {
        SHOWN
    };
    lines.reserve(name.as_str().len() + value.len() + 2);
    lines.extend_from_slice(name.as_str().as_bytes());
    lines.extend_from_slice(&[kind]);
    lines.extend_from_slice(value.as_bytes());
    lines.extend_from_slice(b"\n");
}

fn target([scheme, authority, path]: [&[u8]; 3]) -> Option<Uri> {
    let mut parts = uri::Parts::default();
    if !scheme.is_empty() {
        parts.scheme = Some(scheme.try_into().ok()?);
    }
    if !authority.is_empty() {
        parts.authority = Some(authority.try_into().ok()?);
    }
    if !path.is_empty() {
        parts.path_and_query = Some(path.try_into().ok()?);
    }
    Uri::from_parts(parts).ok()
}

fn headers<'a>(lines: impl Iterator<Item = &'a [u8]>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in lines.filter(|line| !line.is_empty()) {
        let end = line
            .iter()
            .position(|&byte| byte == SHOWN || byte == SENSITIVE)?;
        let mut value = HeaderValue::from_bytes(&line[end + 1..]).ok()?;
        value.set_sensitive(line[end] == SENSITIVE);
        headers.append(HeaderName::from_bytes(&line[..end]).ok()?, value);
    }
    Some(headers)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn again(request: &Request<()>) -> Request<()> {
        HeadLines::of(request).again().expect("a head")
    }

    #[test]
    fn a_head_is_made_again_as_it_was() {
        let mut request = Request::post("https://a:1/b?c=d").body(()).unwrap();
        request.extensions_mut().insert(7_u8);
        let headers = request.headers_mut();
        headers.append("x", HeaderValue::from_static(""));
        headers.append("y", HeaderValue::from_static("1:2;3"));
        headers.append("x", HeaderValue::from_bytes(b"\xff\t ").unwrap());
        let mut secret = HeaderValue::from_static("s");
        secret.set_sensitive(true);
        headers.append("authorization", secret);

        let again = again(&request);

        assert_eq!(again.method(), request.method());
        assert_eq!(again.uri(), request.uri());
        assert_eq!(again.headers(), request.headers());
        assert!(again.headers()["authorization"].is_sensitive());
        assert!(!again.headers()["y"].is_sensitive());
        assert_eq!(again.extensions().get::<u8>(), Some(&7));
    }

    #[test]
    fn targets_of_each_form_are_made_again() {
        for target in ["a:443", "/", "*", "http://a/"] {
            let request = Request::get(target).body(()).unwrap();

            assert_eq!(again(&request).uri(), target);
        }
    }
}
