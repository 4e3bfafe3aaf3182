//! The page: asks the other services and puts their answers together.

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::{Value, json};

use crate::server::Answer;
use crate::trace::Trace;
use crate::{Error, client, server, setting};

pub(crate) async fn answer(request: Request<Incoming>) -> Answer {
    let trace = Trace::of(request.headers());
    match request.uri().path() {
        "/" => page("dune", &trace).await,
        path => match path.strip_prefix("/api/books/") {
            Some(book) => server::json(&facts(book, &trace).await?),
            None => page(path.trim_start_matches('/'), &trace).await,
        },
    }
}

/// All that is known of a book.
async fn facts(book: &str, trace: &Trace) -> Result<Value, Error> {
    let books = format!("{}/books/{book}", setting("BOOKS", "http://books:8080"));
    let reviews = format!(
        "{}/reviews/{book}",
        setting("REVIEWS", "http://reviews:8080")
    );
    let (book, reviews) = tokio::try_join!(
        client::get_json(&books, trace),
        client::get_json(&reviews, trace)
    )?;
    Ok(json!({ "book": book, "reviews": reviews }))
}

async fn page(book: &str, trace: &Trace) -> Answer {
    let banner = format!("{}/banner.html", setting("STATIC", "http://static:80"));
    let (banner, facts) = tokio::try_join!(client::get(&banner, trace), facts(book, trace))?;
    let html = render(&String::from_utf8_lossy(&banner), &facts);
    let response = Response::builder()
        .header("content-type", "text/html; charset=utf-8")
        .body(Full::<Bytes>::from(html))?;
    Ok(response)
}

fn render(banner: &str, facts: &Value) -> String {
    let text = |pointer: &str| match facts.pointer(pointer) {
        Some(Value::String(text)) => text.clone(),
        Some(value) => value.to_string(),
        None => "unknown".to_owned(),
    };
    format!(
        "<!doctype html><title>Bookstore</title>{banner}\n<h2>{}</h2><p>by {}, {} copies in stock</p>\n<p>{} \
         ({} stars, reviews {})</p>\n",
        text("/book/title"),
        text("/book/author"),
        text("/book/copies"),
        text("/reviews/text"),
        text("/reviews/stars"),
        text("/reviews/version"),
    )
}
