// SPDX-License-Identifier: MIT OR Apache-2.0

//! The image behind a disk: a regular file or a block device, opened, locked and measured.
//!
//! It is opened twice where direct I/O is to be had: a descriptor with `O_DIRECT` for the requests that are aligned as
//! the file system or device wants it, and one through the page cache for the rest. Linux keeps the two coherent: a
//! direct read writes dirty pages back first, a direct write drops the cached ones.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use ring_proto::blkif::SECTOR_SIZE;
use rustix::fs::{AtFlags, FallocateFlags, FlockOperation, Mode, OFlags, StatxFlags};
use rustix::io::Errno;

use crate::io::{self, AlignedPage};

/// Why an image cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// A system call on it failed.
    #[error("image {}: cannot {operation} it: {source}", path.display())]
    Io {
        /// The image.
        path: PathBuf,
        /// What was tried.
        operation: &'static str,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Somebody else serves or uses it.
    #[error("image {}: in use by {holder}", path.display())]
    InUse {
        /// The image.
        path: PathBuf,
        /// Who holds the lock, as far as the system tells.
        holder: String,
    },
    /// It is nothing that a disk can be made of.
    #[error("image {}: {what}", path.display())]
    Unfit {
        /// The image.
        path: PathBuf,
        /// What it is, or what is wrong with it.
        what: String,
    },
}

/// How a disk's discarded sectors are given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiscardBy {
    /// Punching a hole into the file.
    PunchHole,
    /// The ioctls of a block device.
    Ioctl {
        /// Whether it can make sure that nothing restores the data (`BLKSECDISCARD`).
        secure: bool,
    },
}

/// What an image can discard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Discard {
    /// By which means.
    pub by: DiscardBy,
    /// Unit of discarding, in bytes.
    pub granularity: u32,
    /// Offset of the first unit, in bytes.
    pub alignment: u32,
}

/// What direct I/O asks of a request. All powers of two, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DirectAlignment {
    /// Of memory.
    pub memory: u32,
    /// Of offset and length.
    pub offset: u32,
}

/// An open, locked image.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    /// Through the page cache. It holds the lock.
    buffered: File,
    direct: Option<(File, DirectAlignment)>,
    /// Why there is no direct I/O, if it was wanted.
    fallback: Option<String>,
    read_only: bool,
    block_device: bool,
    sector_size: u32,
    physical_sector_size: u32,
    discard: Option<Discard>,
}

/// How to open an image.
#[derive(Clone, Copy, Debug, Default)]
pub struct OpenOptions {
    /// Refuse writes, and share the image with other readers.
    pub read_only: bool,
    /// Never use direct I/O.
    pub buffered: bool,
    /// Logical sector size in bytes, instead of the device's own (a file's is 512).
    pub sector_size: Option<u32>,
}

impl Image {
    /// Opens, locks and measures an image.
    ///
    /// # Errors
    ///
    /// [`ImageError`], which names the image in each case.
    pub fn open(path: &Path, options: OpenOptions) -> Result<Self, ImageError> {
        let failed = |operation| move |source: std::io::Error| io_error(path, operation, source);
        let unfit = |what: String| ImageError::Unfit { path: path.to_owned(), what };

        let access = if options.read_only { OFlags::RDONLY } else { OFlags::RDWR };
        let open = |extra| open(path, access | extra);
        let metadata = std::fs::metadata(path).map_err(failed("open"))?;
        let kind = metadata.file_type();
        let block_device = kind.is_block_device();
        if !block_device && !kind.is_file() {
            return Err(unfit(format!("{} is no disk image", kind_name(&kind))));
        }
        // The kernel refuses a second exclusive opener of a block device, such as a file system mounted from it.
        let exclusive =
            if block_device && !options.read_only { OFlags::EXCL } else { OFlags::empty() };
        let buffered = match open(exclusive) {
            Err(error) if error.raw_os_error() == Some(Errno::BUSY.raw_os_error()) => {
                let holder = "a mounted file system or another exclusive user".to_owned();
                return Err(ImageError::InUse { path: path.to_owned(), holder });
            }
            opened => opened.map_err(failed("open"))?,
        };
        lock(path, &buffered, options.read_only)?;
        refuse_formats(&buffered)
            .map_err(failed("read"))?
            .map_or(Ok(()), |what| Err(unfit(what)))?;

        let (own_logical, own_physical) = if block_device {
            sector_sizes(&buffered).map_err(failed("measure"))?
        } else {
            (SECTOR_SIZE as u32, SECTOR_SIZE as u32)
        };
        let sector_size = options.sector_size.unwrap_or(own_logical);
        if !sector_size.is_power_of_two()
            || !(512..=4096).contains(&sector_size)
            || sector_size < own_logical
        {
            return Err(unfit(format!(
                "a sector size of {sector_size} bytes is not possible (its own is {own_logical})"
            )));
        }
        let (direct, fallback) = if options.buffered {
            (None, None)
        } else {
            match direct(open, block_device, own_logical) {
                Ok(found) => (Some(found), None),
                Err(reason) => (None, Some(reason)),
            }
        };
        let mut image = Self {
            path: path.to_owned(),
            buffered,
            direct,
            fallback,
            read_only: options.read_only,
            block_device,
            sector_size,
            physical_sector_size: own_physical.max(sector_size),
            discard: None,
        };
        if image.sectors()? == 0 {
            return Err(unfit("is empty: a disk needs at least one sector".into()));
        }
        if !options.read_only {
            image.discard = image.find_discard(&metadata);
        }
        Ok(image)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its size in sectors of 512 bytes at this moment, rounded down to whole logical sectors.
    ///
    /// # Errors
    ///
    /// When the size cannot be read.
    pub fn sectors(&self) -> Result<u64, ImageError> {
        let bytes = (&self.buffered)
            .seek(SeekFrom::End(0))
            .map_err(|source| io_error(&self.path, "measure", source))?;
        Ok(bytes / u64::from(self.sector_size) * u64::from(self.sector_size) / SECTOR_SIZE as u64)
    }

    /// Logical sector size in bytes.
    pub fn sector_size(&self) -> u32 {
        self.sector_size
    }

    /// Physical sector size in bytes.
    pub fn physical_sector_size(&self) -> u32 {
        self.physical_sector_size
    }

    /// Whether writes are refused.
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// What it can discard, if anything.
    pub fn discard(&self) -> Option<Discard> {
        self.discard
    }

    /// What direct I/O asks for, if there is any.
    pub fn direct_alignment(&self) -> Option<DirectAlignment> {
        self.direct.as_ref().map(|(_, alignment)| *alignment)
    }

    /// Why direct I/O is not used although it was wanted.
    pub fn fallback(&self) -> Option<&str> {
        self.fallback.as_deref()
    }

    /// The descriptor through the page cache.
    pub fn buffered(&self) -> &File {
        &self.buffered
    }

    /// The descriptor past the page cache.
    pub fn direct(&self) -> Option<&File> {
        self.direct.as_ref().map(|(file, _)| file)
    }

    fn find_discard(&self, metadata: &std::fs::Metadata) -> Option<Discard> {
        if self.block_device {
            let queue = |name| block_queue(metadata.rdev(), name);
            let max = queue("discard_max_bytes")?;
            let granularity =
                u32::try_from(queue("discard_granularity")?).ok()?.max(self.sector_size);
            let alignment = block_attribute(metadata.rdev(), "discard_alignment")
                .and_then(|offset| u32::try_from(offset).ok())
                .unwrap_or(0);
            let secure = io::can_secure_discard(&self.buffered);
            return (max > 0).then_some(Discard {
                by: DiscardBy::Ioctl { secure },
                granularity,
                alignment,
            });
        }
        // Nothing is lost by a hole behind the end, and it tells whether the file system punches any.
        let probe = rustix::fs::fallocate(
            &self.buffered,
            FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE,
            metadata.len().next_multiple_of(4096),
            4096,
        );
        let granularity = u32::try_from(metadata.blksize()).unwrap_or(4096).max(self.sector_size);
        probe.is_ok().then_some(Discard { by: DiscardBy::PunchHole, granularity, alignment: 0 })
    }
}

impl Drop for Image {
    /// Gives the lock back at once: a queue's io_uring may hold on to the file for a moment longer.
    fn drop(&mut self) {
        // It goes with the file otherwise.
        let _ = rustix::fs::flock(&self.buffered, FlockOperation::Unlock);
    }
}

fn io_error(path: &Path, operation: &'static str, source: std::io::Error) -> ImageError {
    ImageError::Io { path: path.to_owned(), operation, source }
}

/// Opens it. Where this process may have it so, reads do not change its time of access: the disk's user does not see that
/// time, and to look at it takes part of each read.
fn open(path: &Path, flags: OFlags) -> std::io::Result<File> {
    let open = |flags| rustix::fs::open(path, flags | OFlags::CLOEXEC, Mode::empty());
    let opened = match open(flags | OFlags::NOATIME) {
        // It is somebody else's.
        Err(Errno::PERM) => open(flags),
        opened => opened,
    };
    Ok(opened?.into())
}

fn kind_name(kind: &std::fs::FileType) -> &'static str {
    match () {
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() => "a character device",
        () => "a special file",
    }
}

/// Opens it with `O_DIRECT` and learns the alignment, or says why not.
fn direct(
    open: impl Fn(OFlags) -> std::io::Result<File>,
    block_device: bool,
    own_logical: u32,
) -> Result<(File, DirectAlignment), String> {
    let file = open(OFlags::DIRECT).map_err(|error| format!("O_DIRECT is refused: {error}"))?;
    if block_device {
        return Ok((file, DirectAlignment { memory: own_logical, offset: own_logical }));
    }
    let stat = rustix::fs::statx(&file, c"", AtFlags::EMPTY_PATH, StatxFlags::DIOALIGN)
        .map_err(|error| format!("statx fails: {error}"))?;
    if StatxFlags::from_bits_retain(stat.stx_mask).contains(StatxFlags::DIOALIGN) {
        let alignment =
            DirectAlignment { memory: stat.stx_dio_mem_align, offset: stat.stx_dio_offset_align };
        return match alignment {
            DirectAlignment { memory: 0, .. } | DirectAlignment { offset: 0, .. } => {
                Err("the file system has no direct I/O for this file".into())
            }
            _ if alignment.memory > 4096 || alignment.offset > 4096 => {
                Err(format!("direct I/O wants an alignment of {} bytes", alignment.offset))
            }
            _ => Ok((file, alignment)),
        };
    }
    const TMPFS_MAGIC: i64 = 0x0102_1994;
    let tmpfs = rustix::fs::fstatfs(&file).is_ok_and(|fs| fs.f_type == TMPFS_MAGIC);
    if tmpfs {
        return Err("a tmpfs is nothing but page cache".into());
    }
    // An old kernel or file system does not tell: try.
    let mut page = AlignedPage::new();
    for size in [SECTOR_SIZE, 4096] {
        if page.bytes_mut().get_mut(..size).is_some_and(|bytes| file.read_at(bytes, 0).is_ok()) {
            return Ok((file, DirectAlignment { memory: size as u32, offset: size as u32 }));
        }
    }
    Err("direct reads fail".into())
}

/// Takes the lock that keeps a second backend away: exclusive, or shared among readers.
fn lock(path: &Path, file: &File, read_only: bool) -> Result<(), ImageError> {
    let operation = if read_only {
        FlockOperation::NonBlockingLockShared
    } else {
        FlockOperation::NonBlockingLockExclusive
    };
    match rustix::fs::flock(file, operation) {
        Ok(()) => return Ok(()),
        Err(Errno::WOULDBLOCK) => {}
        Err(error) => return Err(io_error(path, "lock", error.into())),
    }
    let holder = match holder(file) {
        None => "another process".into(),
        Some(pid) if pid == std::process::id() => "another disk of this process".into(),
        Some(pid) => {
            let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
            format!("process {pid} ({})", name.trim_end())
        }
    };
    Err(ImageError::InUse { path: path.to_owned(), holder })
}

/// Who has the file locked, from `/proc/locks`: lines such as
/// `1: FLOCK  ADVISORY  WRITE 4242 fd:01:131102 0 EOF`.
fn holder(file: &File) -> Option<u32> {
    let metadata = file.metadata().ok()?;
    let device = metadata.dev();
    let wanted = format!(
        "{:02x}:{:02x}:{}",
        rustix::fs::major(device),
        rustix::fs::minor(device),
        metadata.ino()
    );
    let mut locks = String::new();
    File::open("/proc/locks").ok()?.read_to_string(&mut locks).ok()?;
    locks.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip_while(|word| *word != "FLOCK").skip(3);
        let (pid, inode) = (words.next()?, words.next()?);
        (inode == wanted).then(|| pid.parse().ok())?
    })
}

/// Names the format of an image that is not raw. Served as raw it would show the guest the container, not the disk.
fn refuse_formats(file: &File) -> std::io::Result<Option<String>> {
    const FORMATS: [(&[u8], &str); 5] = [
        (b"QFI\xfb", "qcow2"),
        (b"vhdxfile", "VHDX"),
        (b"conectix", "VHD"),
        (b"KDMV", "VMDK"),
        (b"<<< ", "VDI"),
    ];
    let mut head = [0; 8];
    let len = file.read_at(&mut head, 0)?;
    let head = head.get(..len).unwrap_or_default();
    let found = FORMATS.iter().find(|(magic, _)| head.starts_with(magic));
    Ok(found.map(|(_, name)| {
        format!("is in the format {name}, not raw (`qemu-img convert -O raw` makes it so)")
    }))
}

/// Logical and physical sector size of a block device.
fn sector_sizes(device: &File) -> std::io::Result<(u32, u32)> {
    let fd = device.as_fd();
    Ok((rustix::fs::ioctl_blksszget(fd)?, rustix::fs::ioctl_blkpbszget(fd)?))
}

/// A number of sysfs about a block device.
fn block_attribute(device: u64, name: &str) -> Option<u64> {
    let (major, minor) = (rustix::fs::major(device), rustix::fs::minor(device));
    std::fs::read_to_string(format!("/sys/dev/block/{major}:{minor}/{name}"))
        .ok()?
        .trim()
        .parse()
        .ok()
}

/// A number of sysfs about a block device's queue; a partition's is that of its disk.
fn block_queue(device: u64, name: &str) -> Option<u64> {
    block_attribute(device, &format!("queue/{name}"))
        .or_else(|| block_attribute(device, &format!("../queue/{name}")))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn image(dir: &TempDir, name: &str, contents: &[u8], len: u64) -> PathBuf {
        let path = dir.path().join(name);
        std::fs::write(&path, contents).unwrap();
        File::options().write(true).open(&path).unwrap().set_len(len).unwrap();
        path
    }

    fn refusal(path: &Path, options: OpenOptions) -> String {
        Image::open(path, options).unwrap_err().to_string()
    }

    #[test]
    fn what_is_no_image_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let missing = dir.path().join("missing");
        let text = refusal(&missing, OpenOptions::default());
        assert!(text.contains("missing: cannot open it: No such file"), "{text}");
        let text = refusal(dir.path(), OpenOptions::default());
        assert!(text.contains("a directory is no disk image"), "{text}");
        let text = refusal(Path::new("/dev/null"), OpenOptions::default());
        assert!(text.contains("/dev/null: a character device is no disk image"), "{text}");
        let text = refusal(&image(&dir, "empty", b"", 0), OpenOptions::default());
        assert!(text.contains("empty: is empty"), "{text}");
        let text =
            refusal(&image(&dir, "container", b"QFI\xfb\0\0\0\x03", 65536), OpenOptions::default());
        assert!(text.contains("container: is in the format qcow2, not raw"), "{text}");
        let sectors = OpenOptions { sector_size: Some(700), ..OpenOptions::default() };
        let text = refusal(&image(&dir, "odd", b"", 65536), sectors);
        assert!(text.contains("odd: a sector size of 700 bytes is not possible"), "{text}");
    }

    #[test]
    fn a_second_backend_is_refused_and_readers_share() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(&dir, "disk", b"", 1 << 20);
        let reader = OpenOptions { read_only: true, ..OpenOptions::default() };
        let first = Image::open(&path, OpenOptions::default()).unwrap();
        for options in [OpenOptions::default(), reader] {
            let text = refusal(&path, options);
            assert!(text.ends_with("disk: in use by another disk of this process"), "{text}");
        }
        drop(first);
        let readers = [Image::open(&path, reader).unwrap(), Image::open(&path, reader).unwrap()];
        assert!(readers[0].read_only() && readers[1].discard().is_none());
        assert!(matches!(
            Image::open(&path, OpenOptions::default()),
            Err(ImageError::InUse { .. })
        ));
    }

    #[test]
    fn the_holder_of_another_process_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(&dir, "disk", b"", 1 << 20);
        let mut holder = std::process::Command::new("flock")
            .args(["--exclusive", path.to_str().unwrap(), "sh", "-c", "echo held; read line"])
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut held = [0; 5];
        holder.stdout.as_mut().unwrap().read_exact(&mut held).unwrap();
        let text = refusal(&path, OpenOptions::default());
        drop(holder.stdin.take());
        holder.wait().unwrap();
        assert!(text.contains(&format!("in use by process {} (flock)", holder.id())), "{text}");
    }

    #[test]
    fn size_follows_the_file_in_whole_logical_sectors() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(&dir, "disk", b"", 10 * 4096 + 1000);
        let file = File::options().write(true).open(&path).unwrap();
        let small = Image::open(&path, OpenOptions::default()).unwrap();
        assert_eq!((small.sectors().unwrap(), small.sector_size()), (81, 512));
        drop(small);
        let options = OpenOptions { sector_size: Some(4096), ..OpenOptions::default() };
        let large = Image::open(&path, options).unwrap();
        assert_eq!((large.sectors().unwrap(), large.physical_sector_size()), (80, 4096));
        file.set_len(3 * 4096).unwrap();
        assert_eq!(large.sectors().unwrap(), 24);
    }

    #[test]
    fn direct_io_or_the_reason_why_not() {
        let dir = tempfile::tempdir().unwrap();
        let path = image(&dir, "disk", b"", 1 << 20);
        let opened = Image::open(&path, OpenOptions::default()).unwrap();
        assert_ne!(opened.direct().is_some(), opened.fallback().is_some());
        drop(opened);
        let buffered =
            Image::open(&path, OpenOptions { buffered: true, ..OpenOptions::default() }).unwrap();
        assert!(buffered.direct().is_none() && buffered.fallback().is_none());

        let tmpfs = tempfile::tempdir_in("/dev/shm").unwrap();
        let opened =
            Image::open(&image(&tmpfs, "disk", b"", 1 << 20), OpenOptions::default()).unwrap();
        assert_eq!(opened.fallback(), Some("a tmpfs is nothing but page cache"));
        assert_eq!(opened.discard().map(|discard| discard.by), Some(DiscardBy::PunchHole));
    }
}
