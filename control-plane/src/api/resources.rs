//! Requests for resources: from path and method to what does the work.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::{Request as HttpRequest, State};
use axum::response::Response;
use http::{Method, StatusCode};
use serde_json::Value;

use super::query::Query;
use super::request::{Path, Request};
use super::{Api, REQUEST, body, discovery, pods, read, response, watch, write};
use crate::auth::Caller;
use crate::kinds::{Kind, Subresource};
use crate::refusal::Refusal;
use crate::store::Name;

/// Every request below `/api` and `/apis`.
pub(super) async fn dispatch(
    State(api): State<Arc<Api>>,
    Extension(caller): Extension<Caller>,
    http: HttpRequest,
) -> Result<Response, Refusal> {
    let path = Path::of(http.uri().path())?;
    // What hangs below pods streams, upgrades, or is passed on: it takes the request as it is.
    if let Path::Below {
        kind,
        name,
        subresource,
        rest,
    } = &path
        && let Some(below) = pods::Below::of(kind, subresource)
    {
        return pods::serve(&api, below, name, rest, http).await;
    }
    let (parts, content) = http.into_parts();
    let request = Request {
        query: Query::of(&parts.uri)?,
        method: parts.method,
        uri: parts.uri,
        headers: parts.headers,
        caller,
    };
    tokio::time::timeout(REQUEST, serve(&api, request, path, content))
        .await
        .map_err(|_| Refusal::Timeout("the request took too long".to_owned()))?
}

async fn serve(
    api: &Api,
    request: Request,
    path: Path,
    content: Body,
) -> Result<Response, Refusal> {
    match path {
        Path::Group(group) => Ok(response::json(StatusCode::OK, &discovery::group(&group)?)),
        Path::Version { group, version } => Ok(response::json(
            StatusCode::OK,
            &discovery::version(&group, &version)?,
        )),
        Path::Collection { kind, namespace } => {
            check_role(&request, kind)?;
            collection(api, request, kind, namespace.as_deref(), content).await
        }
        Path::Object { kind, name } => {
            check_role(&request, kind)?;
            object(api, request, kind, &name, content).await
        }
        Path::Below {
            kind,
            name,
            subresource,
            ..
        } => below(api, request, kind, &name, &subresource, content).await,
    }
}

async fn collection(
    api: &Api,
    request: Request,
    kind: &'static Kind,
    namespace: Option<&str>,
    content: Body,
) -> Result<Response, Refusal> {
    match request.method {
        Method::GET if request.query.is_set("watch") => {
            watch::start(api, request, kind, namespace, None)
        }
        Method::GET => read::list(api, &request, kind, namespace),
        Method::POST if kind.is_namespaced && namespace.is_none() => {
            Err(Refusal::MethodNotAllowed(format!(
                "{kind} is created in a namespace: /namespaces/<name>/{}",
                kind.plural
            )))
        }
        Method::POST => {
            let value = object_of(&request, content).await?;
            write::create(api, &request, kind, namespace, value).await
        }
        Method::DELETE => {
            let options = options_of(&request, content).await?;
            write::delete_collection(api, &request, kind, namespace, &options).await
        }
        _ => Err(not_allowed(&request)),
    }
}

async fn object(
    api: &Api,
    request: Request,
    kind: &'static Kind,
    name: &Name,
    content: Body,
) -> Result<Response, Refusal> {
    match request.method {
        Method::GET if request.query.is_set("watch") => {
            let namespace = kind.is_namespaced.then_some(name.namespace.as_str());
            watch::start(api, request, kind, namespace, Some(&name.name))
        }
        Method::GET => read::get(api, &request, kind, name),
        Method::PUT => {
            let value = object_of(&request, content).await?;
            write::replace(api, &request, kind, name, value).await
        }
        Method::PATCH => {
            let change = object_of(&request, content).await?;
            write::patch(api, &request, kind, name, change).await
        }
        Method::DELETE => {
            let options = options_of(&request, content).await?;
            write::delete(api, &request, kind, name, &options).await
        }
        _ => Err(not_allowed(&request)),
    }
}

async fn below(
    api: &Api,
    request: Request,
    kind: &'static Kind,
    name: &Name,
    subresource: &str,
    content: Body,
) -> Result<Response, Refusal> {
    let is_status = subresource == "status" && kind.has(Subresource::Status);
    let is_scale = subresource == "scale" && kind.has(Subresource::Scale);
    if !is_status && !is_scale {
        return Err(Refusal::NotFound {
            resource: format!("{}/{subresource}", kind.resource()),
            name: name.name.clone(),
        });
    }
    match request.method {
        Method::GET if is_scale => write::get_scale(api, kind, name),
        Method::GET => read::get(api, &request, kind, name),
        Method::PUT | Method::PATCH => {
            let value = object_of(&request, content).await?;
            match (is_scale, request.method == Method::PUT) {
                (true, true) => write::replace_scale(api, &request, kind, name, value).await,
                (true, false) => write::patch_scale(api, &request, kind, name, value).await,
                (false, true) => write::replace_status(api, &request, kind, name, value).await,
                (false, false) => write::patch_status(api, &request, kind, name, value).await,
            }
        }
        _ => Err(not_allowed(&request)),
    }
}

fn check_role(request: &Request, kind: &Kind) -> Result<(), Refusal> {
    if kind.is_writable() || request.method == Method::GET {
        return Ok(());
    }
    Err(Refusal::MethodNotAllowed(format!(
        "{kind} is computed from other kinds and cannot be written"
    )))
}

async fn object_of(request: &Request, content: Body) -> Result<Value, Refusal> {
    let bytes = body::read(content, body::OBJECT_BYTES).await?;
    body::decode(request, &bytes)
}

/// `DeleteOptions`, which may be left out.
async fn options_of(request: &Request, content: Body) -> Result<Value, Refusal> {
    let bytes = body::read(content, body::OBJECT_BYTES).await?;
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    body::decode(request, &bytes)
}

fn not_allowed(request: &Request) -> Refusal {
    Refusal::MethodNotAllowed(format!(
        "{} is not supported on {}",
        request.method,
        request.uri.path()
    ))
}
