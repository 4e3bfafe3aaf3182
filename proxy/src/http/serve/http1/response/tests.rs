use http::{HeaderValue, Response};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Empty, Full, StreamBody};

use super::*;

const KEPT: Style = Style {
    keeps_alive: true,
    names: HeaderNames::LowerCase,
};
const OLD: Asked = Asked {
    is_head: false,
    is_connect: false,
    is_old: true,
    takes_trailers: false,
};
const HEAD: Asked = Asked {
    is_head: true,
    is_old: false,
    ..OLD
};
const GET: Asked = Asked {
    is_head: false,
    ..HEAD
};
const CONNECT: Asked = Asked {
    is_connect: true,
    ..GET
};

type AnyBody = BoxBody<Bytes, std::io::Error>;

fn none() -> AnyBody {
    Empty::new().map_err(|never| match never {}).boxed()
}

fn known() -> AnyBody {
    let body = Full::new(Bytes::from_static(b"abc"));
    body.map_err(|never| match never {}).boxed()
}

fn unknown() -> AnyBody {
    BodyExt::boxed(StreamBody::new(futures_util::stream::pending()))
}

/// Answers with these headers, and without a date.
fn written(
    (status, headers): (u16, &[(&'static str, &'static str)]),
    body: &AnyBody,
    asked: Asked,
    style: Style,
) -> (String, Answered) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        response.headers_mut().append(*name, value);
    }
    let answered = head(&response.into_parts().0, body, asked, style);
    let text = String::from_utf8(answered.head.to_vec()).expect("text");
    let lines: Vec<_> = text.split_inclusive("\r\n").collect();
    let kept = lines.into_iter().filter(|line| !line.starts_with("date: "));
    (kept.collect(), answered)
}

#[test]
fn a_response_is_written_as_it_is() {
    let headers = [("x-a", "1"), ("content-length", "3"), ("x-a", "2")];

    let (text, answered) = written((200, &headers), &known(), GET, KEPT);

    assert_eq!(
        text,
        "HTTP/1.1 200 OK\r\nx-a: 1\r\nx-a: 2\r\ncontent-length: 3\r\n\r\n"
    );
    assert_eq!(answered.framing, Framing::Length(3));
    assert!(!answered.is_last && !answered.switches);
    assert!(answered.head.windows(6).any(|part| part == b"date: "));
}

#[test]
fn a_date_that_is_there_stays() {
    let (_, answered) = written((200, &[("date", "then")]), &none(), GET, KEPT);

    let text = String::from_utf8(answered.head.to_vec()).expect("text");
    assert_eq!(text.matches("date: ").count(), 1);
    assert!(text.contains("date: then"));
}

#[test]
fn names_are_proper_where_they_are_to_be() {
    let style = Style {
        names: HeaderNames::ProperCase,
        ..KEPT
    };

    let (_, answered) = written((404, &[("x-two-words", "a")]), &none(), GET, style);

    let text = String::from_utf8(answered.head.to_vec()).expect("text");
    let lines = "HTTP/1.1 404 Not Found\r\nX-Two-Words: a\r\nContent-Length: 0\r\nDate: ";
    assert!(text.starts_with(lines), "{text}");
}

#[test]
fn a_body_is_framed_as_client_and_length_allow() {
    let framed = |body: AnyBody, asked| {
        let (text, answered) = written((200, &[]), &body, asked, KEPT);
        let lines = text.split_once("\r\n").expect("a line").1.to_owned();
        (lines, answered.framing, answered.is_last)
    };

    let length = |text: &str| format!("content-length: {text}\r\n\r\n");
    assert_eq!(framed(none(), GET), (length("0"), Framing::None, false));
    assert_eq!(
        framed(known(), GET),
        (length("3"), Framing::Length(3), false)
    );
    let chunked = "transfer-encoding: chunked\r\n\r\n".to_owned();
    assert_eq!(
        framed(unknown(), GET),
        (chunked, Framing::Chunked(vec![]), false)
    );
    let plain = "\r\n".to_owned();
    assert_eq!(
        framed(unknown(), OLD),
        (plain.clone(), Framing::UntilClose, true)
    );
    assert_eq!(framed(none(), HEAD), (plain, Framing::None, false));
    assert_eq!(framed(known(), HEAD), (length("3"), Framing::None, false));
}

#[test]
fn what_has_no_body_says_nothing_of_one() {
    for status in [204, 304] {
        let (text, answered) = written((status, &[]), &unknown(), GET, KEPT);

        assert!(!text.contains("content-length"), "{text}");
        assert!(!text.contains("chunked"), "{text}");
        assert_eq!(answered.framing, Framing::None);
    }
    let headers = [("content-length", "7")];
    let (text, _) = written((200, &headers), &none(), HEAD, KEPT);
    assert!(text.contains("content-length: 7"), "{text}");
}

#[test]
fn what_switches_has_neither_length_nor_end() {
    let upgrade = [("connection", "upgrade"), ("upgrade", "x")];
    let (text, answered) = written((101, &upgrade), &none(), GET, KEPT);
    let lines = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n";
    assert_eq!(text, lines);
    assert!(answered.switches);

    let (text, answered) = written((200, &[]), &none(), CONNECT, KEPT);
    assert_eq!(text, "HTTP/1.1 200 OK\r\n\r\n");
    assert!(answered.switches);
}

#[test]
fn the_end_of_a_connection_is_told() {
    let ending = Style {
        keeps_alive: false,
        ..KEPT
    };
    let (text, answered) = written((200, &[("connection", "x-a")]), &none(), GET, ending);
    assert!(text.contains("connection: x-a, close\r\n"), "{text}");
    assert!(answered.is_last);

    let (text, answered) = written((200, &[("connection", "close")]), &none(), GET, ending);
    assert_eq!(text.matches("close").count(), 1);
    assert!(answered.is_last);

    let (text, answered) = written((200, &[]), &none(), OLD, KEPT);
    assert!(text.starts_with("HTTP/1.0 200 OK\r\n"), "{text}");
    assert!(text.contains("connection: keep-alive\r\n"), "{text}");
    assert!(!answered.is_last);
}

#[test]
fn trailers_are_announced_to_who_wants_them() {
    let headers = [("trailer", "x-a"), ("trailer", "x-b")];
    let wanting = Asked {
        takes_trailers: true,
        ..GET
    };
    let names = ["x-a", "x-b"].map(HeaderName::from_static).to_vec();

    let (text, answered) = written((200, &headers), &unknown(), wanting, KEPT);
    assert!(text.contains("trailer: x-a, x-b\r\n"), "{text}");
    assert_eq!(answered.framing, Framing::Chunked(names));

    let (_, answered) = written((200, &headers), &unknown(), GET, KEPT);
    assert_eq!(answered.framing, Framing::Chunked(vec![]));
}

#[test]
fn a_status_that_is_no_answer_is_a_failure() {
    let (text, answered) = written((102, &[("x-a", "1")]), &known(), GET, KEPT);

    let lines =
        "HTTP/1.1 500 Internal Server Error\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    assert_eq!(text, lines);
    assert!(answered.is_last);
    assert_eq!(answered.framing, Framing::None);
}
