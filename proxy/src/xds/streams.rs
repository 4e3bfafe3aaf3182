//! What brings the resources that others name: a stream for each service, a reader for each file, a watch for each
//! directory, for as long as somebody needs it.

use std::sync::Arc;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use weft_proto::envoy::config::core::v3::Node;

use super::client::Client;
use super::file::{self, FileSource};
use super::kind::{Kind, Scope};
use super::metrics::Metrics;
use super::origin::Origin;
use super::state::State;
use super::transport::ControlPlane;
use super::watch::{self, Watched};

/// What brings resources.
#[derive(Debug, Clone, PartialEq)]
enum Feed {
    /// A stream for one kind.
    Service(Kind, ControlPlane),
    /// A file with one kind.
    File(Kind, FileSource),
    /// Changes of files that resources were read with.
    Directory(Watched),
}

/// All of them.
#[derive(Debug)]
pub struct Streams {
    /// Who we are.
    pub node: Node,
    /// What they feed.
    pub state: Arc<State>,
    /// What they are counted by.
    pub metrics: Metrics,
}

impl Streams {
    /// Begins what is needed and ends what is not, until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let mut changes = self.state.changes();
        let mut tasks = JoinSet::new();
        let mut running: Vec<(Feed, CancellationToken)> = vec![];
        loop {
            let needed = needed(&self.state);
            running.retain(|(feed, token)| {
                let is_needed = needed.contains(feed);
                if !is_needed {
                    token.cancel();
                }
                is_needed
            });
            for feed in needed {
                if !running.iter().any(|(other, _)| *other == feed) {
                    let token = cancel.child_token();
                    self.start(&feed, &token, &mut tasks);
                    running.push((feed, token));
                }
            }
            tokio::select! {
                Ok(()) = changes.changed() => {}
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                () = cancel.cancelled() => break,
            }
        }
        while tasks.join_next().await.is_some() {}
    }

    fn start(&self, feed: &Feed, cancel: &CancellationToken, tasks: &mut JoinSet<()>) {
        let (state, metrics, cancel) = (
            Arc::clone(&self.state),
            self.metrics.clone(),
            cancel.clone(),
        );
        match feed.clone() {
            Feed::Service(kind, service) => {
                let origin = Origin::Service(service.clone());
                let client = Client::new(
                    service,
                    Scope::Of(kind),
                    origin,
                    self.node.clone(),
                    state,
                    metrics,
                );
                tasks.spawn(client.run(cancel));
            }
            Feed::File(kind, source) => {
                tasks.spawn(file::follow(kind, source, state, metrics, cancel));
            }
            Feed::Directory(watched) => {
                tasks.spawn(watch::follow(watched, state, cancel));
            }
        }
    }
}

fn needed(state: &State) -> Vec<Feed> {
    let cache = state.cache().read();
    let mut feeds: Vec<Feed> = vec![];
    for needed in cache.needs() {
        let feed = match &needed.origin {
            Origin::Service(service) => Feed::Service(needed.kind, service.clone()),
            Origin::File(file) => Feed::File(needed.kind, file.clone()),
            Origin::Aggregated | Origin::Bootstrap => continue,
        };
        if !feeds.contains(&feed) {
            feeds.push(feed);
        }
    }
    feeds.extend(cache.watches().into_iter().map(Feed::Directory));
    feeds
}
