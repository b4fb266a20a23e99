// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every attack on the backend in user space.

use std::sync::Arc;

use hostile::attacks::{ATTACKS, Attack, probe};
use hostile::front::{Front, Outcome};
use hostile::random::Random;
use hypervisor_client::hosted;
use hypervisor_client::store::Store;
use hypervisor_client::toolstack::{Vbd, VbdConfig, create_vbd};
use hypervisor_hosted::Hosted;
use ring_proto::xen::DomId;
use uring_backend::{Options, Stop};

/// Does an attack with some seeds.
fn play(front: &mut Front, attack: &Attack) {
    for seed in 1..=3 {
        let mut random = Random::new(seed);
        let outcome = attack.run(front, &mut random);
        let outcome = outcome.unwrap_or_else(|error| panic!("{} {seed}: {error:#}", attack.name));
        println!("{} {seed}: {outcome:?}", attack.name);
        assert!(!matches!(outcome, Outcome::Silent { .. }), "{} {seed}", attack.name);
        probe(front, &mut random)
            .unwrap_or_else(|error| panic!("after {} {seed}: {error:#}", attack.name));
    }
}

#[test]
fn no_attack_harms_the_backend() {
    let dir = tempfile::tempdir().unwrap();
    let _hosted = Hosted::start(dir.path()).unwrap();
    let join = |domid, name: &str| {
        let options = hosted::Options { domid: Some(domid), name: name.into(), pool_pages: 4096 };
        hosted::connect(dir.path(), options).unwrap()
    };
    let toolstack = Store::connect(dir.path().join("xenstored.sock")).unwrap();
    let [disk, read_only] = [(51712, false), (51728, true)].map(|(device, read_only)| {
        let vbd = Vbd { frontend: DomId(2), backend: DomId(1), device };
        let image = dir.path().join(format!("{device}"));
        std::fs::write(&image, vec![7; 1 << 20]).unwrap();
        let config = VbdConfig { read_only, ..VbdConfig::new(vbd, image.to_str().unwrap()) };
        create_vbd(&toolstack, &config).unwrap();
        (device, image)
    });
    let stop = Stop::new().unwrap();
    let (back, handle) = (Arc::new(join(DomId(1), "back")), stop.clone());
    let options = Options { state: Some(dir.path().join("state")), ..Options::default() };
    let backend = std::thread::spawn(move || uring_backend::run(back, options, &handle));

    let client = Arc::new(join(DomId(2), "front"));
    let mut front = Front::new(client.clone(), disk.0).unwrap();
    ATTACKS.iter().for_each(|attack| play(&mut front, attack));
    drop(front);
    let mut front = Front::new(client, read_only.0).unwrap();
    play(&mut front, ATTACKS.iter().find(|attack| attack.name == "write").unwrap());
    assert!(std::fs::read(read_only.1).unwrap() == vec![7; 1 << 20], "it was written");
    drop(front);
    stop.stop();
    backend.join().unwrap().unwrap();
}
