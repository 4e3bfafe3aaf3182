//! The whole proxy: one control thread with everything that is not traffic, and the data plane's workers.
//!
//! [`run`] is what `weft proxy` calls. [`Proxy`] is the same without signals, for whoever embeds it.

mod apply;
mod channels;
mod handover;
mod log;
mod options;
mod settings;
mod sources;
mod traffic;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

pub use self::handover::NotTakenOver;
use self::handover::Succession;
pub use self::log::LogControl;
pub use self::options::{Mode, Options, PARENT_SHUTDOWN};
use self::settings::Settings;
use self::traffic::Carried;
use crate::admin::readiness::Readiness;
use crate::admin::server::{BindError, Endpoints};
use crate::admin::{self, AdminState};
use crate::bootstrap::{Bootstrap, BootstrapError};
use crate::config::identity::IdentityReceiver;
use crate::handover::Epoch;
use crate::handover::successor::CannotReplace;
use crate::identity::{CredentialsReceiver, Renewer};
use crate::telemetry::recorder::Recorder;
use crate::telemetry::registry::{DEFAULT_SERIES_CAP, Registry};
use crate::telemetry::value::Shards;
use crate::telemetry::{export, process};
use crate::workers::DataPlane;
use crate::xds::cache::{Cache, SharedCache};
use crate::xds::metrics::Metrics;

/// Why the proxy does not run.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its configuration is no good.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// It is to have an identity, and nobody could sign one.
    #[error(
        "an identity is asked for and the bootstrap names no control plane (dynamic_resources.ads_config)"
    )]
    NoControlPlane,
    /// One of its own ports is taken.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The proxy that runs cannot be replaced.
    #[error(transparent)]
    Predecessor(#[from] CannotReplace),
    /// This one did not get ready to replace it.
    #[error(transparent)]
    NotTakenOver(#[from] NotTakenOver),
    /// The system refuses threads, runtimes or signals.
    #[error("starting")]
    System(#[from] io::Error),
}

/// How long access logs may take to be written at the end.
const FLUSH_LIMIT: Duration = Duration::from_secs(1);
/// How long what runs beside the traffic may take to end.
const TASKS_LIMIT: Duration = Duration::from_secs(12);

/// Runs until SIGTERM or SIGINT, then drains and returns; a second signal ends it at once. Blocks.
///
/// # Errors
/// The bootstrap is refused, or a port or thread cannot be had. With [`Mode::Validate`] nothing else is done
/// than to read the bootstrap.
pub fn run(options: Options) -> Result<(), Error> {
    // First, so that fields without effect are said: also by a validation.
    let log = LogControl::install();
    let bootstrap = Bootstrap::read(&options.config)?;
    if options.mode == Mode::Validate {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut proxy = Proxy::start(&options, bootstrap, log).await?;
        let asked = proxy.quit.clone();
        let _rotation = log_rotation(&proxy.recorder)?;
        let taken_over = tokio::select! {
            taken_over = proxy.take_over(options.parent_shutdown) => Some(taken_over?),
            () = signals.next() => None,
            () = asked.cancelled() => None,
        };
        if taken_over.is_some() {
            tokio::select! {
                () = proxy.relieved_and_finished() => {}
                () = signals.next() => proxy.hurry(),
                () = asked.cancelled() => proxy.hurry(),
            }
        }
        let limit = options.drain_limit;
        tracing::info!(?limit, "draining");
        tokio::select! {
            () = proxy.shutdown(limit) => {}
            () = signals.next() => tracing::warn!("ended before the drain was over"),
        }
        Ok(())
    })
}

/// As Envoy: SIGUSR1 means that the files of access logs were moved away. Ends when dropped.
fn log_rotation(recorder: &Arc<Recorder>) -> io::Result<JoinSet<()>> {
    let mut moved = signal(SignalKind::user_defined1())?;
    let recorder = Arc::clone(recorder);
    let mut task = JoinSet::new();
    task.spawn(async move {
        while moved.recv().await.is_some() {
            if !recorder.reopen_logs() {
                tracing::warn!("an access log with too many lines to write is not opened anew");
            }
        }
    });
    Ok(task)
}

/// The signals that ask the process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// A proxy that serves, until it is shut down or dropped.
pub struct Proxy {
    data_plane: Arc<DataPlane>,
    state: Arc<AdminState>,
    recorder: Arc<Recorder>,
    endpoints: Endpoints,
    tasks: JoinSet<()>,
    cancel: CancellationToken,
    quit: CancellationToken,
    succession: Succession,
}

impl Proxy {
    /// Starts everything; where another proxy is to be replaced, nothing is accepted before [`Proxy::take_over`].
    /// Called within a runtime, which becomes the control thread's.
    ///
    /// # Errors
    /// A port or a thread cannot be had, or an identity is asked for that nobody could sign.
    pub async fn start(
        options: &Options,
        bootstrap: Bootstrap,
        log: LogControl,
    ) -> Result<Self, Error> {
        // Two providers could be compiled in some day; every part of the process means this one.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let settings = Settings::new(options, &bootstrap);
        if settings.identity && bootstrap.discovery.ads.is_none() {
            return Err(Error::NoControlPlane);
        }
        let started = SystemTime::now();
        let cancel = CancellationToken::new();
        let succession = Succession::find(
            settings.handover.as_deref(),
            Epoch::first(started),
            cancel.child_token(),
        )
        .await?;
        let inheritance = &succession.inheritance;
        let endpoints = Endpoints::bind(
            &settings.admin,
            &settings.health,
            &settings.metrics,
            inheritance,
        )?;
        let shards = Shards::for_threads(settings.workers.get() + 1);
        let registry = Arc::new(Registry::new(shards, DEFAULT_SERIES_CAP));
        process::register(&registry, started);

        let mut tasks = JoinSet::new();
        let quit = CancellationToken::new();
        let (identity, credentials) =
            identity(&bootstrap, &settings, &registry, &cancel, &mut tasks);
        let (recorder, reports) =
            Recorder::register(&registry, Arc::clone(&bootstrap.workload), identity.clone());
        let recorder = Arc::new(recorder);
        let carried = Carried {
            identity,
            reports: Arc::clone(&recorder) as _,
            inheritance: inheritance.clone(),
            release_memory: options.release_memory,
        };
        let data_plane = carried.start(&bootstrap, &settings, &cancel, &mut tasks)?;
        let cache: SharedCache = Arc::new(parking_lot::RwLock::new(Cache::new(
            bootstrap.reserved_names(),
            bootstrap.own.clone(),
            bootstrap.origins.clone(),
            bootstrap.runtime.clone(),
        )));
        let readiness = Arc::new(Readiness::new(credentials.clone()));
        let discovery = bootstrap.may_change().then(|| Metrics::register(&registry));
        let (configuration, published) = sources::start(
            &bootstrap,
            &settings,
            &cache,
            discovery.as_ref(),
            &cancel,
            &mut tasks,
        );
        tasks.spawn(apply::run(
            published,
            Arc::downgrade(&data_plane),
            Arc::clone(&readiness),
            options.settle,
            cancel.clone(),
        ));
        tasks.spawn(apply::watch_binding(
            Arc::downgrade(&data_plane),
            Arc::clone(&readiness),
            cancel.clone(),
        ));
        tasks.spawn(export::run(
            reports,
            Arc::clone(&bootstrap.workload),
            apply::collector_connections(&data_plane),
            Arc::clone(&registry),
            cancel.clone(),
        ));

        let state = Arc::new(AdminState {
            bootstrap,
            cache,
            configuration,
            discovery,
            registry,
            recorder: Arc::clone(&recorder),
            data_plane: Arc::clone(&data_plane),
            credentials,
            readiness,
            log,
            started,
            epoch: succession.epoch,
            baseline: Default::default(),
            release_memory: options.release_memory,
            quit: quit.clone(),
        });
        admin::register_metrics(&state);
        let addresses = endpoints.serve(&state, &mut tasks, &succession.own_ports)?;
        Ok(Self {
            data_plane,
            state,
            recorder,
            endpoints: addresses,
            tasks,
            cancel,
            quit,
            succession,
        })
    }

    /// Where the admin interface listens.
    pub fn admin_address(&self) -> Option<SocketAddr> {
        self.endpoints.admin.first().copied()
    }

    /// Where `/healthz/ready` is answered.
    pub fn health_addresses(&self) -> &[SocketAddr] {
        &self.endpoints.health
    }

    /// Where `/metrics` is answered.
    pub fn metrics_addresses(&self) -> &[SocketAddr] {
        &self.endpoints.metrics
    }

    /// Where a listener really listens.
    pub async fn listener_addresses(&self, listener: &str) -> Vec<SocketAddr> {
        self.data_plane.addresses(listener).await
    }

    /// Whether traffic can be sent to it.
    pub fn is_ready(&self) -> bool {
        self.state.readiness.unready().is_none()
    }

    /// Lets requests in flight end, at most for so long; then ends everything, logs and spans last.
    pub async fn shutdown(mut self, drain_limit: Duration) {
        self.state.readiness.drain();
        if let Err(open) = self.data_plane.drain(drain_limit).await {
            tracing::warn!(%open, "drained");
        }
        self.cancel.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(TASKS_LIMIT, all).await.is_err() {
            tracing::warn!("some tasks had to be aborted");
        }
        let recorder = Arc::clone(&self.recorder);
        let _ = tokio::task::spawn_blocking(move || recorder.flush(FLUSH_LIMIT)).await;
    }
}

/// Has an identity signed and kept valid, where one is asked for; else there is none, ever.
fn identity(
    bootstrap: &Bootstrap,
    settings: &Settings,
    registry: &Arc<Registry>,
    cancel: &CancellationToken,
    tasks: &mut JoinSet<()>,
) -> (IdentityReceiver, Option<CredentialsReceiver>) {
    let (sender, identity) = watch::channel(None);
    let control_plane = bootstrap.discovery.ads.clone();
    let Some(control_plane) = control_plane.filter(|_| settings.identity) else {
        return (identity, None);
    };
    let state_dir = settings.state_dir.as_deref();
    let (renewer, credentials) = Renewer::new(control_plane, state_dir, sender, registry);
    tasks.spawn(renewer.run(cancel.clone()));
    (identity, Some(credentials))
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}
