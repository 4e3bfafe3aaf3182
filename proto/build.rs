//! Compiles every `.proto` file below `proto/` into Rust, into one descriptor set, and into a table of fields; and
//! `rules.txt` into constants.
//!
//! protox does it in Rust, so no protoc is needed. Names across packages are written in full in our
//! files: protox resolves a relative name against packages of files which are not imported.

use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};

use prost::Message as _;

use crate::rules::Rules;

#[path = "build/rules.rs"]
mod rules;
#[path = "build/table.rs"]
mod table;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-changed=build");
    println!("cargo:rerun-if-changed=proto");
    println!("cargo:rerun-if-changed=rules.txt");
    let root = Path::new("proto");
    let mut files = proto_files(root)?;
    files.sort();

    let mut compiler = protox::Compiler::new([root])?;
    let mut descriptors = compiler
        .include_source_info(true)
        .include_imports(true)
        .open_files(&files)?
        .file_descriptor_set();
    generate(descriptors.clone())?;

    // Only the generated documentation needs comments and positions.
    for file in &mut descriptors.file {
        file.source_code_info = None;
    }
    let out_dir = std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?;
    let out_dir = Path::new(&out_dir);
    fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    let rules = Rules::read(&fs::read_to_string("rules.txt")?, &descriptors)?;
    let table = table::source(&descriptors, &rules)?;
    fs::write(out_dir.join("table.rs"), table)?;
    fs::write(out_dir.join("rules.rs"), rules.source()?)?;
    Ok(())
}

/// Every `.proto` file below `folder`.
fn proto_files(folder: &Path) -> Result<Vec<PathBuf>, Box<dyn Error>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            files.extend(proto_files(&path)?);
        } else if path
            .extension()
            .is_some_and(|extension| extension == "proto")
        {
            files.push(path);
        }
    }
    Ok(files)
}

/// Writes one file per package, and `weft_proto.rs`, which nests them as modules.
fn generate(descriptors: prost_types::FileDescriptorSet) -> Result<(), Box<dyn Error>> {
    let mut config = prost_build::Config::new();
    config
        .bytes(["."])
        // Ordered maps: the same message always has the same bytes, which versions are made from.
        .btree_map(["."])
        .enable_type_names()
        .type_name_domain(["."], "type.googleapis.com")
        // Ours holds `Bytes`, so handing one resource to many clients copies nothing.
        .extern_path(".google.protobuf.Any", "crate::any::Any")
        .include_file("weft_proto.rs");
    tonic_prost_build::configure().compile_fds_with_config(descriptors, config)?;
    Ok(())
}
