// SPDX-License-Identifier: GPL-2.0

//! Event channels: a doorbell in each direction.
//!
//! An event is masked from the moment it arrives until its EOI, so a peer can cause one interrupt, and no more, before
//! this end has looked. An EOI says whether the event was worth it: after spurious ones the kernel waits longer and
//! longer before it lets the next one in (XSA-332).
//!
//! C header: [`include/xen/events.h`](srctree/include/xen/events.h)

use core::mem::ManuallyDrop;
use core::sync::atomic::{AtomicU32, Ordering};

use kernel::bindings;
use kernel::prelude::*;
use kernel::str::CString;
use kernel::sync::aref::ARef;
use kernel::sync::Arc;
use ring_proto::xen::Port;

use crate::xenbus::Device;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// There was something to do.
    Work,
    /// There was nothing to do: the peer rang for nothing.
    Nothing,
}

/// What to do when the peer rings.
pub trait Handler: Send + Sync + 'static {
    /// Called in a hard interrupt. It may come before the channel was returned to whoever made it.
    fn event(&self, eoi: Eoi<'_>);
}

/// The two directions of an event channel, for whoever rings and whoever has done what an event asked for.
///
/// It is shared, and may outlive the [`EventChannel`]: then it rings nothing.
pub struct Line {
    /// The local port, or 0.
    port: AtomicU32,
    /// The irq whose EOI a handler left to a worker, or 0.
    deferred: AtomicU32,
}

impl Line {
    /// A line that is bound to nothing yet.
    ///
    /// # Errors
    ///
    /// When there is no memory.
    pub fn new() -> Result<Arc<Self>> {
        Ok(Arc::new(Self { port: AtomicU32::new(0), deferred: AtomicU32::new(0) }, GFP_KERNEL)?)
    }

    /// The local port, when it is bound.
    pub fn port(&self) -> Option<Port> {
        match self.port.load(Ordering::Relaxed) {
            0 => None,
            port => Some(Port(port)),
        }
    }

    /// Finds out which port an irq is bound to.
    fn learn_port(&self, irq: u32) -> Port {
        // SAFETY: A search in the kernel's table.
        let port = unsafe { sys::causeway_port_of_irq(irq) };
        self.port.store(port, Ordering::Relaxed);
        Port(port)
    }

    /// Rings the peer. In any context.
    #[inline]
    pub fn notify(&self) {
        let port = self.port.load(Ordering::Relaxed);
        if port != 0 {
            // SAFETY: A hypercall that takes any number: a port that was closed meanwhile is refused by Xen.
            unsafe { sys::causeway_notify_port(port) };
        }
    }

    /// The EOI that a handler [deferred](Eoi::defer), if one is owed.
    #[inline]
    pub fn take_deferred(&self) -> Option<Eoi<'_>> {
        // A worker looks often, and there is rarely one.
        if self.deferred.load(Ordering::Relaxed) == 0 {
            return None;
        }
        match self.deferred.swap(0, Ordering::Acquire) {
            0 => None,
            irq => Some(Eoi { line: self, irq }),
        }
    }
}

/// The right to let the next event come, and the duty to say so once.
///
/// It is used up by one of its methods. When it is dropped instead, the next event comes, so that no connection dies of
/// it.
#[must_use = "without its EOI, a channel stays masked"]
pub struct Eoi<'a> {
    line: &'a Line,
    irq: u32,
}

impl Eoi<'_> {
    /// Lets the next event come: at once, or after a while when the peer has rung for nothing too often. In any
    /// context.
    #[inline]
    pub fn give(self, found: Found) {
        let irq = ManuallyDrop::new(self).irq;
        let flags = match found {
            Found::Work => 0,
            Found::Nothing => sys::XEN_EOI_FLAG_SPURIOUS,
        };
        // SAFETY: A number that is no irq with a late EOI is ignored.
        unsafe { sys::xen_irq_lateeoi(irq, flags) };
    }

    /// Leaves it to a worker, who gets it with [`Line::take_deferred`].
    #[inline]
    pub fn defer(self) {
        let eoi = ManuallyDrop::new(self);
        eoi.line.deferred.store(eoi.irq, Ordering::Release);
    }

    /// Lets no event come any more, because the peer broke the protocol.
    pub fn withhold(self) {
        let _ = ManuallyDrop::new(self);
    }
}

impl Drop for Eoi<'_> {
    fn drop(&mut self) {
        // SAFETY: As in `give`.
        unsafe { sys::xen_irq_lateeoi(self.irq, 0) };
    }
}

/// A bound event channel.
///
/// When it is dropped, its handler has returned and will not be called again, and the channel is closed. That may
/// sleep.
pub struct EventChannel<H: Handler> {
    inner: Pin<KBox<Inner<H>>>,
    irq: u32,
    port: Port,
}

/// What the interrupt needs.
struct Inner<H> {
    line: Arc<Line>,
    handler: Arc<H>,
    name: CString,
    /// The statistics of an interrupt are the device's.
    _device: ARef<Device>,
}

impl<H: Handler> EventChannel<H> {
    /// Makes a channel that the other end of `device` may bind to. For a frontend, which writes the port to xenstore.
    ///
    /// # Errors
    ///
    /// When there is no port, interrupt or memory left.
    pub fn allocate(
        device: &Device,
        line: Arc<Line>,
        name: &CStr,
        handler: Arc<H>,
    ) -> Result<Self> {
        let inner = Self::inner(device, line, name, handler)?;
        let mut port = 0;
        // SAFETY: The device is valid, and `port` is written.
        kernel::error::to_result(unsafe {
            sys::xenbus_alloc_evtchn(device.as_raw(), &raw mut port)
        })?;
        inner.line.port.store(port, Ordering::Relaxed);
        // SAFETY: `inner`, and the name in it, stay where they are until `drop` has unbound the handler.
        let irq = unsafe {
            sys::bind_evtchn_to_irqhandler_lateeoi(
                port,
                Some(Self::interrupt),
                0,
                inner.name.as_char_ptr(),
                core::ptr::from_ref(&*inner).cast_mut().cast(),
            )
        };
        match u32::try_from(irq) {
            Ok(irq) => Ok(Self { inner, irq, port: Port(port) }),
            Err(_) => {
                // Whether the port was closed meanwhile depends on how far the kernel came, and its number may be
                // someone else's by now: rather a port too many than one that others use.
                inner.line.port.store(0, Ordering::Relaxed);
                Err(Error::from_errno(irq))
            }
        }
    }

    /// Binds to the channel that the other end of `device` made. For a backend, which read the port from xenstore.
    ///
    /// # Errors
    ///
    /// When Xen knows no such unbound channel that is for this domain, or there is no interrupt or memory left.
    pub fn bind(
        device: &Device,
        remote: Port,
        line: Arc<Line>,
        name: &CStr,
        handler: Arc<H>,
    ) -> Result<Self> {
        let inner = Self::inner(device, line, name, handler)?;
        // SAFETY: As in `allocate`; the device lives as long as `inner`.
        let irq = unsafe {
            sys::bind_interdomain_evtchn_to_irqhandler_lateeoi(
                device.as_raw(),
                remote.0,
                Some(Self::interrupt),
                0,
                inner.name.as_char_ptr(),
                core::ptr::from_ref(&*inner).cast_mut().cast(),
            )
        };
        let irq = u32::try_from(irq).map_err(|_| Error::from_errno(irq))?;
        let port = inner.line.learn_port(irq);
        Ok(Self { inner, irq, port })
    }

    fn inner(
        device: &Device,
        line: Arc<Line>,
        name: &CStr,
        handler: Arc<H>,
    ) -> Result<Pin<KBox<Inner<H>>>> {
        if line.port().is_some() {
            return Err(EBUSY);
        }
        let name = CString::try_from(name)?;
        Ok(KBox::pin(Inner { line, handler, name, _device: device.into() }, GFP_KERNEL)?)
    }

    extern "C" fn interrupt(irq: c_int, inner: *mut c_void) -> bindings::irqreturn_t {
        // SAFETY: The handler is bound with a pointer to an `Inner<H>` that lives until it is unbound.
        let inner = unsafe { &*inner.cast::<Inner<H>>() };
        let irq = irq as u32;
        // Xen rings a channel when it is bound, and who answers that rings back.
        if inner.line.port.load(Ordering::Relaxed) == 0 {
            inner.line.learn_port(irq);
        }
        inner.handler.event(Eoi { line: &inner.line, irq });
        bindings::irqreturn::IRQ_HANDLED
    }

    /// Its line.
    pub fn line(&self) -> &Arc<Line> {
        &self.inner.line
    }

    /// Its port in this domain.
    pub fn port(&self) -> Port {
        self.port
    }
}

impl<H: Handler> Drop for EventChannel<H> {
    fn drop(&mut self) {
        // SAFETY: It was bound with these two values. This waits for a handler that runs.
        unsafe {
            sys::unbind_from_irqhandler(
                self.irq,
                core::ptr::from_ref(&*self.inner).cast_mut().cast(),
            )
        };
        self.inner.line.port.store(0, Ordering::Relaxed);
        self.inner.line.deferred.store(0, Ordering::Relaxed);
    }
}
