// SPDX-License-Identifier: MIT OR Apache-2.0

//! The drivers of Linux under `/dev/xen`, on any hypervisor with the Xen ABI.

mod abi;
mod event;
mod grant;
mod ioctl;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use ring_proto::xen::{DomId, GrantRef, Port};

use crate::event::Kind;
use crate::store::Store;
use crate::{Access, Client, Error, EventChannel, Grant, GrantCopy, Mapping, memory};

pub(crate) use event::EventFile;
pub(crate) use grant::{GrantedPages, MappedPages};

/// A domain of a hypervisor with the Xen ABI, through the drivers of its Linux.
#[derive(Debug)]
pub struct DeviceClient {
    directory: PathBuf,
    domid: DomId,
    grants: grant::Files,
}

/// Whether this system has the drivers.
pub fn is_present() -> bool {
    Path::new("/dev/xen/gntdev").exists()
}

impl DeviceClient {
    /// Opens the drivers.
    ///
    /// # Errors
    ///
    /// When one is missing (`modprobe xen-gntdev xen-gntalloc xen-evtchn`) or may not be opened; the error names it.
    pub fn open() -> Result<Self, Error> {
        let directory = PathBuf::from("/dev/xen");
        let grants = grant::Files::open(&directory)?;
        // The toolstack writes each domain's id into its directory.
        let domid = Store::connect(directory.join("xenbus"))?.read_str("domid")?;
        let domid = domid.parse().map(DomId).map_err(|_| Error::Io {
            operation: format!("read this domain's id from xenstore, which says {domid:?}"),
            source: std::io::ErrorKind::InvalidData.into(),
        })?;
        Ok(Self { directory, domid, grants })
    }
}

impl Client for DeviceClient {
    fn domid(&self) -> DomId {
        self.domid
    }

    fn grant(&self, peer: DomId, pages: usize, access: Access) -> Result<Grant, Error> {
        let (memory, refs, pages) = self.grants.grant(peer, pages, access)?;
        Ok(Grant::new(memory, refs, memory::GrantedPages::Device(pages)))
    }

    fn map(&self, peer: DomId, refs: &[GrantRef], access: Access) -> Result<Mapping, Error> {
        let (memory, pages) = self.grants.map(peer, refs, access)?;
        Ok(Mapping::new(memory, false, memory::MappedPages::Device(pages)))
    }

    fn copy(&self, peer: DomId, operations: &mut [GrantCopy<'_>]) -> Result<(), Error> {
        self.grants.copy(peer, operations)
    }

    fn alloc_unbound(&self, peer: DomId) -> Result<EventChannel, Error> {
        let (port, file) = EventFile::alloc_unbound(&self.directory, peer)?;
        Ok(EventChannel::new(port, Kind::Device(file)))
    }

    fn bind_interdomain(&self, peer: DomId, port: Port) -> Result<EventChannel, Error> {
        let (port, file) = EventFile::bind_interdomain(&self.directory, peer, port)?;
        Ok(EventChannel::new(port, Kind::Device(file)))
    }

    fn kernel_has_backend(&self, kind: &str) -> bool {
        has_backend(Path::new("/sys/bus/xen-backend"), kind)
    }

    fn direct_io_on_mappings(&self) -> bool {
        let guest_type = std::fs::read_to_string("/sys/hypervisor/guest_type");
        guest_type.is_ok_and(|guest_type| guest_type.trim() != "PV")
    }

    fn store(&self) -> Result<Store, Error> {
        Store::connect(self.directory.join("xenbus"))
    }
}

/// Whether a driver of the bus bears the name of this kind of device, or one is bound to a device of this kind (called
/// `vbd-5-51712`), whatever its name is.
fn has_backend(bus: &Path, kind: &str) -> bool {
    if bus.join("drivers").join(kind).exists() {
        return true;
    }
    let Ok(devices) = std::fs::read_dir(bus.join("devices")) else { return false };
    devices.flatten().any(|device| {
        let name = device.file_name();
        let of_kind = name.to_str().and_then(|name| name.strip_prefix(kind));
        of_kind.is_some_and(|rest| rest.starts_with('-')) && device.path().join("driver").exists()
    })
}

/// Opens one of the drivers, with more flags of `open`.
fn open(directory: &Path, name: &str, flags: i32) -> Result<File, Error> {
    let path = directory.join(name);
    File::options()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(&path)
        .map_err(|source| Error::Io { operation: format!("open {}", path.display()), source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backends_of_the_kernel_are_seen_by_name_or_by_what_they_hold() {
        let bus = tempfile::tempdir().unwrap();
        assert!(!has_backend(bus.path(), "vbd"), "no bus");
        std::fs::create_dir_all(bus.path().join("devices/vbd3-1-51712/driver")).unwrap();
        std::fs::create_dir_all(bus.path().join("devices/vbd-1-51712")).unwrap();
        std::fs::create_dir_all(bus.path().join("drivers/vif")).unwrap();
        assert!(!has_backend(bus.path(), "vbd"), "none that is bound");
        std::fs::create_dir(bus.path().join("devices/vbd-1-51712/driver")).unwrap();
        assert!(has_backend(bus.path(), "vbd") && has_backend(bus.path(), "vif"));
    }

    #[test]
    fn a_missing_driver_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let error = grant::Files::open(dir.path()).unwrap_err().to_string();
        let path = dir.path().join("gntalloc");
        assert!(error.starts_with(&format!("open {}: No such file", path.display())), "{error}");
    }
}
