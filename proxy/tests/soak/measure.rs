//! What a process has: anonymous memory and descriptors, under load and at rest.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::clients::Load;
use crate::resources;

/// No longer is waited for rest or readiness.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the number of descriptors must stay the same.
const QUIET: Duration = Duration::from_secs(5);
/// How often the admin interface is asked for everything.
const SCRAPE: Duration = Duration::from_secs(5);

/// What a process has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Measured {
    pub(crate) anonymous_kib: u64,
    pub(crate) descriptors: u64,
}

impl fmt::Display for Measured {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Measured {
            anonymous_kib,
            descriptors,
        } = self;
        write!(
            formatter,
            "{anonymous_kib} KiB anonymous, {descriptors} descriptors"
        )
    }
}

/// Looks at a process.
pub(crate) struct Watcher {
    process: u32,
    most_anonymous_kib: AtomicU64,
    most_descriptors: AtomicU64,
    scrapes: AtomicU64,
}

impl fmt::Display for Watcher {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "at most {} KiB anonymous and {} descriptors under load, {} scrapes",
            self.most_anonymous_kib.load(Ordering::Relaxed),
            self.most_descriptors.load(Ordering::Relaxed),
            self.scrapes.load(Ordering::Relaxed),
        )
    }
}

impl Watcher {
    pub(crate) fn new(process: u32) -> Self {
        Watcher {
            process,
            most_anonymous_kib: AtomicU64::new(0),
            most_descriptors: AtomicU64::new(0),
            scrapes: AtomicU64::new(0),
        }
    }

    fn measure(&self) -> Measured {
        let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", self.process));
        let rollup = rollup.expect("the proxy lives");
        let line = rollup.lines().find(|line| line.starts_with("Anonymous:"));
        let anonymous = line.and_then(|line| line.split_whitespace().nth(1));
        let descriptors = std::fs::read_dir(format!("/proc/{}/fd", self.process)).unwrap();
        Measured {
            anonymous_kib: anonymous.unwrap().parse().unwrap(),
            descriptors: descriptors.count() as u64,
        }
    }

    /// Waits until the proxy says that it is ready.
    pub(crate) async fn until_ready(&self) {
        let begun = Instant::now();
        while !asked("/ready")
            .await
            .is_some_and(|body| body.contains("200 OK"))
        {
            assert!(begun.elapsed() < PATIENCE, "the proxy is not ready in time");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// Lets clients run and the admin interface be asked until something is over; then they stop.
    pub(crate) async fn under(&self, load: &Load, until: impl Future<Output = ()>) {
        let running = load.run();
        tokio::select! {
            () = until => {}
            () = self.scrape() => {}
        }
        running.stop().await;
    }

    async fn scrape(&self) {
        loop {
            for path in [
                "/stats/prometheus",
                "/config_dump",
                "/clusters",
                "/listeners",
            ] {
                assert!(asked(path).await.is_some(), "no answer to {path}");
            }
            self.scrapes.fetch_add(1, Ordering::Relaxed);
            let now = self.measure();
            self.most_anonymous_kib
                .fetch_max(now.anonymous_kib, Ordering::Relaxed);
            self.most_descriptors
                .fetch_max(now.descriptors, Ordering::Relaxed);
            tokio::time::sleep(SCRAPE).await;
        }
    }

    /// What it has when nobody asks anything of it: once its descriptors have not changed for a while.
    pub(crate) async fn at_rest(&self) -> Measured {
        let begun = Instant::now();
        let (mut last, mut since) = (self.measure(), Instant::now());
        while since.elapsed() < QUIET {
            assert!(
                begun.elapsed() < PATIENCE,
                "the proxy does not come to rest: {last}"
            );
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = self.measure();
            if now.descriptors != last.descriptors {
                since = Instant::now();
            }
            last = now;
        }
        last
    }
}

/// The answer of the admin interface, head and all.
async fn asked(path: &str) -> Option<String> {
    let exchange = async {
        let address = ([127, 0, 0, 1], resources::ADMIN);
        let mut stream = TcpStream::connect(std::net::SocketAddr::from(address)).await?;
        let head = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
        stream.write_all(head.as_bytes()).await?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await?;
        Ok::<_, std::io::Error>(String::from_utf8_lossy(&answer).into_owned())
    };
    tokio::time::timeout(PATIENCE, exchange).await.ok()?.ok()
}
