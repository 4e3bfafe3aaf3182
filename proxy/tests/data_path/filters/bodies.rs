//! What becomes of bodies.

use std::io::{Read, Write};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::{Value, json};
use tokio_stream::iter;
use weft_proxy::config::cluster::UpstreamProtocol;

use super::{asking, counted, filter, named, proxy, proxy_with, typed};
use crate::client::{Client, request};
use crate::config::cluster;
use crate::proxy::Proxy;
use crate::upstream::{Upstream, text, until};

/// The types of Envoy's codings.
const COMPRESSION: &str = "type.googleapis.com/envoy.extensions.compression";

fn library(kind: &str) -> Value {
    json!({"name": "lib", "typed_config": {"@type": format!("{COMPRESSION}.{kind}")}})
}

fn compressor(kind: &str) -> Value {
    let library = library(&format!("{}.compressor.v3.{kind}", kind.to_lowercase()));
    let config = json!({"response_direction_config": {}, "compressor_library": library});
    named(&kind.to_lowercase(), "compressor.v3.Compressor", config)
}

async fn talkative() -> Upstream {
    Upstream::answering(|_| async {
        let mut response = text(StatusCode::OK, "many words ".repeat(1000));
        let headers = response.headers_mut();
        headers.insert("content-type", "text/plain".parse().unwrap());
        headers.insert("etag", "\"strong\"".parse().unwrap());
        response
    })
    .await
}

async fn raw(proxy: &Proxy, accepted: &str) -> (HeaderMap, Bytes) {
    let mut client = Client::http1(proxy.address).await;
    let asked = asking("GET", "/", &[("accept-encoding", accepted)]);
    let response = client.start(asked.map(|body| body.boxed())).await.unwrap();
    let (parts, body) = response.into_parts();
    (parts.headers, body.collect().await.unwrap().to_bytes())
}

#[tokio::test]
async fn a_response_is_compressed_as_the_client_likes_it_best() {
    let upstream = talkative().await;
    let filters = vec![compressor("Gzip"), compressor("Brotli"), compressor("Zstd")];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;

    for (accepted, coding) in [
        ("gzip, br;q=0.5", "gzip"),
        ("gzip;q=0.5, br", "br"),
        ("zstd", "zstd"),
    ] {
        let (headers, body) = raw(&proxy, accepted).await;

        assert_eq!(headers["content-encoding"], coding);
        assert_eq!(headers["vary"], "Accept-Encoding");
        assert!(!headers.contains_key("etag") && !headers.contains_key("content-length"));
        assert!(body.len() < 500, "{coding}: {}", body.len());
    }
    let (headers, body) = raw(&proxy, "gzip").await;
    let mut plain = String::new();
    flate2::read::GzDecoder::new(&body[..])
        .read_to_string(&mut plain)
        .unwrap();
    assert_eq!(plain, "many words ".repeat(1000));
    assert_eq!(headers["content-encoding"], "gzip");
    let counted = counted(&proxy);
    assert_eq!(
        counted["http.test.compressor.lib.gzip.response.compressed"],
        2
    );
}

#[tokio::test]
async fn who_accepts_nothing_gets_it_as_it_is() {
    let upstream = talkative().await;
    let filters = vec![compressor("Gzip")];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;

    for accepted in ["identity", "gzip;q=0", "br"] {
        let (headers, body) = raw(&proxy, accepted).await;

        assert!(!headers.contains_key("content-encoding"), "{accepted}");
        assert_eq!(headers["vary"], "Accept-Encoding");
        assert_eq!(body.len(), 11_000);
    }
}

#[tokio::test]
async fn a_route_may_leave_bodies_as_they_are() {
    let upstream = talkative().await;
    let off = typed(
        "compressor.v3.CompressorPerRoute",
        json!({"disabled": true}),
    );
    let routes = json!([{"match": {"prefix": "/"}, "route": {"cluster": "c"},
        "typed_per_filter_config": {"gzip": off}}]);
    let clusters = vec![cluster("c", &[upstream.address])];
    let proxy = proxy_with(vec![compressor("Gzip")], &routes, json!({}), clusters).await;

    assert!(!raw(&proxy, "gzip").await.0.contains_key("content-encoding"));
}

#[tokio::test]
async fn bodies_are_decompressed_both_ways() {
    let upstream = Upstream::answering(|request| async move {
        let is_coded = request.headers().contains_key("content-encoding");
        let accepted = request.headers()["accept-encoding"].clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let said = format!("{is_coded} {accepted:?} {}", String::from_utf8_lossy(&body));
        let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
        packed.write_all(said.as_bytes()).unwrap();
        let mut response = text(StatusCode::OK, packed.finish().unwrap());
        let gzip = "gzip".parse().unwrap();
        response.headers_mut().insert("content-encoding", gzip);
        response
    })
    .await;
    let library = library("gzip.decompressor.v3.Gzip");
    let config = json!({"decompressor_library": library});
    let filters = vec![filter("decompressor.v3.Decompressor", config)];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;
    let mut packed = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
    packed.write_all(b"a question").unwrap();
    let asked = Request::post("/")
        .header("host", "reviews")
        .header("content-encoding", "gzip")
        .body(Full::new(Bytes::from(packed.finish().unwrap())))
        .unwrap();

    let got = Client::http1(proxy.address).await.send(asked).await;

    assert_eq!(got.body, "false \"gzip\" a question");
    assert_eq!(got.header("content-encoding"), None);
}

#[tokio::test]
async fn bandwidth_is_shared_and_nothing_is_lost() {
    let upstream = talkative().await;
    let config = json!({"stat_prefix": "slow", "enable_mode": "RESPONSE", "limit_kbps": 20});
    let filters = vec![filter("bandwidth_limit.v3.BandwidthLimit", config)];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;

    let (one, other) = tokio::join!(proxy.get("/"), proxy.get("/"));

    assert_eq!((one.body.len(), other.body.len()), (11_000, 11_000));
    let counted = counted(&proxy);
    assert_eq!(counted["slow.http_bandwidth_limit.response_enabled"], 2);
    assert!(counted["slow.http_bandwidth_limit.response_enforced"] >= 2);
}

#[tokio::test]
async fn more_requests_than_the_upstream_bears_are_refused() {
    let upstream = Upstream::hanging().await;
    let config = json!({"gradient_controller_config": {
        "concurrency_limit_params": {"concurrency_update_interval": "0.1s"},
        "min_rtt_calc_params": {"interval": "60s", "min_concurrency": 2},
    }});
    let filters = vec![filter(
        "adaptive_concurrency.v3.AdaptiveConcurrency",
        config,
    )];
    let proxy = proxy(filters, vec![cluster("c", &[upstream.address])]).await;
    let address = proxy.address;
    let hanging: Vec<_> = (0..2)
        .map(|_| {
            tokio::spawn(async move {
                Client::http1(address)
                    .await
                    .try_send(request("GET", "/", ""))
                    .await
            })
        })
        .collect();
    upstream.until_requests(2).await;

    let refused = proxy.get("/").await;

    assert_eq!((refused.status.as_u16(), upstream.requests()), (503, 2));
    assert_eq!(refused.body, "reached concurrency limit");
    let blocked = "http.test.adaptive_concurrency.gradient_controller.rq_blocked";
    assert_eq!(counted(&proxy)[blocked], 1);
    for one in hanging {
        one.abort();
    }
    // Who has gone away makes room for others.
    upstream.until_cancelled(2).await;
    let fits = tokio::spawn(async move {
        Client::http1(address)
            .await
            .try_send(request("GET", "/", ""))
            .await
    });
    until(|| upstream.requests() == 3).await;
    fits.abort();
}

/// A gRPC server that answers with one message, and says in it what it was asked.
async fn grpc() -> Upstream {
    Upstream::answering(|request| async move {
        let kind = request.headers()["content-type"].clone();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        let mut message = vec![0, 0, 0, 0, (kind.len() + body.len()) as u8];
        message.extend_from_slice(kind.as_bytes());
        message.extend_from_slice(&body);
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", "0".parse().unwrap());
        let frames = [
            Ok(http_body::Frame::data(Bytes::from(message))),
            Ok(http_body::Frame::trailers(trailers)),
        ];
        let body = http_body_util::StreamBody::new(iter(frames));
        let mut response = http::Response::new(BodyExt::boxed(body));
        let grpc = "application/grpc".parse().unwrap();
        response.headers_mut().insert("content-type", grpc);
        response
    })
    .await
}

fn asked_by_browser(kind: &str, body: &'static [u8]) -> Request<Full<Bytes>> {
    Request::post("/package.Service/Method")
        .header("host", "reviews")
        .header("content-type", kind)
        .body(Full::new(Bytes::from_static(body)))
        .unwrap()
}

async fn web_proxy(upstream: &Upstream) -> Proxy {
    let mut over_http2 = cluster("c", &[upstream.address]);
    over_http2.protocol = UpstreamProtocol::Http2;
    proxy(
        vec![filter("grpc_web.v3.GrpcWeb", json!({}))],
        vec![over_http2],
    )
    .await
}

#[tokio::test]
async fn a_browser_gets_trailers_in_the_body() {
    let upstream = grpc().await;
    let proxy = web_proxy(&upstream).await;
    let mut client = Client::http1(proxy.address).await;

    let got = client
        .send(asked_by_browser("application/grpc-web+proto", b"hi"))
        .await;

    assert_eq!(
        got.header("content-type"),
        Some("application/grpc-web+proto")
    );
    assert!(got.body.contains("application/grpchi"), "{:?}", got.body);
    assert!(
        got.body.ends_with("\u{f}grpc-status:0\r\n"),
        "{:?}",
        got.body
    );
    assert_eq!(got.trailers, None);
}

#[tokio::test]
async fn a_browser_may_ask_and_be_answered_in_base64() {
    use base64::Engine;
    use base64::prelude::BASE64_STANDARD;
    let upstream = grpc().await;
    let proxy = web_proxy(&upstream).await;
    let mut client = Client::http1(proxy.address).await;

    let got = client
        .send(asked_by_browser("application/grpc-web-text", b"aGk="))
        .await;

    assert_eq!(
        got.header("content-type"),
        Some("application/grpc-web-text+proto")
    );
    let first = got.body.find("gAAAAA").expect("trailers in base64");
    let message = BASE64_STANDARD.decode(&got.body[..first]).unwrap();
    assert!(message.ends_with(b"application/grpchi"), "{message:?}");
    let trailers = BASE64_STANDARD.decode(&got.body[first..]).unwrap();
    assert!(trailers.ends_with(b"grpc-status:0\r\n"), "{trailers:?}");
}

#[tokio::test]
async fn a_browser_is_told_in_its_own_way_that_there_is_no_grpc() {
    let upstream = Upstream::failing(StatusCode::SERVICE_UNAVAILABLE).await;
    let proxy = web_proxy(&upstream).await;
    let mut client = Client::http1(proxy.address).await;

    let got = client
        .send(asked_by_browser("application/grpc-web", b"hi"))
        .await;

    assert_eq!(
        (got.status.as_u16(), got.header("grpc-status")),
        (503, Some("14"))
    );
    assert_eq!(
        got.header("content-type"),
        Some("application/grpc-web+proto")
    );
}
