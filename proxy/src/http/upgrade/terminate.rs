//! CONNECT that ends here, and POST that stands for it: the upstream gets the bytes of the tunnel on a connection of its
//! own.

use std::convert::Infallible;

use http::Response;

use super::Upgrade;
use super::poured::Poured;
use crate::http::HttpConnection;
use crate::http::body::Source;
use crate::http::completion::Completion;
use crate::http::limits::Limits;
use crate::tcp::Dialled;
use crate::upstream::body::RequestBody;

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
    let upstream = std::future::ready(Ok::<_, Infallible>(io));
    upgrade.carry(upstream, held, limits, (completion, connection));
    response
}

/// The upstream is reached: what a client posts goes there, and what comes from there is the response.
pub(in crate::http) fn pour(dialled: Dialled, body: RequestBody) -> Response<Source> {
    let poured = Poured::new(dialled, body);
    Response::new(Source::Filtered(Box::pin(poured)))
}
