//! CONNECT that ends here: the upstream gets the bytes of the tunnel on a connection of its own.

use http::Response;

use super::Upgrade;
use crate::http::HttpConnection;
use crate::http::body::Source;
use crate::http::completion::Completion;
use crate::http::limits::Limits;
use crate::tcp::Dialled;

/// The upstream is reached: tells the client, and joins the two.
pub(in crate::http) fn terminate(
    upgrade: Upgrade,
    dialled: Dialled,
    limits: Limits,
    (completion, connection): (&mut Completion, &HttpConnection),
) -> Response<Source> {
    let response = Response::new(Source::Empty);
    completion.status(response.status());
    let (io, held) = dialled.into_parts();
    let upstream = std::future::ready(Ok(io));
    upgrade.carry(upstream, held, limits, (completion, connection));
    response
}
