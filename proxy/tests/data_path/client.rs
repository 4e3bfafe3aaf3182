//! A client: one connection of a chosen HTTP version, and what came back.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A response, read to its end.
#[derive(Debug)]
pub(crate) struct Got {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: String,
    pub(crate) trailers: Option<HeaderMap>,
}

impl Got {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

type Body = BoxBody<Bytes, Infallible>;

/// A connection to the proxy.
pub(crate) enum Client {
    Http1(http1::SendRequest<Body>),
    Http2(http2::SendRequest<Body>),
}

/// No answer takes longer.
const PATIENCE: Duration = Duration::from_secs(10);

impl Client {
    pub(crate) async fn http1(address: SocketAddr) -> Self {
        let io = TokioIo::new(TcpStream::connect(address).await.unwrap());
        let (sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection.with_upgrades());
        Client::Http1(sender)
    }

    pub(crate) async fn http2(address: SocketAddr) -> Self {
        Self::http2_over(TcpStream::connect(address).await.unwrap()).await
    }

    pub(crate) async fn http2_over(stream: TcpStream) -> Self {
        let io = TokioIo::new(stream);
        let (sender, connection) = http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        Client::Http2(sender)
    }

    pub(crate) async fn get(&mut self, path: &str) -> Got {
        self.send(request("GET", path, "")).await
    }

    pub(crate) async fn send(&mut self, request: Request<Full<Bytes>>) -> Got {
        self.try_send(request).await.expect("a response")
    }

    pub(crate) async fn try_send(&mut self, request: Request<Full<Bytes>>) -> hyper::Result<Got> {
        let exchange = async {
            let response = self.start(request.map(|body| body.boxed())).await?;
            let (parts, body) = response.into_parts();
            let collected = body.collect().await?;
            Ok(Got {
                status: parts.status,
                headers: parts.headers,
                trailers: collected.trailers().cloned(),
                body: String::from_utf8_lossy(&collected.to_bytes()).into_owned(),
            })
        };
        tokio::time::timeout(PATIENCE, exchange)
            .await
            .expect("in time")
    }

    pub(crate) async fn start(
        &mut self,
        mut request: Request<Body>,
    ) -> hyper::Result<http::Response<hyper::body::Incoming>> {
        match self {
            Client::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Client::Http2(sender) if request.method() == http::Method::CONNECT => {
                sender.ready().await?;
                sender.send_request(request).await
            }
            Client::Http2(sender) => {
                let host = request.headers_mut().remove("host").unwrap();
                let uri = format!("http://{}{}", host.to_str().unwrap(), request.uri());
                *request.uri_mut() = uri.parse().unwrap();
                sender.ready().await?;
                sender.send_request(request).await
            }
        }
    }
}

/// A request to `reviews`.
pub(crate) fn request(method: &str, path: &str, body: &'static str) -> Request<Full<Bytes>> {
    Request::builder()
        .method(method)
        .uri(path)
        .header("host", "reviews")
        .body(Full::new(Bytes::from_static(body.as_bytes())))
        .unwrap()
}

/// One GET on a connection of its own.
pub(crate) async fn get(address: SocketAddr, path: &str) -> Got {
    Client::http1(address).await.get(path).await
}

/// What a WebSocket answers to a few words.
pub(crate) async fn shout(address: SocketAddr, said: &str) -> String {
    let mut asked = request("GET", "/socket", "");
    asked
        .headers_mut()
        .insert("connection", HeaderValue::from_static("Upgrade"));
    asked
        .headers_mut()
        .insert("upgrade", HeaderValue::from_static("websocket"));

    let mut client = Client::http1(address).await;
    let response = client.start(asked.map(|body| body.boxed())).await.unwrap();
    assert_eq!(response.status(), 101);
    let mut io = hyper_util::rt::TokioIo::new(hyper::upgrade::on(response).await.unwrap());
    io.write_all(said.as_bytes()).await.unwrap();
    let mut heard = String::new();
    io.read_to_string(&mut heard).await.unwrap();
    heard
}
