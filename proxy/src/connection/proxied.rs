//! Connections that a proxy before us passes on, and whose client it names (`proxy_protocol`).

use std::io;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::detect::FIRST_READ;
use crate::config::listener::ProxyHeader;
use crate::proxy_protocol::{self, Beginning, Endpoints, Header, Malformed, Version};

/// Why a connection is not served.
#[derive(Debug, thiserror::Error)]
pub(super) enum Refused {
    /// A header must come first.
    #[error("it does not begin with a PROXY header")]
    Missing,
    /// One came that is not valid.
    #[error("its PROXY header is not valid")]
    Malformed(#[from] Malformed),
    /// One came in a version that is switched off.
    #[error("its PROXY header is of {0:?}, which is not allowed")]
    Disallowed(Version),
    /// The client said too little for too long.
    #[error("its PROXY header did not come in time")]
    Late,
    /// The client went away.
    #[error("it ended within its PROXY header")]
    Ended,
    /// Reading failed.
    #[error("reading its PROXY header")]
    Read(#[from] io::Error),
}

/// Reads the header: of whom it speaks, if of anybody, and what has been read behind it.
pub(super) async fn read_header(
    stream: &mut TcpStream,
    expected: &ProxyHeader,
) -> Result<(Option<Endpoints>, BytesMut), Refused> {
    let reading = read(stream, expected);
    match expected.timeout {
        Some(limit) => tokio::time::timeout(limit, reading)
            .await
            .map_err(|_| Refused::Late)?,
        None => reading.await,
    }
}

async fn read(
    stream: &mut TcpStream,
    expected: &ProxyHeader,
) -> Result<(Option<Endpoints>, BytesMut), Refused> {
    let mut buffer = BytesMut::with_capacity(FIRST_READ);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(Refused::Ended);
        }
        match proxy_protocol::decode(&buffer)? {
            Beginning::Undecided => {}
            Beginning::Header(Header { version, .. }) if !expected.allows(version) => {
                return Err(Refused::Disallowed(version));
            }
            Beginning::Header(header) => {
                let behind = buffer.split_off(header.length);
                return Ok((header.endpoints, behind));
            }
            Beginning::NoHeader if expected.is_optional => return Ok((None, buffer)),
            Beginning::NoHeader => return Err(Refused::Missing),
        }
    }
}
