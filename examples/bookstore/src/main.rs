//! The example application: five small services of a bookshop in one binary.
//!
//! ```text
//! front ──► books ──► stock (gRPC)
//!   │
//!   ├─────► reviews-v1 | reviews-v2 ──► ratings (gRPC) ──► redis
//!   └─────► static (nginx)
//! ```
//!
//! None of them knows of the mesh. They do what any well-behaved service does: they pass trace headers on.

use std::env;
use std::process::ExitCode;

mod books;
mod chaos;
mod chat;
mod client;
mod front;
mod load;
mod ratings;
mod redis;
mod reviews;
mod server;
mod stock;
mod trace;

#[allow(
    missing_docs,
    unreachable_pub,
    clippy::allow_attributes_without_reason,
    reason = "generated from proto/bookstore.proto"
)]
mod pb {
    tonic::include_proto!("bookstore.v1");
}

/// Any error; the example only prints them.
type Error = Box<dyn std::error::Error + Send + Sync>;

const USAGE: &str = "usage: bookstore front|books|reviews|ratings|stock
       bookstore load URL [REQUESTS] [CONCURRENCY]   send requests, print what came back as JSON
       bookstore get URL                             send one request, print it
       bookstore chaos fail|slow|off                 make the service in this container misbehave
       bookstore echo                                serve WebSocket: every message comes back
       bookstore say URL MESSAGE...                  send messages over WebSocket, print what comes back
       bookstore greet                               serve TCP, and speak first";

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = tokio::select! {
        outcome = run(&words) => outcome,
        () = terminated() => Ok(()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bookstore: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(words: &[&str]) -> Result<(), Error> {
    match words {
        ["front"] => server::serve(front::answer).await,
        ["books"] => server::serve(books::answer).await,
        ["reviews"] => server::serve(reviews::answer).await,
        ["ratings"] => ratings::serve().await,
        ["stock"] => stock::serve().await,
        ["get", url] => load::get(url).await,
        ["load", url] => load::run(url, 100, 4).await,
        ["load", url, requests] => load::run(url, requests.parse()?, 4).await,
        ["load", url, requests, concurrency] => {
            load::run(url, requests.parse()?, concurrency.parse()?).await
        }
        ["chaos", mode] => chaos::set(mode),
        ["echo"] => chat::echo().await,
        ["say", url, messages @ ..] => chat::say(url, messages).await,
        ["greet"] => chat::greet().await,
        _ => Err(USAGE.into()),
    }
}

/// A container's first process gets no default signal handlers: it must ask to be ended.
async fn terminated() {
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
        .expect("the runtime has signals enabled");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = tokio::signal::ctrl_c() => {}
    }
}

/// An environment variable, or its default.
fn setting(name: &str, default: &str) -> String {
    env::var(name).unwrap_or_else(|_| default.to_owned())
}
