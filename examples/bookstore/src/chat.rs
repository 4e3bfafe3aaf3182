//! Protocols that are no exchange of requests and answers: WebSocket, and a server that speaks first.

use futures_util::{SinkExt, StreamExt};
use http::Uri;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

use crate::{Error, server};

/// Sends every message back, until the client closes.
pub(crate) async fn echo() -> Result<(), Error> {
    let listener = TcpListener::bind(server::address()?).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            if let Err(error) = answer(stream).await {
                eprintln!("connection: {error}");
            }
        });
    }
}

async fn answer(stream: TcpStream) -> Result<(), Error> {
    let mut socket = tokio_tungstenite::accept_async(stream).await?;
    while let Some(message) = socket.next().await {
        let message = message?;
        if message.is_text() || message.is_binary() {
            socket.send(message).await?;
        }
    }
    Ok(())
}

/// Sends the messages one by one and prints what comes back for each.
pub(crate) async fn say(url: &str, messages: &[&str]) -> Result<(), Error> {
    let uri: Uri = url.parse()?;
    let host = uri.host().ok_or("the URL has no host")?;
    let port = uri.port_u16().unwrap_or(80);
    let stream = TcpStream::connect((host.trim_matches(['[', ']']), port)).await?;
    let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await?;
    for message in messages {
        socket.send(Message::text(*message)).await?;
        let reply = socket.next().await.ok_or("the server hung up")??;
        println!("{}", reply.to_text()?);
    }
    socket.close(None).await?;
    Ok(())
}

/// Says one line to everyone who connects, before they have said anything.
pub(crate) async fn greet() -> Result<(), Error> {
    let listener = TcpListener::bind(server::address()?).await?;
    loop {
        let (mut stream, _) = listener.accept().await?;
        tokio::spawn(async move {
            let _ = stream.write_all(b"welcome\n").await;
            let _ = stream.shutdown().await;
        });
    }
}
