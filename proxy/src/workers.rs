//! The data plane: worker threads, listeners, and the snapshot they serve.
//!
//! Each worker is a thread with a runtime of its own: a connection stays on the one it was placed on, with
//! the upstream connections that its requests use. Connections are placed in turn, which spreads few long
//! ones evenly. That it is so is decided here and nowhere else.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::net::UnixStream;
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;
use weft_proto::handoff::Introduction;

use crate::cluster::zones::vicinity::Vicinity;
use crate::config::Configuration;
use crate::config::overload::OverloadConfig;
use crate::connection::introduced::{self, Introduced};
use crate::drain::{Drain, StillOpen};
use crate::handover::{Inheritance, SocketName};
use crate::listener::{BindFailure, Listeners, Placement};
use crate::overload::{self, Overload};
use crate::pace;
use crate::snapshot::{Resolved, Snapshot};
use crate::telemetry::changes::ConfigurationChanges;
use crate::telemetry::counters::Counters;
use crate::telemetry::managers::ManagerStats;
use crate::telemetry::report::ReportSink;
use crate::telemetry::tally::Tallies;
use crate::telemetry::tunnels::{TcpStats, tcp_stats};
use crate::telemetry::value::{Shards, claim_row};
use crate::upstream::environment::Environment;
use crate::upstream::{Upstreams, explain, keeper, pool, shard};

/// Worker threads, each with a runtime.
pub struct Workers {
    handles: Vec<Handle>,
    next: AtomicUsize,
    stop: CancellationToken,
}

impl Workers {
    /// Starts so many.
    ///
    /// # Errors
    /// The system refuses a thread or an epoll instance.
    pub fn start(count: NonZeroUsize) -> io::Result<Self> {
        let stop = CancellationToken::new();
        let handles = (0..count.get())
            .map(|index| start_worker(index, stop.clone()))
            .collect::<io::Result<_>>()?;
        Ok(Workers {
            handles,
            next: AtomicUsize::new(0),
            stop,
        })
    }
}

impl Placement for Workers {
    fn next(&self) -> Handle {
        let turn = self.next.fetch_add(1, Ordering::Relaxed);
        self.handles[turn % self.handles.len()].clone()
    }
}

impl Drop for Workers {
    /// Ends the threads, and with them everything that runs there.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn start_worker(index: usize, stop: CancellationToken) -> io::Result<Handle> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let handle = runtime.handle().clone();
    std::thread::Builder::new()
        .name(format!("weft-worker-{index}"))
        .spawn(move || {
            shard::enter(index);
            claim_row();
            runtime.block_on(async {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = pace::keep() => {}
                }
            });
        })?;
    Ok(handle)
}

/// What a data plane is made of.
pub struct Options {
    /// How many threads serve.
    pub workers: NonZeroUsize,
    /// Identity and networks.
    pub upstreams: Upstreams,
    /// Who is told what has happened.
    pub reports: Arc<dyn ReportSink>,
    /// What a process that is replaced has left.
    pub inheritance: Inheritance,
    /// What is done when the proxy itself runs short of something.
    pub overload: Option<OverloadConfig>,
    /// Where the proxy is, and those like it.
    pub vicinity: Option<Arc<Vicinity>>,
    /// The cluster that the proxy's own node says it is of.
    pub node_cluster: Arc<str>,
    /// Gives free memory back to the system.
    pub release_memory: fn(),
}

/// Serves a configuration until it is dropped.
pub struct DataPlane {
    environment: Arc<Environment>,
    served: tokio::sync::Mutex<Served>,
    maintenance: CancellationToken,
    workers: Arc<Workers>,
}

/// What a change of configuration changes, one at a time.
struct Served {
    listeners: Listeners,
    configuration: Configuration,
    resolved: Resolved,
    resolve_at: Option<Instant>,
    is_bound: bool,
}

/// How often idle connections are looked for, sockets that could not be bound are tried again, and names
/// whose time is over are looked up.
const MAINTENANCE: Duration = Duration::from_secs(1);

impl DataPlane {
    /// Starts the workers; they serve nothing until a configuration is applied. Called within a runtime,
    /// which looks after the data plane from then on.
    ///
    /// # Errors
    /// The workers cannot be started.
    pub fn start(options: Options) -> io::Result<Arc<Self>> {
        // One more for the thread that has called this, which may count before they do.
        let shards = Shards::for_threads(options.workers.get() + 1);
        let workers = Arc::new(Workers::start(options.workers)?);
        let counters = Counters::default();
        let counted = options
            .overload
            .as_ref()
            .map(|config| Arc::new(overload::Counted::new(config, &counters)));
        let overload = Overload::new(options.overload, &counters);
        let environment = Arc::new(Environment {
            snapshot: ArcSwap::from_pointee(Snapshot::near(options.vicinity)),
            node_cluster: options.node_cluster,
            upstreams: options.upstreams,
            reports: options.reports,
            drain: Drain::new(),
            is_failed: AtomicBool::new(false),
            changed: Arc::default(),
            counters,
            changes: ConfigurationChanges::default(),
            managers: Tallies::new(shards, ManagerStats::new, ManagerStats::absorb),
            tunnels: Tallies::new(shards, tcp_stats, TcpStats::absorb),
            overload: Arc::clone(&overload),
        });
        let placement: Arc<dyn Placement> = Arc::clone(&workers) as _;
        let served = Served {
            listeners: Listeners::new(Arc::clone(&environment), placement, options.inheritance),
            configuration: Configuration::default(),
            resolved: Resolved::new(),
            resolve_at: None,
            is_bound: true,
        };
        let data_plane = Arc::new(DataPlane {
            environment,
            served: tokio::sync::Mutex::new(served),
            maintenance: CancellationToken::new(),
            workers,
        });
        if let Some(counted) = counted {
            let stop = data_plane.maintenance.clone();
            tokio::spawn(overload::watch(
                overload,
                counted,
                options.release_memory,
                stop,
            ));
        }
        tokio::spawn(keeper::run(
            Arc::downgrade(&data_plane.environment),
            data_plane.maintenance.clone(),
        ));
        tokio::spawn(maintain(
            Arc::downgrade(&data_plane),
            data_plane.maintenance.clone(),
        ));
        Ok(data_plane)
    }

    /// Serves a configuration from now on; requests in flight end on the one they began with. What cannot be
    /// bound is reported and tried again in the background.
    pub async fn apply(&self, configuration: Configuration) -> Vec<BindFailure> {
        let mut served = self.served.lock().await;
        served.configuration = configuration;
        self.publish(&served);
        // Names are looked up after the rest is served: nobody waits for DNS who doesn't need it.
        served.resolve_at = Some(Instant::now());
        self.bind(&mut served).await
    }

    /// The snapshot that is served.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.environment.snapshot.load_full()
    }

    /// How many threads serve.
    pub fn workers(&self) -> usize {
        self.workers.handles.len()
    }

    /// What connections are served with.
    pub fn environment(&self) -> &Arc<Environment> {
        &self.environment
    }

    /// Where a listener really listens.
    pub async fn addresses(&self, listener: &str) -> Vec<SocketAddr> {
        self.served.lock().await.listeners.addresses(listener)
    }

    /// Serves a connection from another sidecar of this machine.
    pub fn serve_introduced(
        &self,
        stream: std::os::unix::net::UnixStream,
        introduction: Introduction,
    ) {
        let environment = Arc::clone(&self.environment);
        self.workers.next().spawn(async move {
            let stream = stream
                .set_nonblocking(true)
                .and_then(|()| UnixStream::from_std(stream));
            let stream = match stream {
                Ok(stream) => stream,
                Err(error) => return tracing::warn!(%error, "a local channel was lost"),
            };
            let introduced = Introduced {
                stream,
                introduction,
            };
            let drain = environment.drain.child();
            introduced::serve(environment, introduced, drain).await;
        });
    }

    /// Copies of all sockets, for a process that is to accept from them too.
    ///
    /// # Errors
    /// There are too many open files.
    pub async fn sockets(&self) -> io::Result<Vec<(SocketName, OwnedFd)>> {
        self.served.lock().await.listeners.sockets()
    }

    /// Accepts nothing more and lets connections finish what they have begun.
    ///
    /// # Errors
    /// Some had not finished within the limit; they go on until the data plane is dropped.
    pub async fn drain(&self, limit: Duration) -> Result<(), StillOpen> {
        self.environment.drain.start();
        self.environment.drain.finished_within(limit).await
    }

    fn publish(&self, served: &Served) {
        let previous = self.environment.snapshot.load_full();
        let next = Snapshot::build(&previous, &served.configuration, &served.resolved);
        next.count_changes(&previous, &self.environment.changes);
        self.environment.snapshot.store(Arc::new(next));
        self.environment.changed.notify_one();
    }

    async fn bind(&self, served: &mut Served) -> Vec<BindFailure> {
        if self.environment.drain.is_started() {
            return vec![];
        }
        let snapshot = self.environment.snapshot.load_full();
        let failures = served.listeners.reconcile(&snapshot).await;
        served.is_bound = failures.is_empty();
        let changes = &self.environment.changes;
        let not_bound = failures.len() as u64;
        changes.not_bound.fetch_add(not_bound, Ordering::Relaxed);
        failures
    }

    async fn maintain_once(&self) {
        let now = Instant::now();
        let mut served = self.served.lock().await;
        if served.resolve_at.is_some_and(|at| at <= now) {
            self.resolve(&mut served, now).await;
        }
        if !served.is_bound {
            for failure in self.bind(&mut served).await {
                tracing::debug!(error = explain(&failure), "still not bound");
            }
        }
        drop(served);
        pool::close_idle(&self.environment.snapshot.load(), now);
    }

    async fn resolve(&self, served: &mut Served, now: Instant) {
        let upstreams = &self.environment.upstreams;
        let found = upstreams
            .resolve(&served.configuration, &served.resolved)
            .await;
        let Some((resolved, ttl)) = found else {
            served.resolve_at = None;
            return;
        };
        served.resolve_at = Some(now + ttl);
        if resolved != served.resolved {
            served.resolved = resolved;
            self.publish(served);
        }
    }
}

impl Drop for DataPlane {
    fn drop(&mut self) {
        self.environment.drain.start();
        self.maintenance.cancel();
    }
}

/// Looks after a data plane until it is dropped.
async fn maintain(data_plane: std::sync::Weak<DataPlane>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(MAINTENANCE) => {}
            () = stop.cancelled() => return,
        }
        match data_plane.upgrade() {
            Some(data_plane) => data_plane.maintain_once().await,
            None => return,
        }
    }
}
