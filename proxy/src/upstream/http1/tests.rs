mod early;

use std::task::Wake;

use http_body_util::BodyExt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use super::*;
use crate::http1::plenty::MAX_READ;
use crate::tls::io::MaybeTls;
use crate::upstream::io::Socket;
use crate::upstream::upgraded;
use crate::wire::Wire;

const OPTIONS: Options = Options {
    limits: HeadLimits {
        max_headers: 10,
        max_bytes: 1024,
    },
    max_buffer: MAX_READ,
    names: HeaderNames::LowerCase,
};

/// A connection, its peer, and the rest of a request that is being written.
struct Pair {
    line: SharedLine,
    peer: UnixStream,
    rest: Option<Rest>,
}

impl Pair {
    fn new() -> Self {
        let (here, peer) = UnixStream::pair().expect("a pair");
        let io = UpstreamIo::new(MaybeTls::Plain(Socket::over(Wire::Local(here))));
        Pair {
            line: Arc::new(Mutex::new(Line::over(io, OPTIONS))),
            peer,
            rest: None,
        }
    }

    async fn send(
        &mut self,
        mut request: Request<RequestBody>,
    ) -> Result<Response<UpstreamBody>, SendFailure> {
        let line = Arc::clone(&self.line);
        send(line, &mut self.rest, (&mut request, Wanted::Once)).await
    }

    /// The answer to a request without a body.
    async fn asked(&mut self, method: &str, answer: &str) -> Response<UpstreamBody> {
        self.peer
            .write_all(answer.as_bytes())
            .await
            .expect("written");
        self.send(request(method, RequestBody::Empty))
            .await
            .expect("a response")
    }

    fn is_free(&self) -> bool {
        self.line.lock().is_free()
    }

    async fn until_free(&self) {
        let free = async {
            while !self.is_free() {
                tokio::task::yield_now().await;
            }
        };
        let free = tokio::time::timeout(Duration::from_secs(20), free).await;
        free.expect("in time");
    }

    /// Reads as much as a text has, which has to be that.
    async fn heard(&mut self, text: &str) {
        let mut read = vec![0; text.len()];
        self.peer.read_exact(&mut read).await.expect("all of it");
        assert_eq!(String::from_utf8_lossy(&read), text);
    }
}

fn request(method: &str, body: RequestBody) -> Request<RequestBody> {
    let request = Request::builder().method(method).uri("/a");
    request.header("host", "b").body(body).expect("a request")
}

async fn text(body: UpstreamBody) -> Result<String, super::super::error::ExchangeError> {
    let bytes = body.collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[tokio::test]
async fn a_connection_carries_one_request_after_the_other() {
    let mut pair = Pair::new();
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
    ] {
        let response = pair.asked("GET", answer).await;

        pair.heard("GET /a HTTP/1.1\r\nhost: b\r\n\r\n").await;
        assert_eq!(text(response.into_body()).await.expect("a body"), "ok");
        assert!(pair.is_free());
    }
}

#[tokio::test]
async fn a_response_that_comes_a_byte_at_a_time_is_the_same() {
    let answer = "HTTP/1.1 200 OK\r\na: b\r\ntransfer-encoding: chunked\r\n\r\n2;x\r\nok\r\n0\r\nc: d\r\n\r\n";
    let mut pair = Pair::new();
    let (line, mut peer) = (Arc::clone(&pair.line), pair.peer);
    let dribble = tokio::spawn(async move {
        for byte in answer.as_bytes() {
            peer.write_all(&[*byte]).await.expect("written");
            tokio::task::yield_now().await;
        }
        peer
    });

    let mut asked = request("GET", RequestBody::Empty);
    let response = send(line, &mut pair.rest, (&mut asked, Wanted::Once)).await;
    let response = response.expect("a response");
    assert_eq!(response.headers()["a"], "b");
    let body = response.into_body().collect().await.expect("a body");
    assert_eq!(body.trailers().expect("one")["c"], "d");
    assert_eq!(body.to_bytes(), "ok");
    let _peer = dribble.await.expect("all of it");
    assert!(pair.line.lock().is_free());
}

#[tokio::test]
async fn what_follows_a_response_ends_its_connection() {
    for (method, answer) in [
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nokHTTP/1.1 200 OK\r\n\r\n",
        ),
        ("HEAD", "HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"),
        ("GET", "HTTP/1.1 304 Not Modified\r\n\r\n0\r\n\r\n"),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\nx",
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
        ),
        ("GET", "HTTP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n"),
    ] {
        let mut pair = Pair::new();
        let response = pair.asked(method, answer).await;

        assert!(text(response.into_body()).await.is_ok());
        assert!(!pair.is_free(), "{answer}");
    }
}

#[tokio::test]
async fn a_request_that_says_close_is_the_last() {
    let mut pair = Pair::new();
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
    pair.peer.write_all(answer).await.expect("written");
    let mut asked = request("GET", RequestBody::Empty);
    let close = "close".parse().expect("a value");
    asked.headers_mut().insert("connection", close);

    let _response = pair.send(asked).await.expect("a response");

    assert!(!pair.is_free());
}

#[tokio::test]
async fn a_body_without_a_length_ends_with_the_connection() {
    let mut pair = Pair::new();
    let response = pair.asked("GET", "HTTP/1.1 200 OK\r\n\r\nall").await;
    pair.heard("GET /a HTTP/1.1\r\nhost: b\r\n\r\n").await;
    drop(pair.peer);

    assert_eq!(text(response.into_body()).await.expect("a body"), "all");
    assert!(!pair.line.lock().is_free());
}

#[tokio::test]
async fn a_body_that_is_cut_off_has_no_end() {
    for answer in [
        "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nsome",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n4\r\nsome\r\n",
    ] {
        let mut pair = Pair::new();
        let mut body = pair.asked("GET", answer).await.into_body();
        drop(pair.peer);

        while let Some(Ok(_)) = body.frame().await {}

        assert!(!http_body::Body::is_end_stream(&body));
        assert!(!pair.line.lock().is_free());
    }
}

#[tokio::test]
async fn a_connection_that_ends_before_the_response_is_told_from_one_that_ends_within() {
    for (answer, is_early) in [("", true), ("HTTP/1.1 2", false)] {
        let mut pair = Pair::new();
        pair.peer
            .write_all(answer.as_bytes())
            .await
            .expect("written");
        pair.peer.shutdown().await.expect("ended");

        let failure = pair.send(request("GET", RequestBody::Empty)).await;

        assert_eq!(failure.expect_err("none").is_closed_early(), is_early);
    }
}

#[tokio::test]
async fn a_request_comes_back_of_which_nothing_was_written() {
    let mut pair = Pair::new();
    let (peer, line) = (pair.peer, Arc::clone(&pair.line));
    drop(peer);
    let mut unsent = request("POST", RequestBody::Full(Some("body".into())));

    let failure = send(line, &mut pair.rest, (&mut unsent, Wanted::Once)).await;

    assert!(failure.expect_err("nobody is there").is_unsent);
    assert_eq!(
        (unsent.uri().path(), &unsent.headers()["host"]),
        ("/a", &"b".parse().expect("b"))
    );
    let body = unsent.into_body().collect().await.expect("all of it");
    assert_eq!(body.to_bytes(), "body");
}

#[tokio::test]
async fn a_head_that_is_wanted_again_is_left_as_it_is() {
    for (wanted, headers) in [(Wanted::Again, 1), (Wanted::Once, 0)] {
        let mut pair = Pair::new();
        let line = Arc::clone(&pair.line);
        let answer = b"HTTP/1.1 503 No\r\na: 1\r\nb: 2\r\ncontent-length: 0\r\n\r\n";
        pair.peer.write_all(answer).await.expect("written");
        let mut asked = request("GET", RequestBody::Empty);

        let response = send(line, &mut pair.rest, (&mut asked, wanted)).await;

        assert_eq!(response.expect("a response").headers().len(), 3);
        assert_eq!((asked.method().as_str(), asked.uri().path()), ("GET", "/a"));
        assert_eq!(asked.headers().len(), headers);
    }
}

#[tokio::test]
async fn another_protocol_begins_with_what_came_with_the_response() {
    let mut pair = Pair::new();
    let answer = "HTTP/1.1 101 Switching\r\nupgrade: x\r\nconnection: upgrade\r\n\r\nfirst";
    let mut response = pair.asked("GET", answer).await;
    pair.heard("GET /a HTTP/1.1\r\nhost: b\r\n\r\n").await;

    let mut io = upgraded::on(&mut response).await.expect("a connection");

    pair.peer.write_all(b" second").await.expect("written");
    let mut read = [0; 12];
    io.read_exact(&mut read).await.expect("both");
    assert_eq!(&read, b"first second");
    io.write_all(b"answer").await.expect("written");
    pair.heard("answer").await;
    assert!(!pair.is_free());
}

#[tokio::test]
async fn a_connection_that_lies_idle_holds_no_memory_of_a_large_body() {
    const BYTES: usize = 1 << 20;
    let mut pair = Pair::new();
    let (line, mut peer) = (Arc::clone(&pair.line), pair.peer);
    let answering = tokio::spawn(async move {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {BYTES}\r\n\r\n");
        peer.write_all(head.as_bytes()).await.expect("written");
        peer.write_all(&vec![7; BYTES]).await.expect("written");
        peer
    });

    let mut asked = request("GET", RequestBody::Empty);
    let response = send(line, &mut pair.rest, (&mut asked, Wanted::Once)).await;
    let body = response.expect("a response").into_body().collect().await;

    let bytes = body.expect("a body").to_bytes();
    assert!(bytes.len() == BYTES && bytes.iter().all(|byte| *byte == 7));
    assert_eq!(pair.line.lock().memory(), 0);
    assert!(pair.line.lock().is_free());
    let _peer = answering.await.expect("written");
}

#[tokio::test]
async fn a_response_that_nobody_reads_to_its_end_is_the_last() {
    let mut pair = Pair::new();
    let answer = "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nsome";

    drop(pair.asked("GET", answer).await);

    assert!(!pair.is_free());
}

#[tokio::test]
async fn a_connection_that_has_lain_idle_holds_nobody_who_has_read_from_it() {
    struct Reader;
    impl Wake for Reader {
        fn wake(self: Arc<Self>) {}
    }
    let pair = Pair::new();
    let reader = Arc::new(Reader);
    let waker = Waker::from(Arc::clone(&reader));
    let mut context = Context::from_waker(&waker);
    assert!(pair.line.lock().poll_idle(&mut context));
    drop(waker);
    assert_eq!(Arc::strong_count(&reader), 2);

    pair.line.lock().forget_reader();

    assert_eq!(Arc::strong_count(&reader), 1);
}
