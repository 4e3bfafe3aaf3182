//! A small HTTP/1.1 server: one function answers every request.

use std::convert::Infallible;
use std::future::Future;
use std::net::{Ipv6Addr, SocketAddr};

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::{Error, chaos, setting};

/// What the services answer with.
pub(crate) type Answer = Result<Response<Full<Bytes>>, Error>;

/// Serves on `PORT` (default 8080) until the process ends.
pub(crate) async fn serve<F, R>(answer: F) -> Result<(), Error>
where
    F: Fn(Request<Incoming>) -> R + Copy + Send + 'static,
    R: Future<Output = Answer> + Send,
{
    let listener = TcpListener::bind(address()?).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let service = service_fn(move |request| async move {
                Ok::<_, Infallible>(misbehave_or(answer, request).await)
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                eprintln!("connection: {error}");
            }
        });
    }
}

/// Where every service listens: all addresses, `PORT`.
pub(crate) fn address() -> Result<SocketAddr, Error> {
    let port = setting("PORT", "8080").parse()?;
    Ok(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port)))
}

/// An answer with a JSON body.
pub(crate) fn json(value: &serde_json::Value) -> Answer {
    let response = Response::builder()
        .header("content-type", "application/json")
        .body(Full::from(value.to_string()))?;
    Ok(response)
}

async fn misbehave_or<F, R>(answer: F, request: Request<Incoming>) -> Response<Full<Bytes>>
where
    F: Fn(Request<Incoming>) -> R,
    R: Future<Output = Answer>,
{
    if chaos::fails_after_delay().await {
        return text(StatusCode::INTERNAL_SERVER_ERROR, "told to fail".to_owned());
    }
    if request.uri().path() == "/healthz" {
        return text(StatusCode::OK, "ok".to_owned());
    }
    answer(request).await.unwrap_or_else(|error| {
        eprintln!("failed: {error}");
        text(StatusCode::BAD_GATEWAY, error.to_string())
    })
}

fn text(status: StatusCode, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}
