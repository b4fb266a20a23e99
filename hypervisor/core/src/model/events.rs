// SPDX-License-Identifier: MIT OR Apache-2.0

//! Event channels against a model: who may bind to whom, and which port gets what.

use std::collections::BTreeMap;
use std::vec::Vec;

use proptest::prelude::*;
use ring_proto::xen::event_channel::virq;
use ring_proto::xen::{DomId, Errno, Port};

use super::{check, config, domid, end, port};
use crate::event::Binding;
use crate::ram::Ram;
use crate::{DomainKind, Hypervisor};

#[derive(Clone, Debug)]
enum Op {
    Create(u8),
    Destroy(u8),
    Alloc { caller: u8, domain: u8, remote: u8 },
    Bind { caller: u8, remote: u8, port: u8 },
    Ipi(u8),
    Virq(u8),
    Close(u8, u8),
    Send(u8, u8),
    Reset(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let (domain, port) = (|| 0..3u8, || 0..8u8);
    prop_oneof![
        1 => domain().prop_map(Op::Create),
        1 => domain().prop_map(Op::Destroy),
        6 => (domain(), domain(), domain())
            .prop_map(|(caller, domain, remote)| Op::Alloc { caller, domain, remote }),
        9 => (domain(), domain(), port())
            .prop_map(|(caller, remote, port)| Op::Bind { caller, remote, port }),
        1 => domain().prop_map(Op::Ipi),
        1 => domain().prop_map(Op::Virq),
        4 => (domain(), port()).prop_map(|(domain, port)| Op::Close(domain, port)),
        8 => (domain(), port()).prop_map(|(domain, port)| Op::Send(domain, port)),
        1 => domain().prop_map(Op::Reset),
    ]
}

/// The ports of the domains that live.
#[derive(Debug, Default)]
struct Model(BTreeMap<DomId, BTreeMap<Port, Binding>>);

impl Model {
    const PORTS: u32 = 6;

    fn free(&self, id: DomId) -> Result<Port, Errno> {
        let ports = self.0.get(&id).ok_or(Errno::ESRCH)?;
        let mut all = (1..=Self::PORTS).map(Port);
        all.find(|port| !ports.contains_key(port)).ok_or(Errno::ENOSPC)
    }

    fn insert(&mut self, id: DomId, binding: Binding) -> Result<Port, Errno> {
        let port = self.free(id)?;
        self.0.get_mut(&id).ok_or(Errno::ESRCH)?.insert(port, binding);
        Ok(port)
    }

    fn bind(&mut self, caller: DomId, remote: DomId, far: Port) -> Result<Port, Errno> {
        if !self.0.contains_key(&remote) {
            return Err(Errno::ESRCH);
        }
        self.free(caller)?;
        let waits = Some(&Binding::Unbound { remote: caller });
        if self.0[&remote].get(&far) != waits {
            return Err(Errno::EINVAL);
        }
        let near = self.insert(caller, Binding::Interdomain { remote, port: far })?;
        let back = Binding::Interdomain { remote: caller, port: near };
        self.0.get_mut(&remote).unwrap().insert(far, back);
        Ok(near)
    }

    fn close(&mut self, id: DomId, port: Port) -> Result<Option<(DomId, Port)>, Errno> {
        let ports = self.0.get_mut(&id).ok_or(Errno::ESRCH)?;
        let Binding::Interdomain { remote, port } = ports.remove(&port).ok_or(Errno::EINVAL)?
        else {
            return Ok(None);
        };
        self.0.get_mut(&remote).unwrap().insert(port, Binding::Unbound { remote: id });
        Ok(Some((remote, port)))
    }

    fn close_all(&mut self, id: DomId) -> Vec<(DomId, Port)> {
        let ports: Vec<Port> = self.0[&id].keys().copied().collect();
        let far = ports.into_iter().filter_map(|port| self.close(id, port).unwrap());
        far.filter(|(remote, _)| *remote != id).collect()
    }

    fn target(&self, id: DomId, port: Port) -> Result<Option<(DomId, Port)>, Errno> {
        match self.0.get(&id).and_then(|ports| ports.get(&port)) {
            None | Some(Binding::Virq(_)) => Err(Errno::EINVAL),
            Some(Binding::Unbound { .. }) => Ok(None),
            Some(Binding::Interdomain { remote, port }) => Ok(Some((*remote, *port))),
            Some(Binding::Ipi) => Ok(Some((id, port))),
        }
    }

    fn run(&mut self, hv: &mut Hypervisor<Ram>, op: &Op) {
        hv.machine_mut().rung.clear();
        match *op {
            Op::Create(index) => {
                let id = domid(index);
                let created = hv.create_domain(id, &config(DomainKind::Process));
                let known = self.0.contains_key(&id);
                assert_eq!(created, if known { Err(Errno::EEXIST) } else { Ok(()) });
                self.0.entry(id).or_default();
            }
            Op::Destroy(index) => {
                let id = domid(index);
                let died = hv.destroy_domain(id).map(|departure| departure.unbound);
                if self.0.contains_key(&id) {
                    assert_eq!(died, Ok(self.close_all(id)));
                    self.0.remove(&id);
                } else {
                    assert_eq!(died, Err(Errno::ESRCH));
                }
            }
            Op::Alloc { caller, domain, remote } => {
                let (caller, domain, remote) = (domid(caller), domid(domain), domid(remote));
                let expected = if !self.0.contains_key(&domain) {
                    Err(Errno::ESRCH)
                } else if caller != domain {
                    Err(Errno::EPERM)
                } else {
                    self.insert(domain, Binding::Unbound { remote })
                };
                assert_eq!(hv.alloc_unbound(caller, domain, remote), expected);
            }
            Op::Bind { caller, remote, port: far } => {
                let (caller, remote, far) = (domid(caller), domid(remote), port(far));
                let expected = self.bind(caller, remote, far);
                assert_eq!(hv.bind_interdomain(caller, remote, far), expected);
                let rung: Vec<_> = expected.into_iter().map(|near| (caller, near)).collect();
                assert_eq!(hv.machine().rung, rung);
            }
            Op::Ipi(caller) => {
                let expected = self.insert(domid(caller), Binding::Ipi);
                assert_eq!(hv.bind_ipi(domid(caller), 0), expected);
            }
            Op::Virq(caller) => {
                let binding = Binding::Virq(virq::TIMER);
                let ports = self.0.get(&domid(caller));
                let bound = ports.is_some_and(|ports| ports.values().any(|it| *it == binding));
                let expected =
                    if bound { Err(Errno::EEXIST) } else { self.insert(domid(caller), binding) };
                assert_eq!(hv.bind_virq(domid(caller), virq::TIMER, 0), expected);
            }
            Op::Close(caller, number) => {
                let expected = self.close(domid(caller), port(number));
                assert_eq!(hv.close(domid(caller), port(number)), expected);
            }
            Op::Send(caller, number) => {
                let expected = self.target(domid(caller), port(number));
                assert_eq!(hv.send(domid(caller), port(number)), expected);
                let rung: Vec<_> = expected.into_iter().flatten().collect();
                assert_eq!(hv.machine().rung, rung);
            }
            Op::Reset(caller) => {
                let id = domid(caller);
                let reset = hv.reset_events(id, DomId::SELF);
                if self.0.contains_key(&id) {
                    assert_eq!(reset, Ok(self.close_all(id)));
                } else {
                    assert_eq!(reset, Err(Errno::ESRCH));
                }
            }
        }
        for (id, ports) in &self.0 {
            let there = &hv.domains[id].events.channels;
            let there: Vec<_> = there.iter().map(|(port, it)| (*port, it.binding)).collect();
            let here: Vec<_> = ports.iter().map(|(port, binding)| (*port, *binding)).collect();
            assert_eq!(there, here, "ports of {id}");
        }
    }
}

proptest! {
    #![proptest_config(super::cases(128))]

    #[test]
    fn event_channels_agree_with_the_model(ops in prop::collection::vec(op(), 1..80)) {
        let mut hv = Hypervisor::new(Ram::new(1000));
        let mut model = Model::default();
        for index in 0..3 {
            model.run(&mut hv, &Op::Create(index));
        }
        for op in &ops {
            model.run(&mut hv, op);
            check(&hv);
        }
        end(&mut hv);
    }
}
