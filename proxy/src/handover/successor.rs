//! The newer process: it finds the older one, gets its sockets, and relieves it.

use std::io;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::net::UnixStream;

use super::conversation::{ANSWER_LIMIT, MAX_SOCKETS, PROTOCOL, Reply, Request, receive, send};
use super::{Epoch, Inheritance, SocketName};

/// How many processes are asked that are relieved just then.
const MAX_ATTEMPTS: u32 = 5;
/// How long whoever relieves them may take to listen in their place.
const RETIRED_PAUSE: Duration = Duration::from_millis(100);

/// The older process, which serves until it is relieved.
#[derive(Debug)]
pub struct Predecessor {
    stream: UnixStream,
    /// What this process counts as.
    pub epoch: Epoch,
    /// What it has handed over.
    pub inheritance: Inheritance,
}

/// Why the older process cannot be replaced; it goes on.
#[derive(Debug, thiserror::Error)]
pub enum CannotReplace {
    /// It cannot be asked.
    #[error("asking the proxy that listens at {} for its sockets", path.display())]
    Ask {
        /// The unix socket.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It said no.
    #[error("the running proxy refuses: {0}")]
    Refused(String),
    /// It said something that has no place there.
    #[error("the running proxy's answer makes no sense: {0}")]
    Nonsense(&'static str),
}

impl Predecessor {
    /// Asks whoever runs for its sockets; `None`: nobody does.
    ///
    /// # Errors
    /// Somebody runs who does not hand them over.
    pub async fn find(path: &Path) -> Result<Option<Self>, CannotReplace> {
        let asking = |source| CannotReplace::Ask {
            path: path.to_owned(),
            source,
        };
        let mut attempts = 1;
        let asked = loop {
            match ask(path).await {
                Err(error) if is_retired(&error) && attempts < MAX_ATTEMPTS => {
                    attempts += 1;
                    tokio::time::sleep(RETIRED_PAUSE).await;
                }
                asked => break asked,
            }
        };
        let (mut stream, reply) = match asked {
            Ok(answered) => answered,
            Err(error) if is_nobody(&error) => return Ok(None),
            Err(error) => return Err(asking(error)),
        };
        let (version, epoch, count) = match reply {
            Reply::Replaceable { sockets, .. } if sockets > MAX_SOCKETS => {
                return Err(CannotReplace::Nonsense("so many sockets"));
            }
            Reply::Replaceable {
                version,
                epoch,
                sockets,
            } => (version, epoch, sockets),
            Reply::Refused { reason } => return Err(CannotReplace::Refused(reason)),
            Reply::Socket(_) | Reply::Draining => {
                return Err(CannotReplace::Nonsense("an answer out of turn"));
            }
        };
        let mut sockets = Vec::new();
        for _ in 0..count {
            let received = receive(&mut stream, ANSWER_LIMIT).await;
            sockets.push(socket(received.map_err(asking)?)?);
        }
        tracing::info!(
            version,
            epoch = epoch.number,
            count,
            "replacing the running proxy"
        );
        Ok(Some(Predecessor {
            stream,
            epoch: epoch.next(),
            inheritance: Inheritance::of(sockets),
        }))
    }

    /// Tells it that this process serves, and how long it may take to finish. Returns when it accepts nothing
    /// more; one that is gone by now does not, either.
    pub async fn relieve(mut self, drain: Duration) {
        let serving = Request::Serving {
            drain_seconds: drain.as_secs(),
        };
        let relieved = async {
            send(&mut self.stream, &serving, None).await?;
            receive::<Reply>(&mut self.stream, ANSWER_LIMIT).await
        };
        match relieved.await {
            Ok((Reply::Draining, _)) => tracing::info!("the older process drains"),
            Ok(_) => tracing::warn!("the older process answered something else"),
            Err(error) => tracing::warn!(%error, "the older process is gone"),
        }
    }
}

/// Asks the process that listens there; what it answers at once.
async fn ask(path: &Path) -> io::Result<(UnixStream, Reply)> {
    let mut stream = UnixStream::connect(path).await?;
    let request = Request::Replace {
        protocol: PROTOCOL,
        version: env!("CARGO_PKG_VERSION").to_owned(),
    };
    send(&mut stream, &request, None).await?;
    let (reply, _) = receive(&mut stream, ANSWER_LIMIT).await?;
    Ok((stream, reply))
}

/// Whoever was asked hung up without a word, as one does that another has just relieved: that one is asked next.
fn is_retired(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe
    )
}

/// Nobody listens there: no file, or one that a process left behind.
fn is_nobody(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
    )
}

fn socket(
    (reply, socket): (Reply, Option<OwnedFd>),
) -> Result<(SocketName, TcpListener), CannotReplace> {
    let (Reply::Socket(name), Some(socket)) = (reply, socket) else {
        return Err(CannotReplace::Nonsense("fewer sockets than it said"));
    };
    let socket = socket2::Socket::from(socket);
    let is_usable = socket.is_listener().unwrap_or(false)
        && socket
            .r#type()
            .is_ok_and(|kind| kind == socket2::Type::STREAM)
        && socket.set_nonblocking(true).is_ok();
    match is_usable {
        true => Ok((name, socket.into())),
        false => Err(CannotReplace::Nonsense("a socket that does not listen")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::super::predecessor::{NotReplaced, Offer};
    use super::super::{Role, SocketName};
    use super::*;

    const EPOCH: Epoch = Epoch {
        number: 4,
        first_started: 7,
    };

    fn name() -> SocketName {
        SocketName::own(Role::Health, ([127, 0, 0, 1], 0).into())
    }

    #[tokio::test]
    async fn sockets_are_handed_over_and_the_older_one_is_relieved() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("handover.sock");
        let offer = Offer::at(&path).expect("offered");
        let socket = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = socket.local_addr().expect("an address");
        let older = tokio::spawn(async move {
            let mut asking = offer.asked().await;
            let limit = asking.hand(EPOCH, &[(name(), socket.into())]).await;
            asking.confirm().await;
            limit
        });

        let newer = Predecessor::find(&path).await.expect("asked").expect("one");
        assert_eq!((newer.epoch.number, newer.epoch.first_started), (5, 7));
        let inherited = newer.inheritance.take(&name()).expect("a socket");
        newer.relieve(Duration::from_secs(30)).await;

        assert_eq!(inherited.local_addr().expect("an address"), address);
        let limit = older.await.expect("joined").expect("relieved");
        assert_eq!(limit, Duration::from_secs(30));
        assert!(!path.exists(), "whoever ends takes the name away");
    }

    #[tokio::test]
    async fn nobody_there_is_nobody_to_replace() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("handover.sock");
        assert!(Predecessor::find(&path).await.expect("nobody").is_none());

        // Left behind by a process that was killed.
        drop(std::os::unix::net::UnixListener::bind(&path).expect("bound"));

        assert!(Predecessor::find(&path).await.expect("nobody").is_none());
    }

    #[tokio::test]
    async fn whoever_asks_one_that_is_just_relieved_asks_the_next() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("handover.sock");
        let retired = UnixListener::bind(&path).expect("bound");
        let newer = tokio::spawn({
            let path = path.clone();
            async move { Predecessor::find(&path).await }
        });

        let (unanswered, _) = retired.accept().await.expect("asked");
        let offer = Offer::at(&path).expect("offered");
        drop((unanswered, retired));
        let mut asking = offer.asked().await;
        let handing = tokio::spawn(async move { asking.hand(EPOCH, &[]).await });

        let found = newer.await.expect("joined").expect("asked").expect("one");
        assert_eq!(found.epoch.number, 5);
        handing.abort();
    }

    #[tokio::test]
    async fn one_that_dies_before_it_serves_has_replaced_nobody() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("handover.sock");
        let offer = Offer::at(&path).expect("offered");
        let newer = tokio::spawn({
            let path = path.clone();
            async move { Predecessor::find(&path).await.map(drop) }
        });

        let mut asking = offer.asked().await;
        let handed = asking.hand(EPOCH, &[]).await;

        assert!(matches!(handed, Err(NotReplaced::Gone(_))), "{handed:?}");
        newer.await.expect("joined").expect("asked");
        assert!(path.exists(), "the next one may ask");
    }

    #[tokio::test]
    async fn one_that_speaks_another_protocol_is_told_so() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("handover.sock");
        let offer = Offer::at(&path).expect("offered");
        let older = tokio::spawn(async move { offer.asked().await });
        let mut stream = UnixStream::connect(&path).await.expect("connected");
        let later = Request::Replace {
            protocol: PROTOCOL + 1,
            version: "9.9".to_owned(),
        };

        send(&mut stream, &later, None).await.expect("sent");
        let (reply, _) = receive::<Reply>(&mut stream, ANSWER_LIMIT)
            .await
            .expect("answered");

        let Reply::Refused { reason } = reply else {
            panic!("{reply:?}");
        };
        assert!(
            reason.contains("9.9") && reason.contains("protocol 2"),
            "{reason}"
        );
        older.abort();
    }

    #[tokio::test]
    async fn a_socket_that_does_not_listen_is_refused() {
        let stray = std::net::UdpSocket::bind("127.0.0.1:0").expect("a port");

        let taken = socket((Reply::Socket(name()), Some(stray.into())));

        assert!(matches!(taken, Err(CannotReplace::Nonsense(_))));
    }
}
