//! Every resource that the control plane's tests pin is one that the proxy accepts, with nothing left without effect.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use weft_proto::Any;
use weft_proto::json::from_json;
use weft_proto::type_urls;
use weft_proxy::xds::kind::Kind;
use weft_proxy::xds::translate::translate;

const FOLDER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../control-plane/src/translate/tests/golden"
);

/// What is wrong with a resource, or `None`.
fn problem(any: &Any) -> Option<String> {
    // Those the proxy answers itself.
    if any.type_url == type_urls::SECRET {
        return None;
    }
    let Some(kind) = Kind::of(&any.type_url) else {
        return Some(format!("nobody asks for {}", any.type_url));
    };
    match translate(kind, any) {
        Err(invalid) => Some(invalid.to_string()),
        Ok(translated) if !translated.notes.is_empty() => {
            Some(format!("without effect: {:?}", translated.notes))
        }
        Ok(_) => None,
    }
}

#[test]
fn the_proxy_accepts_all_that_the_control_plane_sends() {
    let mut problems = vec![];
    let mut files = 0;
    for entry in std::fs::read_dir(Path::new(FOLDER)).unwrap() {
        let path = entry.unwrap().path();
        let json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
        let any: Any = from_json(json).unwrap();
        files += 1;
        problems.extend(problem(&any).map(|problem| format!("{}: {problem}", path.display())));
    }

    assert!(files > 10, "{files}");
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}
