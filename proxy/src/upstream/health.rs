//! Active health checks: endpoints are asked whether they are well, each by a task of its own.
//!
//! The keeper says whom to ask; what they answer is recorded on the endpoint, and the keeper is told when that
//! changes anything. A task looks its endpoint up before each check, so that it always asks as it is configured now.

pub mod grpc;
pub mod http;
pub mod probe;
pub mod tcp;
pub mod wait;

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use self::probe::Prober;
use self::wait::{Last, Wait};
use super::environment::Environment;
use crate::cluster::Cluster;
use crate::cluster::endpoint::Endpoint;
use crate::cluster::health::{Change, Checked};
use crate::cluster::stats::ClusterStats;
use crate::config::health_check::HealthCheckConfig;
use crate::random;
use crate::snapshot::Snapshot;

/// Whom is asked.
type Key = (Arc<str>, SocketAddr);

/// The tasks that ask; they end when they are dropped.
#[derive(Default)]
pub struct Checkers {
    running: HashMap<Key, Checker>,
}

struct Checker {
    config: Arc<HealthCheckConfig>,
    task: JoinHandle<()>,
}

impl Drop for Checker {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Checkers {
    /// Begins to ask endpoints that are new, and ends it for those that are gone.
    pub fn reconcile(&mut self, environment: &Arc<Environment>, snapshot: &Snapshot) {
        let mut wanted = HashSet::new();
        for cluster in snapshot.clusters.values() {
            let Some(config) = cluster.config.health_checks.first() else {
                continue;
            };
            for endpoint in cluster.endpoints() {
                if endpoint.health_check.is_disabled {
                    continue;
                }
                let key = (Arc::clone(cluster.name()), endpoint.address);
                wanted.insert(key.clone());
                let is_running = self
                    .running
                    .get(&key)
                    .is_some_and(|checker| checker.config == *config);
                if !is_running {
                    let checker = start(environment, config, &key);
                    self.running.insert(key, checker);
                }
            }
        }
        self.running.retain(|key, _| wanted.contains(key));
    }
}

fn start(environment: &Arc<Environment>, config: &Arc<HealthCheckConfig>, key: &Key) -> Checker {
    let asking = Asking {
        environment: Arc::downgrade(environment),
        config: Arc::clone(config),
        cluster: Arc::clone(&key.0),
        address: key.1,
    };
    Checker {
        config: Arc::clone(config),
        task: tokio::spawn(asking.run()),
    }
}

/// One endpoint that is asked.
struct Asking {
    environment: Weak<Environment>,
    config: Arc<HealthCheckConfig>,
    cluster: Arc<str>,
    address: SocketAddr,
}

impl Asking {
    async fn run(self) {
        let mut prober = Prober::default();
        let mut requests = 0;
        let first = random::with(|random| wait::initial(&self.config.intervals, random));
        tokio::time::sleep(first).await;
        loop {
            let Some((cluster, endpoint)) = self.found() else {
                return;
            };
            let Some(checked) = self.check(&mut prober, &cluster, &endpoint).await else {
                return;
            };
            let change = self.record(&cluster, &endpoint, checked);
            let seen = cluster
                .stats
                .requests
                .load(std::sync::atomic::Ordering::Relaxed);
            let wait = Wait {
                has_traffic: seen != requests,
                is_healthy: endpoint.state.health.is_passed(),
                last: match (checked, change) {
                    (_, Change::Pending) => Last::Contrary,
                    _ => Last::Confirming,
                },
            };
            requests = seen;
            drop((cluster, endpoint));
            let wait = random::with(|random| wait.until_next(&self.config.intervals, random));
            tokio::time::sleep(wait).await;
        }
    }

    /// The endpoint as it is now; `None` where nobody wants to know any more.
    fn found(&self) -> Option<(Arc<Cluster>, Arc<Endpoint>)> {
        let environment = self.environment.upgrade()?;
        let snapshot = environment.snapshot.load_full();
        let cluster = snapshot.clusters.get(&self.cluster)?;
        let endpoint = cluster.endpoint_at(self.address)?;
        Some((Arc::clone(cluster), Arc::clone(endpoint)))
    }

    async fn check(
        &self,
        prober: &mut Prober,
        cluster: &Cluster,
        endpoint: &Arc<Endpoint>,
    ) -> Option<Checked> {
        let environment = self.environment.upgrade()?;
        let asked = prober.ask(&environment.upstreams, cluster, endpoint, &self.config);
        let limit: Duration = self.config.timeout;
        let answer = tokio::time::timeout(limit, asked).await;
        Some(match answer {
            Ok(Ok(checked)) => checked,
            Ok(Err(failure)) => {
                tracing::debug!(cluster = %self.cluster, endpoint = %self.address, %failure,
                    "health check failed");
                prober.forget();
                Checked::Failed
            }
            Err(_) => {
                tracing::debug!(cluster = %self.cluster, endpoint = %self.address, ?limit,
                    "health check not answered in time");
                prober.forget();
                Checked::Failed
            }
        })
    }

    fn record(&self, cluster: &Cluster, endpoint: &Endpoint, checked: Checked) -> Change {
        let is_passed = matches!(checked, Checked::Passed | Checked::PassedDegraded);
        ClusterStats::count(&cluster.stats.health_checks);
        ClusterStats::count(match is_passed {
            true => &cluster.stats.health_checks_passed,
            false => &cluster.stats.health_checks_failed,
        });
        let now = Instant::now();
        let health = &endpoint.state.health;
        let was_failed = health.is_failed();
        let change = health.record(
            checked,
            self.config.healthy_threshold,
            self.config.unhealthy_threshold,
        );
        match change {
            Change::Healthy => {
                if was_failed {
                    endpoint.state.warm_from(now);
                }
                tracing::info!(cluster = %self.cluster, endpoint = %self.address,
                    "endpoint passes its health checks");
                cluster.health_changed(now);
            }
            Change::Unhealthy => {
                tracing::warn!(cluster = %self.cluster, endpoint = %self.address,
                    "endpoint fails its health checks");
                if cluster.config.close_on_health_failure {
                    super::pool::close_all(endpoint);
                }
                cluster.health_changed(now);
            }
            Change::None | Change::Pending => {}
        }
        if is_passed && !health.is_failed() {
            cluster.passed_health_check(self.address, now);
        }
        change
    }
}
