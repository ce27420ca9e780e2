//! File systems of a test's own. Needs root; without it tests are skipped, and say so.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use tempfile::TempDir;

use crate::support::skip;

fn run(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).stdin(Stdio::null()).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// A mounted file system; unmounted when dropped.
#[derive(Debug)]
pub struct Mount {
    at: PathBuf,
}

impl Mount {
    /// A tmpfs of this many MiB. None: we may not mount; the test is skipped.
    pub fn tmpfs(test: &str, at: &Path, mib: u32) -> Option<Self> {
        let options = format!("size={mib}m,mode=0700");
        match run("mount", &["-t", "tmpfs", "-o", &options, "tmpfs", at.to_str().unwrap()]) {
            Some(_) => Some(Self { at: at.to_owned() }),
            None => {
                skip(test, "needs root, to mount a file system");
                None
            }
        }
    }

    /// Fills the free space; the filling file is removed when the result is dropped.
    pub fn fill(&self) -> Filling {
        let file = self.at.join("filling");
        // Ends with "no space left", as intended; a rest smaller than a block is filled last.
        for size in ["bs=64k", "bs=4k"] {
            let _ = Command::new("dd")
                .args(["if=/dev/zero", &format!("of={}", file.display()), size, "oflag=append", "conv=notrunc"])
                .stderr(Stdio::null())
                .status();
        }
        Filling { file }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let at = self.at.to_str().unwrap();
        // Lazily when it is still in use: it must not stay mounted.
        if run("umount", &[at]).is_none() {
            run("umount", &["-l", at]);
        }
    }
}

/// A file that takes all the room.
#[derive(Debug)]
pub struct Filling {
    file: PathBuf,
}

impl Drop for Filling {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.file);
    }
}

/// An ext4 file system in a file behind a loop device with direct I/O: what it has not been told to write stays in memory, and a
/// copy of the file is what a power cut leaves.
#[derive(Debug)]
pub struct Drive {
    images: TempDir,
    number: u32,
    device: String,
    mount: Option<Mount>,
    at: PathBuf,
}

impl Drive {
    /// Made and mounted. None: the test is skipped.
    pub fn new(test: &str, at: &Path, mib: u32) -> Option<Self> {
        let images = TempDir::with_prefix("cascor-drive").unwrap();
        let image = images.path().join("0");
        fs::File::create(&image).unwrap().set_len(u64::from(mib) << 20).unwrap();
        let made = run("mkfs.ext4", &["-q", "-E", "lazy_itable_init=0,lazy_journal_init=0", image.to_str().unwrap()]);
        let mut drive = Self { images, number: 0, device: String::new(), mount: None, at: at.to_owned() };
        if made.is_none() || !drive.insert() {
            skip(test, "needs root, a loop device and mkfs.ext4");
            return None;
        }
        Some(drive)
    }

    fn image(&self) -> PathBuf {
        self.images.path().join(self.number.to_string())
    }

    fn insert(&mut self) -> bool {
        let image = self.image();
        let Some(device) = run("losetup", &["--show", "-f", "--direct-io=on", image.to_str().unwrap()]) else {
            return false;
        };
        let mounted = run("mount", &["-o", "noatime", &device, self.at.to_str().unwrap()]).is_some();
        self.device = device;
        if mounted {
            self.mount = Some(Mount { at: self.at.clone() });
        } else {
            self.eject();
        }
        mounted
    }

    fn eject(&mut self) {
        self.mount = None;
        run("losetup", &["-d", &self.device]);
        let _ = fs::remove_file(self.image());
    }

    /// Copies the content of the device. The writing process must be stopped, and is killed before [`replace`](Self::replace).
    pub fn photograph(&self) {
        let (from, to) = (self.image(), self.images.path().join((self.number + 1).to_string()));
        run("cp", &["--sparse=always", from.to_str().unwrap(), to.to_str().unwrap()]).expect("room for an image");
    }

    /// Discards the file system and mounts its copy.
    pub fn replace(&mut self) {
        self.eject();
        self.number += 1;
        assert!(self.insert(), "the image cannot be mounted");
    }
}

impl Drop for Drive {
    fn drop(&mut self) {
        self.eject();
    }
}
