use std::convert::Infallible;
use std::time::Duration;

use h2::client::{self, SendRequest};
use http::StatusCode;
use http::header::{CONNECTION, HeaderValue};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::sync::{Notify, oneshot};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::*;
use crate::http::serve::switch::Switch;

type AnyBody = BoxBody<Bytes, Infallible>;

/// Nothing takes longer.
const PATIENCE: Duration = Duration::from_secs(20);
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// Answers as a test says.
struct Answering<A>(A);

impl<A, F> Answer for Answering<A>
where
    A: Fn(Request<ClientBody>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<AnyBody>> + Send + 'static,
{
    type Body = AnyBody;

    fn answer(
        &self,
        request: Box<Request<ClientBody>>,
    ) -> impl Future<Output = Box<Response<AnyBody>>> + Send {
        let answering = (self.0)(*request);
        async { Box::new(answering.await) }
    }
}

/// A client, and the task that serves its connection.
struct Peer {
    client: SendRequest<Bytes>,
    served: JoinHandle<Result<(), ServeError>>,
    /// Ends the connection.
    finish: Arc<Notify>,
}

async fn served<A, F>(options: Http2Options, answer: A) -> Peer
where
    A: Fn(Request<ClientBody>) -> F + Send + Sync + 'static,
    F: Future<Output = Response<AnyBody>> + Send + 'static,
{
    let (here, there) = duplex(64 * 1024);
    let finish = Arc::new(Notify::new());
    let told = Arc::clone(&finish);
    let served = tokio::spawn(async move {
        let mut served = serve(here, &options, MAX_HEADER_BYTES, Answering(answer));
        tokio::select! {
            result = &mut served => return result,
            () = told.notified() => served.finish(),
        }
        served.await
    });
    let client = connect(there).await;
    Peer {
        client,
        served,
        finish,
    }
}

async fn connect(io: DuplexStream) -> SendRequest<Bytes> {
    let (client, connection) = client::handshake(io).await.expect("a connection");
    tokio::spawn(connection);
    client
}

fn empty() -> Response<AnyBody> {
    Response::new(Empty::new().boxed())
}

fn text(text: impl Into<Bytes>) -> Response<AnyBody> {
    Response::new(Full::new(text.into()).boxed())
}

fn request(method: Method) -> Request<()> {
    let request = Request::builder().method(method).uri("http://a/");
    request.body(()).expect("a request")
}

impl Peer {
    async fn ask(&self, request: Request<()>) -> (client::ResponseFuture, h2::SendStream<Bytes>) {
        let mut client = self.client.clone().ready().await.expect("a stream");
        client.send_request(request, false).expect("it is sent")
    }

    async fn get(&self) -> Response<RecvStream> {
        let (answer, mut body) = self.ask(request(Method::GET)).await;
        body.send_data(Bytes::new(), true).expect("it ends");
        answered(answer).await
    }
}

async fn answered(answer: client::ResponseFuture) -> Response<RecvStream> {
    let answer = timeout(PATIENCE, answer).await.expect("in time");
    answer.expect("a response")
}

#[tokio::test]
async fn a_response_without_a_body_ends_with_its_head() {
    let peer = served(Http2Options::default(), |_| async { empty() }).await;

    let response = peer.get().await;

    assert!(response.body().is_end_stream());
    assert!(response.headers().contains_key(DATE));
    assert!(!response.headers().contains_key(CONTENT_LENGTH));
}

#[tokio::test]
async fn a_body_is_read_and_answered_with_one() {
    let peer = served(Http2Options::default(), |request| async {
        let body = request.into_body().collect().await.expect("a body");
        text(body.to_bytes())
    })
    .await;

    let (answer, mut body) = peer.ask(request(Method::POST)).await;
    body.send_data(Bytes::from_static(b"what is "), false)
        .expect("some");
    body.send_data(Bytes::from_static(b"said"), true)
        .expect("the rest");
    let mut response = answered(answer).await;

    assert_eq!(response.headers()[CONTENT_LENGTH], "12");
    let said = response.body_mut().data().await.expect("a body");
    assert_eq!(said.expect("of it"), "what is said");
}

#[tokio::test]
async fn what_is_for_one_connection_only_is_left_out() {
    let peer = served(Http2Options::default(), |_| async {
        let mut response = empty();
        let close = HeaderValue::from_static("close");
        response.headers_mut().insert(CONNECTION, close);
        response
    })
    .await;

    let response = peer.get().await;

    assert_eq!(response.status(), StatusCode::OK);
    assert!(!response.headers().contains_key(CONNECTION));
}

#[tokio::test]
async fn what_is_done_for_a_stream_is_given_up_when_its_client_resets_it() {
    let begun = Arc::new(Notify::new());
    let told = Arc::clone(&begun);
    let (held, given_up) = oneshot::channel::<Infallible>();
    let held = Arc::new(parking_lot::Mutex::new(Some(held)));
    let peer = served(Http2Options::default(), move |_| {
        let (told, held) = (Arc::clone(&told), held.lock().take());
        async move {
            told.notify_one();
            std::future::pending::<()>().await;
            drop(held);
            empty()
        }
    })
    .await;
    let (answer, mut body) = peer.ask(request(Method::GET)).await;
    begun.notified().await;

    body.send_reset(Reason::CANCEL);

    let given_up = timeout(PATIENCE, given_up).await.expect("in time");
    assert!(given_up.is_err());
    drop(answer);
}

#[tokio::test]
async fn a_tunnel_carries_bytes_both_ways() {
    let peer = served(Http2Options::default(), |mut request| async move {
        let switch: Switch = request.extensions_mut().remove().expect("one");
        tokio::spawn(async move {
            let mut io = switch.switched().await.expect("a tunnel");
            let mut heard = String::new();
            io.read_to_string(&mut heard).await.expect("text");
            io.write_all(heard.to_uppercase().as_bytes())
                .await
                .expect("written");
        });
        empty()
    })
    .await;
    let mut connect = request(Method::CONNECT);
    *connect.uri_mut() = "a:443".parse().expect("an authority");

    let (answer, mut to_peer) = peer.ask(connect).await;
    let mut response = answered(answer).await;
    assert!(!response.body().is_end_stream());
    to_peer
        .send_data(Bytes::from_static(b"ab"), true)
        .expect("said");

    // Whoever has it drops it: that is its end.
    let mut said = vec![];
    while let Some(data) = response.body_mut().data().await {
        said.extend_from_slice(&data.expect("no reset"));
    }
    assert_eq!(said, b"AB");
}

#[tokio::test]
async fn a_connect_that_nobody_tunnels_is_answered_as_any_request() {
    let peer = served(Http2Options::default(), |_| async { text("no tunnel") }).await;
    let mut connect = request(Method::CONNECT);
    *connect.uri_mut() = "a:443".parse().expect("an authority");

    let (answer, _to_peer) = peer.ask(connect).await;
    let mut response = answered(answer).await;

    let said = response.body_mut().data().await.expect("an answer");
    assert_eq!(said.expect("of it"), "no tunnel");
}

#[tokio::test]
async fn a_connection_that_finishes_answers_what_is_on_its_way() {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let begun = Arc::new(Notify::new());
    let has_begun = Arc::clone(&begun);
    let Peer {
        client,
        served,
        finish,
    } = served(Http2Options::default(), move |_| {
        let (told, has_begun) = (Arc::clone(&told), Arc::clone(&has_begun));
        async move {
            has_begun.notify_one();
            told.notified().await;
            empty()
        }
    })
    .await;
    let mut client = client.ready().await.expect("a stream");
    let (answer, _) = client
        .send_request(request(Method::GET), true)
        .expect("sent");
    begun.notified().await;

    finish.notify_one();
    go.notify_one();

    assert_eq!(answered(answer).await.status(), StatusCode::OK);
    // A client that has closed first may be missed by what is still written.
    let served = timeout(PATIENCE, served).await.expect("in time");
    let _ = served.expect("it ends");
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_given_up() {
    let (here, mut there) = duplex(64 * 1024);
    let options = Http2Options {
        keepalive_interval: Some(Duration::from_millis(1)),
        keepalive_timeout: Some(Duration::from_millis(1)),
        ..Http2Options::default()
    };
    let served = tokio::spawn(async move {
        serve(
            here,
            &options,
            MAX_HEADER_BYTES,
            Answering(|_| async { empty() }),
        )
        .await
    });
    let greeting = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";
    there.write_all(greeting).await.expect("written");

    let ended = served.await.expect("it ends");

    assert!(matches!(ended, Err(ServeError::Silent)), "{ended:?}");
}
