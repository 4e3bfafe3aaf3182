//! What comes before the request has been written to its end.

use http::{HeaderMap, StatusCode};
use tokio::sync::mpsc;

use super::*;
use crate::upstream::body::meter::Copied;

fn pieces() -> (mpsc::Sender<Copied>, RequestBody) {
    let (pieces, received) = mpsc::channel(4);
    (pieces, RequestBody::Copy(received))
}

fn data(text: &'static str) -> Copied {
    Copied::Data(text.into())
}

const CHUNKED_HEAD: &str = "POST /a HTTP/1.1\r\nhost: b\r\ntransfer-encoding: chunked\r\n\r\n";

#[tokio::test]
async fn a_request_goes_on_whose_response_has_begun() {
    let mut pair = Pair::new();
    let (pieces, body) = pieces();
    pair.peer
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await
        .expect("written");

    let response = pair.send(request("POST", body)).await.expect("a response");
    pair.heard(CHUNKED_HEAD).await;
    pieces.send(data("abc")).await.expect("wanted");
    // Nobody reads the response yet.
    pair.heard("3\r\nabc\r\n").await;
    assert!(!pair.is_free());
    pieces.send(Copied::End).await.expect("wanted");
    pair.heard("0\r\n\r\n").await;

    assert_eq!(text(response.into_body()).await.expect("a body"), "ok");
    pair.until_free().await;
}

#[tokio::test]
async fn a_request_that_was_answered_in_full_is_passed_on_to_its_end() {
    let mut pair = Pair::new();
    let (pieces, body) = pieces();
    pair.peer
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        .await
        .expect("written");
    let response = pair.send(request("POST", body)).await.expect("a response");
    assert_eq!(text(response.into_body()).await.expect("a body"), "ok");

    pair.rest = None;

    pair.heard(CHUNKED_HEAD).await;
    pieces.send(data("abc")).await.expect("wanted");
    pieces.send(Copied::End).await.expect("wanted");
    pair.heard("3\r\nabc\r\n0\r\n\r\n").await;
}

#[tokio::test]
async fn a_request_whose_response_nobody_wants_is_given_up() {
    let mut pair = Pair::new();
    let (pieces, body) = pieces();
    pair.peer
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome")
        .await
        .expect("written");
    let response = pair.send(request("POST", body)).await.expect("a response");

    drop((response, pair.rest, pair.line));

    let gone = tokio::time::timeout(Duration::from_secs(20), pieces.closed()).await;
    gone.expect("in time");
    let mut rest = String::new();
    pair.peer.read_to_string(&mut rest).await.expect("an end");
    assert_eq!(rest, CHUNKED_HEAD);
}

#[tokio::test]
async fn who_reads_a_response_learns_that_its_request_has_failed() {
    let mut pair = Pair::new();
    let (pieces, body) = pieces();
    pair.peer
        .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nsome")
        .await
        .expect("written");
    let response = pair.send(request("POST", body)).await.expect("a response");
    pair.heard(CHUNKED_HEAD).await;
    let read = tokio::spawn(text(response.into_body()));
    tokio::task::yield_now().await;

    drop(pieces);

    let failed = read.await.expect("read").expect_err("no end");
    assert!(failed.to_string().contains("request body"), "{failed}");
    assert!(!pair.is_free());
    let mut peer = pair.peer;
    drop((pair.line, pair.rest));
    let mut rest = String::new();
    peer.read_to_string(&mut rest).await.expect("an end");
    assert_eq!(rest, "", "it has not ended as if it were whole");
}

#[tokio::test]
async fn an_answer_counts_though_the_request_was_not_read() {
    let mut pair = Pair::new();
    let (pieces, body) = pieces();
    pieces.try_send(data("abc")).expect("room");
    let answer = "HTTP/1.1 413 Large\r\ncontent-length: 2\r\n\r\nno";
    let (line, mut peer) = (Arc::clone(&pair.line), pair.peer);
    let refusing = tokio::spawn(async move {
        let mut head = [0; CHUNKED_HEAD.len()];
        peer.read_exact(&mut head).await.expect("a head");
        peer.write_all(answer.as_bytes()).await.expect("written");
        drop(peer);
        let _ = pieces.send(data("more")).await;
        pieces
    });

    let mut asked = request("POST", body);
    let sent = send(line, &mut pair.rest, (&mut asked, Wanted::Once)).await;

    let response = sent.expect("a response");
    assert_eq!(response.status(), StatusCode::PAYLOAD_TOO_LARGE);
    assert_eq!(text(response.into_body()).await.expect("a body"), "no");
    let _pieces = refusing.await.expect("sent");
    assert!(!pair.line.lock().is_free());
}

#[tokio::test]
async fn informational_responses_are_told_and_passed_over() {
    let mut pair = Pair::new();
    let told: Arc<Mutex<Vec<u16>>> = Arc::default();
    let tell = Arc::clone(&told);
    let mut asked = request("GET", RequestBody::Empty);
    let tell = move |status: StatusCode| tell.lock().push(status.as_u16());
    asked
        .extensions_mut()
        .insert(OnInformational(Arc::new(tell)));
    let answers = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: a\r\n\r\nHTTP/1.1 204 No Content\r\nb: c\r\n\r\n";
    pair.peer
        .write_all(answers.as_bytes())
        .await
        .expect("written");

    let response = pair.send(asked).await.expect("a response");

    assert_eq!(*told.lock(), [100, 103]);
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let expected = HeaderMap::from_iter([("b".parse().expect("a name"), "c".parse().expect("c"))]);
    assert_eq!(*response.headers(), expected);
    assert!(pair.is_free());
}
