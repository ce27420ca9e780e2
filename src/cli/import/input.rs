//! The files of an import: plain or gzip, or standard input.

use std::{
    cell::Cell,
    fs::File,
    io::{self, BufRead, BufReader, Read},
    path::Path,
    rc::Rc,
    time::UNIX_EPOCH,
};

use flate2::bufread::MultiGzDecoder;

use crate::units::Micros;

/// How the beginning of a gzip file is recognised.
const GZIP_MAGIC: [u8; 2] = [0x1f, 0x8b];

/// A file, open.
pub struct Input {
    /// Its content, uncompressed.
    pub reader: Box<dyn BufRead>,
    /// Bytes read so far, of the file as it is.
    pub read: Rc<Cell<u64>>,
    /// Its size; 0: not known.
    pub size: u64,
    /// When it was last changed; absent of standard input.
    pub modified: Option<Micros>,
}

impl Input {
    /// Opens a file; `-` is standard input.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        let read = Rc::new(Cell::new(0));
        let counted = |inner: Box<dyn Read>| Counted { inner, read: Rc::clone(&read) };
        if path == Path::new("-") {
            let reader = uncompressed(counted(Box::new(io::stdin())))?;
            return Ok(Self { reader, read, size: 0, modified: None });
        }
        let file = File::open(path)?;
        let metadata = file.metadata()?;
        let modified = metadata.modified()?.duration_since(UNIX_EPOCH).unwrap_or_default();
        let modified = Micros::try_from(modified.as_micros()).ok();
        let reader = uncompressed(counted(Box::new(file)))?;
        Ok(Self { reader, read, size: metadata.len(), modified })
    }

    /// The first byte that is no white space and no byte-order mark, if it is among those read first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn first_byte(&mut self) -> io::Result<Option<u8>> {
        let bytes = self.reader.fill_buf()?;
        let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
        Ok(bytes.trim_ascii_start().first().copied())
    }
}

/// What a file is called without its folder and endings; the name of the run of a CSV file.
pub fn stem(path: &Path) -> Option<String> {
    let is_gzip = path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("gz"));
    let path = if is_gzip { path.with_extension("") } else { path.to_owned() };
    let stem = path.file_stem().filter(|_| path != Path::new("-"))?;
    Some(stem.to_string_lossy().into_owned())
}

fn uncompressed(counted: Counted) -> io::Result<Box<dyn BufRead>> {
    let mut reader = BufReader::with_capacity(64 << 10, counted);
    Ok(match reader.fill_buf()?.starts_with(&GZIP_MAGIC) {
        true => Box::new(BufReader::new(MultiGzDecoder::new(reader))),
        false => Box::new(reader),
    })
}

struct Counted {
    inner: Box<dyn Read>,
    read: Rc<Cell<u64>>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buffer)?;
        self.read.set(self.read.get() + read as u64);
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_called_like_its_file() {
        for (path, name) in [
            ("a/spiral 1.csv", Some("spiral 1")),
            ("spiral.csv.gz", Some("spiral")),
            ("lr=0.1.csv", Some("lr=0.1")),
            ("plain", Some("plain")),
            ("-", None),
        ] {
            assert_eq!(stem(Path::new(path)).as_deref(), name, "{path}");
        }
    }
}
