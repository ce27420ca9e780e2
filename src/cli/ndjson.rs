//! One JSON object a line, to a file or to standard output.

use std::{
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use serde_json::{Map, Value};

use super::{
    CliError,
    output::{self, Permissions},
};
use crate::{files, terminal};

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// A writer of JSON lines.
pub struct NdjsonWriter {
    out: BufWriter<Box<dyn Write>>,
    path: Option<PathBuf>,
    failure: Option<io::Error>,
    /// Lines written.
    pub count: u64,
}

impl NdjsonWriter {
    /// Writes to a new file with these permissions; without a path, to standard output.
    ///
    /// # Errors
    /// When the file exists, or cannot be created.
    pub fn to(path: Option<&Path>, permissions: Permissions) -> Result<Self, CliError> {
        let out: Box<dyn Write> = match path {
            None => Box::new(terminal::stdout()),
            Some(path) => {
                output::require_directory_of(path)?;
                let file = files::create_new(path, permissions.mode);
                let failed = |error| CliError::failed(format!("failed to create `{}`", path.display()), error);
                Box::new(file.map_err(failed)?)
            }
        };
        Ok(Self { out: BufWriter::new(out), path: path.map(Path::to_owned), failure: None, count: 0 })
    }

    /// Writes one object; false: no more can be written.
    pub fn put(&mut self, object: &Map<String, Value>) -> bool {
        let written = serde_json::to_writer(&mut self.out, object).map_err(io::Error::from);
        match written.and_then(|()| self.out.write_all(b"\n")) {
            Ok(()) => self.count += 1,
            Err(error) => self.failure = Some(error),
        }
        self.failure.is_none()
    }

    /// Flushes, and returns the number of lines. A closed pipe (`| head`) is no error.
    ///
    /// # Errors
    /// When not everything was written.
    pub fn finish(mut self) -> Result<u64, CliError> {
        let failure = self.failure.take().or_else(|| self.out.flush().err());
        match failure {
            Some(error) if self.path.is_some() || error.kind() != io::ErrorKind::BrokenPipe => {
                let what = self.path.map_or("standard output".into(), |path| format!("`{}`", path.display()));
                Err(CliError::failed(format!("failed to write to {what}"), error))
            }
            _ => Ok(self.count),
        }
    }
}

/// Puts bytes into an object: text as `payload`, other bytes as `payload_base64`.
pub fn put_payload(object: &mut Map<String, Value>, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert("payload".into(), text.into()),
        Err(_) => object.insert("payload_base64".into(), base64(bytes).into()),
    };
}

/// RFC 4648, with padding.
fn base64(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for n in 0..4 {
            let six = (word >> (18 - 6 * n)) as usize & 63;
            text.push(if n <= chunk.len() { ALPHABET[six].into() } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            (&b""[..], ""),
            (b"f", "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"\xff\xfe\xfd\xfc", "//79/A=="),
        ] {
            assert_eq!(base64(bytes), text);
        }
    }

    #[test]
    fn bytes_that_are_text_stay_text() {
        let mut object = Map::new();
        put_payload(&mut object, b"{\"a\": NaN}");
        put_payload(&mut object, b"\x81\xa1a");
        assert_eq!((&object["payload"], &object["payload_base64"]), (&"{\"a\": NaN}".into(), &"gaFh".into()));
    }
}
