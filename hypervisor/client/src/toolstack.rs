// SPDX-License-Identifier: MIT OR Apache-2.0

//! What a toolstack writes into xenstore, laid out as Xen's own does it.
//!
//! All of this needs a connection of a privileged domain: in the hosted mode one to `DIR/xenstored.sock`.

use std::time::{Duration, Instant};

use ring_proto::xen::{DomId, Errno};
use ring_proto::xenbus::{Key, State, keys, vbd};
use ring_proto::xenstore::{Permission, Rights};

use crate::Error;
use crate::store::{Store, Transaction};

/// A virtual block device, named by its two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Vbd {
    /// The domain that uses it.
    pub frontend: DomId,
    /// The domain that serves it.
    pub backend: DomId,
    /// Its number, encoded as Xen's `vbd-interface` says: 51712 is `xvda`.
    pub device: u32,
}

impl Vbd {
    /// The frontend's directory.
    pub fn frontend_path(&self) -> String {
        format!("{}/device/vbd/{}", home(self.frontend), self.device)
    }

    /// The backend's directory.
    pub fn backend_path(&self) -> String {
        format!("{}/backend/vbd/{}/{}", home(self.backend), self.frontend, self.device)
    }
}

/// A disk to plug in.
#[derive(Clone, Debug)]
pub struct VbdConfig {
    /// Where.
    pub vbd: Vbd,
    /// The image or block device (`params`).
    pub image: String,
    /// What `image` names: `file`, `phy`, `tap` or `qdisk` (`type`).
    pub kind: String,
    /// The frontend may not write (`mode`).
    pub read_only: bool,
    /// The guest sees a CD-ROM drive (`device-type`).
    pub cdrom: bool,
    /// More keys of the backend's directory, such as `iops-limit`.
    pub backend_keys: Vec<(Key, String)>,
}

impl VbdConfig {
    /// A writable disk made of a file.
    pub fn new(vbd: Vbd, image: impl Into<String>) -> Self {
        Self {
            vbd,
            image: image.into(),
            kind: "file".to_owned(),
            read_only: false,
            cdrom: false,
            backend_keys: Vec::new(),
        }
    }
}

/// A domain's directory, where its relative paths begin.
pub fn home(domain: DomId) -> String {
    format!("/local/domain/{domain}")
}

/// Makes a domain's directory, which it may read, with its id and name in it, and below it `data`, where it may write.
/// What is there already stays, except the name.
///
/// # Errors
///
/// What the store says.
pub fn create_home(store: &Store, domain: DomId, name: &str) -> Result<(), Error> {
    store.transaction(|tx| {
        make_home(tx, domain)?;
        tx.write(&format!("{}/name", home(domain)), name)
    })
}

/// Plugs a disk in: writes both directories, with both ends in state `Initialising`.
///
/// # Errors
///
/// `EEXIST` if the frontend has a device of this number already, or the backend serves it; else what the store says.
pub fn create_vbd(store: &Store, config: &VbdConfig) -> Result<(), Error> {
    let VbdConfig { vbd, .. } = config;
    let (front, back) = (vbd.frontend_path(), vbd.backend_path());
    let mode = if config.read_only { "r" } else { "w" };
    let device_type = if config.cdrom { "cdrom" } else { "disk" };
    let initialising = State::Initialising.raw().to_string();
    let mut backend_keys = vec![
        (keys::FRONTEND, front.clone()),
        (keys::FRONTEND_ID, vbd.frontend.to_string()),
        (keys::ONLINE, "1".to_owned()),
        (vbd::keys::PARAMS, config.image.clone()),
        (vbd::keys::TYPE, config.kind.clone()),
        (vbd::keys::MODE, mode.to_owned()),
        (vbd::keys::DEVICE_TYPE, device_type.to_owned()),
    ];
    backend_keys.extend(config.backend_keys.iter().cloned());
    // The state comes last: a driver may look as soon as it is there.
    backend_keys.push((keys::STATE, initialising.clone()));
    let frontend_keys = [
        (keys::BACKEND, back.clone()),
        (keys::BACKEND_ID, vbd.backend.to_string()),
        (vbd::keys::VIRTUAL_DEVICE, vbd.device.to_string()),
        (vbd::keys::DEVICE_TYPE, device_type.to_owned()),
        (keys::STATE, initialising),
    ];
    store.transaction(|tx| {
        for path in [&front, &back] {
            if tx.try_read(path)?.is_some() {
                return Err(Error::Store {
                    operation: format!("plug in {path}"),
                    errno: Errno::EEXIST,
                });
            }
        }
        make_home(tx, vbd.frontend)?;
        make_home(tx, vbd.backend)?;
        make_directory(tx, &back, vbd.backend, vbd.frontend)?;
        write_keys(tx, &back, &backend_keys)?;
        make_directory(tx, &front, vbd.frontend, vbd.backend)?;
        write_keys(tx, &front, &frontend_keys)
    })
}

/// Unplugs a disk: asks the backend to close, waits until it has, and removes both directories. One that no backend
/// has taken up is removed at once. Takes a connection without other watches: it drops their events.
///
/// # Errors
///
/// `ETIMEDOUT` when the backend has not closed in time, as when the guest holds on to its disk; nothing is removed
/// then. `ENOENT` if there is no such disk. Else what the store says.
pub fn remove_vbd(store: &Store, vbd: &Vbd, timeout: Duration) -> Result<(), Error> {
    let back = vbd.backend_path();
    let (online, state) =
        (format!("{back}/{}", keys::ONLINE.name), format!("{back}/{}", keys::STATE.name));
    let untouched = store.transaction(|tx| {
        let idle = is_idle(&tx.read(&state)?);
        tx.write(&online, "0")?;
        if !idle {
            tx.write(&state, State::Closing.raw().to_string())?;
        }
        Ok(idle)
    })?;
    if !untouched {
        wait_closed(store, &state, timeout)?;
    }
    forget_vbd(store, vbd)
}

/// Removes both directories of a disk, whatever its ends are doing: for domains that are gone.
///
/// # Errors
///
/// What the store says. Directories that are not there are none.
pub fn forget_vbd(store: &Store, vbd: &Vbd) -> Result<(), Error> {
    store.transaction(|tx| {
        for path in [vbd.frontend_path(), vbd.backend_path()] {
            if tx.try_read(&path)?.is_some() {
                tx.rm(&path)?;
            }
        }
        Ok(())
    })
}

/// Waits until a backend's state is `Closed`, or is there no more.
fn wait_closed(store: &Store, state: &str, timeout: Duration) -> Result<(), Error> {
    let token = format!("unplug {state}");
    let deadline = Instant::now().checked_add(timeout);
    store.watch(state, &token)?;
    let closed = loop {
        match store.try_read(state) {
            Ok(Some(value)) if !is_idle(&value) => {}
            Ok(_) => break Ok(()),
            Err(error) => break Err(error),
        }
        let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
        match store.next_event(left) {
            Ok(Some(_)) => {}
            Ok(None) => {
                let operation = format!("wait until {state} is {}", State::Closed);
                break Err(Error::Store { operation, errno: Errno::ETIMEDOUT });
            }
            Err(error) => break Err(error),
        }
    };
    store.unwatch(state, &token)?;
    closed
}

/// Whether nobody serves a device with this state.
fn is_idle(state: &[u8]) -> bool {
    [State::Initialising, State::Closed]
        .iter()
        .any(|idle| state == idle.raw().to_string().as_bytes())
}

fn make_home(tx: &Transaction<'_>, domain: DomId) -> Result<(), Error> {
    let home = home(domain);
    if tx.try_read(&home)?.is_none() {
        tx.mkdir(&home)?;
        tx.set_perms(
            &home,
            &[Permission::new(DomId::DOM0, Rights::None), Permission::new(domain, Rights::Read)],
        )?;
        tx.write(&format!("{home}/domid"), domain.to_string())?;
        // `data` is the domain's to use; in `error` its drivers say what went wrong.
        for name in ["data", "error"] {
            let path = format!("{home}/{name}");
            tx.mkdir(&path)?;
            tx.set_perms(&path, &[Permission::new(domain, Rights::None)])?;
        }
    }
    Ok(())
}

/// Makes a directory that one domain owns and its peer may read. What is written below inherits that.
fn make_directory(
    tx: &Transaction<'_>,
    path: &str,
    owner: DomId,
    peer: DomId,
) -> Result<(), Error> {
    tx.mkdir(path)?;
    tx.set_perms(path, &[Permission::new(owner, Rights::None), Permission::new(peer, Rights::Read)])
}

fn write_keys(tx: &Transaction<'_>, directory: &str, keys: &[(Key, String)]) -> Result<(), Error> {
    keys.iter().try_for_each(|(key, value)| tx.write(&format!("{directory}/{}", key.path()), value))
}
