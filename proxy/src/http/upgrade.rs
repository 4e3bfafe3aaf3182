//! Upgrades and CONNECT: requests that ask for a connection of their own, and how each version of HTTP asks for it.
//!
//! Inside, an extended CONNECT of HTTP/2 (RFC 8441) is the GET with `Upgrade` that it stands for, as in Envoy: routes
//! and filters see one form. On the way out it gets the form of the version that is spoken there.

mod poured;
pub(super) mod terminate;
mod tunnel;

use std::sync::Arc;

use h2::ext::Protocol;
use http::header::{CONNECTION, CONTENT_LENGTH, UPGRADE};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, Version};

use super::failure::{Failure, LocalReply};
use super::headers::{self, Head};
use super::serve::switch::Switch;
use crate::config::matching::TextMatch;
use crate::config::upgrade::{CONNECT, RouteUpgrades};
use crate::present;
use crate::telemetry::report::ResponseFlags;
use crate::upstream::HttpVersion;
use crate::upstream::body::client::ClientBody;

/// A client that asks for something else on its connection, or stream.
pub(super) struct Upgrade {
    wanted: Wanted,
    /// The client's side; `None` where a request could not switch.
    downstream: Option<Switch>,
    is_http2: bool,
}

/// What a client asks for.
enum Wanted {
    /// A tunnel to the authority that the request names.
    Connect,
    /// Another protocol.
    Protocol {
        name: HeaderValue,
        /// How `Connection` is spelled.
        connection: HeaderValue,
    },
}

const CLOSE: HeaderValue = HeaderValue::from_static("close");
const ONLY_UPGRADE: HeaderValue = HeaderValue::from_static("upgrade");
/// The upgrade that is left alone, as in Envoy: HTTP/2 on an open connection (RFC 9113 has dropped it).
const CLEARTEXT_HTTP2: &str = "h2c";

impl Upgrade {
    /// What a request asks for. An extended CONNECT becomes the GET that it stands for.
    pub(super) fn asked_for(
        request: &mut Request<ClientBody>,
        ignored: &[TextMatch],
    ) -> Option<Self> {
        let wanted = match request.method() == Method::CONNECT {
            true => match request.extensions_mut().remove::<Protocol>() {
                Some(protocol) => {
                    *request.method_mut() = Method::GET;
                    // What is no text is no protocol that anybody allows.
                    let name = HeaderValue::from_bytes(protocol.as_ref());
                    Wanted::Protocol {
                        name: name.unwrap_or(HeaderValue::from_static("")),
                        connection: ONLY_UPGRADE,
                    }
                }
                None => Wanted::Connect,
            },
            false => protocol(request, ignored)?,
        };
        Some(Upgrade {
            wanted,
            downstream: request.extensions_mut().remove(),
            is_http2: request.version() == Version::HTTP_2,
        })
    }

    /// Says so in the headers, in the one form that all see.
    pub(super) fn ask_for(&self, headers: &mut HeaderMap) {
        if let Wanted::Protocol { name, connection } = &self.wanted {
            headers.insert(CONNECTION, connection.clone());
            headers.insert(UPGRADE, name.clone());
        }
    }

    /// Whether it is a CONNECT.
    pub(super) fn is_connect(&self) -> bool {
        matches!(self.wanted, Wanted::Connect)
    }

    /// Puts a request into the form of the version that is spoken upstream.
    pub(super) fn shape(&self, head: &mut Head, version: HttpVersion) -> Result<(), Failure> {
        match (&self.wanted, version) {
            // RFC 9110 §9.3.6 and RFC 9113 §8.5: no scheme, no path.
            (Wanted::Connect, _) => {
                let authority = head.authority();
                let uri = Uri::builder().authority(authority).build();
                head.uri = uri.map_err(|_| Failure::Authority {
                    authority: authority.into(),
                })?;
            }
            // RFC 8441 §5.
            (Wanted::Protocol { name, .. }, HttpVersion::Http2) => {
                head.method = Method::CONNECT;
                let protocol = Protocol::from(headers::text(Some(name)));
                head.extensions.insert(protocol);
                for name in [CONNECTION, UPGRADE, CONTENT_LENGTH] {
                    head.headers.remove(name);
                }
            }
            (Wanted::Protocol { .. }, HttpVersion::Http1) => {}
        }
        Ok(())
    }

    /// Whether the upstream agrees.
    pub(super) fn is_agreed<B>(&self, response: &Response<B>, version: HttpVersion) -> bool {
        match (&self.wanted, version) {
            (_, HttpVersion::Http2) => response.status() == StatusCode::OK,
            (Wanted::Connect, HttpVersion::Http1) => response.status() == StatusCode::OK,
            (Wanted::Protocol { .. }, HttpVersion::Http1) => {
                response.status() == StatusCode::SWITCHING_PROTOCOLS
            }
        }
    }

    /// The status that an answer is counted by: an agreement in the one form that all see; an answer that is
    /// mistakable is none.
    pub(super) fn counted<B>(
        &self,
        response: &Response<B>,
        version: HttpVersion,
    ) -> Option<StatusCode> {
        match (&self.wanted, self.is_agreed(response, version)) {
            (Wanted::Protocol { .. }, true) => Some(StatusCode::SWITCHING_PROTOCOLS),
            (Wanted::Connect, true) => Some(response.status()),
            (_, false) => self
                .mistakable(response)
                .is_none()
                .then(|| response.status()),
        }
    }

    /// What is wrong with an answer that is no agreement, where the client would take it for one.
    pub(super) fn mistakable<B>(&self, response: &Response<B>) -> Option<Failure> {
        let has_form = self.is_http2 || matches!(self.wanted, Wanted::Connect);
        (has_form && response.status().is_success()).then(|| {
            let details = "upstream_reset_before_response_started{protocol_error}";
            let reason = "the upstream answers an upgrade as if it were an ordinary request";
            let mut reply = LocalReply::new(StatusCode::BAD_GATEWAY, details).because(reason);
            reply.flag = ResponseFlags::UPSTREAM_PROTOCOL_ERROR;
            Failure::Answered(Box::new(reply))
        })
    }

    /// Puts the upstream's agreement into the form that the client knows.
    fn tell<B>(&self, response: &mut Response<B>) {
        match (&self.wanted, self.is_http2) {
            (Wanted::Connect, _) | (Wanted::Protocol { .. }, true) => {
                *response.status_mut() = StatusCode::OK;
                for name in [CONNECTION, UPGRADE, CONTENT_LENGTH] {
                    response.headers_mut().remove(name);
                }
            }
            (Wanted::Protocol { name, .. }, false) => {
                *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
                let headers = response.headers_mut();
                headers.insert(CONNECTION, ONLY_UPGRADE);
                headers.insert(UPGRADE, name.clone());
            }
        }
    }

    /// What the access log says of the agreement: as in Envoy, the status of HTTP/1.1 in either version.
    fn logged(&self) -> StatusCode {
        match &self.wanted {
            Wanted::Connect => StatusCode::OK,
            Wanted::Protocol { .. } => StatusCode::SWITCHING_PROTOCOLS,
        }
    }

    /// The status of an agreement, where any other answer is the last of its connection.
    pub(super) fn agreement(&self) -> Option<StatusCode> {
        (!self.is_http2).then(|| self.logged())
    }

    fn name(&self) -> &str {
        match &self.wanted {
            Wanted::Connect => CONNECT,
            Wanted::Protocol { name, .. } => headers::text(Some(name)),
        }
    }
}

/// Ends a connection of HTTP/1.1 on which an upgrade was asked for and not agreed to: as in Envoy, what follows the head
/// may be meant for the other protocol already.
pub(super) fn answered<B>(mut response: Response<B>, agreement: Option<StatusCode>) -> Response<B> {
    if agreement.is_some_and(|agreement| response.status() != agreement) {
        response.headers_mut().insert(CONNECTION, CLOSE);
    }
    response
}

/// Lets an upgrade pass that its route allows, or else all routes. RFC 9110 §7.8: where it is not allowed, the
/// request is an ordinary one; CONNECT cannot be.
pub(super) fn admit(
    upgrade: Option<Upgrade>,
    headers: &mut HeaderMap,
    (everywhere, of_route): (&[Arc<str>], Option<&RouteUpgrades>),
) -> Result<Option<Upgrade>, Failure> {
    let Some(upgrade) = upgrade else {
        return Ok(None);
    };
    let name = upgrade.name();
    let of_route = of_route.and_then(|upgrades| upgrades.allows(name));
    let is_allowed = of_route.unwrap_or_else(|| {
        let mut everywhere = everywhere.iter();
        everywhere.any(|each| each.eq_ignore_ascii_case(name))
    });
    if is_allowed {
        return Ok(Some(upgrade));
    }
    if upgrade.is_http2 || matches!(upgrade.wanted, Wanted::Connect) {
        let mut reply = LocalReply::new(StatusCode::FORBIDDEN, "upgrade_failed")
            .because("no upgrade of this kind is allowed here");
        if !upgrade.is_http2 {
            reply.headers.push((CONNECTION, CLOSE));
        }
        return Err(Failure::Answered(Box::new(reply)));
    }
    headers.remove(CONNECTION);
    headers.remove(UPGRADE);
    Ok(None)
}

/// The protocol that a request of HTTP/1.1 asks for.
fn protocol(request: &Request<ClientBody>, ignored: &[TextMatch]) -> Option<Wanted> {
    let name = present::value(request.headers(), &UPGRADE)?;
    let text = headers::text(Some(name));
    let is_meant = request.version() == Version::HTTP_11
        && asks_for_upgrade(request.headers())
        && !text.eq_ignore_ascii_case(CLEARTEXT_HTTP2)
        && !ignored.iter().any(|each| each.is_match(text));
    let connection = request.headers().get(CONNECTION);
    let connection = connection.filter(|value| value.as_bytes().eq_ignore_ascii_case(b"upgrade"));
    is_meant.then(|| Wanted::Protocol {
        name: name.clone(),
        connection: connection.cloned().unwrap_or(ONLY_UPGRADE),
    })
}

/// RFC 9110 §7.8: `Upgrade` holds where `Connection` names it.
fn asks_for_upgrade(headers: &HeaderMap) -> bool {
    let mut values = headers.get_all(CONNECTION).iter();
    values.any(|value| {
        let mut names = headers::text(Some(value)).split(',').map(str::trim);
        names.any(|name| name.eq_ignore_ascii_case(UPGRADE.as_str()))
    })
}
