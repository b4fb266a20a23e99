// SPDX-License-Identifier: MIT OR Apache-2.0

//! Event channels: one bit from one domain (or the hypervisor) to another.
//!
//! The state of the ports is here. How an event reaches its domain is a second matter: the embedder's doorbell for a
//! process, the pages that a PVH guest shares for the others.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use ring_proto::xen::{DomId, Errno, Port};

use crate::domain::{DomainConfig, Hypervisor};
use crate::machine::{Machine, Mfn};

/// What a port is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// Waits for this domain to bind.
    Unbound {
        /// Who may bind.
        remote: DomId,
    },
    /// Connected.
    Interdomain {
        /// The other domain.
        remote: DomId,
        /// Its port.
        port: Port,
    },
}

/// A port that is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Channel {
    pub(crate) binding: Binding,
    /// The virtual CPU that it notifies.
    pub(crate) vcpu: u32,
}

/// The ports of a domain.
#[derive(Debug)]
pub(crate) struct EventChannels {
    pub(crate) channels: BTreeMap<Port, Channel>,
    max_port: u32,
    shared_info: Option<Mfn>,
}

impl EventChannels {
    pub(crate) fn new(config: &DomainConfig) -> Self {
        Self { channels: BTreeMap::new(), max_port: config.max_port, shared_info: None }
    }

    pub(crate) fn set_shared_info(&mut self, mfn: Mfn) {
        self.shared_info = Some(mfn);
    }

    /// Takes all frames that were allocated for events, whose domain is no more.
    pub(crate) fn take_frames(&mut self) -> Vec<Mfn> {
        self.shared_info.take().into_iter().collect()
    }

    /// The lowest free port. Port 0 is never used.
    fn free_port(&self) -> Result<Port, Errno> {
        let mut free = 1;
        for port in self.channels.keys() {
            if port.0 != free {
                break;
            }
            free += 1;
        }
        if free <= self.max_port { Ok(Port(free)) } else { Err(Errno::ENOSPC) }
    }

    /// Takes the lowest free port for a binding.
    fn bind(&mut self, binding: Binding, vcpu: u32) -> Result<Port, Errno> {
        let port = self.free_port()?;
        self.channels.insert(port, Channel { binding, vcpu });
        Ok(port)
    }
}

impl<M: Machine> Hypervisor<M> {
    /// Who is meant: `SELF` is the caller.
    pub(crate) fn resolve(&self, caller: DomId, id: DomId) -> Result<DomId, Errno> {
        let id = if id == DomId::SELF { caller } else { id };
        self.live(id).map(|_| id).ok_or(Errno::ESRCH)
    }

    /// Like [`resolve`](Self::resolve), for what only a privileged domain may do to another.
    pub(crate) fn resolve_target(&self, caller: DomId, id: DomId) -> Result<DomId, Errno> {
        let target = self.resolve(caller, id)?;
        let privileged = self.live(caller).is_some_and(|domain| domain.privileged);
        if target == caller || privileged { Ok(target) } else { Err(Errno::EPERM) }
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
        let domain = self.resolve_target(caller, domain)?;
        let remote = if remote == DomId::SELF { caller } else { remote };
        let domain = self.live_mut(domain).ok_or(Errno::ESRCH)?;
        domain.events.bind(Binding::Unbound { remote }, 0)
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
        let port = self.live(caller).ok_or(Errno::ESRCH)?.events.free_port()?;
        let far =
            self.live_mut(remote).and_then(|domain| domain.events.channels.get_mut(&remote_port));
        match far {
            Some(far) if far.binding == (Binding::Unbound { remote: caller }) => {
                far.binding = Binding::Interdomain { remote: caller, port };
            }
            _ => return Err(Errno::EINVAL),
        }
        let near = Binding::Interdomain { remote, port: remote_port };
        let local = self.live_mut(caller).ok_or(Errno::ESRCH)?;
        local.events.channels.insert(port, Channel { binding: near, vcpu: 0 });
        self.set_pending(caller, port);
        Ok(port)
    }

    /// Closes a port of the caller (`EVTCHNOP_close`). The other end of an interdomain channel waits for the caller
    /// again; it is returned.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the port is not in use.
    pub fn close(&mut self, caller: DomId, port: Port) -> Result<Option<(DomId, Port)>, Errno> {
        let domain = self.domains.get_mut(&caller).ok_or(Errno::ESRCH)?;
        let channel = domain.events.channels.remove(&port).ok_or(Errno::EINVAL)?;
        let Binding::Interdomain { remote, port } = channel.binding else { return Ok(None) };
        let far =
            self.domains.get_mut(&remote).and_then(|domain| domain.events.channels.get_mut(&port));
        Ok(far.map(|far| {
            far.binding = Binding::Unbound { remote: caller };
            (remote, port)
        }))
    }

    /// Sends an event through a port of the caller (`EVTCHNOP_send`). Returns the end that was notified; an event into
    /// an unbound port is dropped.
    ///
    /// # Errors
    ///
    /// `EINVAL` if the port is not in use, or not one to send through.
    pub fn send(&mut self, caller: DomId, port: Port) -> Result<Option<(DomId, Port)>, Errno> {
        let channel = self.channel(caller, port).ok_or(Errno::EINVAL)?;
        let target = match channel.binding {
            Binding::Unbound { .. } => return Ok(None),
            Binding::Interdomain { remote, port } => (remote, port),
        };
        self.set_pending(target.0, target.1);
        Ok(Some(target))
    }

    /// What a port of a domain is bound to, if it is in use.
    pub fn binding(&self, id: DomId, port: Port) -> Option<Binding> {
        self.channel(id, port).map(|channel| channel.binding)
    }

    pub(crate) fn channel(&self, id: DomId, port: Port) -> Option<Channel> {
        self.live(id)?.events.channels.get(&port).copied()
    }

    /// Delivers an event to a port.
    pub(crate) fn set_pending(&mut self, id: DomId, port: Port) {
        self.machine.ring(id, port);
    }

    /// Closes all ports of a domain, and tells which ends of others lost their peer.
    pub(crate) fn close_all_ports(&mut self, id: DomId, unbound: &mut Vec<(DomId, Port)>) {
        let Some(domain) = self.domains.get(&id) else { return };
        let ports: Vec<Port> = domain.events.channels.keys().copied().collect();
        for port in ports {
            if let Ok(Some(far)) = self.close(id, port) {
                if far.0 != id {
                    unbound.push(far);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ram::{A, B, C, processes};

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
}
