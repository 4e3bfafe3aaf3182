//! The older process: it offers its sockets on a unix socket, and goes on until another has taken over.

use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::{UnixListener, UnixStream};

use super::conversation::{ANSWER_LIMIT, PROTOCOL, Reply, Request, receive, send};
use super::{Epoch, READY_LIMIT, SocketName};

/// The pause after the system refused to accept.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The socket at which a newer process asks.
#[derive(Debug)]
pub struct Offer {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode: another process may have put its own in this place.
    file: (u64, u64),
}

/// A newer process that has asked, and is of the same user.
#[derive(Debug)]
pub struct Asking {
    stream: UnixStream,
    /// Its version.
    pub version: String,
}

/// Why a process that asked has not taken over; the older one goes on.
#[derive(Debug, thiserror::Error)]
pub enum NotReplaced {
    /// Somebody else is at the door.
    #[error("user {0} asked to replace this proxy, which is not its own")]
    OtherUser(u32),
    /// It speaks another version.
    #[error(
        "version {version} speaks protocol {protocol} and this proxy {PROTOCOL}: restart it in place of replacing it"
    )]
    Protocol {
        /// Its version.
        version: String,
        /// What it speaks.
        protocol: u32,
    },
    /// It said something that has no place there.
    #[error("the newer process said {0} out of turn")]
    OutOfTurn(&'static str),
    /// The sockets could not be copied.
    #[error("copying the listening sockets; is the limit of open files too low?")]
    Sockets(#[source] io::Error),
    /// It ended, or was too slow, before it served.
    #[error("the newer process ended or was silent before it served")]
    Gone(#[source] io::Error),
}

impl Offer {
    /// Listens there, in the place of whoever did before.
    ///
    /// # Errors
    /// The directory is missing or cannot be written to.
    pub fn at(path: &Path) -> io::Result<Self> {
        // Under another name first: from one moment to the next it is this process that is asked.
        let temporary = path.with_extension(format!("new-{:08x}", rand::random::<u32>()));
        let listener = UnixListener::bind(&temporary)?;
        let placed = fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600))
            .and_then(|()| fs::metadata(&temporary))
            .and_then(|file| fs::rename(&temporary, path).map(|()| file));
        let file = placed.inspect_err(|_| {
            let _ = fs::remove_file(&temporary);
        })?;
        Ok(Offer {
            listener,
            path: path.to_owned(),
            file: (file.dev(), file.ino()),
        })
    }

    /// Waits for the next process that asks as it should; others are told why not.
    pub async fn asked(&self) -> Asking {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => match admit(stream).await {
                    Ok(asking) => return asking,
                    Err(error) => tracing::warn!(%error, "not replaced; serving on"),
                },
                Err(error) => {
                    tracing::warn!(%error, "nobody can ask to replace this proxy for now");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
    }
}

impl Drop for Offer {
    /// Takes the name away, if it is still this process's.
    fn drop(&mut self) {
        if fs::metadata(&self.path).is_ok_and(|file| (file.dev(), file.ino()) == self.file) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

async fn admit(mut stream: UnixStream) -> Result<Asking, NotReplaced> {
    let user = stream.peer_cred().map_err(NotReplaced::Gone)?.uid();
    if user != rustix::process::geteuid().as_raw() {
        return Err(NotReplaced::OtherUser(user));
    }
    let (request, _) = receive(&mut stream, ANSWER_LIMIT)
        .await
        .map_err(NotReplaced::Gone)?;
    let Request::Replace { protocol, version } = request else {
        return Err(NotReplaced::OutOfTurn("that it serves"));
    };
    if protocol == PROTOCOL {
        return Ok(Asking { stream, version });
    }
    let refused = NotReplaced::Protocol { version, protocol };
    let reason = refused.to_string();
    // Whoever does not listen is refused all the same.
    let _ = send(&mut stream, &Reply::Refused { reason }, None).await;
    Err(refused)
}

impl Asking {
    /// Gives it the sockets and waits until it serves; says how long this process may go on then.
    ///
    /// # Errors
    /// It did not come to serve: this process goes on.
    pub async fn hand(
        &mut self,
        epoch: Epoch,
        sockets: &[(SocketName, OwnedFd)],
    ) -> Result<Duration, NotReplaced> {
        let replaceable = Reply::Replaceable {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            epoch,
            sockets: u32::try_from(sockets.len()).unwrap_or(u32::MAX),
        };
        let stream = &mut self.stream;
        send(stream, &replaceable, None)
            .await
            .map_err(NotReplaced::Gone)?;
        for (name, socket) in sockets {
            let named = Reply::Socket(name.clone());
            send(stream, &named, Some(socket.as_fd()))
                .await
                .map_err(NotReplaced::Gone)?;
        }
        let (request, _) = receive(stream, READY_LIMIT)
            .await
            .map_err(NotReplaced::Gone)?;
        match request {
            Request::Serving { drain_seconds } => Ok(Duration::from_secs(drain_seconds)),
            Request::Replace { .. } => Err(NotReplaced::OutOfTurn("that it wants to replace")),
        }
    }

    /// Tells it that this process accepts nothing more.
    pub async fn confirm(mut self) {
        if let Err(error) = send(&mut self.stream, &Reply::Draining, None).await {
            tracing::debug!(%error, "the newer process does not listen any more");
        }
    }
}
