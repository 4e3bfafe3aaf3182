//! Bodies that are compressed or decompressed on their way.

use std::sync::Arc;

use super::live::Live;
use crate::config::matching::TextMatch;

/// Which bodies are compressed, and how.
#[derive(Debug, Clone, PartialEq)]
pub struct CompressorConfig {
    /// How.
    pub coding: Coding,
    /// The name of the library, for counters.
    pub library: Arc<str>,
    /// Bodies of requests, where they are.
    pub request: Option<CompressedBodies>,
    /// Bodies of responses.
    pub response: Option<CompressedBodies>,
    /// Whether it is taken before others that are as welcome.
    pub is_first: bool,
    /// What it counts its responses under.
    pub response_prefix: &'static str,
    /// Counters.
    pub live: Live,
}

/// Which bodies are compressed.
#[derive(Debug, Clone, PartialEq)]
pub struct CompressedBodies {
    /// Those whose length is known have so many bytes at least.
    pub min_length: u64,
    /// Their types, without parameters.
    pub types: Vec<TextMatch>,
    /// Whether those with an `etag` are not.
    pub spares_etags: bool,
    /// Whether a strong `etag` becomes a weak one, rather than none.
    pub weakens_etags: bool,
    /// Whether upstreams are not told what the client accepts.
    pub hides_accepted: bool,
    /// Statuses of responses that are not compressed.
    pub spared_statuses: Vec<u16>,
}

/// A content coding (RFC 9110 §8.4.1), and how well it is done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    /// RFC 1952, by level.
    Gzip(u32),
    /// RFC 7932, by quality and window bits.
    Brotli(u32, u32),
    /// RFC 8878, by level.
    Zstd(i32),
}

impl Coding {
    /// As headers name it.
    pub fn name(self) -> &'static str {
        match self {
            Coding::Gzip(_) => "gzip",
            Coding::Brotli(..) => "br",
            Coding::Zstd(_) => "zstd",
        }
    }

    /// As counters name it.
    pub fn stat_name(self) -> &'static str {
        match self {
            Coding::Gzip(_) => "gzip",
            Coding::Brotli(..) => "brotli",
            Coding::Zstd(_) => "zstd",
        }
    }
}

/// Which bodies are decompressed.
#[derive(Debug, Clone, PartialEq)]
pub struct DecompressorConfig {
    /// From what.
    pub coding: Coding,
    /// The name of the library, for counters.
    pub library: Arc<str>,
    /// No body becomes so many times larger.
    pub max_ratio: u64,
    /// Bodies of requests.
    pub request: DecompressedBodies,
    /// Whether upstreams are told that they may compress.
    pub advertises: bool,
    /// Bodies of responses.
    pub response: DecompressedBodies,
    /// Counters.
    pub live: Live,
}

/// Whether bodies are decompressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecompressedBodies {
    /// Whether they are at all.
    pub is_enabled: bool,
    /// Whether also those are that must not be transformed.
    pub ignores_no_transform: bool,
}
