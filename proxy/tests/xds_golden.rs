//! Every resource that the control plane's tests pin is one that the proxy accepts, with nothing left without effect.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::path::Path;

use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use weft_proto::Any;
use weft_proto::json::from_json;
use weft_proto::type_urls;
use weft_proxy::xds::kind::Kind;
use weft_proxy::xds::translate::translate;

const FOLDER: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../control-plane/src/translate/tests/golden"
);

/// All of them, by file.
fn golden() -> Vec<(String, Any)> {
    let entries = std::fs::read_dir(Path::new(FOLDER)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path());
    paths
        .map(|path| {
            let json = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            (path.display().to_string(), from_json(json).unwrap())
        })
        .collect()
}

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
    let golden = golden();

    let problems: Vec<_> = golden
        .iter()
        .filter_map(|(file, any)| Some(format!("{file}: {}", problem(any)?)))
        .collect();

    assert!(golden.len() > 10, "{}", golden.len());
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn no_damage_to_a_resource_makes_its_translation_panic() {
    let mut random = SmallRng::seed_from_u64(4);
    for (_, any) in golden() {
        let Some(kind) = Kind::of(&any.type_url) else {
            continue;
        };
        for _ in 0..300 {
            let mut bytes = any.value.to_vec();
            for _ in 0..random.random_range(1..4) {
                let position = random.random_range(0..bytes.len());
                bytes[position] = random.random();
            }
            bytes.truncate(random.random_range(bytes.len() / 2..=bytes.len()));
            let damaged = Any {
                type_url: any.type_url.clone(),
                value: bytes.into(),
            };
            let _ = translate(kind, &damaged);
        }
    }
}
