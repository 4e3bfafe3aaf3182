//! Image names: `[registry/]repository[:tag][@digest]`, normalised as Docker does.
//!
//! `redis` is `docker.io/library/redis:latest`. Two spellings of one image compare equal.

use std::fmt;
use std::str::FromStr;

use super::digest::Digest;
use super::error::ImageError;

/// A complete image name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Reference {
    /// With its registry: `docker.io/library/redis`.
    repository: String,
    tag: String,
    digest: Option<Digest>,
}

impl Reference {
    /// The tag, `latest` where none was written.
    pub(super) fn tag(&self) -> &str {
        &self.tag
    }

    /// The digest behind `@`.
    pub(super) fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// As people write it: `redis:7` for `docker.io/library/redis:7`.
    pub(super) fn familiar(&self) -> String {
        let short = self.repository.strip_prefix("docker.io/library/");
        let short = short.or_else(|| self.repository.strip_prefix("docker.io/"));
        format!("{}:{}", short.unwrap_or(&self.repository), self.tag)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "{}:{}", self.repository, self.tag)
    }
}

impl FromStr for Reference {
    type Err = ImageError;

    fn from_str(text: &str) -> Result<Reference, ImageError> {
        parse(text).map_err(|reason| ImageError::InvalidReference {
            reference: text.to_owned(),
            reason,
        })
    }
}

fn parse(text: &str) -> Result<Reference, &'static str> {
    if text.len() > 400 {
        return Err("it is longer than 400 bytes");
    }
    let (name, digest) = match text.split_once('@') {
        Some((name, digest)) => {
            let digest = digest.parse::<Digest>();
            (
                name,
                Some(digest.map_err(|_| "its digest is not sha256:<64 digits>")?),
            )
        }
        None => (text, None),
    };
    let (name, tag) = match name.rsplit_once(':') {
        Some((name, tag)) if !tag.contains('/') => (name, tag),
        _ => (name, "latest"),
    };
    if !is_tag(tag) {
        return Err(
            "a tag is at most 128 letters, digits, '_', '.' and '-', and begins with none of the last two",
        );
    }
    let repository = qualify(name);
    let (registry, path) = repository.split_once('/').ok_or("it has no name")?;
    if !is_registry(registry) {
        return Err("its registry is not a host name");
    }
    if !path.split('/').all(is_path_component) {
        return Err("names are lower-case letters and digits, separated by '.', '_', '-' or '/'");
    }
    Ok(Reference {
        repository,
        tag: tag.to_owned(),
        digest,
    })
}

fn qualify(name: &str) -> String {
    let is_host = |first: &str| first.contains(['.', ':']) || first == "localhost";
    match name.split_once('/') {
        Some(("docker.io" | "index.docker.io", rest)) if !rest.contains('/') => {
            format!("docker.io/library/{rest}")
        }
        Some(("index.docker.io", rest)) => format!("docker.io/{rest}"),
        Some((first, _)) if is_host(first) => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

fn is_registry(registry: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
    let begins = registry.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[');
    begins && registry.chars().all(allowed)
}

fn is_tag(tag: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    (1..=128).contains(&tag.len()) && tag.chars().all(allowed) && !tag.starts_with(['.', '-'])
}

fn is_path_component(component: &str) -> bool {
    let is_word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    component.starts_with(is_word)
        && component.ends_with(is_word)
        && component
            .chars()
            .all(|c| is_word(c) || matches!(c, '.' | '_' | '-'))
        && !component.contains("..")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn normal(text: &str) -> String {
        text.parse::<Reference>().unwrap().to_string()
    }

    #[test]
    fn short_names_are_official_images_of_docker_hub() {
        assert_eq!(normal("redis"), "docker.io/library/redis:latest");
        assert_eq!(normal("docker.io/redis:7"), "docker.io/library/redis:7");
        assert_eq!(normal("acme/shop:1.2"), "docker.io/acme/shop:1.2");
        assert_eq!(normal("localhost:5000/shop"), "localhost:5000/shop:latest");
        assert_eq!(normal("ghcr.io/acme/shop:v1"), "ghcr.io/acme/shop:v1");
    }

    #[test]
    fn people_see_the_short_form() {
        let familiar = |text: &str| text.parse::<Reference>().unwrap().familiar();
        assert_eq!(familiar("docker.io/library/redis:7"), "redis:7");
        assert_eq!(familiar("acme/shop"), "acme/shop:latest");
        assert_eq!(familiar("ghcr.io/acme/shop"), "ghcr.io/acme/shop:latest");
    }

    #[test]
    fn names_that_no_registry_would_take_are_refused() {
        for text in [
            "",
            "Redis",
            "a//b",
            "a:b c",
            "../x",
            "a:-x",
            "a/",
            ":tag",
            "a@sha256:1",
        ] {
            assert!(text.parse::<Reference>().is_err(), "{text:?} was taken");
        }
    }
}
