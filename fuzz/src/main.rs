//! All targets in one program: `WEFT_FUZZ_TARGET` names the one that libFuzzer feeds.
//!
//! The targets themselves are beside the code that they feed; `weft_proxy::fuzzing` lists them.

#![no_main]

mod wire;

use std::sync::LazyLock;

use libfuzzer_sys::{fuzz_mutator, fuzz_target, fuzzer_mutate};
use weft_proxy::fuzzing::{Target, targets};

static TARGET: LazyLock<&Target> = LazyLock::new(|| {
    let name = std::env::var("WEFT_FUZZ_TARGET").unwrap_or_default();
    targets()
        .find(|target| target.name == name)
        .unwrap_or_else(|| {
            let names: Vec<_> = targets().map(|target| target.name).collect();
            let names = names.join(", ");
            panic!("WEFT_FUZZ_TARGET must be one of {names}, and is {name:?}")
        })
});

fuzz_target!(|bytes: &[u8]| (TARGET.run)(bytes));

fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    // Messages are changed as messages, and one time in eight as any other bytes.
    let is_message = TARGET.name.starts_with("xds_") && !seed.is_multiple_of(8);
    let mutated = is_message
        .then(|| {
            wire::mutated(&data[..size], seed, |bytes, size| {
                fuzzer_mutate(bytes, size, bytes.len())
            })
        })
        .flatten();
    match mutated {
        Some(bytes) if bytes.len() <= max_size => {
            data[..bytes.len()].copy_from_slice(&bytes);
            bytes.len()
        }
        _ => fuzzer_mutate(data, size, max_size),
    }
});
