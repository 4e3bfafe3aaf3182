use std::sync::Arc;
use std::time::Duration;

use http::HeaderMap;
use http_body::Frame;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full, StreamBody};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::config::http1::HeaderNames;
use crate::http1::head::HeadLimits;

type AnyBody = BoxBody<Bytes, &'static str>;
type Answered = Result<Response<AnyBody>, Infallible>;

const OPTIONS: Options = Options {
    limits: HeadLimits {
        max_headers: 10,
        max_bytes: 1024,
    },
    max_buffer: 64 * 1024,
    head_timeout: Some(Duration::from_millis(300)),
    names: HeaderNames::LowerCase,
};

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client, and the task that serves its connection.
struct Peer {
    io: DuplexStream,
    line: SharedLine<DuplexStream>,
    served: JoinHandle<Result<(), ServeError>>,
}

/// Serves a connection with answers of this kind.
fn served<A, F>(answer: A) -> Peer
where
    A: Fn(Request<ClientBody>) -> F + Send + Sync + 'static,
    F: Future<Output = Answered> + Send + 'static,
{
    let (here, io) = duplex(64 * 1024);
    let line = over(here, OPTIONS);
    let own = Arc::clone(&line);
    let served = tokio::spawn(async move {
        let answer = |request: Box<_>| {
            let answering = answer(*request);
            async { answering.await.map(Box::new) }
        };
        serve(&own, answer).await
    });
    Peer { io, line, served }
}

/// Serves a connection that is answered with what was asked.
fn echoing() -> Peer {
    served(|request| async { Ok(echo(request).await) })
}

async fn echo(request: Request<ClientBody>) -> Response<AnyBody> {
    let path = request.uri().path().to_owned();
    let answer = match request.into_body().collect().await {
        Ok(body) => {
            let trailers = body.trailers().map(HeaderMap::len).unwrap_or_default();
            let text = String::from_utf8(body.to_bytes().to_vec()).expect("text");
            format!("{path} {text} {trailers}")
        }
        Err(error) => format!("{path} failed: {error}"),
    };
    text(&answer)
}

fn text(text: &str) -> Response<AnyBody> {
    let body = Full::new(Bytes::copy_from_slice(text.as_bytes()));
    let mut response = Response::new(body.map_err(|never| match never {}).boxed());
    // What changes is of no interest.
    let date = http::HeaderValue::from_static("now");
    response.headers_mut().insert(http::header::DATE, date);
    response
}

fn ok(body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 200 OK\r\ndate: now\r\ncontent-length: {length}\r\n\r\n{body}")
}

impl Peer {
    async fn say(&mut self, text: &str) {
        self.io.write_all(text.as_bytes()).await.expect("written");
    }

    /// Reads as much as a text has, which has to be that.
    async fn hears(&mut self, text: &str) {
        let mut read = vec![0; text.len()];
        let reading = timeout(PATIENCE, self.io.read_exact(&mut read));
        reading.await.expect("in time").expect("all of it");
        assert_eq!(String::from_utf8_lossy(&read), text);
    }

    /// Reads to the end of the connection.
    async fn hears_last(&mut self) -> String {
        let mut text = String::new();
        let reading = timeout(PATIENCE, self.io.read_to_string(&mut text));
        reading.await.expect("in time").expect("text");
        text
    }

    async fn ended(self) -> Result<(), ServeError> {
        let ended = timeout(PATIENCE, self.served).await;
        ended.expect("in time").expect("no panic")
    }
}

#[tokio::test]
async fn requests_are_answered_one_after_the_other() {
    let mut peer = echoing();

    peer.say("GET /a HTTP/1.1\r\n\r\nPOST /b HTTP/1.1\r\ncontent-length: 2\r\n\r\nhiGET /c HTTP/1.1\r\n\r\n")
        .await;

    for answer in ["/a  0", "/b hi 0", "/c  0"] {
        peer.hears(&ok(answer)).await;
    }
    peer.io.shutdown().await.expect("ended");
    assert_eq!(peer.hears_last().await, "");
    assert!(peer.ended().await.is_ok());
}

#[tokio::test]
async fn a_request_that_comes_a_byte_at_a_time_is_the_same() {
    let mut peer = echoing();
    let request =
        "POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nhi\r\n0\r\nc: d\r\n\r\n";

    for byte in request.chars() {
        peer.say(&byte.to_string()).await;
        tokio::task::yield_now().await;
    }

    peer.hears(&ok("/a hi 1")).await;
    peer.say("GET /b HTTP/1.1\r\n\r\n").await;
    peer.hears(&ok("/b  0")).await;
}

#[tokio::test]
async fn a_body_that_nobody_reads_is_passed_over_where_all_of_it_is_here() {
    let mut peer = served(|_| async { Ok(text("no")) });

    peer.say("POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi")
        .await;
    peer.hears(&ok("no")).await;
    peer.say("POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
        .await;
    peer.hears(&ok("no")).await;
    peer.say("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\nhi")
        .await;

    let last = peer.hears_last().await;
    assert!(last.contains("connection: close\r\n"), "{last}");
    assert!(last.ends_with("no"), "{last}");
}

#[tokio::test]
async fn a_client_is_asked_for_its_body_when_that_is_read() {
    let head = "POST /a HTTP/1.1\r\ncontent-length: 2\r\nexpect: 100-continue\r\n\r\n";
    let mut peer = echoing();
    peer.say(head).await;
    peer.hears("HTTP/1.1 100 Continue\r\n\r\n").await;
    peer.say("hi").await;
    peer.hears(&ok("/a hi 0")).await;

    let mut peer = served(|_| async { Ok(text("no")) });
    peer.say(head).await;
    let last = peer.hears_last().await;
    assert!(last.starts_with("HTTP/1.1 200 OK\r\n"), "{last}");
}

#[tokio::test]
async fn a_client_that_goes_ends_its_request() {
    let (tell, told) = oneshot::channel::<()>();
    let tell = Arc::new(parking_lot::Mutex::new(Some(tell)));
    let mut peer = served(move |_| {
        let held = tell.lock().take();
        async move {
            let _held = held;
            std::future::pending().await
        }
    });
    peer.say("GET / HTTP/1.1\r\n\r\n").await;

    peer.io.shutdown().await.expect("ended");

    assert!(told.await.is_err(), "dropped");
    assert!(matches!(peer.ended().await, Err(ServeError::Closed)));
}

#[tokio::test]
async fn a_body_that_is_cut_off_fails() {
    let mut peer = echoing();
    peer.say("POST /a HTTP/1.1\r\ncontent-length: 5\r\n\r\nhi")
        .await;

    peer.io.shutdown().await.expect("ended");

    let last = peer.hears_last().await;
    assert!(last.contains("/a failed"), "{last}");
    assert!(last.contains("connection: close"), "{last}");
}

#[tokio::test]
async fn a_body_that_is_none_fails_and_ends_the_connection() {
    let mut peer = echoing();

    peer.say("POST /a HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
        .await;

    let last = peer.hears_last().await;
    assert!(last.contains("/a failed"), "{last}");
    assert!(last.contains("connection: close"), "{last}");
}

#[tokio::test]
async fn what_is_no_request_is_refused() {
    let large = format!("GET / HTTP/1.1\r\na: {}\r\n\r\n", "x".repeat(1024));
    let long = format!("GET /{}", "x".repeat(1024));
    for (said, status) in [
        ("nonsense\r\n\r\n", "400 Bad Request"),
        (&large, "431 Request Header Fields Too Large"),
        (&long, "431 Request Header Fields Too Large"),
    ] {
        let mut peer = echoing();
        peer.say(said).await;

        let last = peer.hears_last().await;
        assert!(
            last.starts_with(&format!("HTTP/1.1 {status}\r\n")),
            "{last}"
        );
        assert!(last.contains("connection: close\r\n"), "{last}");
        let ended = peer.ended().await.expect_err("no request");
        assert!(ended.is_of_protocol());
    }
    let mut peer = echoing();
    peer.say("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await;
    assert_eq!(peer.hears_last().await, "");
}

#[tokio::test]
async fn a_head_that_does_not_end_in_time_ends_the_connection() {
    let mut peer = echoing();
    peer.say("GET / HTTP/1.1\r\n").await;

    assert_eq!(peer.hears_last().await, "");
    assert!(peer.ended().await.expect_err("too late").is_timeout());
}

#[tokio::test]
async fn a_connection_that_is_to_finish_answers_what_it_was_asked() {
    let (go, wait) = oneshot::channel::<()>();
    let wait = Arc::new(parking_lot::Mutex::new(Some(wait)));
    let mut peer = served(move |_| {
        let wait = wait.lock().take();
        async move {
            wait.expect("one request").await.expect("told");
            Ok(text("yes"))
        }
    });
    peer.say("GET / HTTP/1.1\r\n\r\n").await;
    tokio::task::yield_now().await;

    peer.line.lock().finish();
    go.send(()).expect("awaited");

    let last = peer.hears_last().await;
    assert!(last.contains("connection: close"), "{last}");
    assert!(last.ends_with("yes"), "{last}");
    assert!(peer.ended().await.is_ok());
}

#[tokio::test]
async fn a_connection_that_lies_idle_holds_no_memory() {
    let mut peer = echoing();
    let body = "x".repeat(40_000);
    let request = format!("POST /a HTTP/1.1\r\ncontent-length: 40000\r\n\r\n{body}");
    peer.say(&request).await;

    peer.hears(&ok(&format!("/a {body} 0"))).await;

    assert_eq!(peer.line.lock().reading.memory(), 0);
}

#[tokio::test]
async fn a_response_that_fails_has_no_end() {
    let mut peer = served(|_| async {
        let frames = [Ok(Frame::data(Bytes::from_static(b"abc"))), Err("broken")];
        let frames =
            futures_util::StreamExt::then(futures_util::stream::iter(frames), |frame| async move {
                tokio::task::yield_now().await;
                frame
            });
        let mut response = text("");
        *response.body_mut() = BodyExt::boxed(StreamBody::new(Box::pin(frames)));
        Ok(response)
    });

    peer.say("GET / HTTP/1.1\r\n\r\n").await;

    let last = peer.hears_last().await;
    assert!(last.contains("transfer-encoding: chunked"), "{last}");
    assert!(last.ends_with("3\r\nabc\r\n"), "{last}");
    assert!(matches!(peer.ended().await, Err(ServeError::Response(_))));
}

#[tokio::test]
async fn http10_is_closed_where_nobody_asks_for_more() {
    let mut peer = echoing();
    peer.say("GET /a HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
        .await;
    peer.hears(
        "HTTP/1.0 200 OK\r\ndate: now\r\nconnection: keep-alive\r\ncontent-length: 5\r\n\r\n/a  0",
    )
    .await;
    peer.say("GET /b HTTP/1.0\r\n\r\n").await;

    let last = peer.hears_last().await;
    assert!(last.starts_with("HTTP/1.0 200 OK\r\n"), "{last}");
    assert!(last.ends_with("/b  0"), "{last}");
}

#[tokio::test]
async fn another_protocol_begins_with_what_came_with_the_request() {
    let (tell, told) = oneshot::channel();
    let tell = Arc::new(parking_lot::Mutex::new(Some(tell)));
    let mut peer = served(move |mut request| {
        let switch: Switch = request.extensions_mut().remove().expect("one");
        let tell = tell.lock().take().expect("one request");
        let _ = tell.send(switch);
        async {
            let mut response = text("");
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            Ok(response)
        }
    });
    peer.say("GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nfirst")
        .await;

    let switch = told.await.expect("a request");
    let mut io = timeout(PATIENCE, switch.switched())
        .await
        .expect("in time")
        .expect("a connection");

    peer.hears("HTTP/1.1 101 Switching Protocols\r\ndate: now\r\n\r\n")
        .await;
    peer.say(" second").await;
    let mut read = [0; 12];
    io.read_exact(&mut read).await.expect("both");
    assert_eq!(&read, b"first second");
    io.write_all(b"answer").await.expect("written");
    peer.hears("answer").await;
    assert!(peer.ended().await.is_ok());
}

#[tokio::test]
async fn a_protocol_that_is_not_agreed_to_never_begins() {
    let (tell, told) = oneshot::channel();
    let tell = Arc::new(parking_lot::Mutex::new(Some(tell)));
    let mut peer = served(move |mut request| {
        let switch: Switch = request.extensions_mut().remove().expect("one");
        let _ = tell.lock().take().expect("one request").send(switch);
        async { Ok(text("no")) }
    });
    peer.say("GET / HTTP/1.1\r\nconnection: close\r\nupgrade: x\r\n\r\n")
        .await;

    let switch = told.await.expect("a request");

    let switched = timeout(PATIENCE, switch.switched()).await.expect("in time");
    assert!(switched.is_err());
    assert!(peer.hears_last().await.ends_with("no"));
}

#[tokio::test]
async fn who_reads_a_body_hears_of_the_end_of_its_connection() {
    let (tell, told) = oneshot::channel();
    let tell = Arc::new(parking_lot::Mutex::new(Some(tell)));
    let mut peer = served(move |request| {
        let _ = tell.lock().take().expect("one").send(request.into_body());
        std::future::pending::<Answered>()
    });
    peer.say("POST / HTTP/1.1\r\ncontent-length: 5\r\n\r\n")
        .await;
    let body = told.await.expect("a request");
    let reading = tokio::spawn(body.collect());
    tokio::task::yield_now().await;

    peer.served.abort();

    let read = timeout(PATIENCE, reading).await.expect("in time");
    assert!(read.expect("no panic").is_err());
}
