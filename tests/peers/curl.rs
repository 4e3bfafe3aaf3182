//! curl against nginx: versions, uploads, resumption.

use std::net::SocketAddr;
use std::path::Path;

use crate::harness::chain::Chain;
use crate::harness::config::Door;
use crate::harness::nginx::{Nginx, TEXT};
use crate::harness::peer::{Peer, program};
use crate::harness::process::{Finished, run};
use crate::harness::proxy::Proxy;

crate::harness::tests![&[Peer::Program("curl"), Peer::Program("nginx")];
    every_version_gets_the_page,
    every_version_gets_the_page_over_tls,
    an_upload_that_expects_to_be_continued_arrives,
    a_chunked_upload_arrives_in_every_version,
    a_broken_download_is_resumed,
    what_has_not_changed_is_not_sent_again,
    an_answer_to_head_has_no_body,
    connections_are_kept_on_both_sides,
];

const VERSIONS: [&str; 3] = ["--http1.0", "--http1.1", "--http2-prior-knowledge"];

fn every_version_gets_the_page() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.address());

    for version in VERSIONS {
        let page = curl(&[version, &url(proxy.at(Door::ToHttp1), "/text")]).ok();

        assert_eq!(page, TEXT, "{version}");
    }
}

fn every_version_gets_the_page_over_tls() {
    let nginx = Nginx::start();
    let chain = Chain::ending_tls(nginx.address());
    let url = format!("https://{}/text", chain.secured());

    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        let seen = ["--insecure", flag, "--write-out", "|%{http_version}", &url];

        assert_eq!(curl(&seen).ok(), format!("{TEXT}|{version}"));
    }
}

fn an_upload_that_expects_to_be_continued_arrives() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.address());
    let (_folder, file) = upload();

    // Fails where nobody says "continue" within the minute that curl is told to wait.
    let wait = [
        "--http1.1",
        "--header",
        "expect: 100-continue",
        "--expect100-timeout",
        "60",
    ];
    let to = url(proxy.at(Door::Http), "/sent.bin");
    let finished = curl(&[&wait[..], &["--verbose", "--upload-file", &file, &to]].concat());

    assert!(
        finished.errors.contains("HTTP/1.1 100 Continue"),
        "{}",
        finished.errors
    );
    finished.ok();
    assert_same(&nginx, "sent.bin", &file);
}

fn a_chunked_upload_arrives_in_every_version() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.address());
    let chain = Chain::pair(nginx.address());
    let (_folder, file) = upload();

    for at in [proxy.at(Door::ToHttp1), chain.at(Door::ToHttp1)] {
        for version in ["--http1.1", "--http2-prior-knowledge"] {
            // From a pipe: curl does not know the length either.
            let line = format!(
                "curl --silent --show-error --fail --noproxy '*' --max-time 60 {version} \
                 --header 'transfer-encoding: chunked' --upload-file - {} < {file}",
                url(at, "/sent.bin")
            );
            run(program("sh").args(["-c", &line])).ok();

            assert_same(&nginx, "sent.bin", &file);
            std::fs::remove_file(nginx.file("sent.bin")).unwrap();
        }
    }
}

fn a_broken_download_is_resumed() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.address());
    let (folder, file) = upload();
    std::fs::copy(&file, nginx.file("large.bin")).unwrap();
    let begun = folder.path().join("begun.bin");
    std::fs::write(&begun, &std::fs::read(&file).unwrap()[..1_000_000]).unwrap();
    let begun = begun.to_str().unwrap();

    let from = url(proxy.at(Door::Http), "/large.bin");
    let code = curl(&[
        "--continue-at",
        "-",
        "--output",
        begun,
        "--write-out",
        "%{http_code}",
        &from,
    ]);

    assert_eq!(code.ok(), "206");
    assert_same(&nginx, "large.bin", begun);
}

fn what_has_not_changed_is_not_sent_again() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.address());
    std::fs::write(nginx.file("page.txt"), TEXT).unwrap();
    let from = url(proxy.at(Door::Http), "/page.txt");
    let headers = curl(&["--head", &from]).ok();
    let (_, tag) = headers
        .lines()
        .filter_map(|line| line.split_once(": "))
        .find(|(name, _)| name.eq_ignore_ascii_case("etag"))
        .expect("an etag");

    let condition = format!("if-none-match: {}", tag.trim());
    let again = curl(&["--header", &condition, "--write-out", "%{http_code}", &from]);

    assert_eq!(again.ok(), "304");
}

fn an_answer_to_head_has_no_body() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.address());
    let page = url(proxy.at(Door::ToHttp1), "/text");

    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let head = curl(&[version, "--head", &page]).ok().to_lowercase();

        assert!(head.contains(" 200"), "{head}");
        assert!(
            head.contains(&format!("content-length: {}", TEXT.len())),
            "{head}"
        );
        assert!(head.ends_with("\r\n\r\n"), "{head}");
    }
    // Of a body after the first head the second would begin.
    let heads = curl(&[
        "--http1.1",
        "--head",
        "--write-out",
        "%{num_connects}",
        &page,
        &page,
    ])
    .ok();
    let opened = heads.matches("\r\n\r\n1").count() + heads.matches("\r\n\r\n0").count();
    assert_eq!((opened, heads.matches(" 200").count()), (2, 2), "{heads}");
}

fn connections_are_kept_on_both_sides() {
    let nginx = Nginx::start();
    let proxy = Proxy::to(nginx.address());
    let page = url(proxy.at(Door::Http), "/text");
    let count = ["--write-out", "%{num_connects} "];

    let opened = curl(&[&count[..], &[&page, &page, &page]].concat()).ok();

    assert_eq!(opened, format!("{TEXT}1 {TEXT}0 {TEXT}0 "));
    let requests = nginx.requests();
    let connections: Vec<&str> = requests
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    assert_eq!(connections.len(), 3, "{requests:?}");
    assert!(
        connections.windows(2).all(|two| two[0] == two[1]),
        "{requests:?}"
    );
}

/// A file of three mebibytes that is not the same everywhere.
fn upload() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("upload.bin");
    let bytes: Vec<u8> = (0..3_u32 << 20).map(|index| (index % 251) as u8).collect();
    std::fs::write(&file, bytes).unwrap();
    let name = file.to_str().unwrap().to_owned();
    (folder, name)
}

#[track_caller]
fn assert_same(nginx: &Nginx, name: &str, file: impl AsRef<Path>) {
    let here = std::fs::read(nginx.file(name)).unwrap();
    let there = std::fs::read(file).unwrap();
    assert!(here == there, "{} bytes and {}", here.len(), there.len());
}

fn url(at: SocketAddr, path: &str) -> String {
    format!("http://{at}{path}")
}

fn curl(arguments: &[&str]) -> Finished {
    let common = [
        "--silent",
        "--show-error",
        "--noproxy",
        "*",
        "--max-time",
        "60",
    ];
    run(program("curl").args(common).args(arguments))
}
