//! `weft image`: the images of this machine's mesh.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Subcommand};
use serde_json::Value;

use crate::arguments::{Global, Output};
use crate::failure::Failure;
use crate::mesh::{Mesh, encode};
use crate::output;
use crate::resource::text;

#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  weft image import nginx.tar\n  weft image build -t shop/front:dev ./front\n  weft image ls"
)]
pub(crate) struct Image {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// List images
    Ls,
    /// Take in an OCI or docker archive
    Import {
        /// The archive; - for standard input
        archive: PathBuf,
        /// Name it, instead of by the name inside
        #[arg(short, long)]
        tag: Option<String>,
    },
    /// Build from a Dockerfile
    Build {
        /// The build context
        context: PathBuf,
        /// Name of the image
        #[arg(short, long)]
        tag: String,
        /// The Dockerfile, inside the context
        #[arg(short = 'f', long = "file", default_value = "Dockerfile")]
        dockerfile: String,
        /// Only up to this stage
        #[arg(long)]
        target: Option<String>,
        /// NAME=VALUE for an ARG of the Dockerfile
        #[arg(long = "build-arg", value_name = "NAME=VALUE")]
        arguments: Vec<String>,
        /// Build every step anew
        #[arg(long)]
        no_cache: bool,
    },
    /// Everything known of an image
    Inspect {
        /// Name or id
        reference: String,
    },
    /// Remove an image
    Rm {
        /// Names or ids
        #[arg(required = true)]
        references: Vec<String>,
    },
}

/// Carries out one of them.
pub(crate) async fn run(global: &Global, image: Image) -> Result<ExitCode, Failure> {
    let mesh = Mesh::of_started(global).await?;
    match image.action {
        Action::Ls => list(global, &mesh).await?,
        Action::Import { archive, tag } => import(global, &mesh, &archive, tag.as_deref()).await?,
        Action::Build {
            context,
            tag,
            dockerfile,
            target,
            arguments,
            no_cache,
        } => {
            let build = Build {
                context,
                tag,
                dockerfile,
                target,
                arguments,
                no_cache,
            };
            build_image(global, &mesh, &build).await?;
        }
        Action::Inspect { reference } => {
            let image = mesh
                .get(&format!("/weft/v1/images/{}", encode(&reference)))
                .await?;
            match global.output {
                Output::Yaml => output::line(output::yaml(&image)?.trim_end()),
                _ => output::line(&serde_json::to_string_pretty(&image)?),
            }
        }
        Action::Rm { references } => {
            for reference in references {
                mesh.delete(&format!("/weft/v1/images/{}", encode(&reference)))
                    .await?;
                output::line(&format!("{reference} removed"));
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// What an image is built from.
#[derive(Debug)]
pub(crate) struct Build {
    /// The folder that COPY takes from.
    pub(crate) context: PathBuf,
    /// The name of the result.
    pub(crate) tag: String,
    /// The Dockerfile inside the context.
    pub(crate) dockerfile: String,
    /// The last stage wanted.
    pub(crate) target: Option<String>,
    /// `NAME=VALUE` each.
    pub(crate) arguments: Vec<String>,
    /// Take nothing from earlier builds.
    pub(crate) no_cache: bool,
}

/// Sends the context and shows the steps; the image's id is the result.
pub(crate) async fn build_image(
    global: &Global,
    mesh: &Mesh,
    build: &Build,
) -> Result<(), Failure> {
    if !build.context.is_dir() {
        return Err(Failure::new(format!(
            "the build context {} is not a folder: name the folder that the Dockerfile copies from",
            build.context.display()
        )));
    }
    let mut path = format!(
        "/weft/v1/images/build?reference={}&dockerfile={}",
        encode(&build.tag),
        encode(&build.dockerfile)
    );
    if let Some(target) = &build.target {
        path.push_str(&format!("&target={}", encode(target)));
    }
    for argument in &build.arguments {
        path.push_str(&format!("&arg={}", encode(argument)));
    }
    if build.no_cache {
        path.push_str("&no_cache=true");
    }
    let bar = output::progress(global, &format!("building {}", build.tag));
    let context = build.context.clone();
    let tarball = tokio::task::spawn_blocking(move || pack(&context))
        .await
        .map_err(|error| Failure::new(error.to_string()))?
        .map_err(|error| Failure::new(format!("packing {}: {error}", build.context.display())))?;
    let outcome = mesh.upload(&path, tarball, |line| bar.println(line)).await;
    bar.finish_and_clear();
    let image =
        outcome.map_err(|failure| failure.while_doing(format!("building {}", build.tag)))?;
    output::remark(
        global,
        &format!("{} built: {}", build.tag, short_id(&image)),
    );
    Ok(())
}

async fn import(
    global: &Global,
    mesh: &Mesh,
    archive: &Path,
    tag: Option<&str>,
) -> Result<(), Failure> {
    let mut path = "/weft/v1/images/import".to_owned();
    if let Some(tag) = tag {
        path.push_str(&format!("?reference={}", encode(tag)));
    }
    let explain = |error| Failure::new(format!("reading {}: {error}", archive.display()));
    let file = match archive {
        path if path == Path::new("-") => spool_stdin().map_err(explain)?,
        path => std::fs::File::open(path).map_err(explain)?,
    };
    let bar = output::progress(global, &format!("importing {}", archive.display()));
    let outcome = mesh.upload(&path, file, |line| bar.println(line)).await;
    bar.finish_and_clear();
    let image = outcome
        .map_err(|failure| failure.while_doing(format!("importing {}", archive.display())))?;
    let names: Vec<String> = image["references"]
        .as_array()
        .into_iter()
        .flatten()
        .map(text)
        .collect();
    output::remark(
        global,
        &format!("{} imported: {}", names.join(", "), short_id(&image)),
    );
    Ok(())
}

async fn list(global: &Global, mesh: &Mesh) -> Result<(), Failure> {
    let images = mesh.get("/weft/v1/images").await?;
    if output::document(global.output, &images)?.is_some() {
        return Ok(());
    }
    let rows: Vec<Vec<String>> = images["images"]
        .as_array()
        .into_iter()
        .flatten()
        .flat_map(|image| {
            let references = image["references"].as_array().cloned().unwrap_or_default();
            let row = |name: String| {
                vec![
                    name,
                    short_id(image),
                    output::bytes(image["sizeBytes"].as_u64().unwrap_or_default()),
                    created(image),
                ]
            };
            match references.is_empty() {
                true => vec![row("<none>".to_owned())],
                false => references.iter().map(|name| row(text(name))).collect(),
            }
        })
        .collect();
    match global.output {
        Output::Name => rows.iter().for_each(|row| output::line(&row[0])),
        _ => output::table(&["IMAGE", "ID", "SIZE", "AGE"], rows),
    }
    Ok(())
}

/// Its age; images without a time are reproducible ones, made at the epoch.
fn created(image: &Value) -> String {
    match image["createdAt"].as_i64() {
        Some(time @ 1..) => output::age(jiff::Timestamp::now().as_second() - time),
        _ => "-".to_owned(),
    }
}

/// The first 12 digits, as docker prints them.
fn short_id(image: &Value) -> String {
    text(&image["id"])
        .trim_start_matches("sha256:")
        .chars()
        .take(12)
        .collect()
}

fn spool_stdin() -> std::io::Result<std::fs::File> {
    use std::io::Seek;
    let mut file = tempfile::tempfile()?;
    std::io::copy(&mut std::io::stdin().lock(), &mut file)?;
    file.rewind()?;
    Ok(file)
}

/// The context as a tar in a temporary file: as large as it is, it is never in memory. What is neither file, folder nor
/// link cannot be copied into an image and is left out, as Docker does: an editor's socket is no reason to fail.
fn pack(context: &Path) -> std::io::Result<std::fs::File> {
    use std::io::Seek;
    let mut builder = tar::Builder::new(tempfile::tempfile()?);
    builder.follow_symlinks(false);
    let mut pending = vec![PathBuf::from(".")];
    while let Some(folder) = pending.pop() {
        builder.append_dir(&folder, context.join(&folder))?;
        for entry in std::fs::read_dir(context.join(&folder))? {
            let entry = entry?;
            let (path, kind) = (folder.join(entry.file_name()), entry.file_type()?);
            if kind.is_dir() {
                pending.push(path);
            } else if kind.is_file() || kind.is_symlink() {
                builder.append_path_with_name(entry.path(), path)?;
            }
        }
    }
    let mut file = builder.into_inner()?;
    file.rewind()?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_context_is_packed_without_its_sockets() {
        let context = tempfile::tempdir().unwrap();
        std::fs::create_dir(context.path().join("sub")).unwrap();
        std::fs::write(context.path().join("sub/file"), "here").unwrap();
        std::os::unix::fs::symlink("sub/file", context.path().join("link")).unwrap();
        let _socket = UnixListener::bind(context.path().join("socket")).unwrap();

        let mut archive = tar::Archive::new(pack(context.path()).unwrap());
        let mut names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        names.sort();
        assert_eq!(names, [".", "link", "sub", "sub/file"]);
    }
}
