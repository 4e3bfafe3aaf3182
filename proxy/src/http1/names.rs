//! How names of headers are written: in lower case, like `Content-Type`, or as they came.
//!
//! Whoever reads a message whose names are to be kept puts a [`Spelling`] among its extensions, and whoever writes the
//! message finds it there, whatever filters have done to its headers in between. As in Envoy, the side that reads decides,
//! and trailers are in lower case whatever is said of headers.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::Extensions;
use http::header::{HeaderMap, HeaderName};

use crate::config::http1::HeaderNames;

/// How the names of a message's headers came.
#[derive(Debug, Clone)]
pub(crate) struct Spelling(Arc<Spelled>);

#[derive(Debug)]
struct Spelled {
    /// Of a name that came several times, the first.
    names: HeaderMap<Bytes>,
    /// Whether others are written like `Content-Type`.
    others_are_proper: bool,
}

/// How the names of a message's headers are written.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Names<'a> {
    LowerCase,
    ProperCase,
    AsTheyCame(&'a Spelling),
}

impl Spelling {
    /// Remembers how the names came of a head that was read into these bytes, where that is wanted.
    pub(crate) fn remember(
        extensions: &mut Extensions,
        (head, bytes): (&[httparse::Header<'_>], &Bytes),
        wanted: HeaderNames,
    ) {
        if wanted.are_preserved() {
            let others_are_proper = wanted == HeaderNames::PreservedElseProper;
            extensions.insert(Spelling::of(head, bytes, others_are_proper));
        }
    }

    fn of(head: &[httparse::Header<'_>], bytes: &Bytes, others_are_proper: bool) -> Self {
        let mut names = HeaderMap::with_capacity(head.len());
        for each in head {
            let came = each.name.as_bytes();
            if let Ok(name) = HeaderName::from_bytes(came) {
                names.entry(name).or_insert_with(|| bytes.slice_ref(came));
            }
        }
        Spelling(Arc::new(Spelled {
            names,
            others_are_proper,
        }))
    }

    /// Spells a name that stands here in lower case.
    fn respell(&self, name: &HeaderName, written: &mut [u8]) {
        match self.0.names.get(name) {
            Some(came) => written.copy_from_slice(came),
            None if self.0.others_are_proper => make_proper(written),
            None => {}
        }
    }
}

impl<'a> Names<'a> {
    /// Of a message with these extensions, where names that nobody has remembered are written like this.
    pub(crate) fn of(extensions: &'a Extensions, others: HeaderNames) -> Self {
        match (extensions.get(), others) {
            (Some(spelling), _) => Names::AsTheyCame(spelling),
            (None, HeaderNames::ProperCase) => Names::ProperCase,
            (None, _) => Names::LowerCase,
        }
    }

    /// Writes the name of a header, and what stands before its value.
    pub(crate) fn put(self, bytes: &mut BytesMut, name: &HeaderName) {
        let before = bytes.len();
        bytes.extend_from_slice(name.as_str().as_bytes());
        match self {
            Names::LowerCase => {}
            Names::ProperCase => make_proper(&mut bytes[before..]),
            Names::AsTheyCame(spelling) => spelling.respell(name, &mut bytes[before..]),
        }
        bytes.extend_from_slice(b": ");
    }
}

fn make_proper(name: &mut [u8]) {
    for word in name.split_mut(|byte| *byte == b'-') {
        if let Some(first) = word.first_mut() {
            first.make_ascii_uppercase();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [HeaderName; 3] = [
        http::header::HOST,
        http::header::USER_AGENT,
        HeaderName::from_static("x-own"),
    ];

    fn written(extensions: &Extensions, others: HeaderNames) -> BytesMut {
        let mut bytes = BytesMut::new();
        for name in &NAMES {
            Names::of(extensions, others).put(&mut bytes, name);
        }
        bytes
    }

    /// Of a message that came with `HOST`, `user-agent` and `User-Agent`.
    fn read(wanted: HeaderNames) -> Extensions {
        let bytes = Bytes::from_static(b"HOST: \r\nuser-agent: a\r\nUser-Agent: b\r\n\r\n");
        let mut slots = [httparse::EMPTY_HEADER; 3];
        let parsed = httparse::parse_headers(&bytes, &mut slots).expect("headers");
        let (_, head) = parsed.unwrap();
        let mut extensions = Extensions::new();
        Spelling::remember(&mut extensions, (head, &bytes), wanted);
        extensions
    }

    #[test]
    fn names_that_nobody_remembers_are_written_as_configured() {
        for wanted in [HeaderNames::LowerCase, HeaderNames::ProperCase] {
            let extensions = read(wanted);

            let lower = written(&extensions, HeaderNames::LowerCase);
            assert_eq!(lower, "host: user-agent: x-own: ");
            let proper = written(&extensions, HeaderNames::ProperCase);
            assert_eq!(proper, "Host: User-Agent: X-Own: ");
        }
    }

    #[test]
    fn names_that_are_remembered_are_written_as_the_first_came() {
        let preserved = read(HeaderNames::Preserved);
        let else_proper = read(HeaderNames::PreservedElseProper);

        for others in [HeaderNames::LowerCase, HeaderNames::ProperCase] {
            assert_eq!(written(&preserved, others), "HOST: user-agent: x-own: ");
            assert_eq!(written(&else_proper, others), "HOST: user-agent: X-Own: ");
        }
    }
}
