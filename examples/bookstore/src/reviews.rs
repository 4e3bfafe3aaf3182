//! What readers say. Version 1 says it plainly; version 2 asks `ratings` for stars.

use http::Request;
use hyper::body::Incoming;
use serde_json::json;

use crate::pb::RateRequest;
use crate::pb::ratings_client::RatingsClient;
use crate::server::Answer;
use crate::trace::Trace;
use crate::{client, server, setting};

pub(crate) async fn answer(request: Request<Incoming>) -> Answer {
    let trace = Trace::of(request.headers());
    let book = request
        .uri()
        .path()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let version = setting("VERSION", "v1");

    let mut ratings = RatingsClient::new(client::channel(&setting(
        "RATINGS",
        "http://ratings:50051",
    ))?);
    let rating = ratings
        .rate(trace.request(RateRequest { book }))
        .await?
        .into_inner();

    let text = match version.as_str() {
        "v1" => "Worth reading.",
        _ => "Worth reading twice.",
    };
    server::json(&json!({
        "version": version,
        "text": text,
        "stars": rating.stars,
        "views": rating.views,
    }))
}
