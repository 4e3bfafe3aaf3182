//! A small HTTP/1.1 client, and the channel that the gRPC clients share.

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tonic::transport::{Channel, Endpoint};

use crate::Error;
use crate::trace::Trace;

/// A connection that requests can be sent over, one after the other.
pub(crate) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    authority: String,
}

impl Connection {
    pub(crate) async fn open(uri: &Uri) -> Result<Self, Error> {
        let host = uri.host().ok_or("the URL has no host")?;
        let port = uri.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let authority = uri.authority().ok_or("the URL has no host")?.to_string();
        Ok(Self { sender, authority })
    }

    pub(crate) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    pub(crate) async fn get(
        &mut self,
        path: &str,
        trace: &Trace,
    ) -> Result<Response<Bytes>, Error> {
        let mut request = Request::get(path)
            .header("host", &self.authority)
            .body(Empty::new())?;
        trace.add_to(request.headers_mut());
        self.sender.ready().await?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        Ok(Response::from_parts(head, body.collect().await?.to_bytes()))
    }
}

/// One GET on a connection of its own; any status but 2xx is an error.
pub(crate) async fn get(url: &str, trace: &Trace) -> Result<Bytes, Error> {
    let uri: Uri = url.parse()?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let response = Connection::open(&uri).await?.get(path, trace).await?;
    if !response.status().is_success() {
        return Err(format!("{url} answered {}", response.status()).into());
    }
    Ok(response.into_body())
}

/// One GET whose answer is JSON.
pub(crate) async fn get_json(url: &str, trace: &Trace) -> Result<serde_json::Value, Error> {
    Ok(serde_json::from_slice(&get(url, trace).await?)?)
}

/// A gRPC channel that connects when it is first used, and again when it must.
pub(crate) fn channel(url: &str) -> Result<Channel, Error> {
    Ok(Endpoint::from_shared(url.to_owned())?.connect_lazy())
}
