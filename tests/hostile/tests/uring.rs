// SPDX-License-Identifier: MIT OR Apache-2.0

//! Every attack on the backend in user space.

use std::sync::Arc;

use hostile::attacks::{ATTACKS, probe};
use hostile::front::{Front, Outcome};
use hostile::random::Random;
use hypervisor_client::hosted;
use hypervisor_client::store::Store;
use hypervisor_client::toolstack::{Vbd, VbdConfig, create_vbd};
use hypervisor_hosted::Hosted;
use ring_proto::xen::DomId;
use uring_backend::{Options, Stop};

#[test]
fn no_attack_harms_the_backend() {
    let dir = tempfile::tempdir().unwrap();
    let _hosted = Hosted::start(dir.path()).unwrap();
    let join = |domid, name: &str| {
        let options = hosted::Options { domid: Some(domid), name: name.into(), pool_pages: 4096 };
        hosted::connect(dir.path(), options).unwrap()
    };
    let image = dir.path().join("disk");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let vbd = Vbd { frontend: DomId(2), backend: DomId(1), device: 51712 };
    let toolstack = Store::connect(dir.path().join("xenstored.sock")).unwrap();
    create_vbd(&toolstack, &VbdConfig::new(vbd, image.to_str().unwrap())).unwrap();
    let stop = Stop::new().unwrap();
    let (back, handle) = (Arc::new(join(vbd.backend, "back")), stop.clone());
    let options = Options { state: Some(dir.path().join("state")), ..Options::default() };
    let backend = std::thread::spawn(move || uring_backend::run(back, options, &handle));

    let mut front = Front::new(Arc::new(join(vbd.frontend, "front")), vbd.device).unwrap();
    for attack in &ATTACKS {
        for seed in 1..=3 {
            let mut random = Random::new(seed);
            let outcome = attack.run(&mut front, &mut random);
            let outcome =
                outcome.unwrap_or_else(|error| panic!("{} {seed}: {error:#}", attack.name));
            println!("{} {seed}: {outcome:?}", attack.name);
            assert!(!matches!(outcome, Outcome::Silent { .. }), "{} {seed}", attack.name);
            probe(&mut front, &mut random)
                .unwrap_or_else(|error| panic!("after {} {seed}: {error:#}", attack.name));
        }
    }
    drop(front);
    stop.stop();
    backend.join().unwrap().unwrap();
}
