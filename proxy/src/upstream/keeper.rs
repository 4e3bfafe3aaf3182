//! Looks after clusters, off the path of requests: what is known of endpoints' health is put in force, and
//! endpoints are asked.
//!
//! `workers` runs one for the data plane, on the control thread. It sleeps until something is due, or it is told
//! that something has changed.

use std::sync::Weak;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::environment::Environment;
use super::health::Checkers;

/// It looks at least so often.
const LONGEST: Duration = Duration::from_secs(3600);

/// Runs until the data plane is gone, or is stopped.
pub async fn run(environment: Weak<Environment>, stop: CancellationToken) {
    let mut checkers = Checkers::default();
    let Some(changed) = environment
        .upgrade()
        .map(|environment| environment.changed.clone())
    else {
        return;
    };
    loop {
        let due = {
            let Some(environment) = environment.upgrade() else {
                return;
            };
            let snapshot = environment.snapshot.load_full();
            checkers.reconcile(&environment, &snapshot);
            let now = Instant::now();
            let due = snapshot
                .clusters
                .values()
                .filter_map(|cluster| cluster.tend(&changed, now))
                .min();
            due.unwrap_or(now + LONGEST).min(now + LONGEST)
        };
        tokio::select! {
            () = tokio::time::sleep_until(due.into()) => {}
            () = changed.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}
