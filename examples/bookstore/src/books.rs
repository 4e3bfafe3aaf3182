//! Title and author of a book; asks `stock` how many there are.

use http::Request;
use hyper::body::Incoming;
use serde_json::json;

use crate::pb::CountRequest;
use crate::pb::stock_client::StockClient;
use crate::server::Answer;
use crate::trace::Trace;
use crate::{client, server, setting};

const BOOKS: [(&str, &str, &str); 3] = [
    ("dune", "Dune", "Frank Herbert"),
    ("emma", "Emma", "Jane Austen"),
    ("ulysses", "Ulysses", "James Joyce"),
];

pub(crate) async fn answer(request: Request<Incoming>) -> Answer {
    let trace = Trace::of(request.headers());
    let id = request
        .uri()
        .path()
        .rsplit('/')
        .next()
        .unwrap_or_default()
        .to_owned();
    let (title, author) = BOOKS.iter().find(|(known, ..)| *known == id).map_or(
        ("a book nobody has heard of", "nobody"),
        |(_, title, author)| (*title, *author),
    );

    let mut stock = StockClient::new(client::channel(&setting("STOCK", "http://stock:50051"))?);
    let count = stock
        .count(trace.request(CountRequest { book: id.clone() }))
        .await?;

    server::json(&json!({
        "id": id,
        "title": title,
        "author": author,
        "copies": count.into_inner().copies,
        "served_by": setting("HOSTNAME", "unknown"),
    }))
}
