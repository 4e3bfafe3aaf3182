//! What two proxies say to each other when one replaces the other, over a unix stream socket.
//!
//! Messages are bounded and framed by `weft_proto::handoff`; a socket travels with the message that names it. Fields
//! may be added; whoever does not know them ignores them. What must be understood makes a new [`PROTOCOL`].

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use weft_proto::handoff;

use super::{Epoch, SocketName};

/// Who speaks another version is refused.
pub(super) const PROTOCOL: u32 = 1;
/// How long either side waits for what the other can say at once.
pub(super) const ANSWER_LIMIT: Duration = Duration::from_secs(10);
/// No proxy has more listening sockets than it may have descriptors.
pub(super) const MAX_SOCKETS: u32 = 65_536;

/// What the newer process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "request", rename_all = "kebab-case")]
pub(super) enum Request {
    /// It wants to replace the older one.
    Replace {
        /// What it speaks.
        protocol: u32,
        /// Its version, for the log.
        version: String,
    },
    /// It accepts connections: the older one is to finish what it has begun.
    Serving {
        /// How long that may take.
        drain_seconds: u64,
    },
}

/// What the older process says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "reply", rename_all = "kebab-case")]
pub(super) enum Reply {
    /// It may be replaced: so many sockets follow.
    Replaceable {
        /// Its version, for the log.
        version: String,
        /// Its own.
        epoch: Epoch,
        /// How many messages with sockets follow.
        sockets: u32,
    },
    /// A listening socket is attached.
    Socket(SocketName),
    /// It accepts nothing more.
    Draining,
    /// It does not let itself be replaced.
    Refused {
        /// For people.
        reason: String,
    },
}

/// Sends a message in time.
pub(super) async fn send<T: Serialize>(
    stream: &mut UnixStream,
    message: &T,
    socket: Option<BorrowedFd<'_>>,
) -> io::Result<()> {
    tokio::time::timeout(ANSWER_LIMIT, handoff::send(stream, message, socket))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

/// Receives a message, and the socket that came with it, in time.
pub(super) async fn receive<T: DeserializeOwned>(
    stream: &mut UnixStream,
    limit: Duration,
) -> io::Result<(T, Option<OwnedFd>)> {
    tokio::time::timeout(limit, handoff::receive(stream))
        .await
        .map_err(|_| io::Error::from(io::ErrorKind::TimedOut))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_later_version_adds_is_ignored() {
        let later = r#"{"request":"replace","protocol":1,"version":"9","color":"blue"}"#;

        let read: Request = serde_json::from_str(later).expect("understood");

        let known = Request::Replace {
            protocol: 1,
            version: "9".to_owned(),
        };
        assert_eq!(read, known);
    }
}
