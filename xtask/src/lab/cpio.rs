// SPDX-License-Identifier: MIT OR Apache-2.0

//! Archives that Linux unpacks as its first root (`Documentation/driver-api/early-userspace/buffer-format.rst`).
//! Several may follow each other in one file, and later ones win.

use std::io::{self, Write};

/// Writes an archive.
pub struct Archive<W: Write> {
    to: W,
    inode: u32,
}

impl<W: Write> Archive<W> {
    /// Begins one.
    pub fn new(to: W) -> Self {
        Self { to, inode: 0 }
    }

    /// A folder. Parents come first.
    pub fn folder(&mut self, path: &str) -> io::Result<()> {
        self.entry(path, 0o040_755, (0, 0), &[])
    }

    /// A program or a file: Linux' first root has no use for finer permissions.
    pub fn file(&mut self, path: &str, content: &[u8]) -> io::Result<()> {
        self.entry(path, 0o100_755, (0, 0), content)
    }

    /// A symbolic link.
    pub fn link(&mut self, path: &str, target: &str) -> io::Result<()> {
        self.entry(path, 0o120_777, (0, 0), target.as_bytes())
    }

    /// A character device.
    pub fn device(&mut self, path: &str, major: u32, minor: u32) -> io::Result<()> {
        self.entry(path, 0o020_600, (major, minor), &[])
    }

    /// Ends it.
    pub fn end(mut self) -> io::Result<()> {
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.to.flush()
    }

    fn entry(&mut self, path: &str, mode: u32, device: (u32, u32), data: &[u8]) -> io::Result<()> {
        let path = path.trim_start_matches('/');
        let size = u32::try_from(data.len()).map_err(io::Error::other)?;
        let name = u32::try_from(path.len() + 1).map_err(io::Error::other)?;
        self.inode += 1;
        let (major, minor) = device;
        // ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
        let fields = [self.inode, mode, 0, 0, 1, 0, size, 0, 0, major, minor, name, 0];
        let mut header = String::from("070701");
        for field in fields {
            header += &format!("{field:08x}");
        }
        header += path;
        header.push('\0');
        self.padded(header.as_bytes())?;
        self.padded(data)
    }

    fn padded(&mut self, data: &[u8]) -> io::Result<()> {
        self.to.write_all(data)?;
        self.to.write_all(&[0; 3][..data.len().next_multiple_of(4) - data.len()])
    }
}

#[cfg(test)]
mod tests {
    use super::Archive;

    #[test]
    fn entries_are_aligned_and_sized() {
        let mut bytes = Vec::new();
        let mut archive = Archive::new(&mut bytes);
        archive.folder("/a").unwrap();
        archive.file("a/b", b"hello").unwrap();
        archive.end().unwrap();
        assert_eq!(bytes.len() % 4, 0);
        let text = String::from_utf8_lossy(&bytes);
        assert_eq!(text.matches("070701").count(), 3);
        assert!(text.contains("a/b\0\0\0hello\0\0\x00070701"), "{text}");
    }
}
