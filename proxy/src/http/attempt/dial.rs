//! Tries of a CONNECT that ends here: each makes a connection of its own, and nothing is sent before there is one.

use std::time::Instant;

use http::StatusCode;
use parking_lot::Mutex;

use super::Attempts;
use super::again::Course;
use super::priorities::Visited;
use crate::cluster::Pick;
use crate::cluster::stats::ClusterStats;
use crate::config::upgrade::Termination;
use crate::http::completion::Completion;
use crate::http::failure::Failure;
use crate::http::headers::Head;
use crate::http::retry::TryEnd;
use crate::tcp::{self, Dialled, TcpFailure};
use crate::upstream::guise::Guise;
use crate::upstream::preamble::Preamble;

impl Attempts<'_> {
    /// Makes a connection, as often as the retry policy allows.
    pub(in crate::http) async fn dial(
        &self,
        head: &Head,
        termination: Termination,
        completion: &mut Completion,
    ) -> Result<Dialled, Failure> {
        let started = completion.started();
        let log = Mutex::new(completion);
        let mut course = Course {
            log: &log,
            started,
            retries: 0,
            tried: vec![],
            visited: Visited::default(),
            is_idempotent: false,
        };
        ClusterStats::count(&self.cluster.stats.requests);
        loop {
            log.lock().attempted();
            let failure = match self.dial_once(head, termination, &course).await {
                Ok(dialled) => {
                    ClusterStats::count(&self.cluster.stats.tries);
                    return Ok(dialled);
                }
                Err(failure) => failure,
            };
            let Some(again) = self.after(TryEnd::of(&failure), None, &course) else {
                return Err(failure);
            };
            again.count(&self.cluster.stats);
            self.note(again.ended_at, &mut course);
            tokio::time::sleep(again.wait).await;
            course.retries += 1;
        }
    }

    async fn dial_once(
        &self,
        head: &Head,
        termination: Termination,
        course: &Course<'_>,
    ) -> Result<Dialled, Failure> {
        let before = self.connection.original_destination;
        let apart = self.apart(course);
        let pick = Pick {
            original_destination: self.cluster.original_destination(&head.headers, before),
            avoid: apart.tried,
            omit: apart.omit,
            left: apart.left,
            hash: self.aim.hash,
            subset: self.aim.subset.as_deref(),
            session: apart.session,
            ..Pick::at(Instant::now())
        };
        let upstreams = &self.connection.environment.upstreams;
        let client = self.connection.ends();
        let announced = termination
            .announces
            .map(|version| Preamble::new(version, Some(client)));
        let guise = Guise::of(&self.cluster.config, client, self.aim.source).announced(announced);
        let dialled = tcp::dial_picked(self.cluster, pick, guise, upstreams).await;
        let endpoint = match &dialled {
            Ok(dialled) => Some(dialled.endpoint()),
            Err(TcpFailure::Connect { endpoint, .. }) => Some(endpoint),
            Err(_) => None,
        };
        if let Some(endpoint) = endpoint {
            course.log.lock().reached(endpoint);
        }
        dialled.map_err(failure)
    }
}

fn failure(failure: TcpFailure) -> Failure {
    match failure {
        TcpFailure::NoCluster(cluster) => Failure::NoCluster {
            cluster,
            status: StatusCode::SERVICE_UNAVAILABLE,
        },
        TcpFailure::NoEndpoint { cluster, source } => Failure::NoEndpoint { cluster, source },
        TcpFailure::Overflow { cluster, source } => Failure::Overflow { cluster, source },
        TcpFailure::Connect {
            cluster, source, ..
        } => Failure::Connect { cluster, source },
    }
}
