// SPDX-License-Identifier: MIT OR Apache-2.0

//! The life of a port: allocated, bound, closed; and sending through it.

use alloc::vec::Vec;

use ring_proto::xen::event_channel::virq;
use ring_proto::xen::{DomId, Errno, Port};

use super::Binding;
use crate::Hypervisor;
use crate::machine::Machine;

/// Whether each virtual CPU has a virtual interrupt of this number of its own. The others belong to the whole domain
/// or, but for `ARGO`, to the one domain that handles them.
fn is_per_vcpu(number: u32) -> bool {
    matches!(number, virq::TIMER | virq::DEBUG | virq::XENOPROF | virq::XENPMU)
}

impl<M: Machine> Hypervisor<M> {
    /// Who is meant: `SELF` is the caller.
    pub(crate) fn resolve(&self, caller: DomId, id: DomId) -> Result<DomId, Errno> {
        let id = if id == DomId::SELF { caller } else { id };
        self.live(id).map(|_| id).ok_or(Errno::ESRCH)
    }

    /// Whether the caller may do to this domain what else it may only do to itself.
    pub(crate) fn may_control(&self, caller: DomId, target: DomId) -> Result<(), Errno> {
        let privileged = self.live(caller).is_some_and(|domain| domain.privileged);
        if target == caller || privileged { Ok(()) } else { Err(Errno::EPERM) }
    }

    /// Allocates a port of `domain` that `remote` may bind to (`EVTCHNOP_alloc_unbound`). `SELF` is the caller.
    ///
    /// # Errors
    ///
    /// `ESRCH` if `domain` does not live; `EPERM` if it is not the caller, and the caller is not privileged; `ENOSPC`
    /// when its ports are used up.
    pub fn alloc_unbound(
        &mut self,
        caller: DomId,
        domain: DomId,
        remote: DomId,
    ) -> Result<Port, Errno> {
        let id = self.resolve(caller, domain)?;
        self.may_control(caller, id)?;
        let remote = if remote == DomId::SELF { caller } else { remote };
        let domain = self.domains.get_mut(&id).ok_or(Errno::ESRCH)?;
        domain.events.bind(&self.machine, Binding::Unbound { remote }, 0)
    }

    /// Connects a new port of the caller to `port` of `remote` (`EVTCHNOP_bind_interdomain`). The new port is pending
    /// at once, since the peer may have rung while nobody was there.
    ///
    /// # Errors
    ///
    /// `ESRCH` if `remote` does not live; `ENOSPC` when the caller's ports are used up; `EINVAL` if there is no such
    /// port, or it does not wait for the caller.
    pub fn bind_interdomain(
        &mut self,
        caller: DomId,
        remote: DomId,
        remote_port: Port,
    ) -> Result<Port, Errno> {
        let remote = self.resolve(caller, remote)?;
        let local = self.domains.get_mut(&caller).ok_or(Errno::ESRCH)?;
        let port = local.events.free_port(&self.machine)?;
        let far = self.live_mut(remote).and_then(|far| far.events.channels.get_mut(&remote_port));
        match far {
            Some(far) if far.binding == (Binding::Unbound { remote: caller }) => {
                far.binding = Binding::Interdomain { remote: caller, port };
            }
            _ => return Err(Errno::EINVAL),
        }
        let near = Binding::Interdomain { remote, port: remote_port };
        self.live_mut(caller).ok_or(Errno::ESRCH)?.events.insert(port, near, 0);
        self.set_pending(caller, port);
        Ok(port)
    }

    /// Binds a new port of the caller to a virtual interrupt (`EVTCHNOP_bind_virq`).
    ///
    /// # Errors
    ///
    /// `EINVAL` for a number that does not exist, and if one that is global is asked for another virtual CPU than 0;
    /// `ENOENT` for a virtual CPU that the domain does not have; `EBUSY` if another domain handles it; `EEXIST` if it
    /// is bound; `ENOSPC` when the caller's ports are used up.
    pub fn bind_virq(&mut self, caller: DomId, number: u32, vcpu: u32) -> Result<Port, Errno> {
        if number >= virq::COUNT || (!is_per_vcpu(number) && vcpu != 0) {
            return Err(Errno::EINVAL);
        }
        let global = !is_per_vcpu(number) && number != virq::ARGO;
        let handler = self.virq_handlers.get(&number).copied().unwrap_or(DomId::DOM0);
        let domain =
            self.domains.get_mut(&caller).filter(|domain| !domain.dying).ok_or(Errno::ESRCH)?;
        if vcpu >= domain.vcpus {
            return Err(Errno::ENOENT);
        }
        if global && handler != caller {
            return Err(Errno::EBUSY);
        }
        if domain.events.virqs.contains_key(&(number, vcpu)) {
            return Err(Errno::EEXIST);
        }
        let port = domain.events.bind(&self.machine, Binding::Virq(number), vcpu)?;
        domain.events.virqs.insert((number, vcpu), port);
        Ok(port)
    }

    /// Makes a domain the one that handles a global virtual interrupt (`XEN_DOMCTL_set_virq_handler`). At first it is
    /// domain 0.
    ///
    /// # Errors
    ///
    /// `EINVAL` for a number that is not global; `ESRCH` if the domain does not live; `EBUSY` while the domain that
    /// handles it has it bound.
    pub fn set_virq_handler(&mut self, id: DomId, number: u32) -> Result<(), Errno> {
        if number >= virq::COUNT || is_per_vcpu(number) || number == virq::ARGO {
            return Err(Errno::EINVAL);
        }
        self.live(id).ok_or(Errno::ESRCH)?;
        let now = self.virq_handlers.get(&number).copied().unwrap_or(DomId::DOM0);
        let bound = self.live(now).is_some_and(|old| old.events.virqs.contains_key(&(number, 0)));
        if now != id && bound {
            return Err(Errno::EBUSY);
        }
        self.virq_handlers.insert(number, id);
        Ok(())
    }

    /// Raises a virtual interrupt of a domain; `vcpu` means something only for those that each virtual CPU has. If
    /// nothing is bound to it, it is lost. Returns the port that was notified.
    pub fn raise_virq(&mut self, id: DomId, vcpu: u32, number: u32) -> Option<Port> {
        let vcpu = if is_per_vcpu(number) { vcpu } else { 0 };
        let port = *self.live(id)?.events.virqs.get(&(number, vcpu))?;
        self.set_pending(id, port);
        Some(port)
    }

    /// Raises a global virtual interrupt of the domain that handles it. Returns the port that was notified.
    pub fn raise_global_virq(&mut self, number: u32) -> Option<(DomId, Port)> {
        let id = self.virq_handlers.get(&number).copied().unwrap_or(DomId::DOM0);
        self.raise_virq(id, 0, number).map(|port| (id, port))
    }

    /// Binds a new port of the caller to interrupts of one of its virtual CPUs (`EVTCHNOP_bind_ipi`).
    ///
    /// # Errors
    ///
    /// `ENOENT` for a virtual CPU that the domain does not have; `ENOSPC` when the caller's ports are used up.
    pub fn bind_ipi(&mut self, caller: DomId, vcpu: u32) -> Result<Port, Errno> {
        let domain = self.domains.get_mut(&caller).ok_or(Errno::ESRCH)?;
        if vcpu >= domain.vcpus {
            return Err(Errno::ENOENT);
        }
        domain.events.bind(&self.machine, Binding::Ipi, vcpu)
    }

    /// Makes a port of the caller notify another virtual CPU (`EVTCHNOP_bind_vcpu`).
    ///
    /// # Errors
    ///
    /// `ENOENT` for a virtual CPU that the domain does not have; `EINVAL` if the port is not in use, or its virtual CPU
    /// is fixed.
    pub fn bind_vcpu(&mut self, caller: DomId, port: Port, vcpu: u32) -> Result<(), Errno> {
        let domain = self.live_mut(caller).ok_or(Errno::ESRCH)?;
        if vcpu >= domain.vcpus {
            return Err(Errno::ENOENT);
        }
        let channel = domain.events.channels.get_mut(&port).ok_or(Errno::EINVAL)?;
        match channel.binding {
            Binding::Unbound { .. } | Binding::Interdomain { .. } => {}
            Binding::Virq(number) if !is_per_vcpu(number) => {}
            Binding::Virq(_) | Binding::Ipi => return Err(Errno::EINVAL),
        }
        channel.vcpu = vcpu;
        Ok(())
    }

    /// Closes a port of the caller (`EVTCHNOP_close`). The other end of an interdomain channel waits for the caller
    /// again; it is returned.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the port is not in use.
    pub fn close(&mut self, caller: DomId, port: Port) -> Result<Option<(DomId, Port)>, Errno> {
        let domain = self.domains.get_mut(&caller).ok_or(Errno::ESRCH)?;
        let channel = domain.events.remove(port).ok_or(Errno::EINVAL)?;
        // A port that is used anew must not begin with an old event.
        domain.events.clear_pending(&self.machine, port);
        match channel.binding {
            Binding::Interdomain { remote, port } => {
                let far = self.domains.get_mut(&remote);
                let far = far.and_then(|domain| domain.events.channels.get_mut(&port));
                Ok(far.map(|far| {
                    far.binding = Binding::Unbound { remote: caller };
                    (remote, port)
                }))
            }
            Binding::Virq(number) => {
                let vcpu = if is_per_vcpu(number) { channel.vcpu } else { 0 };
                domain.events.virqs.remove(&(number, vcpu));
                Ok(None)
            }
            Binding::Unbound { .. } | Binding::Ipi => Ok(None),
        }
    }

    /// Sends an event through a port of the caller (`EVTCHNOP_send`). Returns the end that was notified; an event into
    /// an unbound port is dropped.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the port is not in use, or not one to send through.
    pub fn send(&mut self, caller: DomId, port: Port) -> Result<Option<(DomId, Port)>, Errno> {
        let target = match self.binding(caller, port).ok_or(Errno::EINVAL)? {
            Binding::Unbound { .. } => return Ok(None),
            Binding::Interdomain { remote, port } => (remote, port),
            Binding::Ipi => (caller, port),
            Binding::Virq(_) => return Err(Errno::EINVAL),
        };
        self.set_pending(target.0, target.1);
        Ok(Some(target))
    }

    /// What a port of a domain is bound to (`EVTCHNOP_status`): `None` if it is not in use. `SELF` is the caller.
    ///
    /// # Errors
    ///
    /// `ESRCH` if the domain does not live; `EINVAL` for a port that it does not have; `EPERM` if it is not the caller,
    /// and the caller is not privileged.
    pub fn port_status(
        &self,
        caller: DomId,
        domain: DomId,
        port: Port,
    ) -> Result<Option<super::Channel>, Errno> {
        let id = self.resolve(caller, domain)?;
        let domain = self.live(id).ok_or(Errno::ESRCH)?;
        domain.events.check(port)?;
        self.may_control(caller, id)?;
        Ok(domain.events.channels.get(&port).copied())
    }

    /// Closes all ports of the caller, and leaves its queues if it uses them (`EVTCHNOP_reset`). Returns the ends of
    /// others that lost their peer. `SELF` is the caller.
    ///
    /// # Errors
    ///
    /// `ESRCH` if the domain does not live; `EPERM` if it is not the caller, and the caller is not privileged; `EINVAL`
    /// if it is not the caller: it would have to be paused.
    pub fn reset_events(
        &mut self,
        caller: DomId,
        domain: DomId,
    ) -> Result<Vec<(DomId, Port)>, Errno> {
        let id = self.resolve(caller, domain)?;
        self.may_control(caller, id)?;
        if id != caller {
            return Err(Errno::EINVAL);
        }
        let mut unbound = Vec::new();
        self.close_all_ports(id, &mut unbound);
        self.leave_queues(id);
        Ok(unbound)
    }

    /// Closes all ports of a domain, and tells which ends of others lost their peer.
    pub(crate) fn close_all_ports(&mut self, id: DomId, unbound: &mut Vec<(DomId, Port)>) {
        let Some(domain) = self.domains.get(&id) else { return };
        let ports: Vec<Port> = domain.events.channels.keys().copied().collect();
        for port in ports {
            if let Ok(Some(far)) = self.close(id, port)
                && far.0 != id
            {
                unbound.push(far);
            }
        }
    }

    /// Ends all that a dying domain has of events.
    pub(crate) fn release_events(&mut self, id: DomId, unbound: &mut Vec<(DomId, Port)>) {
        self.close_all_ports(id, unbound);
        self.leave_queues(id);
        self.virq_handlers.retain(|_, handler| *handler != id);
        let shared_info =
            self.domains.get_mut(&id).and_then(|domain| domain.events.shared_info.take());
        if let Some(mfn) = shared_info {
            self.release(mfn, false);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::{A, B, C, processes};
    use crate::{DomainConfig, DomainKind};

    #[test]
    fn connects_and_rings() {
        let mut hv = processes();
        let port = hv.alloc_unbound(A, DomId::SELF, B).unwrap();
        assert_eq!(hv.send(A, port), Ok(None), "nobody is there yet");
        assert_eq!(hv.bind_interdomain(C, A, port), Err(Errno::EINVAL));
        assert_eq!(hv.bind_interdomain(B, A, Port(99)), Err(Errno::EINVAL));
        let far = hv.bind_interdomain(B, A, port).unwrap();
        assert_eq!(hv.machine().rung, [(B, far)], "bound ports are pending");
        assert_eq!(hv.bind_interdomain(B, A, port), Err(Errno::EINVAL), "taken");
        assert_eq!(hv.send(A, port), Ok(Some((B, far))));
        assert_eq!(hv.send(B, far), Ok(Some((A, port))));
        assert_eq!(hv.machine().rung, [(B, far), (B, far), (A, port)]);

        assert_eq!(hv.close(A, port), Ok(Some((B, far))));
        assert_eq!(hv.close(A, port), Err(Errno::EINVAL));
        assert_eq!(hv.send(A, port), Err(Errno::EINVAL));
        assert_eq!(hv.send(B, far), Ok(None));
        assert_eq!(hv.binding(B, far), Some(Binding::Unbound { remote: A }));
        assert_eq!(hv.bind_interdomain(A, B, far), Ok(port));
    }

    #[test]
    fn ports_are_limited_and_others_ports_are_not_the_callers_to_make() {
        let mut hv = processes();
        assert_eq!(hv.alloc_unbound(A, B, C), Err(Errno::EPERM));
        assert_eq!(hv.alloc_unbound(A, DomId(77), C), Err(Errno::ESRCH));
        for port in 1..=1023 {
            assert_eq!(hv.alloc_unbound(A, DomId::SELF, B), Ok(Port(port)));
        }
        assert_eq!(hv.alloc_unbound(A, DomId::SELF, B), Err(Errno::ENOSPC));
        hv.close(A, Port(5)).unwrap();
        assert_eq!(hv.alloc_unbound(A, A, B), Ok(Port(5)));
    }

    #[test]
    fn a_domain_may_connect_to_itself() {
        let mut hv = processes();
        let near = hv.alloc_unbound(A, DomId::SELF, DomId::SELF).unwrap();
        let far = hv.bind_interdomain(A, DomId::SELF, near).unwrap();
        assert_eq!(hv.send(A, near), Ok(Some((A, far))));
        assert_eq!(hv.destroy_domain(A).unwrap().unbound, []);
    }

    #[test]
    fn virtual_interrupts() {
        let mut hv = processes();
        let config = DomainConfig { vcpus: 2, ..DomainConfig::new(DomainKind::Process, 1) };
        hv.create_domain(DomId(9), &config).unwrap();
        let d = DomId(9);
        assert_eq!(hv.bind_virq(d, virq::COUNT, 0), Err(Errno::EINVAL));
        assert_eq!(hv.bind_virq(d, virq::ARGO, 1), Err(Errno::EINVAL), "of the whole domain");
        assert_eq!(hv.bind_virq(d, virq::TIMER, 2), Err(Errno::ENOENT));
        assert_eq!(hv.bind_virq(d, virq::DOM_EXC, 0), Err(Errno::EBUSY), "domain 0 handles it");
        let first = hv.bind_virq(d, virq::TIMER, 0).unwrap();
        let second = hv.bind_virq(d, virq::TIMER, 1).unwrap();
        assert_eq!(hv.bind_virq(d, virq::TIMER, 1), Err(Errno::EEXIST));
        assert_eq!(hv.send(d, first), Err(Errno::EINVAL));
        assert_eq!(hv.bind_vcpu(d, first, 1), Err(Errno::EINVAL));
        assert_eq!(hv.raise_virq(d, 1, virq::TIMER), Some(second));
        assert_eq!(hv.raise_virq(d, 1, virq::DEBUG), None);
        assert_eq!(hv.machine().rung, [(d, second)]);
        hv.close(d, second).unwrap();
        assert_eq!(hv.raise_virq(d, 1, virq::TIMER), None);

        assert_eq!(hv.set_virq_handler(d, virq::TIMER), Err(Errno::EINVAL));
        assert_eq!(hv.set_virq_handler(DomId(77), virq::DOM_EXC), Err(Errno::ESRCH));
        hv.set_virq_handler(d, virq::DOM_EXC).unwrap();
        assert_eq!(hv.raise_global_virq(virq::DOM_EXC), None);
        let port = hv.bind_virq(d, virq::DOM_EXC, 0).unwrap();
        assert_eq!(hv.bind_vcpu(d, port, 1), Ok(()));
        assert_eq!(hv.set_virq_handler(A, virq::DOM_EXC), Err(Errno::EBUSY));
        assert_eq!(hv.raise_global_virq(virq::DOM_EXC), Some((d, port)));
        hv.destroy_domain(d).unwrap();
        assert_eq!(hv.set_virq_handler(A, virq::DOM_EXC), Ok(()));
    }

    #[test]
    fn interrupts_between_virtual_cpus() {
        let mut hv = processes();
        assert_eq!(hv.bind_ipi(A, 1), Err(Errno::ENOENT));
        let port = hv.bind_ipi(A, 0).unwrap();
        assert_eq!(hv.send(A, port), Ok(Some((A, port))));
        assert_eq!(hv.bind_vcpu(A, port, 1), Err(Errno::ENOENT));
        assert_eq!(hv.bind_vcpu(A, port, 0), Err(Errno::EINVAL));
        assert_eq!(hv.bind_vcpu(A, Port(9), 0), Err(Errno::EINVAL));
        assert_eq!(hv.close(A, port), Ok(None));
    }

    #[test]
    fn status_is_the_domains_own_matter() {
        let mut hv = processes();
        let root = DomId(0);
        let config = DomainConfig { privileged: true, ..DomainConfig::new(DomainKind::Process, 1) };
        hv.create_domain(root, &config).unwrap();
        let port = hv.alloc_unbound(root, A, B).unwrap();
        let channel = hv.channel(A, port);
        assert!(channel.is_some());
        assert_eq!(hv.port_status(A, DomId::SELF, port), Ok(channel));
        assert_eq!(hv.port_status(root, A, port), Ok(channel));
        assert_eq!(hv.port_status(B, A, port), Err(Errno::EPERM));
        assert_eq!(hv.port_status(A, A, Port(63)), Ok(None));
        assert_eq!(hv.port_status(A, A, Port(64)), Err(Errno::EINVAL));
        assert_eq!(hv.port_status(A, DomId(77), port), Err(Errno::ESRCH));
    }

    #[test]
    fn a_reset_closes_all() {
        let mut hv = processes();
        let port = hv.alloc_unbound(A, A, B).unwrap();
        let far = hv.bind_interdomain(B, A, port).unwrap();
        hv.bind_ipi(A, 0).unwrap();
        assert_eq!(hv.reset_events(A, DomId(77)), Err(Errno::ESRCH));
        assert_eq!(hv.reset_events(A, B), Err(Errno::EPERM));
        assert_eq!(hv.reset_events(A, DomId::SELF), Ok([(B, far)].into()));
        assert_eq!(hv.binding(A, port), None);
        assert_eq!(hv.binding(B, far), Some(Binding::Unbound { remote: A }));
    }
}
