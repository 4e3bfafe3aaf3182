//! A small client of the Kubernetes-shaped API: the launcher and the command line speak with the control plane
//! through it.
//!
//! It speaks over the unix socket of the daemon, or over TCP with a bearer token. Each request has a connection of
//! its own: the API is near, and a request that waits never stands behind another. Every call has a deadline
//! except bodies that stream (logs, watches, uploads).

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

mod collection;
mod connection;
mod error;
mod types;
mod watch;

pub use collection::Collection;
pub use connection::Connection;
pub use error::ApiError;
pub use types::{Apply, DeleteOptions, List, ListMeta, Patch, Preconditions};
pub use watch::{Event, Watch, Watched};

/// How long a request may take until its answer begins, and until a body that does not stream has arrived.
const TIMEOUT: Duration = Duration::from_secs(30);
/// No object or list is larger.
const MAX_BODY_BYTES: usize = 64 * 1024 * 1024;
/// Who writes a field, for server-side apply, where the caller does not say.
const FIELD_MANAGER: &str = "weft";

/// A client; clones share it.
#[derive(Clone)]
pub struct Client {
    endpoint: Arc<Endpoint>,
    field_manager: Arc<str>,
}

/// Where the API is.
#[derive(Debug)]
enum Endpoint {
    Unix {
        path: PathBuf,
    },
    Tcp {
        authority: String,
        token: Option<String>,
    },
}

impl Client {
    /// A client of the daemon's unix socket, which knows its owner without a token.
    pub fn unix(path: impl Into<PathBuf>) -> Self {
        let path = path.into();
        Self::of(Endpoint::Unix { path })
    }

    /// A client of an API over TCP: `127.0.0.1:15080`, with a bearer token.
    pub fn tcp(authority: impl Into<String>, token: Option<String>) -> Self {
        let authority = authority.into();
        Self::of(Endpoint::Tcp { authority, token })
    }

    fn of(endpoint: Endpoint) -> Self {
        Self {
            endpoint: Arc::new(endpoint),
            field_manager: FIELD_MANAGER.into(),
        }
    }

    /// The same client under another name: who owns the fields that it writes.
    #[must_use]
    pub fn acting_as(mut self, field_manager: &str) -> Self {
        self.field_manager = field_manager.into();
        self
    }

    /// Says who is writing.
    fn signed(&self, path: &str) -> String {
        let manager = collection::escape(&self.field_manager);
        with_query(path, &format!("fieldManager={manager}"))
    }

    /// One object.
    ///
    /// # Errors
    /// `NotFound` where there is none; see [`ApiError`].
    pub async fn get<T: DeserializeOwned>(
        &self,
        collection: &Collection,
        name: &str,
    ) -> Result<T, ApiError> {
        self.call(Method::GET, &collection.object(name), None).await
    }

    /// All objects of a collection; `query` as in `labelSelector=app%3Dbooks`, or empty.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn list<T: DeserializeOwned>(
        &self,
        collection: &Collection,
        query: &str,
    ) -> Result<List<T>, ApiError> {
        self.call(Method::GET, &with_query(&collection.path(), query), None)
            .await
    }

    /// Makes an object; returns it as stored.
    ///
    /// # Errors
    /// `Conflict` where there is one of that name; see [`ApiError`].
    pub async fn create<T: Serialize + DeserializeOwned>(
        &self,
        collection: &Collection,
        object: &T,
    ) -> Result<T, ApiError> {
        let body = Payload::json(object)?;
        self.call(Method::POST, &self.signed(&collection.path()), Some(body))
            .await
    }

    /// Replaces an object; its resource version must be that of the stored one.
    ///
    /// # Errors
    /// `Conflict` where somebody else was faster; see [`ApiError`].
    pub async fn replace<T: Serialize + DeserializeOwned>(
        &self,
        collection: &Collection,
        name: &str,
        object: &T,
    ) -> Result<T, ApiError> {
        let body = Payload::json(object)?;
        let path = self.signed(&collection.object(name));
        self.call(Method::PUT, &path, Some(body)).await
    }

    /// Server-side apply: makes the object, or sets the fields given.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn apply<T: DeserializeOwned>(
        &self,
        collection: &Collection,
        name: &str,
        object: &Value,
        apply: &Apply<'_>,
    ) -> Result<T, ApiError> {
        let mut query = format!(
            "fieldManager={}&force={}",
            collection::escape(apply.field_manager),
            apply.force
        );
        if apply.dry_run {
            query.push_str("&dryRun=All");
        }
        let body = Payload {
            content_type: "application/apply-patch+yaml",
            bytes: encode(object)?,
        };
        let path = with_query(&collection.object(name), &query);
        self.call(Method::PATCH, &path, Some(body)).await
    }

    /// Changes fields of an object.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn patch<T: DeserializeOwned>(
        &self,
        collection: &Collection,
        name: &str,
        kind: Patch,
        patch: &Value,
    ) -> Result<T, ApiError> {
        self.patch_path(&collection.object(name), kind, patch).await
    }

    /// Changes the status of an object by a merge patch of the whole object (`{"status": …}`).
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn patch_status<T: DeserializeOwned>(
        &self,
        collection: &Collection,
        name: &str,
        patch: &Value,
    ) -> Result<T, ApiError> {
        let path = format!("{}/status", collection.object(name));
        self.patch_path(&path, Patch::Merge, patch).await
    }

    async fn patch_path<T: DeserializeOwned>(
        &self,
        path: &str,
        kind: Patch,
        patch: &Value,
    ) -> Result<T, ApiError> {
        let body = Payload {
            content_type: kind.content_type(),
            bytes: encode(patch)?,
        };
        self.call(Method::PATCH, &self.signed(path), Some(body))
            .await
    }

    /// Deletes an object; answers with the object on its way out, or with a `Status`.
    ///
    /// # Errors
    /// `NotFound` where there is none; see [`ApiError`].
    pub async fn delete(
        &self,
        collection: &Collection,
        name: &str,
        options: &DeleteOptions,
    ) -> Result<Value, ApiError> {
        let body = Payload::json(options)?;
        self.call(Method::DELETE, &collection.object(name), Some(body))
            .await
    }

    /// Follows a collection: its objects first, then each change. See [`Watch`].
    pub fn watch<K: Watched>(&self, collection: &Collection) -> Watch<K> {
        Watch::start(self.clone(), collection.clone())
    }

    /// Sends a request whose bodies stream both ways, and returns the answer when it begins, whatever its status.
    /// The path of the URI is that of the API; host and token are filled in.
    ///
    /// # Errors
    /// Where the API cannot be reached; a refusal is a response like any other.
    pub async fn request<B>(&self, request: Request<B>) -> Result<Response<Incoming>, ApiError>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        connection::send(&self.endpoint, request).await
    }

    /// As [`Client::request`], but an answer that is no success becomes the error it holds.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn stream<B>(&self, request: Request<B>) -> Result<Response<Incoming>, ApiError>
    where
        B: Body + Send + 'static,
        B::Data: Send,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    {
        let what = format!("{} {}", request.method(), request.uri().path());
        let response = self.request(request).await?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        let body = collect(response, &what).await?;
        Err(ApiError::from_body(status, &body, what))
    }

    /// A fresh connection to the API, for protocols of its caller's own (a WebSocket for exec). The headers of
    /// [`Connection::headers`] belong into its first request.
    ///
    /// # Errors
    /// Where the API cannot be reached.
    pub async fn connect(&self) -> Result<Connection, ApiError> {
        connection::open(&self.endpoint).await
    }

    /// Sends a request with a JSON body and reads a JSON answer.
    ///
    /// # Errors
    /// See [`ApiError`].
    pub async fn call_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<&Value>,
    ) -> Result<T, ApiError> {
        let body = body.map(Payload::json).transpose()?;
        self.call(method, path, body).await
    }

    async fn call<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Payload>,
    ) -> Result<T, ApiError> {
        let what = format!("{method} {path}");
        let exchange = self.exchange(method, path, body, &what);
        tokio::time::timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| ApiError::TimedOut { what: what.clone() })?
    }

    async fn exchange<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Option<Payload>,
        what: &str,
    ) -> Result<T, ApiError> {
        let mut request = Request::builder().method(method).uri(path);
        if let Some(body) = &body {
            request = request.header(http::header::CONTENT_TYPE, body.content_type);
        }
        let bytes = body.map_or_else(Bytes::new, |body| body.bytes);
        let request = request
            .header(http::header::ACCEPT, "application/json")
            .body(Full::new(bytes))
            .map_err(|source| ApiError::Request {
                what: what.to_owned(),
                source,
            })?;
        let response = self.stream(request).await?;
        let body = collect(response, what).await?;
        serde_json::from_slice(&body).map_err(|source| ApiError::Decode {
            what: what.to_owned(),
            source,
        })
    }
}

impl fmt::Debug for Client {
    // By hand: the token stays out of logs.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.endpoint.display())
    }
}

struct Payload {
    content_type: &'static str,
    bytes: Bytes,
}

impl Payload {
    fn json<T: Serialize>(object: &T) -> Result<Self, ApiError> {
        Ok(Self {
            content_type: "application/json",
            bytes: encode(object)?,
        })
    }
}

fn encode<T: Serialize>(object: &T) -> Result<Bytes, ApiError> {
    serde_json::to_vec(object)
        .map(Bytes::from)
        .map_err(|source| ApiError::Encode { source })
}

async fn collect(response: Response<Incoming>, what: &str) -> Result<Bytes, ApiError> {
    let body = http_body_util::Limited::new(response.into_body(), MAX_BODY_BYTES);
    match body.collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(source) => Err(ApiError::Body {
            what: what.to_owned(),
            source,
        }),
    }
}

fn with_query(path: &str, query: &str) -> String {
    if query.is_empty() {
        path.to_owned()
    } else {
        format!("{path}?{query}")
    }
}
