//! Who may use the API: whoever holds the token, and the mesh's owner through the unix socket.

use std::fs::{self, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest, Sha256};

/// Random bytes in a token.
const TOKEN_BYTES: usize = 32;
/// No token file is longer.
const MAX_FILE_BYTES: u64 = 4096;

/// Someone whose word counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// For the history: a user of this machine, or `token`.
    pub user: String,
}

/// Why the token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The file cannot be read or made.
    #[error("reading or making the API token {path}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is nothing in the file.
    #[error("the API token {path} is empty: remove the file, and the next start makes a new one")]
    Empty {
        /// The file.
        path: PathBuf,
    },
}

/// The secret of the API. Only its digest is kept.
#[derive(Clone)]
pub struct Token {
    digest: [u8; 32],
}

impl std::fmt::Debug for Token {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("Token")
    }
}

impl Token {
    /// Reads the token, or makes one, mode 0600, where there is none.
    pub fn open(path: &Path) -> Result<Self, TokenError> {
        let failed = |source| TokenError::File {
            path: path.to_owned(),
            source,
        };
        match read(path) {
            Ok(text) => Self::of_text(&text).ok_or_else(|| TokenError::Empty {
                path: path.to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let text = make(path).map_err(failed)?;
                Self::of_text(&text).ok_or_else(|| TokenError::Empty {
                    path: path.to_owned(),
                })
            }
            Err(error) => Err(failed(error)),
        }
    }

    fn of_text(text: &str) -> Option<Self> {
        let text = text.trim();
        (!text.is_empty()).then(|| Self {
            digest: Sha256::digest(text).into(),
        })
    }

    /// Whether the request carries the token.
    ///
    /// Digests are compared, all of their bytes: neither the time it takes nor where it ends tells anything of the token.
    pub fn admits(&self, headers: &HeaderMap) -> bool {
        let given = headers
            .get(AUTHORIZATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, token)| token.trim());
        let Some(given) = given else {
            return false;
        };
        let given: [u8; 32] = Sha256::digest(given).into();
        let difference = self
            .digest
            .iter()
            .zip(given)
            .fold(0, |difference, (ours, theirs)| difference | (ours ^ theirs));
        difference == 0
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    fs::File::open(path)?
        .take(MAX_FILE_BYTES)
        .read_to_string(&mut text)?;
    Ok(text)
}

fn make(path: &Path) -> io::Result<String> {
    let random: [u8; TOKEN_BYTES] = rand::random();
    let text: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)?;
    writeln!(file, "{text}")?;
    file.sync_all()?;
    Ok(text)
}

/// Whether a process of this user may use the unix socket: the daemon's own user, and root.
pub fn is_owner(peer: u32, own: u32) -> bool {
    peer == own || peer == 0
}

/// The name of a user of this machine, or its number.
pub fn user_name(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    passwd
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == uid.to_string()).then(|| name.to_owned())
        })
        .unwrap_or_else(|| format!("uid {uid}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use http::HeaderValue;

    use super::*;

    fn headers(value: &str) -> HeaderMap {
        HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn only_the_token_of_the_file_is_admitted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        let token = Token::open(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();

        assert!(token.admits(&headers(&format!("Bearer {}", text.trim()))));
        assert!(token.admits(&headers(&format!("bearer {}", text.trim()))));
        assert!(!token.admits(&headers(&format!("Bearer {}x", text.trim()))));
        assert!(!token.admits(&headers("Bearer ")));
        assert!(!token.admits(&headers(text.trim())));
        assert!(!token.admits(&HeaderMap::new()));
    }

    #[test]
    fn the_token_is_for_its_owner_alone_and_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        Token::open(&path).unwrap();
        let text = fs::read_to_string(&path).unwrap();

        Token::open(&path).unwrap();

        assert_eq!(fs::read_to_string(&path).unwrap(), text);
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
    }

    #[test]
    fn an_empty_token_admits_nobody() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("token");
        fs::write(&path, "\n").unwrap();

        assert!(matches!(Token::open(&path), Err(TokenError::Empty { .. })));
    }

    #[test]
    fn the_socket_is_for_its_owner_and_root() {
        assert!(is_owner(1000, 1000));
        assert!(is_owner(0, 1000));
        assert!(!is_owner(1001, 1000));
        assert!(!is_owner(1000, 0));
    }
}
