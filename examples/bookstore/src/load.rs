//! Sends requests from inside a container, as its application would, and counts what comes back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, Uri};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use crate::Error;
use crate::client::Connection;
use crate::trace::Trace;

/// Status and body of one request, on standard output.
pub(crate) async fn get(url: &str) -> Result<(), Error> {
    let uri: Uri = url.parse()?;
    let response = Connection::open(&uri)
        .await?
        .get(path(&uri), &Trace::default())
        .await?;
    println!(
        "{} {}",
        response.status().as_u16(),
        String::from_utf8_lossy(response.body())
    );
    Ok(())
}

/// Sends `requests` over `concurrency` connections and prints a tally:
/// `{"requests": 100, "status": {"200": 98, "error": 2}, "version": {"v1": 80, "v2": 18}, "served_by": {…}}`.
pub(crate) async fn run(url: &str, requests: u64, concurrency: usize) -> Result<(), Error> {
    let uri: Uri = url.parse()?;
    let left = Arc::new(AtomicU64::new(requests));
    let mut workers = JoinSet::new();
    for _ in 0..concurrency.clamp(1, 256) {
        workers.spawn(work(uri.clone(), Arc::clone(&left)));
    }
    let mut total = Tally::default();
    while let Some(tally) = workers.join_next().await {
        total.add(tally?);
    }
    println!(
        "{}",
        json!({ "requests": requests, "status": total.status, "version": total.version, "served_by": total.served_by })
    );
    Ok(())
}

#[derive(Default)]
struct Tally {
    status: BTreeMap<String, u64>,
    version: BTreeMap<String, u64>,
    served_by: BTreeMap<String, u64>,
}

impl Tally {
    fn add(&mut self, other: Tally) {
        let pairs = [
            (&mut self.status, other.status),
            (&mut self.version, other.version),
            (&mut self.served_by, other.served_by),
        ];
        for (sum, part) in pairs {
            for (key, count) in part {
                *sum.entry(key).or_default() += count;
            }
        }
    }

    fn count(&mut self, status: String, headers: &HeaderMap, body: &[u8]) {
        *self.status.entry(status).or_default() += 1;
        let is_json = headers
            .get("content-type")
            .is_some_and(|kind| kind == "application/json");
        let Some(body) = is_json
            .then(|| serde_json::from_slice::<Value>(body).ok())
            .flatten()
        else {
            return;
        };
        for (tally, pointers) in [
            (&mut self.version, ["/version", "/reviews/version"]),
            (&mut self.served_by, ["/served_by", "/book/served_by"]),
        ] {
            let value = pointers.iter().find_map(|pointer| body.pointer(pointer));
            if let Some(Value::String(value)) = value {
                *tally.entry(value.clone()).or_default() += 1;
            }
        }
    }
}

async fn work(uri: Uri, left: Arc<AtomicU64>) -> Tally {
    let mut tally = Tally::default();
    let mut connection = None;
    while left
        .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| {
            left.checked_sub(1)
        })
        .is_ok()
    {
        match send(&mut connection, &uri).await {
            Ok(response) => {
                let status = response.status().as_u16().to_string();
                tally.count(status, response.headers(), response.body());
            }
            Err(error) => {
                eprintln!("{error}");
                connection = None;
                tally.count("error".to_owned(), &HeaderMap::new(), &[]);
            }
        }
    }
    tally
}

async fn send(
    connection: &mut Option<Connection>,
    uri: &Uri,
) -> Result<http::Response<bytes::Bytes>, Error> {
    if !connection.as_ref().is_some_and(Connection::is_open) {
        *connection = None;
    }
    let connection = match connection {
        Some(open) => open,
        None => connection.insert(Connection::open(uri).await?),
    };
    connection.get(path(uri), &Trace::default()).await
}

fn path(uri: &Uri) -> &str {
    uri.path_and_query().map_or("/", |path| path.as_str())
}
