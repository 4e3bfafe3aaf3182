//! The life of one pod, from its sandbox to its end.
//!
//! Every step first looks at what is there, so the same path starts a pod and goes on with one that a former launcher
//! started. A step that fails is undone with all steps before it, told in the pod's status, and tried again later.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{Pod, PodSpec, PodStatus};
use tokio::sync::{Mutex, watch};
use tracing::{Instrument, info, info_span, warn};
use weft_proto::weft::node::v1::Sandbox;

use super::Context;
use super::failure::Failure;
use super::sources::Sources;
use super::status::{End, Progress};
use super::world::ObjectName;

mod containers;
mod end;
mod launch;
mod report;
mod sandbox;
mod supervise;

const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Kubernetes' default for `terminationGracePeriodSeconds`.
const DEFAULT_GRACE: Duration = Duration::from_secs(30);

/// Runs a pod until it is deleted.
pub(super) async fn run(context: Arc<Context>, name: ObjectName, uid: String) {
    let Some(first) = context.world.read(|state| state.pod(&name, &uid).cloned()) else {
        return;
    };
    let span = info_span!("pod", %name);
    let task = PodTask {
        context,
        name,
        uid,
        first,
        progress: watch::Sender::default(),
        told: Mutex::new(None),
    };
    // Boxed: one per pod, and large.
    let life = Box::pin(task.live());
    let report = Box::pin(task.keep_reporting());
    async {
        tokio::select! {
            () = life => {}
            () = report => {}
        }
    }
    .instrument(span)
    .await;
}

struct PodTask {
    context: Arc<Context>,
    name: ObjectName,
    uid: String,
    /// The pod as it was when the task began; its spec does not change.
    first: Arc<Pod>,
    progress: watch::Sender<Progress>,
    /// The status that was told last.
    told: Mutex<Option<PodStatus>>,
}

/// A pod whose containers run, and what they were made from.
struct Launched {
    pod: Pod,
    sandbox: Sandbox,
    sources: Sources,
    scratch: BTreeMap<String, PathBuf>,
    /// Whether a former launcher had started it.
    was_adopted: bool,
}

impl Launched {
    fn spec(&self) -> PodSpec {
        self.pod.spec.clone().unwrap_or_default()
    }
}

/// Why one attempt to run a pod is over.
enum Ended {
    /// It has done what it was for.
    Finished(End),
    Failed(Failure),
}

impl PodTask {
    async fn live(&self) {
        let mut pause = FIRST_PAUSE;
        loop {
            let ended = tokio::select! {
                biased;
                () = self.doomed() => break,
                ended = self.attempt() => ended,
            };
            match ended {
                Ended::Finished(end) => {
                    self.finish(end).await;
                    self.doomed().await;
                    break;
                }
                Ended::Failed(failure) => {
                    self.tell_failure(&failure).await;
                    if !failure.is_node_away() {
                        self.undo().await;
                    }
                }
            }
            tokio::select! {
                () = self.doomed() => break,
                () = tokio::time::sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        self.end().await;
    }

    async fn attempt(&self) -> Ended {
        if let Some(end) = self.known_end() {
            return Ended::Finished(end);
        }
        match Box::pin(self.launch()).await {
            Ok(launch::Outcome::Running(launched)) => self.supervise(&launched).await,
            Ok(launch::Outcome::InitFailed) => Ended::Finished(End::Failed),
            Err(failure) => Ended::Failed(failure),
        }
    }

    /// How the pod ended, where a former launcher saw it.
    fn known_end(&self) -> Option<End> {
        match super::status::phase(&self.first) {
            "Succeeded" => Some(End::Succeeded),
            "Failed" => Some(End::Failed),
            _ => None,
        }
    }

    /// Returns when somebody has deleted the pod.
    async fn doomed(&self) {
        self.context
            .world
            .until(|state| {
                let pod = state.pod(&self.name, &self.uid);
                let lives = pod.is_some_and(|pod| pod.metadata.deletion_timestamp.is_none());
                (!lives).then_some(())
            })
            .await;
    }

    async fn tell_failure(&self, failure: &Failure) {
        warn!(error = %failure, "the pod could not be launched");
        self.progress.send_modify(|progress| {
            progress.is_quiet = false;
            progress.ready.clear();
            progress.waiting = Some((failure.reason().to_owned(), failure.to_string()));
        });
        self.report().await;
    }

    /// What must not happen again when the launcher is restarted is in the status, so it is told before going on.
    async fn finish(&self, end: End) {
        info!(?end, "the pod has ended");
        self.progress.send_modify(|progress| {
            progress.is_quiet = false;
            progress.is_initialized = true;
            progress.waiting = None;
            progress.end = Some(end);
            if progress.addresses.is_empty() {
                progress.addresses = addresses(&self.first);
            }
        });
        self.report().await;
        self.stop_sidecars().await;
        self.withdraw_ports();
    }

    /// How long containers may take to end.
    fn grace(&self) -> Duration {
        let pod = self
            .context
            .world
            .read(|state| state.pod(&self.name, &self.uid).cloned());
        let asked = pod.and_then(|pod| pod.metadata.deletion_grace_period_seconds);
        let spec = self.first.spec.as_ref();
        let seconds = asked.or(spec.and_then(|spec| spec.termination_grace_period_seconds));
        seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(DEFAULT_GRACE, Duration::from_secs)
    }
}

fn addresses(pod: &Pod) -> Vec<String> {
    let status = pod.status.as_ref();
    let all = status.and_then(|status| status.pod_ips.as_ref());
    all.into_iter().flatten().map(|ip| ip.ip.clone()).collect()
}
