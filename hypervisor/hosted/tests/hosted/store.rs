// SPDX-License-Identifier: MIT OR Apache-2.0

//! The store as domains and a toolstack find it.

use std::time::Duration;

use hypervisor_client::Client;
use hypervisor_client::store::Store;
use hypervisor_client::toolstack::{Vbd, VbdConfig, create_vbd, forget_vbd, remove_vbd};
use ring_proto::xen::{DomId, Errno};
use ring_proto::xenbus::vbd::keys;
use ring_proto::xenbus::{ReadDirectory, WriteDirectory};
use tempfile::TempDir;

use crate::{errno, hypervisor, join};

const SOON: Option<Duration> = Some(Duration::from_secs(20));
const VBD: Vbd = Vbd { frontend: DomId(3), backend: DomId(2), device: 51712 };

fn toolstack(dir: &TempDir) -> Store {
    Store::connect(dir.path().join("xenstored.sock")).unwrap()
}

#[test]
fn a_domain_has_its_home_and_its_identity() {
    let (dir, _hosted) = hypervisor();
    let domain = join(&dir, 3);
    let store = domain.store().unwrap();
    assert_eq!(store.read_str("domid").unwrap(), "3");
    assert_eq!(store.read_str("/local/domain/3/name").unwrap(), "test 3");
    store.write("data/greeting", "hello").unwrap();
    assert_eq!(errno(store.write("name", "another")), Errno::EACCES);
}

#[test]
fn a_device_directory_is_read_and_written_by_key() {
    let (dir, _hosted) = hypervisor();
    let domain = join(&dir, 3);
    let store = domain.store().unwrap();
    let mut device = store.device("data/vbd");
    device.remove("queue-0/ring-ref").unwrap();
    device.write("queue-0/ring-ref", format_args!("{}", 1234)).unwrap();
    assert_eq!(store.read("data/vbd/queue-0/ring-ref").unwrap(), b"1234");
    assert_eq!(device.text("queue-0/ring-ref").unwrap().as_deref(), Some("1234"));
    let mut short = [0; 3];
    assert_eq!(device.read("queue-0/ring-ref", &mut short).unwrap(), Some(4));
    assert_eq!(&short, b"123");
    device.remove("queue-0/ring-ref").unwrap();
    assert_eq!(device.read("queue-0/ring-ref", &mut short).unwrap(), None);

    let seen = store.transaction(|tx| {
        tx.device("data/vbd").write("state", format_args!("1"))?;
        Ok((tx.device("data/vbd").text("state")?, store.device("data/vbd").text("state")?))
    });
    assert_eq!(seen.unwrap(), (Some("1".to_owned()), None));
    assert_eq!(device.text("state").unwrap().as_deref(), Some("1"));
}

#[test]
fn those_who_watch_learn_who_comes_and_goes() {
    let (dir, _hosted) = hypervisor();
    let store = toolstack(&dir);
    store.watch("@introduceDomain", "came").unwrap();
    store.watch("@releaseDomain", "went").unwrap();
    // Each watch fires once when it is set.
    store.next_event(SOON).unwrap().unwrap();
    store.next_event(SOON).unwrap().unwrap();
    let domain = join(&dir, 3);
    assert_eq!(store.next_event(SOON).unwrap().unwrap().token, "came");
    drop(domain);
    assert_eq!(store.next_event(SOON).unwrap().unwrap().token, "went");
}

#[test]
fn a_disk_is_laid_out_as_xen_does_it() {
    let (dir, _hosted) = hypervisor();
    let (front, back, other) = (join(&dir, 3), join(&dir, 2), join(&dir, 4));
    let (front, back, other) =
        (front.store().unwrap(), back.store().unwrap(), other.store().unwrap());
    back.watch("backend/vbd", "new").unwrap();
    back.next_event(SOON).unwrap().unwrap();

    let mut config = VbdConfig::new(VBD, "/images/disk.raw");
    config.read_only = true;
    config.backend_keys.push((keys::IOPS_LIMIT, "1000".to_owned()));
    create_vbd(&toolstack(&dir), &config).unwrap();
    assert!(back.next_event(SOON).unwrap().unwrap().path.starts_with("backend/vbd"));

    let at_back = "backend/vbd/3/51712";
    for (key, value) in [
        ("frontend", "/local/domain/3/device/vbd/51712"),
        ("frontend-id", "3"),
        ("online", "1"),
        ("state", "1"),
        ("params", "/images/disk.raw"),
        ("type", "file"),
        ("mode", "r"),
        ("device-type", "disk"),
        ("iops-limit", "1000"),
    ] {
        assert_eq!(back.read_str(&format!("{at_back}/{key}")).unwrap(), value, "{key}");
    }
    let at_front = "device/vbd/51712";
    for (key, value) in [
        ("backend", "/local/domain/2/backend/vbd/3/51712"),
        ("backend-id", "2"),
        ("state", "1"),
        ("virtual-device", "51712"),
        ("device-type", "disk"),
    ] {
        assert_eq!(front.read_str(&format!("{at_front}/{key}")).unwrap(), value, "{key}");
    }
    // Each end writes its own directory and reads its peer's; nobody else does either.
    front.write("device/vbd/51712/state", "3").unwrap();
    assert_eq!(back.read_str("/local/domain/3/device/vbd/51712/state").unwrap(), "3");
    back.write("backend/vbd/3/51712/state", "2").unwrap();
    assert_eq!(front.read_str("/local/domain/2/backend/vbd/3/51712/state").unwrap(), "2");
    assert_eq!(errno(back.write("/local/domain/3/device/vbd/51712/state", "5")), Errno::EACCES);
    assert_eq!(errno(other.read("/local/domain/3/device/vbd/51712/state")), Errno::EACCES);

    assert_eq!(errno(create_vbd(&toolstack(&dir), &config)), Errno::EEXIST);
    let elsewhere = VbdConfig::new(Vbd { backend: DomId(4), ..VBD }, "/images/disk.raw");
    assert_eq!(
        errno(create_vbd(&toolstack(&dir), &elsewhere)),
        Errno::EEXIST,
        "the frontend has xvda already"
    );
}

#[test]
fn a_disk_that_nobody_serves_is_unplugged_at_once() {
    let (dir, _hosted) = hypervisor();
    let store = toolstack(&dir);
    create_vbd(&store, &VbdConfig::new(VBD, "/images/disk.raw")).unwrap();
    remove_vbd(&store, &VBD, Duration::ZERO).unwrap();
    assert_eq!(store.try_read(&VBD.frontend_path()).unwrap(), None);
    assert_eq!(store.try_read(&VBD.backend_path()).unwrap(), None);
    assert_eq!(errno(remove_vbd(&store, &VBD, Duration::ZERO)), Errno::ENOENT);
}

#[test]
fn a_disk_in_use_is_unplugged_when_its_backend_closed_it() {
    let (dir, _hosted) = hypervisor();
    let store = toolstack(&dir);
    create_vbd(&store, &VbdConfig::new(VBD, "/images/disk.raw")).unwrap();
    let state = format!("{}/state", VBD.backend_path());
    store.write(&state, "4").unwrap();
    assert_eq!(errno(remove_vbd(&store, &VBD, Duration::ZERO)), Errno::ETIMEDOUT);
    assert_eq!(store.read_str(&state).unwrap(), "5", "the backend was asked to close");
    assert_eq!(store.read_str(&format!("{}/online", VBD.backend_path())).unwrap(), "0");

    let domain = join(&dir, 2);
    let back = domain.store().unwrap();
    let closing = std::thread::spawn(move || {
        let state = "backend/vbd/3/51712/state";
        back.watch(state, "state").unwrap();
        while back.read_str(state).unwrap() != "5" {
            back.next_event(SOON).unwrap().unwrap();
        }
        back.write(state, "6").unwrap();
    });
    remove_vbd(&store, &VBD, SOON.unwrap()).unwrap();
    closing.join().unwrap();
    assert_eq!(store.try_read(&VBD.backend_path()).unwrap(), None);

    create_vbd(&store, &VbdConfig::new(VBD, "/images/disk.raw")).unwrap();
    store.write(&state, "4").unwrap();
    forget_vbd(&store, &VBD).unwrap();
    forget_vbd(&store, &VBD).unwrap();
    assert_eq!(store.try_read(&VBD.frontend_path()).unwrap(), None);
}
