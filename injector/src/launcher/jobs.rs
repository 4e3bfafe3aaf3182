//! The Job controller: runs pods until as many as wanted have succeeded, or too many have failed.

use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::batch::v1::{Job, JobCondition, JobSpec, JobStatus};
use k8s_openapi::api::core::v1::Pod;
use serde_json::json;
use tracing::{debug, warn};

use super::Context;
use super::status::{is_ready, now, phase};
use super::template::{self, Owner};
use super::world::ObjectName;
use crate::api::{ApiError, Collection};

/// By which `kubectl` finds the pods of a Job.
const JOB_NAME: &str = "job-name";
/// Kubernetes' default for `backoffLimit`.
const BACKOFF_LIMIT: usize = 6;
const INTERVAL: Duration = Duration::from_secs(2);

/// Brings every Job to its end, looking again at each change.
pub(super) async fn control(context: Arc<Context>) {
    context
        .world
        .until(|state| (state.jobs_synced && state.pods_synced).then_some(()))
        .await;
    let mut changes = context.world.changes();
    loop {
        let jobs: Vec<Arc<Job>> = context
            .world
            .read(|state| state.jobs.values().cloned().collect());
        for job in jobs {
            if let Err(error) = reconcile(&context, &job).await {
                let job = ObjectName::of(&job.metadata);
                warn!(%job, %error, "the API refused a step of the Job");
                tokio::time::sleep(INTERVAL).await;
            }
        }
        let _ = tokio::time::timeout(INTERVAL, changes.changed()).await;
        changes.mark_unchanged();
    }
}

async fn reconcile(context: &Context, job: &Job) -> Result<(), ApiError> {
    let Some(spec) = &job.spec else {
        return Ok(());
    };
    if job.metadata.deletion_timestamp.is_some() || verdict_of(job.status.as_ref()).is_some() {
        return Ok(());
    }
    let pods: Vec<Arc<Pod>> = context.world.read(|state| {
        let pods = state.pods.values();
        let owned = pods.filter(|pod| template::is_owned(pod, &job.metadata));
        owned.cloned().collect()
    });
    let count = Count::of(pods.iter().map(AsRef::as_ref));
    let step = next(spec, count);
    if let Step::Run(missing) = step {
        let owner = Owner::of(job);
        let name = job.metadata.name.as_deref().unwrap_or_default();
        for _ in 0..missing {
            template::create(context, &owner, &spec.template, &[(JOB_NAME, name)]).await?;
        }
    }
    if let Step::End(_) = step {
        // Those that still run are of no use any more; those that ended keep their logs.
        for pod in pods.iter().filter(|pod| is_active(pod)) {
            let name = ObjectName::of(&pod.metadata);
            template::delete(context, &name, pod.metadata.uid.clone()).await?;
        }
    }
    report(context, job, count, step).await;
    Ok(())
}

/// How a Job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Complete,
    Failed,
}

impl Verdict {
    fn name(self) -> &'static str {
        match self {
            Verdict::Complete => "Complete",
            Verdict::Failed => "Failed",
        }
    }
}

/// What to do next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    /// So many more pods are needed now.
    Run(usize),
    End(Verdict),
}

/// A Job's pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Count {
    active: usize,
    ready: usize,
    succeeded: usize,
    failed: usize,
}

impl Count {
    fn of<'a>(pods: impl Iterator<Item = &'a Pod>) -> Self {
        let mut count = Self::default();
        for pod in pods {
            match phase(pod) {
                "Succeeded" => count.succeeded += 1,
                "Failed" => count.failed += 1,
                _ if is_active(pod) => {
                    count.active += 1;
                    count.ready += usize::from(is_ready(pod));
                }
                _ => {}
            }
        }
        count
    }
}

fn is_active(pod: &Pod) -> bool {
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase(pod), "Succeeded" | "Failed")
}

fn next(spec: &JobSpec, count: Count) -> Step {
    let number = |value: Option<i32>, default: usize| {
        value.map_or(default, |value| usize::try_from(value).unwrap_or(0))
    };
    let completions = number(spec.completions, 1);
    if count.succeeded >= completions {
        return Step::End(Verdict::Complete);
    }
    if count.failed > number(spec.backoff_limit, BACKOFF_LIMIT) {
        return Step::End(Verdict::Failed);
    }
    if spec.suspend == Some(true) {
        return Step::Run(0);
    }
    let wanted = number(spec.parallelism, 1).min(completions - count.succeeded);
    Step::Run(wanted.saturating_sub(count.active))
}

async fn report(context: &Context, job: &Job, count: Count, step: Step) {
    let status = status(job, count, step);
    if job.status.as_ref() == Some(&status) {
        return;
    }
    let name = ObjectName::of(&job.metadata);
    let collection = Collection::of::<Job>(&name.namespace);
    let patch = json!({ "status": status });
    let patched = context
        .client
        .patch_status::<Job>(&collection, &name.name, &patch);
    match patched.await {
        // Known before the watch tells, so that the next look does not tell it again.
        Ok(job) => context.world.update(|state| {
            state.jobs.insert(name, Arc::new(job));
        }),
        Err(error) => debug!(job = %name, %error, "status not written"),
    }
}

fn status(job: &Job, count: Count, step: Step) -> JobStatus {
    let number = |count: usize| Some(i32::try_from(count).unwrap_or(i32::MAX));
    let known = job.status.clone().unwrap_or_default();
    let verdict = match step {
        Step::Run(_) => None,
        Step::End(verdict) => Some(verdict),
    };
    let ended = verdict.filter(|verdict| *verdict == Verdict::Complete);
    JobStatus {
        active: number(count.active),
        ready: number(count.ready),
        succeeded: number(count.succeeded),
        failed: number(count.failed),
        start_time: known.start_time.or_else(|| Some(now())),
        completion_time: ended.map(|_| known.completion_time.unwrap_or_else(now)),
        conditions: verdict.map(|verdict| {
            vec![JobCondition {
                type_: verdict.name().to_owned(),
                status: "True".to_owned(),
                reason: (verdict == Verdict::Failed).then(|| "BackoffLimitExceeded".to_owned()),
                last_transition_time: Some(now()),
                ..JobCondition::default()
            }]
        }),
        ..JobStatus::default()
    }
}

fn verdict_of(status: Option<&JobStatus>) -> Option<Verdict> {
    let conditions = status?.conditions.as_ref()?;
    let holds = |verdict: &Verdict| {
        let mut conditions = conditions.iter();
        conditions.any(|one| one.type_ == verdict.name() && one.status == "True")
    };
    [Verdict::Complete, Verdict::Failed].into_iter().find(holds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(completions: i32, parallelism: i32) -> JobSpec {
        JobSpec {
            completions: Some(completions),
            parallelism: Some(parallelism),
            backoff_limit: Some(1),
            ..JobSpec::default()
        }
    }

    fn count(active: usize, succeeded: usize, failed: usize) -> Count {
        Count {
            active,
            succeeded,
            failed,
            ready: 0,
        }
    }

    #[test]
    fn as_many_pods_run_at_once_as_are_allowed_and_still_needed() {
        assert_eq!(next(&spec(5, 2), count(0, 0, 0)), Step::Run(2));
        assert_eq!(next(&spec(5, 2), count(1, 3, 0)), Step::Run(1));
        assert_eq!(next(&spec(5, 2), count(1, 4, 0)), Step::Run(0));
    }

    #[test]
    fn a_failed_pod_is_replaced_until_there_were_too_many() {
        assert_eq!(next(&spec(1, 1), count(0, 0, 1)), Step::Run(1));
        assert_eq!(
            next(&spec(1, 1), count(0, 0, 2)),
            Step::End(Verdict::Failed)
        );
    }

    #[test]
    fn a_job_is_complete_when_enough_have_succeeded() {
        assert_eq!(
            next(&spec(2, 2), count(0, 2, 1)),
            Step::End(Verdict::Complete)
        );
    }

    #[test]
    fn a_suspended_job_runs_nothing() {
        let mut spec = spec(1, 1);
        spec.suspend = Some(true);

        assert_eq!(next(&spec, count(0, 0, 0)), Step::Run(0));
    }

    #[test]
    fn a_verdict_is_read_back_from_the_status() {
        let status = status(
            &Job::default(),
            count(0, 1, 0),
            Step::End(Verdict::Complete),
        );

        assert_eq!(verdict_of(Some(&status)), Some(Verdict::Complete));
        assert_eq!(verdict_of(None), None);
    }
}
