//! Clients without manners: they reset, go silent, never read, end half, and say what is no protocol.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clients::{connect, random};
use crate::resources::{HTTP, HTTP_BY_TLS, INBOUND, TCP, TCP_BY_TLS};

/// One connection, ended one way or another. What becomes of it is nobody's business.
pub(crate) async fn connection() -> io::Result<()> {
    let http = [HTTP, HTTP_BY_TLS][random(0, 2)];
    let tcp = [TCP, TCP_BY_TLS][random(0, 2)];
    match random(0, 9) {
        0 => {
            reset_within(
                http,
                b"POST /back HTTP/1.1\r\nhost: a\r\ncontent-length: 900000\r\n\r\nabc",
            )
            .await
        }
        1 => reset_within(http, b"GET /lar").await,
        2 => read_slowly(http, b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n").await,
        3 => {
            half_close(
                http,
                b"GET /large HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
            )
            .await
        }
        4 => silence(tcp).await,
        5 => never_read(tcp).await,
        6 => reset_within(INBOUND, &[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc]).await,
        7 => {
            half_close(
                http,
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\xff\xff\xffgarbage",
            )
            .await
        }
        _ => dribble(http).await,
    }
}

fn reset(stream: TcpStream) {
    // Closed with bytes unread or unsent, and without waiting: a reset.
    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
}

async fn reset_within(port: u16, said: &[u8]) -> io::Result<()> {
    let mut stream = connect(port).await?;
    stream.write_all(said).await?;
    tokio::time::sleep(Duration::from_millis(random(0, 300) as u64)).await;
    reset(stream);
    Ok(())
}

async fn read_slowly(port: u16, said: &[u8]) -> io::Result<()> {
    let mut stream = connect(port).await?;
    stream.write_all(said).await?;
    let mut piece = [0; 1024];
    for _ in 0..random(10, 200) {
        if stream.read(&mut piece).await? == 0 {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    reset(stream);
    Ok(())
}

async fn half_close(port: u16, said: &[u8]) -> io::Result<()> {
    let mut stream = connect(port).await?;
    stream.write_all(said).await?;
    stream.shutdown().await?;
    tokio::io::copy(&mut stream, &mut tokio::io::sink()).await?;
    Ok(())
}

async fn silence(port: u16) -> io::Result<()> {
    let stream = connect(port).await?;
    tokio::time::sleep(Duration::from_millis(random(0, 5000) as u64)).await;
    drop(stream);
    Ok(())
}

async fn never_read(port: u16) -> io::Result<()> {
    let mut stream = connect(port).await?;
    let sending = async {
        loop {
            stream.write_all(&[b'd'; 64 * 1024]).await?;
        }
    };
    let ended: Result<io::Result<()>, _> =
        tokio::time::timeout(Duration::from_secs(3), sending).await;
    reset(stream);
    ended.unwrap_or(Ok(()))
}

async fn dribble(port: u16) -> io::Result<()> {
    let mut stream = connect(port).await?;
    for byte in b"GET /small HTTP/1.1\r\nhost: a\r\nx-long: aaaaaaaaaaaaaaaaa" {
        stream.write_all(&[*byte]).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    drop(stream);
    Ok(())
}
