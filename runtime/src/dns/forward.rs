//! Names outside the mesh: asked of the host through the socket broker, and remembered for as long as they hold.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use weft_proto::handoff::{self, BrokerReply, BrokerRequest};

/// Clients ask again after five seconds.
const DEADLINE: Duration = Duration::from_secs(4);
const MAX_QUESTIONS: usize = 64;
const MAX_CACHED: usize = 4096;
const MAX_TTL: Duration = Duration::from_secs(300);
/// A name that does not exist is asked for again after this.
const NEGATIVE_TTL: Duration = Duration::from_secs(5);

/// What the host says of a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Resolved {
    Addresses {
        addresses: Vec<IpAddr>,
        ttl_seconds: u32,
    },
    NoSuchName,
    /// The broker is away, or could not find out.
    Unknown,
}

/// Asks the broker.
#[derive(Debug)]
pub(super) struct Forwarder {
    broker: PathBuf,
    questions: Semaphore,
    cache: Mutex<HashMap<String, (Resolved, Instant)>>,
}

impl Forwarder {
    pub(super) fn new(broker: &Path) -> Forwarder {
        Forwarder {
            broker: broker.to_owned(),
            questions: Semaphore::new(MAX_QUESTIONS),
            cache: Mutex::default(),
        }
    }

    pub(super) async fn resolve(&self, name: &str) -> Resolved {
        if let Some(known) = self.remembered(name, Instant::now()) {
            return known;
        }
        let asked = tokio::time::timeout(DEADLINE, self.ask(name)).await;
        match asked {
            Ok(Ok(resolved)) => {
                self.remember(name, &resolved, Instant::now());
                resolved
            }
            Ok(Err(error)) => {
                tracing::debug!(name, %error, "the broker did not resolve a name");
                Resolved::Unknown
            }
            Err(_) => Resolved::Unknown,
        }
    }

    async fn ask(&self, name: &str) -> io::Result<Resolved> {
        let _permit = self.questions.acquire().await.map_err(io::Error::other)?;
        let mut stream = UnixStream::connect(&self.broker).await?;
        let request = BrokerRequest::Resolve {
            name: name.to_owned(),
        };
        handoff::send(&mut stream, &request, None).await?;
        let (reply, _) = handoff::receive::<BrokerReply>(&mut stream).await?;
        match reply {
            BrokerReply::Addresses {
                addresses,
                ttl_seconds,
            } => Ok(Resolved::Addresses {
                addresses,
                ttl_seconds,
            }),
            BrokerReply::NoSuchName => Ok(Resolved::NoSuchName),
            BrokerReply::Failed { reason, .. } => Err(io::Error::other(reason)),
            BrokerReply::Socket | BrokerReply::Introduced(_) => {
                Err(io::ErrorKind::InvalidData.into())
            }
        }
    }

    fn remembered(&self, name: &str, now: Instant) -> Option<Resolved> {
        let cache = self.cache.lock();
        let (resolved, until) = cache.get(name)?;
        (*until > now).then(|| resolved.clone())
    }

    fn remember(&self, name: &str, resolved: &Resolved, now: Instant) {
        let ttl = match resolved {
            Resolved::Addresses { ttl_seconds, .. } => {
                Duration::from_secs((*ttl_seconds).into()).min(MAX_TTL)
            }
            Resolved::NoSuchName => NEGATIVE_TTL,
            Resolved::Unknown => return,
        };
        let mut cache = self.cache.lock();
        if cache.len() >= MAX_CACHED {
            cache.retain(|_, (_, until)| *until > now);
        }
        // Full of names that still hold: this one is asked for again.
        if cache.len() < MAX_CACHED {
            cache.insert(name.to_owned(), (resolved.clone(), now + ttl));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::UnixListener;

    use super::*;

    fn example() -> Resolved {
        Resolved::Addresses {
            addresses: vec![IpAddr::from([192, 0, 2, 1])],
            ttl_seconds: 60,
        }
    }

    #[tokio::test]
    async fn without_a_broker_nothing_is_known_and_nothing_remembered() {
        let forwarder = Forwarder::new(Path::new("/nonexistent/broker.sock"));

        assert_eq!(forwarder.resolve("example.com.").await, Resolved::Unknown);
        assert_eq!(forwarder.remembered("example.com.", Instant::now()), None);
    }

    #[tokio::test]
    async fn the_brokers_answer_is_remembered() {
        let directory = tempfile::tempdir().expect("directory");
        let socket = directory.path().join("broker.sock");
        let listener = UnixListener::bind(&socket).expect("listener");
        let broker = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.expect("a question");
            let (request, _) = handoff::receive::<BrokerRequest>(&mut stream)
                .await
                .expect("request");
            let reply = BrokerReply::Addresses {
                addresses: vec![IpAddr::from([192, 0, 2, 1])],
                ttl_seconds: 60,
            };
            handoff::send(&mut stream, &reply, None)
                .await
                .expect("reply");
            request
        });
        let forwarder = Forwarder::new(&socket);

        let first = forwarder.resolve("example.com.").await;
        let asked = broker.await.expect("the broker");
        // The broker is gone: only memory can answer.
        let second = forwarder.resolve("example.com.").await;

        assert_eq!(
            asked,
            BrokerRequest::Resolve {
                name: "example.com.".into()
            }
        );
        assert_eq!((first, second), (example(), example()));
    }

    #[test]
    fn a_full_cache_forgets_what_no_longer_holds() {
        let forwarder = Forwarder::new(Path::new("/nonexistent"));
        let start = Instant::now();
        for number in 0..MAX_CACHED {
            forwarder.remember(&number.to_string(), &Resolved::NoSuchName, start);
        }
        forwarder.remember("too-many", &example(), start);
        assert_eq!(forwarder.remembered("too-many", start), None);

        let later = start + NEGATIVE_TTL + Duration::from_secs(1);
        forwarder.remember("later", &example(), later);

        assert_eq!(forwarder.remembered("later", later), Some(example()));
    }
}
