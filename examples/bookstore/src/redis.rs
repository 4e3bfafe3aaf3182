//! As much of Redis' protocol (RESP2) as one command needs.

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;

use crate::Error;

/// `INCR key`, on a connection of its own.
pub(crate) async fn increment(address: &str, key: &str) -> Result<u64, Error> {
    let mut stream = BufReader::new(TcpStream::connect(address).await?);
    let command = format!("*2\r\n$4\r\nINCR\r\n${}\r\n{key}\r\n", key.len());
    stream.write_all(command.as_bytes()).await?;

    let mut reply = String::new();
    stream.read_line(&mut reply).await?;
    match reply.trim_end().strip_prefix(':') {
        Some(count) => Ok(count.parse()?),
        None => Err(format!("unexpected reply {reply:?}").into()),
    }
}
