//! Asks a service whether a request may pass.
//!
//! Both kinds of service come to one [`Decision`], which is carried out here.

mod grpc;
mod http;

use ::http::header::{self, HeaderMap, HeaderName};
use ::http::{HeaderValue, Request, StatusCode};
use bytes::Bytes;
use http_body::Body as _;
use weft_proto::envoy::service::auth::v3::CheckRequest;

use super::buffer::{read_ahead, too_large};
use super::call::{Asked, CallFailure};
use super::{Passing, joined};
use crate::config::filter::ext_authz::{
    AuthzBody, AuthzOverride, AuthzService, ExtAuthzConfig, HttpAuthz,
};
use crate::config::filter::service::GrpcTarget;
use crate::config::headers::HeaderAction;
use crate::http::failure::{Failure, LocalReply};
use crate::random;
use crate::snapshot::Snapshot;
use crate::telemetry::counters::counted;
use crate::telemetry::report::ResponseFlags;
use crate::upstream::body::client::ClientBody;
use crate::upstream::environment::Environment;
use crate::upstream::explain;

/// Where what the service says goes.
const NAMESPACE: &str = "envoy.filters.http.ext_authz";
const ALLOWED_BY_FAILURE: HeaderName = HeaderName::from_static("x-envoy-auth-failure-mode-allowed");
const PARTIAL_BODY: HeaderName = HeaderName::from_static("x-envoy-auth-partial-body");

counted! {
    /// What is counted of decisions.
    struct Stats { ok, denied, error, timeout, disabled, failure_mode_allowed }
}

/// What the service says.
#[derive(Debug)]
enum Decision {
    Allowed(Allowed),
    Denied(Denied),
}

/// What changes in a request that may pass.
#[derive(Debug, Default)]
struct Allowed {
    /// Headers of the request.
    request: Vec<Change>,
    /// Whether what is appended is added where there is nothing to append it to.
    appends_anyway: bool,
    removed: Vec<HeaderName>,
    query_set: Vec<(String, String)>,
    query_removed: Vec<String>,
    /// Headers of its response.
    response: Vec<Change>,
    metadata: serde_json::Map<String, serde_json::Value>,
}

/// What the caller of a request that may not pass is told.
#[derive(Debug)]
struct Denied {
    status: StatusCode,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Bytes,
    metadata: serde_json::Map<String, serde_json::Value>,
}

/// One header to set.
#[derive(Debug, Clone)]
struct Change {
    name: HeaderName,
    value: HeaderValue,
    action: HeaderAction,
}

/// What is said of a request's body.
#[derive(Debug, Default)]
struct Said {
    bytes: Bytes,
    is_raw: bool,
    is_partial: bool,
}

/// Asks about a request.
pub(super) async fn request(
    config: &ExtAuthzConfig,
    own: Option<&AuthzOverride>,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    let counters = &passing.connection.environment.counters;
    let stats = config.live.get_or_init(|| {
        let all = format!("http.{}.ext_authz.", passing.stat_prefix());
        Stats::new(counters, &joined(&all, &config.stat_prefix))
    });
    if !is_asked(config, passing) {
        stats.disabled.increment();
        return match config.denies_unasked {
            true => Err(refusal(config.status_on_error, "ext_authz_denied")),
            false => Ok(()),
        };
    }
    let body = own.and_then(|own| own.body).unwrap_or(config.body);
    let said = match body {
        Some(body) if !passing.body.is_end_stream() => read_body(body, passing).await?,
        _ => Said::default(),
    };
    let question = question(config, own, &said, passing);
    let (connection, scene) = (passing.connection, passing.scene);
    let decision = ask(question, &connection.environment, &scene.snapshot).await;
    match decision {
        Ok(Decision::Allowed(allowed)) => {
            stats.ok.increment();
            count(passing, "ok");
            carry_out(config, allowed, passing);
            Ok(())
        }
        Ok(Decision::Denied(denied)) => {
            stats.denied.increment();
            count(passing, "denied");
            Err(deny(config, denied, passing))
        }
        Err(failure) => {
            stats.error.increment();
            count(passing, "error");
            if matches!(failure, CallFailure::Timeout(_)) {
                stats.timeout.increment();
            }
            undecided(config, &failure, stats, passing)
        }
    }
}

fn is_asked(config: &ExtAuthzConfig, passing: &Passing<'_>) -> bool {
    let metadata = passing.completion.metadata();
    let is_match = config.enabled_metadata.as_ref();
    config.enabled.covers(random::draw()) && is_match.is_none_or(|wanted| wanted.is_match(metadata))
}

/// Counts for the cluster that the request is for, too.
fn count(passing: &Passing<'_>, what: &str) {
    if let Some(destination) = passing.destination {
        let name = format!("cluster.{}.ext_authz.{what}", destination.cluster);
        let counters = &passing.connection.environment.counters;
        counters.counter(&name).increment();
    }
}

async fn read_body(config: AuthzBody, passing: &mut Passing<'_>) -> Result<Said, Failure> {
    let read = read_ahead(passing, config.max_bytes).await?;
    if !read.is_whole && !config.allows_partial {
        return Err(too_large());
    }
    let said = Said {
        bytes: Bytes::copy_from_slice(&read.data[..read.data.len().min(config.max_bytes)]),
        is_raw: config.is_raw,
        is_partial: !read.is_whole,
    };
    let rest = std::mem::replace(passing.body, ClientBody::Empty);
    *passing.body = read.followed_by(rest);
    Ok(said)
}

/// What the service is asked.
enum Question<'a> {
    Grpc(&'a GrpcTarget, Box<CheckRequest>),
    Http(&'a HttpAuthz, Box<Request<Bytes>>),
}

fn question<'a>(
    config: &'a ExtAuthzConfig,
    own: Option<&'a AuthzOverride>,
    said: &Said,
    passing: &Passing<'_>,
) -> Result<Question<'a>, CallFailure> {
    let service = own.and_then(|own| own.service.as_ref());
    Ok(match service.unwrap_or(&config.service) {
        AuthzService::Grpc(target) => {
            let question = grpc::question(config, own, said, passing);
            Question::Grpc(target, Box::new(question))
        }
        AuthzService::Http(service) => {
            let question = http::question(config, service, said, passing)?;
            Question::Http(service, Box::new(question))
        }
    })
}

async fn ask(
    question: Result<Question<'_>, CallFailure>,
    environment: &Environment,
    snapshot: &Snapshot,
) -> Result<Decision, CallFailure> {
    let asked = |cluster, timeout| Asked {
        environment,
        snapshot,
        cluster,
        timeout,
    };
    match question? {
        Question::Grpc(target, question) => {
            grpc::ask(asked(&target.cluster, target.timeout), target, &question).await
        }
        Question::Http(service, question) => {
            let asked = asked(&service.cluster, service.timeout);
            http::ask(asked, service, *question).await
        }
    }
}

fn carry_out(config: &ExtAuthzConfig, allowed: Allowed, passing: &mut Passing<'_>) {
    let is_changed = !allowed.request.is_empty()
        || !allowed.removed.is_empty()
        || !allowed.query_set.is_empty()
        || !allowed.query_removed.is_empty();
    let headers = &mut passing.head.headers;
    for name in &allowed.removed {
        headers.remove(name);
    }
    let was_there: Vec<bool> = allowed
        .request
        .iter()
        .map(|change| headers.contains_key(&change.name))
        .collect();
    for (change, was_there) in allowed.request.iter().zip(was_there) {
        // The authority is no header here.
        if change.name == header::HOST {
            passing.head.authority = Some(change.value.clone());
        } else if allowed.appends_anyway && !was_there {
            change.apply(headers);
        } else {
            change.apply_to_request(headers);
        }
    }
    change_query(&allowed, passing);
    passing.passage.is_rerouted |= config.clears_route && is_changed;
    tell(allowed.metadata, passing);
    if !allowed.response.is_empty() {
        passing.passage.on_response(move |returning| {
            let headers = returning.response.headers_mut();
            allowed
                .response
                .iter()
                .for_each(|change| change.apply(headers));
        });
    }
}

fn change_query(allowed: &Allowed, passing: &mut Passing<'_>) {
    use super::header_mutation::change_query as change_query_by;
    use crate::config::filter::header_mutation::QueryChange;
    use crate::telemetry::access_log::format::Template;
    let removed = allowed.query_removed.iter();
    let removed = removed.map(|name| QueryChange::Remove(name.as_str().into()));
    let set = allowed
        .query_set
        .iter()
        .map(|(name, value)| QueryChange::Set {
            name: name.as_str().into(),
            value: Template::plain(value),
            action: HeaderAction::Overwrite,
        });
    let changes: Vec<_> = set.chain(removed).collect();
    if !changes.is_empty() {
        let literal = |value: &Template| value.literal().unwrap_or_default().to_owned();
        change_query_by(&changes, &mut passing.head.path, literal);
    }
}

fn tell(fields: serde_json::Map<String, serde_json::Value>, passing: &mut Passing<'_>) {
    if !fields.is_empty() {
        passing
            .completion
            .with_metadata(|metadata| metadata.merge(NAMESPACE, fields));
    }
}

fn deny(config: &ExtAuthzConfig, denied: Denied, passing: &mut Passing<'_>) -> Failure {
    tell(denied.metadata, passing);
    let clusters = &passing.scene.snapshot.clusters;
    let destination = passing.destination.map(|destination| &destination.cluster);
    let cluster = destination.and_then(|name| clusters.get(name));
    if let Some(cluster) = cluster.filter(|_| config.charges_cluster) {
        cluster.stats.responses.count(denied.status);
    }
    Failure::Answered(Box::new(LocalReply {
        body: denied.body,
        headers: denied.headers,
        flag: ResponseFlags::UNAUTHORIZED,
        ..LocalReply::new(denied.status, "ext_authz_denied")
    }))
}

fn refusal(status: StatusCode, details: &str) -> Failure {
    Failure::Answered(Box::new(LocalReply {
        flag: ResponseFlags::UNAUTHORIZED,
        ..LocalReply::new(status, details)
    }))
}

fn undecided(
    config: &ExtAuthzConfig,
    failure: &CallFailure,
    stats: &Stats,
    passing: &mut Passing<'_>,
) -> Result<(), Failure> {
    tracing::debug!(
        error = explain(failure),
        "nobody says whether a request may pass"
    );
    if !config.failure_allows {
        return Err(refusal(config.status_on_error, "ext_authz_error"));
    }
    stats.failure_mode_allowed.increment();
    count(passing, "failure_mode_allowed");
    if config.failure_is_marked {
        let headers = &mut passing.head.headers;
        headers.insert(ALLOWED_BY_FAILURE, HeaderValue::from_static("true"));
    }
    Ok(())
}

impl Change {
    /// As in Envoy, what is appended to a request becomes part of a value that is there already, or of none.
    fn apply_to_request(&self, headers: &mut HeaderMap) {
        if self.action != HeaderAction::Append {
            return self.apply(headers);
        }
        let Some(value) = headers.get_mut(&self.name) else {
            return;
        };
        let both = [value.as_bytes(), self.value.as_bytes()].join(&b',');
        if let Ok(both) = HeaderValue::from_bytes(&both) {
            *value = both;
        }
    }

    fn apply(&self, headers: &mut HeaderMap) {
        let is_there = headers.contains_key(&self.name);
        match (self.action, is_there) {
            (HeaderAction::Append, _) => {
                headers.append(self.name.clone(), self.value.clone());
            }
            (HeaderAction::AddIfAbsent, true) | (HeaderAction::OverwriteIfPresent, false) => {}
            _ => {
                headers.insert(self.name.clone(), self.value.clone());
            }
        }
    }
}
